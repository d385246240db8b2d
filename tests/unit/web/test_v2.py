"""`/v2/` of the whole daemon, without a cache: pings, manifests, blobs and ranges."""

from __future__ import annotations

from docxy.names import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Digest
from tests.fakes import Cdn, Fault, Pattern
from tests.harness.mirror import ACCEPT, BLOB, NAME, SHA, RegistryCase


class PingTests(RegistryCase):
    async def test_ping(self) -> None:
        """`/v2/` is 200 at once, with and without its last slash, never a redirect, and HEAD has no body."""
        for path in ("/v2/", "/v2"):
            answer = await self.ask(path)
            self.assertEqual((answer.status, answer.body), (200, b"{}"))
            self.assertEqual(answer.header("Docker-Distribution-Api-Version"), "registry/2.0")
        head = await self.ask("/v2/", method="HEAD")
        self.assertEqual((head.status, head.body, head.header("Content-Length")), (200, b"", "2"))
        self.assertEqual(self.upstream.requests, [])

    async def test_prefixed_pings(self) -> None:
        """Prefixed pings, dockerd's and podman's, are answered as the plain one is."""
        for path in ("/fake.test/v2/", "/v2/fake.test/", "/v2/fake.test", "/alias.test/v2/"):
            self.assertEqual((await self.ask(path)).status, 200, path)

    async def test_unconfigured_prefix(self) -> None:
        """A ping of an upstream that is not configured is no success: the client must go elsewhere."""
        for path in ("/other.test/v2/", "/v2/?ns=other.test"):
            await self.assert_error(path, 404, "NAME_UNKNOWN")


