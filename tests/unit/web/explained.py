"""Pulls whose causes are told, in front of a clock that stands still unless a test moves it."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import html
import itertools
import json
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred

from docxy.pull.blobs.followers import Followers, IsFollower
from docxy.settings.model import Timeouts, Upstream
from tests.fakes import Pattern
from tests.unit.pull.harness import REPOSITORY, Mirror, MirrorCase, Seconds, ShiftedClock, drain, reactor

BIG = Pattern(4 << 20, "explained")
HUGE = Pattern(48 << 20, "huge")
"""More than sockets hold."""


@frozen
class StandingClock(ShiftedClock):
    """One that stands still but for what a test says, however long things take."""

    def seconds(self) -> float:
        return self.shifted()


@define(eq=False)
class Timed(Mirror):
    """A mirror that measures by the test's clock."""

    clock: Callable[[Seconds], ShiftedClock] = StandingClock
    upstream_settings: Mapping[str, Any] = field(factory=dict)

    def all_upstreams(self) -> tuple[Upstream, ...]:
        first, *others = Mirror.all_upstreams(self)
        return (evolve(first, **self.upstream_settings), *others)

    def start(self) -> None:
        Mirror.start(self)
        site: Any = self.served.registry._site
        site.reactor = self.clock(self.seconds)


class ExplainedCase(MirrorCase):
    """An image with a large layer, and what is said of its pulls."""

    more: Mapping[str, Any] = MappingProxyType({})
    """What else of the mirror is not as usual."""

    async def setUp(self) -> None:
        await super().setUp()
        self.upstream.add_image(REPOSITORY)
        self.big = self.upstream.add_blob(REPOSITORY, BIG)
        await self.mirror.stop()
        self.mirror = self.timed()

    def timed(self, client: float = 20.0, **settings: Any) -> Timed:
        """`settings`: of the upstream; the mirror's own are in `more`."""
        mirror = Timed(
            upstream=self.upstream,
            store=self.store,
            catalog=self.catalog,
            seconds=self.seconds,
            timeouts=Timeouts(headers=20.0, silence=20.0, client=client),
            upstream_settings=settings,
            **self.more,
        )
        mirror.start()
        self.addCleanup(mirror.stop)
        return mirror

    def following(self, clients: int) -> Deferred[None]:
        """Fires when that many clients follow fills and have begun to wait for bytes."""
        follow: Deferred[None] = Deferred()
        add, count = Followers.add, itertools.count(1)

        def added(followers: Followers, follower: IsFollower) -> None:
            add(followers, follower)
            if next(count) == clients:
                # They begin to wait in this turn of the reactor.
                reactor.callLater(0, follow.callback, None)

        self.patch(Followers, "add", added)
        return follow

    async def blob_while(self, rule: Any, seconds: float) -> None:
        """Pull the layer; when the fault has struck, time passes and it is over."""
        asking = Deferred.fromCoroutine(self.mirror.blob(self.big))
        await rule.struck()
        self.seconds.advance(seconds)
        rule.release()
        self.assertEqual((await asking).status, 200)
        await drain(self.mirror, self.big)

    async def told(self) -> dict[str, Any]:
        """The newest pull as JSON; the page says the same."""
        self.mirror.served.recorder.flush()
        answer = (await self.mirror.ask("/status.json")).json
        pull: dict[str, Any] = answer["pulls"][0]
        self.assertEqual((await self.mirror.ask("/pulls.json")).json["pulls"][0], pull)
        return pull

    async def assert_said(self, cause: str, english: str, page: str | None = None, chinese: str = "") -> dict[str, Any]:
        """That JSON and page say this; `page`: its words, where they differ; RATE, TIME: what the JSON has there."""
        pull = await self.told()
        words = pull["verdict"]["words"]
        for name, pattern in (("RATE", r"[0-9.]+ [kM]?B/s"), ("TIME", r"[0-9.]+(?= s (?:for|to) | s$)")):
            found = re.search(pattern, words)
            if found is not None:
                english, chinese = english.replace(name, found[0]), chinese.replace(name, found[0])
                page = None if page is None else page.replace(name, found[0])
        self.assertEqual((pull["verdict"]["cause"], words), (cause, english), json.dumps(pull))
        shown = html.unescape((await self.mirror.ask("/status?lang=en")).body.decode())
        self.assertIn(page or english, shown)
        if chinese:
            self.assertIn(chinese, html.unescape((await self.mirror.ask("/status?lang=zh")).body.decode()))
        return pull
