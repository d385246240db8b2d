"""What a process that serves does to warm an image: it asks the upstream as a client would, and spends no more."""

from __future__ import annotations

from typing import Any

from docxy.names import Digest
from docxy.pull import warming
from docxy.pull.warming import CONTENTS, FILL, TAGS
from docxy.questions import Alone
from docxy.settings.model import AuthMode
from docxy.siblings import Siblings
from tests.fakes import Auth
from tests.unit.pull.harness import NAME, REPOSITORY, MirrorCase, drain
from tests.unit.pull.test_quota import ratelimit


class Warming(MirrorCase):
    def start(self, **changed: Any) -> Any:
        self.siblings = Siblings.alone()
        self.patch(Siblings, "alone", classmethod(lambda cls: self.siblings))
        return super().start(**changed)

    async def ask(self, name: str, *facts: Any) -> Any:
        return await Alone(self.siblings.questions).ask_one(name, *facts)

    async def contents(self, image: str, platform: str | None = None, floor: float = 0.1) -> Any:
        return await self.ask(CONTENTS, image, platform, floor, 0)

    async def test_warm(self) -> None:
        """Contents, then a fill of each blob; a pull is all hits then."""
        self.upstream.add_two_platforms(REPOSITORY, "v1")
        image = f"{NAME}/{REPOSITORY}:v1"
        told = await self.contents(image)
        self.assertEqual((told["name"], told["total"], len(told["blobs"])), (image, 2, 2))
        for digest, _ in told["blobs"]:
            self.assertEqual(await self.ask(FILL, image, digest, 0.1), {})
            await drain(self.mirror, Digest.parse(digest))
        self.saw(GET_manifest=2, GET_blob=2)
        await self.mirror.manifest("v1")
        await self.mirror.manifest(told["digest"])
        for digest, _ in told["blobs"]:
            self.assertIn("hit", (await self.mirror.blob(digest)).cache_status)
        self.saw()

    async def test_floor(self) -> None:
        """Under the floor nothing is spent: what is cached is told, the rest is refused with a time to come again."""
        self.upstream.add_image(REPOSITORY, "v1")
        self.upstream.add_image(REPOSITORY, "v2", [b"other"])
        self.upstream.on("manifest", ratelimit(9), times=None)
        self.assertNotIn("error", await self.contents(f"{REPOSITORY}:v1"))
        self.upstream.requests.clear()
        refused = await self.contents(f"{REPOSITORY}:v2")
        self.assertEqual((refused["status"], refused["retry_after"]), (429, 60.0))
        self.assertNotIn("error", await self.contents(f"{REPOSITORY}:v1"))
        self.assertNotIn("GET manifest", self.counts())
        self.assertNotIn("error", await self.contents(f"{REPOSITORY}:v2", floor=0.0))

    async def test_errors(self) -> None:
        """Whatever goes wrong is an answer, not an exception."""
        self.upstream.add_image("ann/app", "v1")
        await self.mirror.stop()
        self.mirror = self.start(deny=("ann/*",))
        for image, status in (
            ("team/none:v1", 404),
            ("Not/An Image", 400),
            ("ghcr.io/o/i", 404),
            ("ann/app:v1", 403),
        ):
            self.assertEqual((await self.contents(image))["status"], status, image)
        self.assertEqual((await self.contents(REPOSITORY, platform="x"))["status"], 400)

    async def test_tags(self) -> None:
        """The tags that a glob covers, over all pages, the highest versions first; the rest is counted."""
        for tag in ("3.9", "3.10", "3.10-slim", "3.1", "4.0", "latest", "3.11"):
            self.upstream.add_image(REPOSITORY, tag)
        self.patch(warming, "PAGE_OF_TAGS", 2)
        told = await self.ask(TAGS, f"{NAME}/{REPOSITORY}", "3.*", 3)
        self.assertEqual(told, {"tags": ["3.11", "3.10-slim", "3.10"], "more": 2})
        self.assertGreater(self.counts()["GET tags"], 2)
        self.patch(warming, "MOST_PAGES", 1)
        await self.ask(TAGS, f"{NAME}/team/none", "*", 3)
        self.assertEqual((await self.ask(TAGS, f"{NAME}/team/none", "*", 3))["status"], 404)

    async def test_login(self) -> None:
        """In transparent mode docxy is an anonymous client: it gets what is public, and nothing that is private."""
        await self.mirror.stop()
        self.upstream.auth = Auth("bearer", accounts={"ann": "pw"}, private={"ann/app"})
        self.upstream.add_image(REPOSITORY, "v1")
        self.upstream.add_image("ann/app", "v1")
        self.mirror = self.start(auth=AuthMode.TRANSPARENT)
        self.assertNotIn("error", await self.contents(f"{REPOSITORY}:v1"))
        self.assertEqual((await self.contents("ann/app:v1"))["status"], 401)
