"""Tags in use are looked at before anybody asks, and tags that never move are not."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

from docxy.pull.refresh import CHECKED, EVERY, IN_USE, Refresh
from docxy.settings.cooldown import Cooldown, TagGlob
from tests.fakes import Fault
from tests.unit.pull.cooldown import DAY, THREE_DAYS, CooldownCase
from tests.unit.pull.harness import NAME, REPOSITORY, Mirror, MirrorCase


class InUse(CooldownCase):
    """Tags that clients pulled lately, asked for without a client."""

    async def setUp(self) -> None:
        await super().setUp()
        self.cooldown: Cooldown | None = Cooldown(THREE_DAYS)
        self.refresh = self.made()

    def made(self) -> Refresh:
        site: Any = self.mirror.served.registry
        pull = site._site.resource._v2._pulls[NAME].pull
        history = self.catalog.upstream(NAME).history
        refresh = Refresh(NAME, pull.manifests, history, lambda *_: self.cooldown, self.seconds)
        self.seconds.advance(EVERY)
        return refresh

    async def test_learnt_early(self) -> None:
        """A tag that moves between two pulls is young from when docxy saw it, not from the second pull."""
        old = await self.settled()
        new = self.move(b"new")
        self.seconds.advance(CHECKED + 1)
        self.upstream.requests.clear()
        await self.refresh.work()
        self.assertEqual(set(self.counts()), {"HEAD manifest"})
        self.seconds.advance(DAY)
        self.is_of(await self.mirror.manifest("latest"), old, "cooldown")
        self.seconds.advance(2 * DAY)
        self.is_of(await self.mirror.manifest("latest"), new)

    async def test_bounded(self) -> None:
        """One HEAD a tag and hour; none where no cooldown needs it, nor of what nobody pulled for a week."""
        await self.settled()
        self.seconds.advance(CHECKED + 1)
        self.upstream.requests.clear()
        await self.refresh.work()
        self.saw(HEAD_manifest=1)
        await self.refresh.work()
        self.saw()
        self.seconds.advance(CHECKED + 1)
        self.cooldown = None
        await self.refresh.work()
        self.saw()
        self.cooldown = Cooldown(THREE_DAYS)
        self.seconds.advance(IN_USE + DAY)
        await self.refresh.work()
        self.saw()

    async def test_left_alone(self) -> None:
        """An upstream that fails is asked once a round."""
        for tag in ("a", "b", "c"):
            self.move(tag.encode(), tag)
            await self.mirror.manifest(tag, method="HEAD")
        self.seconds.advance(THREE_DAYS)
        for tag in ("a", "b", "c"):
            self.assertEqual((await self.mirror.manifest(tag)).status, 200)
        self.seconds.advance(CHECKED + 1)
        self.upstream.on("manifest", Fault(status=429))
        self.upstream.requests.clear()
        await self.refresh.work()
        self.saw(HEAD_manifest=1)

    async def test_ended(self) -> None:
        """A round that is under way ends at the stop."""
        await self.settled()
        self.seconds.advance(CHECKED + 1)
        rule = self.upstream.on("manifest", Fault(stall_headers=True))
        running = self.refresh.work()
        self.refresh.stop()
        await running
        rule.release()


class Immutable(MirrorCase):
    """Tags that never move."""

    def start(self, **changed: Any) -> Mirror:
        patterns = (TagGlob.parse("*:v*.*.*"),)
        return super().start(changed={"immutable": patterns}, **changed)

    async def test_asked_once(self) -> None:
        """A tag that never moves is asked for once, by HEAD and GET, whatever the upstream makes of it later."""
        image = self.upstream.add_image(REPOSITORY, "v1.2.3")
        self.upstream.add_image(REPOSITORY, "latest")
        for tag in ("v1.2.3", "latest"):
            await self.mirror.manifest(tag)
        self.upstream.add_image(REPOSITORY, "v1.2.3", layers=[b"moved"])
        self.upstream.requests.clear()
        self.seconds.advance(80 * DAY)
        for method in ("HEAD", "GET"):
            answer = await self.mirror.manifest("v1.2.3", method=method)
            self.assertEqual(answer.header("Docker-Content-Digest"), str(image))
        self.saw()
        await self.mirror.manifest("latest")
        self.saw(HEAD_manifest=1)

    async def test_evicted(self) -> None:
        """Where its manifest is cached no more, it is fetched by the digest that is known."""
        image = self.upstream.add_image(REPOSITORY, "v1.2.3")
        await self.mirror.manifest("v1.2.3")
        await self.mirror.stop()
        await self.store.delete(image)
        self.mirror = self.start()
        self.upstream.add_image(REPOSITORY, "v1.2.3", layers=[b"moved"])
        self.seconds.advance(DAY)
        answer = await self.mirror.manifest("v1.2.3")
        self.assertEqual(answer.header("Docker-Content-Digest"), str(image))
