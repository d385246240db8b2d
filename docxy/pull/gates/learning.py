"""What belongs to what is recalled, found out while it is still cached and kept with the orders.

The laws: it is found out once, by whichever process is first, and outlives the cache: a recalled manifest is pulled
by nobody and will be evicted, but what it named must not be served without it.  Only what docxy has is looked at;
nothing is asked of an upstream.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from docxy.names import Digest
from docxy.orders.model import SAME
from docxy.orders.standing import Standing
from docxy.orders.store import IOrders, OrdersUnusable
from docxy.pull.gates.contents import IContents, belonging_to
from docxy.threads import InThread

_AT_ONCE = 50
"""Recalled things that are looked at in one turn of the reactor."""


@define(eq=False)
class Learning:
    """One process's."""

    _log = Logger()

    orders: IOrders
    contents: IContents
    in_thread: InThread
    """Where the orders are written."""
    clock: IReactorTime
    _tried: set[str] = field(factory=set, init=False)
    _here: dict[str, str] = field(factory=dict, init=False)
    """What is recalled -> the digest by which its bytes are here."""

    async def learn(self, stands: Callable[[], Standing]) -> None:
        """Find out what belongs to all that is recalled; `stands`: what stands at that moment."""
        known = self.orders.look().known
        found: dict[str, frozenset[str]] = {}
        for image, _ in stands().recalled_images:
            key = str(image)
            if image.tag is not None and key not in self._tried:
                self._tried.add(key)
                digests = {str(digest) for digest in await self.contents.tagged(image)}
                if not digests <= {*known.get(key, ())}:
                    found[key] = frozenset({*digests, *known.get(key, ())})
        await self._keep(found)
        found = {}
        for number, root in enumerate([*stands().recalled]):
            if root in self._tried or is_learned(known.get(root, ())):
                continue
            self._tried.add(root)
            if number % _AT_ONCE == _AT_ONCE - 1:
                await deferLater(self.clock, 0, lambda: None)
            here = self._here.pop(root, root)
            belonging = await belonging_to(self.contents, here)
            body = await self.contents.body(here)
            if body is not None:
                same = {here, *Digest.parse(here).others(body)} - {root}
                found[root] = frozenset({*belonging, *known.get(root, ()), *(f"{SAME}{each}" for each in same)})
        await self._keep(found)

    def again(self, about: str, here: str) -> None:
        """What was not here before may be here now; `here`: the digest by which it is, which may be another one."""
        self._tried.discard(about)
        self._here[about] = here

    def only(self, recalled: Mapping[str, object]) -> None:
        """Forget attempts for what is not recalled any more."""
        self._tried = {about for about in self._tried if about in recalled}
        self._here = {about: here for about, here in self._here.items() if about in recalled}

    async def _keep(self, found: Mapping[str, frozenset[str]]) -> None:
        if not found:
            return
        try:
            await self.in_thread(self.orders.learn, found)
        except OrdersUnusable as error:
            self._log.error("what belongs to recalled images is not kept: {error}", error=error)


def is_learned(known: Collection[str]) -> bool:
    """Whether what is known of something recalled was found out from its bytes."""
    return any(each.startswith(SAME) for each in known)
