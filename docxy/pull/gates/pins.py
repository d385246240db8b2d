"""Keeping what is pinned: one process does it for all, now and then and when something else is pinned.

The laws: a pinned image's index, and what of it is cached (children, configs, layers), are evicted by nobody and
forgotten by no purge, and a pinned tag that vanished upstream is served on.  *Pins never make the cache larger*: they
may take a share of its budget (`docxy.storage.interfaces.PINNED_SHARE`), the older ones first; what is beyond is
cached as everything else, and the operator told.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping

from attrs import define, field
from cachetools import LRUCache
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from docxy.catalog.interfaces import ICatalog, is_recent
from docxy.errors import RegistryError
from docxy.names import Digest
from docxy.orders.standing import Standing
from docxy.pull.gates.contents import IContents, Names, belonging_to
from docxy.settings.image_names import ImageName
from docxy.settings.parsers import shown_size
from docxy.storage.interfaces import IBlobStore, Pinned, StorageError

MOST_MANIFESTS = 5_000
"""Pinned manifests of which it is remembered what they name."""
SPARED = 12 * 3600.0
"""Seconds after which docxy tells the catalog again what is in use."""


@define(eq=False)
class Pins:
    """In the process that sees to the upkeep of the cache."""

    _log = Logger()

    stands: Callable[[], Standing]
    contents: IContents
    store: IBlobStore
    catalog: ICatalog
    seconds: Callable[[], float]
    """The time since the epoch."""
    held: Pinned = field(default=Pinned(0, 0), init=False)
    """What came of it."""
    _names: MutableMapping[str, Names] = field(factory=lambda: LRUCache(MOST_MANIFESTS), init=False)
    _spared: frozenset[str] = field(default=frozenset(), init=False)
    _spared_at: float = field(default=float("-inf"), init=False)
    _is_over: bool = field(default=False, init=False)
    _running: bool = field(default=False, init=False)
    _again: bool = field(default=False, init=False)
    _waiting: list[Deferred[None]] = field(factory=list, init=False)

    async def keep(self) -> None:
        """Look at what is pinned, and keep it; returns when a look that began after this was called has ended."""
        self._again = True
        if self._running:
            ended: Deferred[None] = Deferred()
            self._waiting.append(ended)
            await ended
            return
        self._running = True
        try:
            while self._again:
                self._again = False
                await self._keep()
        finally:
            self._running = False
            waiting, self._waiting = self._waiting, []
            for ended in waiting:
                ended.callback(None)

    async def _keep(self) -> None:
        try:
            stands = self.stands()
        except RegistryError:  # the orders are not known: what was pinned before stays so
            return
        digests: dict[str, None] = {}
        for what in (*(what for what, _ in stands.pins), *stands.hottest):
            for root in await self._roots(what):
                if root not in digests:
                    digests[root] = None
                    digests.update(dict.fromkeys(sorted(await belonging_to(self.contents, root, self._names))))
        try:
            self.held = await self.store.pin([digest for digest in map(Digest.maybe, digests) if digest is not None])
        except StorageError as error:
            self._log.error("what is pinned may be evicted: {error}", error=error)
            return
        await self._spare(frozenset(digests))
        is_over = self.held.wanted > self.held.kept
        if is_over and not self._is_over:
            self._log.warn(
                "more is pinned than half of the cache, {wanted}: {kept} of it are kept, and the pins that were given "
                "last are evicted as everything else; unpin some, or give a larger --cache-size",
                wanted=shown_size(self.held.wanted),
                kept=shown_size(self.held.kept),
            )
        self._is_over = is_over

    async def _roots(self, what: ImageName | Digest) -> list[str]:
        if isinstance(what, Digest):
            return [str(what)]
        if what.digest is not None:
            return [str(what.digest)]
        return sorted(str(digest) for digest in await self.contents.tagged(what))

    async def _spare(self, digests: frozenset[str]) -> None:
        now = self.seconds()
        if digests and (digests != self._spared or not is_recent(self._spared_at, now, SPARED)):
            await self.catalog.spare(digests)
            self._spared, self._spared_at = digests, now

    def stays(self, upstream: str, repository: str, tag: str) -> bool:
        """Whether a tag is pinned by its name, or may be, as the orders are not known."""
        try:
            return self.stands().is_pinned(upstream, repository, tag)
        except RegistryError:
            return True