class ManifestTests(RegistryCase):
    async def test_verbatim(self) -> None:
        """A manifest comes byte for byte, with its bare type, digest and length, by tag and by digest."""
        for reference in ("latest", self.image):
            answer = await self.ask(f"/v2/{NAME}/manifests/{reference}", {"Accept": ACCEPT})
            self.assertEqual((answer.status, answer.body), (200, self.manifest.body))
            self.assertEqual(answer.header("Content-Type"), OCI_MANIFEST)
            self.assertEqual(answer.header("Docker-Content-Digest"), str(self.image))
            self.assertEqual(answer.header("Content-Length"), str(len(self.manifest.body)))
            self.assertEqual(answer.header("ETag"), f'"{self.image}"')

    async def test_odd_spacing_is_kept(self) -> None:
        """Bytes that another JSON writer would have written otherwise are not touched."""
        body = b'{ "schemaVersion" : 2,\r\n\t"mediaType":"%s", "x": "\\u00e9" }\n\n' % OCI_MANIFEST.encode()
        digest = self.upstream.add_manifest(NAME, "odd", body)
        answer = await self.ask(f"/v2/{NAME}/manifests/odd")
        self.assertEqual((answer.body, answer.header("Docker-Content-Digest")), (body, str(digest)))

    async def test_types(self) -> None:
        """Docker's and OCI's manifests and indexes keep their own types."""
        for docker, single, several in ((False, OCI_MANIFEST, OCI_INDEX), (True, DOCKER_MANIFEST, DOCKER_LIST)):
            self.upstream.add_image(NAME, "one", docker=docker)
            self.upstream.add_two_platforms(NAME, "two", docker=docker)
            for tag, media_type in (("one", single), ("two", several)):
                answer = await self.ask(f"/v2/{NAME}/manifests/{tag}", method="HEAD")
                self.assertEqual(answer.header("Content-Type"), media_type)

    async def test_charset_is_dropped(self) -> None:
        """A media type that came with a charset leaves without: clients compare it as it is."""
        self.upstream.on("manifest", Fault.wrong_type(f"{OCI_MANIFEST}; charset=utf-8"), times=None)
        for method in ("GET", "HEAD"):
            answer = await self.ask(self.manifest_path, method=method)
            self.assertEqual(answer.header("Content-Type"), OCI_MANIFEST)

    async def test_head(self) -> None:
        """HEAD has the length, digest and type of the GET, no body, and costs the upstream a HEAD only."""
        for reference in ("latest", self.image):
            answer = await self.ask(f"/v2/{NAME}/manifests/{reference}", method="HEAD")
            self.assertEqual((answer.status, answer.body), (200, b""))
            self.assertEqual(answer.header("Content-Length"), str(len(self.manifest.body)))
            self.assertEqual(answer.header("Content-Type"), OCI_MANIFEST)
            self.assertEqual(answer.header("Docker-Content-Digest"), str(self.image))
        self.assertEqual(self.upstream.count("manifest", "GET"), 0)

    async def test_head_that_tells_too_little(self) -> None:
        """Where an upstream's HEAD lacks digest, length or type, a GET finds them out, unseen by the client."""
        for missing in ("Docker-Content-Digest", "Content-Length", "Content-Type"):
            self.upstream.requests.clear()
            self.upstream.on("manifest", Fault(headers={missing: None}), method="HEAD")
            answer = await self.ask(self.manifest_path, method="HEAD")
            self.assertEqual(answer.header("Content-Length"), str(len(self.manifest.body)), missing)
            self.assertEqual(answer.header("Docker-Content-Digest"), str(self.image))
            self.assertEqual(answer.header("Content-Type"), OCI_MANIFEST)
            self.assertEqual(self.upstream.count("manifest", "GET"), 1)

    async def test_get_without_digest(self) -> None:
        """Where the upstream does not tell a tag's digest, docxy computes it."""
        self.upstream.on("manifest", Fault.digest_header(None))
        answer = await self.ask(self.manifest_path)
        self.assertEqual(answer.header("Docker-Content-Digest"), str(self.image))

    async def test_malformed_upstream_digest(self) -> None:
        """A digest that an upstream got wrong in form is not passed on: containerd would give up for good."""
        self.upstream.on("manifest", Fault.digest_header("sha256:abc"), times=None)
        for method in ("GET", "HEAD"):
            answer = await self.ask(self.manifest_path, method=method)
            self.assertEqual(answer.header("Docker-Content-Digest"), str(self.image))

    async def test_wrong_digest(self) -> None:
        """Bytes that are not those of the digest asked for, or told, are no answer."""
        # In a digest's hex, where the JSON stays JSON.
        rule = self.upstream.on("manifest", Fault(flip=self.manifest.body.index(b"sha256:") + 10), times=None)
        for reference in ("latest", self.image):
            await self.assert_error(f"/v2/{NAME}/manifests/{reference}", 502, "UNAVAILABLE")
        rule.cancel()
        wrong = self.upstream.add_manifest(NAME, SHA, self.manifest.body)
        await self.assert_error(f"/v2/{NAME}/manifests/{wrong}", 502, "UNAVAILABLE")

    async def test_sha512(self) -> None:
        """A manifest can be asked for by its SHA-512."""
        digest = Digest.of(self.manifest.body, "sha512")
        self.upstream.add_manifest(NAME, str(digest), self.manifest.body)
        answer = await self.ask(f"/v2/{NAME}/manifests/{digest}")
        self.assertEqual((answer.status, answer.header("Docker-Content-Digest")), (200, str(digest)))

    async def test_what_is_no_manifest(self) -> None:
        """A captive portal's page, one byte too many, another type and a cut body are errors, never a manifest."""
        for fault in (
            Fault.html_page(),
            Fault.huge(),
            Fault.wrong_type(),
            Fault(cut_after=30),
            Fault(body=b"[" * 100_000, headers={"Content-Type": OCI_MANIFEST}),
            Fault(body=b"[]", headers={"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": None}),
        ):
            rule = self.upstream.on("manifest", fault, times=None)
            await self.assert_error(self.manifest_path, 502, "UNAVAILABLE")
            rule.cancel()

    async def test_accept_is_passed(self) -> None:
        """A narrow Accept goes up; for a client that takes everything docxy names what every registry knows."""
        await self.ask(self.manifest_path, {"Accept": [ACCEPT[2], "text/x, " + ACCEPT[0]]})
        self.assertEqual(self.sent("manifest").headers["accept"], f"{ACCEPT[0]}, {ACCEPT[2]}, text/x")
        for headers in ({}, {"Accept": "*/*"}, {"Accept": ACCEPT}):
            self.upstream.requests.clear()
            await self.ask(self.manifest_path, headers)
            for media_type in ACCEPT:
                self.assertIn(media_type, self.sent("manifest").headers["accept"])

    async def test_redirected(self) -> None:
        """Manifests that the upstream keeps elsewhere are fetched from there; the client sees no redirect."""
        for status in (301, 302, 303, 307, 308):
            self.upstream.cdn = Cdn(status=status, kinds=frozenset({"manifest"}))
            for method in ("GET", "HEAD"):
                answer = await self.ask(self.manifest_path, method=method)
                self.assertEqual((answer.status, answer.header("Docker-Content-Digest")), (200, str(self.image)))
                self.assertIsNone(answer.header("Location"))

    async def test_missing(self) -> None:
        """A reference that is not there is MANIFEST_UNKNOWN, signature tags and unknown repositories too."""
        for path in (
            f"/v2/{NAME}/manifests/missing",
            f"/v2/{NAME}/manifests/{SHA}",
            f"/v2/{NAME}/manifests/sha256-{'0' * 64}.sig",
            f"/v2/{NAME}/manifests/sha256-{'0' * 64}",
            "/v2/no/such/manifests/latest",
        ):
            await self.assert_error(path, 404, "MANIFEST_UNKNOWN")
            head = await self.ask(path, method="HEAD")
            self.assertEqual((head.status, head.body), (404, b""))

    async def test_signature_tag(self) -> None:
        """A signature's tag is a tag."""
        digest = self.upstream.add_image(NAME, f"sha256-{self.image.hex}.sig")
        answer = await self.ask(f"/v2/{NAME}/manifests/sha256-{self.image.hex}.sig")
        self.assertEqual((answer.status, answer.header("Docker-Content-Digest")), (200, str(digest)))

    async def test_range(self) -> None:
        """Manifests have ranges too: containerd asks for `bytes=0-` of them."""
        body, size = self.manifest.body, len(self.manifest.body)
        for asked, first, stop in (("bytes=0-", 0, size), ("bytes=5-9", 5, 10), ("bytes=-4", size - 4, size)):
            answer = await self.ask(self.manifest_path, {"Range": asked})
            self.assertEqual((answer.status, answer.body), (206, body[first:stop]))
            self.assertEqual(answer.header("Content-Range"), f"bytes {first}-{stop - 1}/{size}")
            self.assertEqual(answer.header("Content-Type"), OCI_MANIFEST)
        answer = await self.assert_error(self.manifest_path, 416, "RANGE_INVALID", headers={"Range": f"bytes={size}-"})
        self.assertEqual(answer.header("Content-Range"), f"bytes */{size}")

    async def test_not_modified(self) -> None:
        """If-None-Match with the digest is 304 without a body or a length that is not the manifest's."""
        for condition in (f'"{self.image}"', f'W/"{self.image}"', f'"x", "{self.image}"', "*"):
            for method in ("GET", "HEAD"):
                answer = await self.ask(self.manifest_path, {"If-None-Match": condition}, method)
                self.assertEqual((answer.status, answer.body), (304, b""))
                self.assertEqual(answer.header("ETag"), f'"{self.image}"')
                self.assertIn(answer.header("Content-Length"), (None, str(len(self.manifest.body))))
        answer = await self.ask(self.manifest_path, {"If-None-Match": f'"{self.digest}"'})
        self.assertEqual((answer.status, answer.body), (200, self.manifest.body))


