"""The clock was ahead when something was kept, and has been set right since: its age is none to go by."""

from __future__ import annotations

from docxy.settings.model import AuthMode
from tests.fakes import Auth, Fault
from tests.unit.pull.harness import REPOSITORY, MirrorCase

DAY = 24 * 3600.0
TAGS = f"/v2/{REPOSITORY}/tags/list"


class SetBack(MirrorCase):
    """What was kept tomorrow."""

    async def test_tag_and_listing(self) -> None:
        """The upstream is asked again at once, once, and what it says now is believed for as long as usual."""
        self.upstream.add_image(REPOSITORY)
        self.seconds.advance(DAY)
        for path in (f"/v2/{REPOSITORY}/manifests/latest", TAGS):
            self.assertEqual((await self.mirror.ask(path)).status, 200)
        self.upstream.requests.clear()
        self.seconds.advance(-DAY)
        for _ in range(2):
            await self.mirror.ask(f"/v2/{REPOSITORY}/manifests/latest")
            await self.mirror.ask(TAGS)
        self.saw(HEAD_manifest=1, GET_tags=1)

    async def test_pause(self) -> None:
        """A pause after a failure ends too: the upstream is asked, and no more than usual."""
        self.upstream.add_image(REPOSITORY)
        await self.mirror.manifest("latest")
        self.seconds.advance(DAY)
        self.upstream.on("manifest", Fault(status=503))
        self.assertIn("upstream-failed", (await self.mirror.manifest("latest")).cache_status)
        self.upstream.requests.clear()
        self.seconds.advance(-DAY + 61)
        self.assertNotIn("stale-", (await self.mirror.manifest("latest")).cache_status)
        self.saw(HEAD_manifest=1)


class SetBackTransparent(MirrorCase):
    """Rights that were kept tomorrow."""

    auth = AuthMode.TRANSPARENT

    async def test_verdict(self) -> None:
        """A token that was revoked is refused, whatever was believed of it tomorrow."""
        self.upstream.auth = Auth("bearer")
        self.upstream.add_image(REPOSITORY)
        self.seconds.advance(DAY)
        token = str((await self.mirror.token()).json["token"])
        image = (await self.mirror.manifest("latest", token)).header("Docker-Content-Digest")
        self.seconds.advance(-DAY)
        self.upstream.auth.revoke()
        self.assertEqual((await self.mirror.manifest(image, token)).status, 401)
