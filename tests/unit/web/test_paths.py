"""Which paths, names and methods lead where, and which nowhere."""

from __future__ import annotations

from attrs import evolve

from docxy.settings.model import Config, Upstream
from tests.fakes import Auth
from tests.harness.mirror import NAME, RegistryCase


class PathTests(RegistryCase):
    async def test_shapes(self) -> None:
        """An image is found by path prefix (dockerd's, BuildKit's, k3s's), `ns` and Host, in whatever case."""
        rest = f"{NAME}/manifests/latest"
        for path, host in (
            (f"/v2/{rest}", "x"),
            (f"/v2/fake.test/{rest}", "x"),
            (f"/fake.test/v2/{rest}", "x"),
            (f"/v2/alias.test/{rest}", "x"),
            (f"/v2/FAKE.test/{rest}", "x"),
            (f"/v2/{rest}?ns=fake.test", "x"),
            (f"/v2/{rest}?ns=ALIAS.test", "x"),
            (f"/v2/{rest}", "fake.mirror.test:5000"),
            (f"/v2/{rest}?ns=", "x"),
        ):
            answer = await self.ask(path, {"Host": host})
            self.assertEqual(answer.status, 200, path)
            self.assertEqual(self.upstream.requests[-1].path, f"/v2/{rest}")
            self.assertEqual(self.upstream.requests[-1].raw_query, "")

    async def test_ns_of_ourselves(self) -> None:
        """An `ns` that is our own name says nothing and is ignored."""
        for ns in ("mirror.test", "own.test:5000"):
            answer = await self.ask(f"{self.manifest_path}?ns={ns}", {"Host": "own.test:5000"})
            self.assertEqual((answer.status, answer.header("OCI-Namespace")), (200, None))

    async def test_ns_is_echoed(self) -> None:
        """What was found by `ns` says which namespace it is from."""
        answer = await self.ask(f"{self.manifest_path}?ns=alias.test")
        self.assertEqual(answer.header("OCI-Namespace"), "fake.test")
        self.assertIsNone((await self.ask(self.manifest_path)).header("OCI-Namespace"))

    async def test_ns_allow_list(self) -> None:
        """An `ns` or prefix that is not configured is refused, whatever it points to, and nobody is asked."""
        foreign = self.upstream.url.removeprefix("http://")
        for path in (
            f"{self.manifest_path}?ns={foreign}",
            f"{self.manifest_path}?ns=169.254.169.254",
            f"{self.manifest_path}?ns=a%0d%0ab",
            f"{self.manifest_path}?ns=%C3%A9.test",
            f"/{foreign}/v2/{NAME}/manifests/latest",
        ):
            await self.assert_error(path, 404, "NAME_UNKNOWN")
        self.assertEqual(self.upstream.requests, [])

    async def test_ping_and_endpoint_agree(self) -> None:
        """Without a challenge on the ping there is none later, for what is private neither."""
        self.upstream.auth = Auth("bearer", private={NAME})
        self.assertEqual((await self.ask("/v2/")).status, 200)
        for path, code in ((self.manifest_path, "MANIFEST_UNKNOWN"), (self.blob_path, "BLOB_UNKNOWN")):
            answer = await self.assert_error(path, 404, code)
            self.assertIsNone(answer.header("WWW-Authenticate"))

    async def test_malformed_names(self) -> None:
        """Names outside the grammar are 400 or 404 in JSON, never 500, and go nowhere."""
        for name in ("Team/app", "team//app", "-x", "x-", "team/.app", "a" * 300, "team/a__b__", "te am", "%2e%2e"):
            answer = await self.ask(f"/v2/{name.replace(' ', '%20')}/manifests/latest")
            self.assertIn(answer.status, (400, 404), name)
            self.assertIn(answer.code, ("NAME_INVALID", "UNSUPPORTED"))
        self.assertEqual(self.upstream.requests, [])

    async def test_malformed_references(self) -> None:
        """Malformed tags and digests are 400 with their code."""
        for digest in ("sha256:", "sha256:abc", f"sha256:{'A' * 64}", f"md5:{'0' * 32}", f"sha512:{'0' * 64}", "a:b:c"):
            for kind in ("blobs", "manifests", "referrers"):
                await self.assert_error(f"/v2/{NAME}/{kind}/{digest}", 400, "DIGEST_INVALID")
        await self.assert_error(f"/v2/{NAME}/blobs/latest", 400, "DIGEST_INVALID")
        for tag in (".x", "-x", "a" * 129, "a%20b", "a%0d%0aX", "a%00", "a%22", "..", "%2e%2e"):
            await self.assert_error(f"/v2/{NAME}/manifests/{tag}", 400, "TAG_INVALID")
        self.assertEqual(self.upstream.requests, [])

    async def test_odd_paths(self) -> None:
        """Encoded slashes, dot segments, and bytes that are not ASCII lead nowhere."""
        for path in (
            "/v2/team%2Fapp/manifests/latest",
            f"/v2/{NAME}/manifests/a%2Fb",
            f"/v2/{NAME}/../../v2/x/manifests/latest",
            f"/v2/../v2/{NAME}/manifests/latest",
            f"/v2/{NAME}/manifests/caf%C3%A9",
            f"/v2/{NAME}/manifests/%FF",
            f"/v2/{NAME}/manifests/",
            f"/v2/{NAME}/manifests",
            f"/v2/{NAME}",
            f"/v2/{NAME}/tags/other",
            f"/v2/{NAME}/what/latest",
            "/v2/_catalog",
            "//v2/",
            "/status/nothing",
            "/status/live/below",
            "/v1/",
            "/index.html",
            "/v2/manifests/latest",
        ):
            answer = await self.ask(path)
            self.assertIn(answer.status, (400, 404), path)
            self.assertEqual(answer.header("Content-Type"), "application/json", path)
        self.assertEqual(self.upstream.requests, [])

    async def test_raw_bytes_in_the_path(self) -> None:
        """A path with bytes that no client library would send is refused, and the connection with it."""
        status, _, _ = await self.exchange("GET /v2/\xe9\xff/manifests/x HTTP/1.1\nHost: x\n\n")
        self.assertEqual(status, 400)
        self.assertEqual(self.upstream.requests, [])

    async def test_writes(self) -> None:
        """Writes are 405 with Allow and UNSUPPORTED, by every method and path, and go nowhere."""
        for method, path in (
            ("POST", f"/v2/{NAME}/blobs/uploads/"),
            ("PUT", self.manifest_path),
            ("PATCH", f"/v2/{NAME}/blobs/uploads/1"),
            ("DELETE", self.manifest_path),
            ("DELETE", self.blob_path),
            ("PROPFIND", "/v2/"),
        ):
            answer = await self.assert_error(path, 405, "UNSUPPORTED", method=method, body=b"x")
            self.assertEqual(answer.header("Allow"), "GET, HEAD")
        self.assertEqual(self.upstream.requests, [])