class BlobTests(RegistryCase):
    async def test_whole(self) -> None:
        """A blob comes byte for byte with exact length and a type without parameters."""
        answer = await self.ask(self.blob_path)
        self.assertEqual((answer.status, answer.body), (200, BLOB))
        self.assertEqual(answer.header("Content-Length"), str(len(BLOB)))
        self.assertEqual(answer.header("Content-Type"), "application/octet-stream")
        self.assertEqual(answer.header("Docker-Content-Digest"), str(self.digest))
        self.assertEqual(answer.header("Accept-Ranges"), "bytes")

    async def test_head(self) -> None:
        """HEAD has the exact length, asks the upstream for one byte by GET (HEAD is refused by some), and no more."""
        self.upstream.on("blob", Fault(status=401), method="HEAD", times=None)
        answer = await self.ask(self.blob_path, method="HEAD")
        self.assertEqual((answer.status, answer.body), (200, b""))
        self.assertEqual(answer.header("Content-Length"), str(len(BLOB)))
        self.assertEqual(answer.header("Docker-Content-Digest"), str(self.digest))
        self.assertEqual(self.upstream.count("blob", "HEAD"), 0)
        self.assertEqual(self.upstream.blob_bytes_sent, 1)

    async def test_head_without_ranges(self) -> None:
        """HEAD is answered by an upstream without Range too, and its body is not downloaded."""
        self.upstream.ranges = False
        digest = self.upstream.add_blob(NAME, Pattern(64 << 20))
        answer = await self.ask(f"/v2/{NAME}/blobs/{digest}", method="HEAD")
        self.assertEqual((answer.status, answer.header("Content-Length")), (200, str(64 << 20)))
        await self.upstream.finished("blob")
        self.assertLess(self.upstream.blob_bytes_sent, 16 << 20)

    async def test_head_of_nothing(self) -> None:
        """The empty blob, which has no first byte, has its length: 0."""
        digest = self.upstream.add_blob(NAME, b"")
        for method in ("HEAD", "GET"):
            answer = await self.ask(f"/v2/{NAME}/blobs/{digest}", method=method)
            self.assertEqual((answer.status, answer.header("Content-Length"), answer.body), (200, "0", b""))

    async def test_sha512(self) -> None:
        """A blob named by its SHA-512 is verified by that."""
        digest = Digest.of(BLOB, "sha512")
        held = self.upstream.repositories[NAME].blobs
        held[str(digest)] = held[str(self.digest)]
        self.assertEqual((await self.ask(f"/v2/{NAME}/blobs/{digest}")).body, BLOB)

    async def test_redirected(self) -> None:
        """The client never sees the upstream's redirect, whatever its kind."""
        for status in (301, 302, 303, 307, 308):
            self.upstream.cdn = Cdn(status=status)
            answer = await self.ask(self.blob_path)
            self.assertEqual((answer.status, answer.body, answer.header("Location")), (200, BLOB, None))

    async def test_missing(self) -> None:
        """A blob that is not there is BLOB_UNKNOWN."""
        for method in ("GET", "HEAD"):
            self.assertEqual((await self.ask(f"/v2/{NAME}/blobs/{SHA}", method=method)).status, 404)
        await self.assert_error(f"/v2/{NAME}/blobs/{SHA}", 404, "BLOB_UNKNOWN")

    async def test_not_modified(self) -> None:
        """If-None-Match with the digest is 304, once the upstream lets the client know; nothing is downloaded."""
        answer = await self.ask(self.blob_path, {"If-None-Match": f'"{self.digest}"'})
        self.assertEqual((answer.status, answer.body), (304, b""))
        self.assertIn(answer.header("Content-Length"), (None, str(len(BLOB))))
        self.assertLessEqual(self.upstream.blob_bytes_sent, 1)
        missing = {"If-None-Match": f'"{SHA}"'}
        await self.assert_error(f"/v2/{NAME}/blobs/{SHA}", 404, "BLOB_UNKNOWN", headers=missing)


