"""Upstreams that say nothing of a blob's size, or something wrong: the digest decides."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import json

from attrs import define
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase

from docxy.content import Manifest
from docxy.names import Digest
from docxy.pull.blobs.sizes import Sizes, believed, believed_size
from docxy.ranges import Span
from docxy.upstream.blob_response import BlobResponse
from tests.fakes import Fault, Pattern
from tests.unit.pull.harness import REPOSITORY, MirrorCase, drain

MIB = 1 << 20
BLOB = Pattern(2 * MIB + 5)
WHOLE = BLOB.read(0, BLOB.size)
IMAGE = "application/vnd.oci.image.manifest.v1+json"


def manifest_of(digest: Digest, size: object) -> bytes:
    """An image manifest that lists one layer."""
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": str(digest), "size": size}
    return json.dumps({"schemaVersion": 2, "mediaType": IMAGE, "layers": [layer]}).encode()


def without_length() -> dict[str, Fault]:
    return {"chunked": Fault(chunked=True), "until close": Fault(headers={"Content-Length": None})}


class WithoutLength(MirrorCase):
    """A blob whose upstream does not say how long it is."""

    async def test_shared_and_kept(self) -> None:
        """It is fetched once for all who want it, and kept; the digest proves it, and tells its size."""
        for fault in without_length().values():
            self.upstream.requests.clear()
            self.upstream.rules.clear()
            digest = self.upstream.add_blob(REPOSITORY, BLOB)
            self.upstream.on("blob", fault)
            answers = await gatherResults([Deferred.fromCoroutine(self.mirror.blob(digest)) for _ in range(5)])
            self.assertEqual({each.body == WHOLE for each in answers}, {True})
            self.saw(GET_blob=1)
            await drain(self.mirror, digest)
            answer = await self.mirror.blob(digest, asked="bytes=5-9")
            self.assertEqual((answer.status, answer.body, answer.cache_status), (206, WHOLE[5:10], "docxy; hit"))
            self.saw()
            await self.store.delete(digest)

    async def test_wrong(self) -> None:
        """Wrong bytes never become a whole answer, and nothing of them is kept."""
        for fault in (Fault(chunked=True, flip=9), Fault(headers={"Content-Length": None}, flip=9)):
            digest = self.upstream.add_blob(REPOSITORY, BLOB)
            self.upstream.on("blob", fault)
            self.assertLess(await self.mirror.cut(f"/v2/{REPOSITORY}/blobs/{digest}"), BLOB.size)
            await drain(self.mirror, digest)
            self.assertIsNone(await self.store.stat(digest))

    async def test_broken_off(self) -> None:
        """One that breaks off goes on where it was."""
        digest = self.upstream.add_blob(REPOSITORY, BLOB)
        self.upstream.on("blob", Fault(chunked=True, cut_after=MIB))
        self.assertEqual((await self.mirror.blob(digest)).body, WHOLE)
        self.assertEqual([each.headers.get("range") for each in self.upstream.select("blob")], [None, f"bytes={MIB}-"])

    async def test_manifest_knows(self) -> None:
        """Where a manifest was served that lists it, clients are told the size, and ranges are served."""
        digest = self.upstream.add_blob(REPOSITORY, BLOB)
        manifest = self.upstream.add_manifest(REPOSITORY, None, manifest_of(digest, BLOB.size), IMAGE)
        await self.mirror.manifest(manifest)
        for fault in without_length().values():
            self.upstream.on("blob", fault)
            streamed = await self.mirror.stream(f"/v2/{REPOSITORY}/blobs/{digest}")
            await streamed.client.ended
            self.assertEqual((streamed.length, streamed.client.body == WHOLE), (BLOB.size, True))
            await drain(self.mirror, digest)
            await self.store.delete(digest)


class WrongSize(MirrorCase):
    """An upstream whose size is not the blob's."""

    async def listed(self) -> Digest:
        """A blob that a manifest lists, which was served."""
        digest = self.upstream.add_blob(REPOSITORY, BLOB)
        await self.mirror.manifest(self.upstream.add_manifest(REPOSITORY, None, manifest_of(digest, BLOB.size), IMAGE))
        return digest

    async def test_empty(self) -> None:
        """An empty 200 in the place of a layer is no answer to anyone, and nothing is kept; then it comes as it is."""
        digest = self.upstream.add_blob(REPOSITORY, BLOB)
        rule = self.upstream.on("blob", Fault(body=b""), times=None)
        for asked in (None, "bytes=0-9"):
            self.assertEqual((await self.mirror.blob(digest, asked=asked)).status, 502)
        self.upstream.rules.remove(rule)
        self.assertEqual((await self.mirror.blob(digest)).body, WHOLE)

    async def test_empty_head(self) -> None:
        """Nobody is told that a layer has no bytes; a manifest that lists it knows better."""
        digest = self.upstream.add_blob(REPOSITORY, BLOB)
        self.upstream.on("blob", Fault(body=b""))
        self.assertNotEqual((await self.mirror.blob(digest, method="HEAD")).header("Content-Length"), "0")
        await self.listed()
        self.upstream.on("blob", Fault(body=b""))
        answer = await self.mirror.blob(digest, method="HEAD")
        self.assertEqual((answer.status, answer.header("Content-Length")), (200, str(BLOB.size)))

    async def test_untold_head(self) -> None:
        """A registry that does not say of how many bytes it sends the first: a manifest that lists the blob does."""
        digest = self.upstream.add_blob(REPOSITORY, BLOB)
        untold = Fault(headers={"Content-Range": "bytes 0-0/*"})
        self.upstream.on("blob", untold)
        answer = await self.mirror.blob(digest, method="HEAD")
        self.assertEqual((answer.status, answer.header("Content-Length")), (200, None))
        await self.listed()
        self.upstream.on("blob", untold)
        answer = await self.mirror.blob(digest, method="HEAD")
        self.assertEqual((answer.status, answer.header("Content-Length")), (200, str(BLOB.size)))

    async def test_other_than_listed(self) -> None:
        """Where the upstream and the manifest disagree no size is shown, and wrong bytes are never whole."""
        digest = await self.listed()
        self.upstream.on("blob", Fault(body=WHOLE[:MIB]))
        self.assertLess(await self.mirror.cut(f"/v2/{REPOSITORY}/blobs/{digest}"), MIB)
        await drain(self.mirror, digest)
        self.assertEqual((await self.mirror.blob(digest)).body, WHOLE)

    async def test_manifest_wrong(self) -> None:
        """A manifest that lists a wrong size keeps nobody from the blob."""
        digest = self.upstream.add_blob(REPOSITORY, BLOB)
        await self.mirror.manifest(self.upstream.add_manifest(REPOSITORY, None, manifest_of(digest, 7), IMAGE))
        self.assertEqual((await self.mirror.blob(digest)).body, WHOLE)
        await drain(self.mirror, digest)
        streamed = await self.mirror.stream(f"/v2/{REPOSITORY}/blobs/{digest}")
        await streamed.client.ended
        self.assertEqual(streamed.length, BLOB.size)


