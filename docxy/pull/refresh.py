"""Asking for tags in use before a client does, so that a cooldown counts from early on.

The laws: only by HEAD, which costs no pull at Docker Hub; one at a time, at most `MOST` a round; only tags that
clients pulled lately; and an upstream that limits or fails is left alone until the next round.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from docxy.catalog.interfaces import IHistory
from docxy.errors import RegistryError, TooManyRequests, UpstreamError
from docxy.names import Tag
from docxy.pull.accept import ANYTHING
from docxy.pull.caller import Caller
from docxy.pull.cooldown import Rule
from docxy.pull.manifests import ManifestCache

EVERY = 600.0
"""Seconds between two rounds."""
MOST = 100
"""Tags of one round."""
CHECKED = 3600.0
"""Seconds after which a tag is asked for again."""
IN_USE = 7 * 86400.0
"""Seconds for which a tag counts as in use after a pull."""


class Refresh:
    """Of one upstream, with docxy's own account."""

    _log = Logger()

    def __init__(
        self, upstream: str, manifests: ManifestCache, history: IHistory, rule: Rule, seconds: Callable[[], float]
    ) -> None:
        """`upstream`: its name; `rule`: which tags need it; `seconds`: the time since the epoch."""
        self._upstream = upstream
        self._manifests = manifests
        self._history = history
        self._rule = rule
        self._seconds = seconds
        self._made = seconds()
        self._running: Deferred[None] | None = None

    def work(self) -> Deferred[None]:
        """One round; nothing just after the start, when clients ask anyway."""
        running: Deferred[None] = Deferred.fromCoroutine(self._round())
        if not running.called:
            self._running = running
        return running.addErrback(lambda why: why.trap(CancelledError) and None)

    def stop(self) -> None:
        """End a round that is under way."""
        if self._running is not None:
            self._running.cancel()

    async def _round(self) -> None:
        now = self._seconds()
        if 0 <= now - self._made < EVERY:
            return
        for repository, name in await self._history.in_use(now - IN_USE, now - CHECKED, MOST):
            if self._rule(repository, name) is None:
                continue
            try:
                await self._manifests.get(repository, Tag(name), Caller(None, "", False, ANYTHING), True)
            except (TooManyRequests, UpstreamError) as error:
                self._log.info("{name} is left alone for now: {error}", name=self._upstream, error=error)
                return
            except RegistryError:  # it is gone, which is noted
                continue