class RangeTests(RegistryCase):
    async def assert_ranges(self) -> None:
        size = len(BLOB)
        for asked, first, stop in (
            ("bytes=0-", 0, size),
            ("bytes=0-0", 0, 1),
            ("bytes=100-199", 100, 200),
            (f"bytes={size - 1}-", size - 1, size),
            (f"bytes=100-{size}", 100, size),
            ("bytes=10-999999999", 10, size),
            ("bytes=-7", size - 7, size),
            ("bytes=-999999", 0, size),
            ("Bytes = 5-6", 5, 7),
        ):
            answer = await self.ask(self.blob_path, {"Range": asked})
            self.assertEqual((answer.status, answer.body), (206, BLOB[first:stop]), asked)
            self.assertEqual(answer.header("Content-Range"), f"bytes {first}-{stop - 1}/{size}", asked)
            self.assertEqual(answer.header("Content-Length"), str(stop - first), asked)
            self.assertEqual(answer.header("Content-Type"), "application/octet-stream")

    async def assert_refused(self) -> None:
        for asked in (f"bytes={len(BLOB)}-", "bytes=-0", "bytes=99999999-", "bytes=5-1"):
            answer = await self.assert_error(self.blob_path, 416, "RANGE_INVALID", headers={"Range": asked})
            self.assertEqual(answer.header("Content-Range"), f"bytes */{len(BLOB)}")

    async def test_single(self) -> None:
        """A single range is a 206 with an exact Content-Range and a type; ends past the end are clamped."""
        await self.assert_ranges()

    async def test_refused(self) -> None:
        """416 comes when the range starts at or past the end, or ends before it begins, and only then."""
        await self.assert_refused()

    async def test_upstream_without_ranges(self) -> None:
        """An upstream that answers 200 to a Range makes no difference to the client."""
        self.upstream.ranges = False
        await self.assert_ranges()
        await self.assert_refused()

    async def test_upstream_without_ranges_or_length(self) -> None:
        """Without a length either, the whole is the answer: a range of it could not be told."""
        self.upstream.on("blob", Fault(ignore_range=True, chunked=True), times=None)
        answer = await self.ask(self.blob_path, {"Range": "bytes=5-"})
        self.assertEqual((answer.status, answer.body), (200, BLOB))

    async def test_other_range_than_asked(self) -> None:
        """A 206 of another range than was asked for never passes for it."""
        for content_range in ("bytes 0-9/10240", "bytes 50-59/*", "bytes 50-59/55", "nonsense", None):
            self.upstream.on("blob", Fault(headers={"Content-Range": content_range}))
            await self.assert_error(self.blob_path, 502, "UNAVAILABLE", headers={"Range": "bytes=100-109"})

    async def test_part_of_what_was_asked_whole(self) -> None:
        """A 206 to a request for the whole is an error."""
        self.upstream.on("blob", Fault(status=206))
        await self.assert_error(self.blob_path, 502, "UNAVAILABLE")

    async def test_several_ranges(self) -> None:
        """Several ranges, malformed ones and other units get the whole: always correct, and never one part."""
        for asked in ("bytes=0-1,5-6", "bytes=", "bytes=-", "lines=1-2", "bytes=a-b", "bytes=0-1, "):
            answer = await self.ask(self.blob_path, {"Range": asked})
            self.assertEqual((answer.status, answer.body), (200, BLOB), asked)
            self.assertIsNone(answer.header("Content-Range"))

    async def test_if_range(self) -> None:
        """If-Range with the digest gets the part; with anything else, the whole."""
        for condition, status in (
            (f'"{self.digest}"', 206),
            (f'W/"{self.digest}"', 200),
            (f'"{SHA}"', 200),
            ("Wed, 21 Oct 2015 07:28:00 GMT", 200),
        ):
            answer = await self.ask(self.blob_path, {"Range": "bytes=1-2", "If-Range": condition})
            self.assertEqual(answer.status, status, condition)