class LibraryTests(RegistryCase):
    library = True

    def make_config(self) -> Config:
        plain = Upstream("plain.test", self.upstream.url, private=True)
        return evolve(super().make_config(), upstreams=(self.make_upstream(), plain))

    async def test_library(self) -> None:
        """Single-component names get `library/` in path and scope, others and other upstreams' do not."""
        self.upstream.auth = Auth("bearer")
        for path, reached in (
            ("/v2/busybox/manifests/latest", "library/busybox"),
            ("/v2/library/busybox/manifests/latest", "library/busybox"),
            ("/v2/fake.test/busybox/manifests/latest", "library/busybox"),
            (f"/v2/{NAME}/manifests/latest", NAME),
            ("/v2/plain.test/busybox/manifests/latest", "busybox"),
            ("/v2/busybox/manifests/latest?ns=plain.test", "busybox"),
        ):
            self.upstream.requests.clear()
            self.upstream.add_image(reached)
            self.upstream.auth.revoke()
            self.assertEqual((await self.ask(path)).status, 200, path)
            self.assertEqual({each.repository for each in self.upstream.select("manifest")}, {reached})
            for request in self.upstream.select("token"):
                self.assertEqual(request.query["scope"], [f"repository:{reached}:pull"])

    async def test_unconfigured_registry(self) -> None:
        """On Docker Hub a first component with a dot can only be a registry, here one that is not configured."""
        for path in ("/v2/ghcr.io/x/y/manifests/latest", "/v2/localhost:5000/x/manifests/latest"):
            await self.assert_error(path, 404, "NAME_UNKNOWN")
