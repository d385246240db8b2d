"""What is repeated of a mirror's answers, and what is not."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

from docxy.config import AuthMode
from docxy.names import OCI_MANIFEST
from tests.fakes import Fault
from tests.mirror import Raw
from tests.pull.harness import REPOSITORY, Mirror, MirrorCase, drain

reactor: Any = _reactor


class RepeatedCase(MirrorCase):
    async def connect(self, mirror: Mirror) -> Raw:
        port = cast(Any, mirror)._port.getHost().port
        connection: Raw = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Raw())
        self.addCleanup(connection.close)
        return connection

    async def twice(self, path: str, headers: str = "", method: str = "GET") -> tuple[bool, list[str]]:
        """Asks the same twice within a moment: whether the first answer was kept for it, and both Cache-Statuses."""
        connection = await self.connect(self.mirror)
        request = f"{method} {path} HTTP/1.1\nHost: mirror.test\n{headers}\n"
        kept = []
        for times in (1, 2):
            connection.send(request)
            await connection.until(b"HTTP/1.1 ", times)
            await connection.until(b"\r\n\r\n", times)
            site = cast(Any, self.mirror)._watched._site
            kept.append(site.repeats.get(request.replace("\n", "\r\n").encode()) is not None)
        told = [part.split("\r\n")[0] for part in connection.received.decode("latin-1").split("Cache-Status: ")[1:]]
        return kept[0], told


class Repeated(RepeatedCase):
    async def test_manifests(self) -> None:
        """What was a hit is repeated, for GET and HEAD, by digest and by tag; what had to be asked for is not."""
        digest = self.upstream.add_image(REPOSITORY)
        accept = f"Accept: {OCI_MANIFEST}\n"
        for reference in (digest, "latest"):
            for method in ("GET", "HEAD"):
                path = f"/v2/{REPOSITORY}/manifests/{reference}"
                await self.mirror.manifest(reference)
                repeated, told = await self.twice(path, accept, method)
                self.assertTrue(repeated, (reference, method))
                self.assertEqual(told[0], told[1])
                self.assertTrue(told[0].startswith("docxy; hit"))

    async def test_first(self) -> None:
        """An answer that the upstream was asked for is given once: the next one is a hit, and says so."""
        digest = self.upstream.add_image(REPOSITORY)
        repeated, told = await self.twice(f"/v2/{REPOSITORY}/manifests/{digest}")
        self.assertFalse(repeated)
        self.assertEqual(told, ["docxy; fwd=miss; stored", "docxy; hit"])

    async def test_small_blobs(self) -> None:
        """Configs, their size and parts of them too; not so what is not there."""
        digest = self.upstream.add_blob(REPOSITORY, b"config" * 100)
        await self.mirror.blob(digest)
        await drain(self.mirror, digest)
        path = f"/v2/{REPOSITORY}/blobs/{digest}"
        for method, headers in (("GET", ""), ("HEAD", ""), ("GET", "Range: bytes=2-5\n")):
            await self.twice(path, headers, method)
            repeated, _ = await self.twice(path, headers + "X: y\n", method)
            self.assertTrue(repeated, (method, headers))
        repeated, _ = await self.twice(f"/v2/{REPOSITORY}/blobs/sha256:{'0' * 64}")
        self.assertFalse(repeated)

    async def test_ping(self) -> None:
        """The ping is."""
        self.assertTrue((await self.twice("/v2/"))[0])

    async def test_with_a_name(self) -> None:
        """Nothing that came with credentials is kept, though nobody looks at them here."""
        digest = self.upstream.add_image(REPOSITORY)
        await self.mirror.manifest(digest)
        for path in ("/v2/", f"/v2/{REPOSITORY}/manifests/{digest}"):
            self.assertFalse((await self.twice(path, "Authorization: Bearer sesame\n"))[0])

    async def test_stale(self) -> None:
        """A tag past its time is not repeated, nor one that is believed no longer than this moment."""
        self.upstream.add_image(REPOSITORY)
        await self.mirror.manifest("latest")
        self.seconds.advance(61)
        self.upstream.on("manifest", Fault(drop=True), times=None)
        self.assertFalse((await self.twice(f"/v2/{REPOSITORY}/manifests/latest"))[0])


class Unbelieved(RepeatedCase):
    tag_ttl = 0.0

    async def test_tags(self) -> None:
        """Where tags are asked for each time, each time they are."""
        self.upstream.add_image(REPOSITORY)
        await self.mirror.manifest("latest")
        self.upstream.requests.clear()
        self.assertFalse((await self.twice(f"/v2/{REPOSITORY}/manifests/latest"))[0])
        self.saw(HEAD_manifest=2)


class Transparent(RepeatedCase):
    auth = AuthMode.TRANSPARENT

    async def test_challenge(self) -> None:
        """A challenge is not repeated, nor anything that a login got."""
        self.assertFalse((await self.twice(f"/v2/{REPOSITORY}/manifests/latest"))[0])
