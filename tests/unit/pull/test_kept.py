"""A tag that `[[keep]]` names is served on when its registry has deleted it."""

from __future__ import annotations

from docxy.settings.image_names import ImageName
from docxy.settings.policy import Keep, Policy
from tests.unit.pull.harness import NAME, REPOSITORY, MirrorCase


class Kept(MirrorCase):
    async def test_gone(self) -> None:
        """What is kept stays, what is not is gone, and both as the policy in force says."""
        self.upstream.add_image(REPOSITORY, "3.1")
        self.upstream.add_image(REPOSITORY, "4.1", [b"other"])
        for tag in ("3.1", "4.1"):
            self.assertEqual((await self.mirror.manifest(tag)).status, 200)
        self.upstream.repositories[REPOSITORY].tags.clear()
        self.seconds.advance(61)
        self.mirror.policies.swap(Policy(keeps=(Keep((ImageName(NAME, REPOSITORY, "3.*"),)),)))
        kept = await self.mirror.manifest("3.1")
        self.assertEqual(kept.status, 200)
        self.assertIn("stale-gone", kept.cache_status)
        self.assertEqual((await self.mirror.manifest("4.1")).status, 404)
        self.mirror.policies.swap(Policy())
        self.seconds.advance(61)
        self.assertEqual((await self.mirror.manifest("3.1")).status, 404)
