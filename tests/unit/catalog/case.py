"""A catalog to test, whichever it is.

The work of threads is done at once here, so every answer is there when the call returns.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from docxy.names import Digest

if TYPE_CHECKING:
    Base = SynchronousTestCase
else:
    Base = object

T = TypeVar("T")
ONE, TWO = Digest.of(b"one"), Digest.of(b"two", "sha512")


class CatalogCase(Base):
    """Needs `make_catalog`."""

    def make_catalog(self) -> Any:
        """A catalog of `self.clock`, closed when the test ends."""
        raise NotImplementedError

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.catalog = self.make_catalog()
        self.known = self.catalog.upstream("u")
        self.other = self.catalog.upstream("other")

    def now(self, work: Coroutine[Any, Any, T]) -> T:
        """The outcome, which has to be there."""
        outcome: T = self.successResultOf(Deferred.fromCoroutine(work))
        return outcome
