"""What passes between client and upstream, and what a client is told of an upstream that fails."""

from __future__ import annotations

import json
from typing import Any

from tests.fakes import Fault
from tests.harness.mirror import NAME, SHA, RegistryCase


class HeaderTests(RegistryCase):
    async def test_leaking_headers(self) -> None:
        """What is the upstream's own (cookies, HSTS, signatures' flag, hop-by-hop) does not come through."""
        self.upstream.on(None, Fault.leaking(), times=None)
        for path in (self.manifest_path, self.blob_path, f"/v2/{NAME}/tags/list", f"/v2/{NAME}/manifests/no"):
            for method in ("GET", "HEAD"):
                answer = await self.ask(path, method=method)
                for name in (
                    "Set-Cookie",
                    "Strict-Transport-Security",
                    "X-Registry-Supports-Signatures",
                    "Keep-Alive",
                    "Connection",
                ):
                    self.assertIsNone(answer.header(name), f"{name} of {path}")

    async def test_cookies_are_not_kept(self) -> None:
        """A cookie that the upstream sets is not sent to it again."""
        self.upstream.on(None, Fault.leaking(), times=None)
        for _ in range(2):
            await self.ask(self.manifest_path, {"Cookie": "mine=1"})
        self.assertTrue(all("cookie" not in request.headers for request in self.upstream.requests))

    async def test_client_headers_stay_here(self) -> None:
        """Of a client's headers the upstream sees what it needs and nothing else."""
        headers: Any = {
            "Authorization": "Basic c2VjcmV0OnNlY3JldA==",
            "Cookie": "a=b",
            "X-Forwarded-For": "10.1.2.3",
            "X-Registry-Auth": "secret",
            "Proxy-Authorization": "Basic x",
            "User-Agent": "docker/27",
            "TE": "trailers",
        }
        await self.ask(self.blob_path, headers)
        names = set(self.sent("blob").headers)
        self.assertEqual(names - {"host", "user-agent", "accept-encoding", "accept"}, set())
        self.assertTrue(self.sent("blob").headers["user-agent"].startswith("docxy/"))

    async def test_identity(self) -> None:
        """Upstreams are asked for bytes as they are, whatever the client accepts, and nothing is compressed here."""
        for path in (self.manifest_path, self.blob_path, f"/v2/{NAME}/tags/list"):
            answer = await self.ask(path, {"Accept-Encoding": "zstd, gzip, deflate"})
            self.assertIsNone(answer.header("Content-Encoding"))
            self.assertEqual(self.upstream.requests[-1].headers["accept-encoding"], "identity")

    async def test_encoded_all_the_same(self) -> None:
        """A body that comes encoded although nobody asked is not passed for the bytes: its digest is another."""
        self.upstream.on("manifest", Fault(gzip=True))
        await self.assert_error(self.manifest_path, 502, "UNAVAILABLE")
        self.upstream.on("blob", Fault(gzip=True))
        await self.cut(self.blob_path)

    async def test_rate_limit_headers(self) -> None:
        """What an upstream says of its limits is the client's business too."""
        said: dict[str, str | None] = {"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "76;w=21600"}
        self.upstream.on("manifest", Fault(headers=said), times=2)
        for method in ("GET", "HEAD"):
            answer = await self.ask(self.manifest_path, method=method)
            self.assertEqual({name: answer.header(name) for name in said}, said)


class UpstreamFailingTests(RegistryCase):
    async def test_down(self) -> None:
        """An upstream that refuses connections is a 502 in JSON that names it; `/v2/` and `/health` stay 200."""
        await self.upstream.stop()
        for path in (self.manifest_path, self.blob_path, f"/v2/{NAME}/tags/list", f"/v2/{NAME}/referrers/{SHA}"):
            answer = await self.assert_error(path, 502, "UNAVAILABLE")
            self.assertIn(self.upstream.url, answer.json["errors"][0]["message"])
        for path in ("/v2/", "/health", "/startup"):
            self.assertEqual((await self.ask(path)).status, 200)

    async def test_statuses(self) -> None:
        """The upstream's 5xx are 502, its 503 is 503, and the bodies name it."""
        for status, ours in ((500, 502), (502, 502), (503, 503), (504, 502), (418, 502), (204, 502)):
            self.upstream.on(None, Fault(status=status), times=None)
            for path in (self.manifest_path, self.blob_path):
                answer = await self.assert_error(path, ours, "UNAVAILABLE")
                self.assertIn("fake.test", answer.json["errors"][0]["message"])
            self.upstream.rules.clear()

    async def test_dropped(self) -> None:
        """A connection that closes instead of an answer is a 502."""
        self.upstream.on("blob", Fault(drop=True), times=None)
        await self.assert_error(self.blob_path, 502, "UNAVAILABLE")

    async def test_denied(self) -> None:
        """The upstream's 403 is 403 DENIED."""
        self.upstream.on("manifest", Fault(status=403))
        await self.assert_error(self.manifest_path, 403, "DENIED")

    async def test_limited(self) -> None:
        """The upstream's 429 passes with its Retry-After."""
        self.upstream.on("manifest", Fault.too_many_requests("17"))
        answer = await self.assert_error(self.manifest_path, 429, "TOOMANYREQUESTS")
        self.assertEqual(answer.header("Retry-After"), "17")

    async def test_limited_without_a_time(self) -> None:
        """A 429 without Retry-After gets one: clients without it try again at once."""
        self.upstream.on("manifest", Fault.too_many_requests(None))
        answer = await self.assert_error(self.manifest_path, 429, "TOOMANYREQUESTS")
        self.assertGreaterEqual(int(answer.header("Retry-After") or "0"), 1)

    async def test_abuse(self) -> None:
        """Docker Hub's plain-text 429 with LF-only header lines is understood."""
        self.upstream.on("blob", Fault.abuse())
        answer = await self.assert_error(self.blob_path, 429, "TOOMANYREQUESTS")
        self.assertEqual(answer.header("Retry-After"), "60")

    async def test_messages_of_upstreams(self) -> None:
        """What an upstream says is told to the client, in printable characters and in short."""
        document = json.dumps({"errors": [{"code": "DENIED", "message": "no\x1b[31m way" + "x" * 5000}]})
        self.upstream.on("manifest", Fault(status=403, body=document.encode()))
        answer = await self.assert_error(self.manifest_path, 403, "DENIED")
        message = answer.json["errors"][0]["message"]
        self.assertIn("no[31m way", message)
        self.assertLess(len(message), 500)
        for odd in (b"\xff\xfe", b"[" * 20_000, b'{"errors": []}', b'{"errors": [1]}', b"null"):
            self.upstream.on("manifest", Fault(status=403, body=odd))
            await self.assert_error(self.manifest_path, 403, "DENIED")