@define
class Answered:
    """As much of an upstream's response as is looked at."""

    source: str = "http://upstream"


class BelievedTests(SynchronousTestCase):
    """Two witnesses."""

    def span(self, told: Span | None, listed: int | None) -> Span | None:
        answer = BlobResponse(Answered(), told)  # type: ignore[arg-type]  # see `Answered`
        return believed(answer, listed).span

    def test_agree(self) -> None:
        """One witness is believed, and two that agree."""
        whole, part = Span(0, 100, 100), Span(10, 20, 100)
        for told in (whole, part):
            self.assertEqual((self.span(told, None), self.span(told, 100)), (told, told))
        self.assertEqual(self.span(None, 100), whole)
        self.assertIsNone(self.span(None, None))

    def test_disagree(self) -> None:
        """Of two that differ none is believed for a whole; a part is where the upstream says, of what is listed."""
        self.assertIsNone(self.span(Span(0, 100, 100), 200))
        self.assertEqual(self.span(Span(10, 20, 100), 200), Span(10, 20, 200))

    def test_empty(self) -> None:
        """No bytes are a blob only under their own digest."""
        nothing = Digest.of(b"")
        self.assertEqual((believed_size(0, nothing, None), believed_size(0, BLOB.digest, None)), (0, None))

    def test_own_repository_only(self) -> None:
        """A manifest of one repository says nothing of another's blobs; nonsense says nothing at all."""
        sizes = Sizes()
        for size in (5, "7", -1, 1e999, None, [3]):
            body = manifest_of(BLOB.digest, size)
            sizes.learn(f"repo-{size}", Manifest(IMAGE, Digest.of(body), len(body), body))
        self.assertEqual(sizes.get("repo-5", BLOB.digest), 5)
        self.assertIsNone(sizes.get("another", BLOB.digest))
        for size in (-1, 1e999, None, [3]):
            self.assertIsNone(sizes.get(f"repo-{size}", BLOB.digest))
