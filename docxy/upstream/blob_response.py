"""A registry's answer that brings a blob.

The law: its framing is known, and so is what of the blob it is, when it gets here; its bytes are still to come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import frozen

from docxy.bodies import IBody
from docxy.content import Pairs
from docxy.ranges import Span


class IBlobAnswer(Protocol):
    """What is needed of a response that brings a blob; see `Response`."""

    @property
    def source(self) -> str: ...

    def header(self, name: str) -> str | None: ...

    def body(self) -> IBody: ...

    def abandon(self) -> None: ...


@frozen
class BlobResponse:
    """A blob's bytes, on their way."""

    response: IBlobAnswer
    span: Span | None
    """What they are of the blob; None when the upstream did not say how long it is."""
    passed: Pairs = ()
    broke: Callable[[], None] = lambda: None
    """To call when the body breaks off, so that docxy asks another endpoint for the rest."""
    endpoint: str = ""
    """URL of the one that was asked."""
