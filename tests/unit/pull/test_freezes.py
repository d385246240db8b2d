"""A tag that an operator froze stays where it is."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from datetime import datetime, timezone

from docxy.names import Digest
from docxy.orders.model import Kind
from tests.unit.pull.gating import GateCase
from tests.unit.pull.harness import NAME, REPOSITORY


class Freezes(GateCase):
    async def test_moved(self) -> None:
        """A frozen tag stays where it was though it moved: by GET, HEAD and Range; by digest nothing is different."""
        moved = self.upstream.add_image(REPOSITORY, "latest", [b"moved"])
        self.freeze("latest", self.index)
        for method in ("GET", "HEAD"):
            for _ in range(2):
                answer = await self.mirror.manifest("latest", method=method)
                self.assertEqual(answer.header("Docker-Content-Digest"), str(self.index))
                self.assertIn("detail=frozen", answer.cache_status)
            self.assertEqual((await self.mirror.manifest(moved, method=method)).status, 200)
        part = await self.mirror.ask(f"/v2/{REPOSITORY}/manifests/latest", {"Range": "bytes=0-9", "Accept": "*/*"})
        self.assertEqual((part.status, len(part.body)), (206, 10))
        self.assertEqual(part.header("ETag"), f'"{self.index}"')
        # Another tag of the repository moves as it likes.
        self.assertEqual((await self.mirror.manifest("beside")).header("Docker-Content-Digest"), str(self.beside))

    async def test_past_and_export(self) -> None:
        """A frozen tag is so on a day of the past, and as a file, too."""
        await self.mirror.manifest("latest")
        self.seconds.advance(7200)
        moved = self.upstream.add_image(REPOSITORY, "latest", [b"moved"])
        await self.mirror.manifest("latest")
        self.seconds.advance(7200)
        then = datetime.fromtimestamp(self.seconds() - 3600, timezone.utc).strftime("%Y-%m-%dt%H-%Mz")
        path = f"/v2/as-of/{then}/{NAME}/{REPOSITORY}/manifests/latest"
        export = f"/export?image={NAME}/{REPOSITORY}"
        answer = await self.mirror.ask(path, {"Accept": "*/*"})
        self.assertEqual(answer.header("Docker-Content-Digest"), str(moved))
        self.freeze("latest", self.index)
        for method in ("GET", "HEAD"):
            answer = await self.mirror.ask(path, {"Accept": "*/*"}, method)
            self.assertEqual(answer.header("Docker-Content-Digest"), str(self.index))
            self.assertIn("detail=frozen", answer.cache_status)
        archive = (await self.mirror.ask(export)).body
        self.assertIn(self.child.hex.encode(), archive)
        self.assertNotIn(moved.hex.encode(), archive)

    async def test_not_asked_by_tag(self) -> None:
        """Not cached: it is fetched by its digest, once; where the tag is now does not matter."""
        self.freeze("latest", self.index)
        del self.upstream.repositories[REPOSITORY].tags["latest"]
        for _ in range(2):
            self.assertEqual((await self.mirror.manifest("latest")).status, 200)
        self.saw(GET_manifest=1)
        self.assertNotIn("latest", [request.reference for request in self.upstream.requests])

    async def test_gone(self) -> None:
        """Neither cached nor on the upstream: 404, which says that it is frozen; a cached one is served on."""
        gone = Digest.of(b"gone")
        self.freeze("latest", gone)
        for method in ("GET", "HEAD"):
            answer = await self.mirror.manifest("latest", method=method)
            self.assertEqual(answer.status, 404)
        told = (await self.mirror.manifest("latest")).json["errors"][0]
        self.assertEqual(told["code"], "MANIFEST_UNKNOWN")
        self.assertIn(f"is frozen at {gone}", told["message"])
        self.freeze("latest", self.index)
        await self.mirror.manifest("latest")
        del self.upstream.repositories[REPOSITORY].manifests[str(self.index)]
        self.assertEqual((await self.mirror.manifest("latest")).status, 200)

    async def test_pure_proxy(self) -> None:
        """Without a cache, too."""
        mirror = self.start(cached=False, orders=self.orders)
        self.upstream.add_image(REPOSITORY, "latest", [b"moved"])
        self.freeze("latest", self.index)
        for method in ("GET", "HEAD"):
            answer = await mirror.manifest("latest", method=method)
            self.assertEqual(answer.header("Docker-Content-Digest"), str(self.index))

    async def test_released(self) -> None:
        """A freeze that is lifted lets the tag go where it is."""
        moved = self.upstream.add_image(REPOSITORY, "latest", [b"moved"])
        self.freeze("latest", self.index)
        await self.mirror.manifest("latest")
        self.orders.lift(Kind.FREEZE, f"{NAME}/{REPOSITORY}:latest")
        self.assertEqual((await self.mirror.manifest("latest")).header("Docker-Content-Digest"), str(moved))

    async def test_recalled(self) -> None:
        """A tag that is frozen at something recalled is refused: a recall goes before all."""
        self.freeze("latest", self.index)
        self.recall(self.index)
        await self.refuses_manifest("latest")
