"""What ties an answer to the lines about it, and what an answer says of its time."""

from __future__ import annotations

import json
import re
from functools import partial
from time import time
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from docxy.access.open_gate import OpenGate
from docxy.addresses import Perimeter
from docxy.observe.access_line import json_line
from docxy.observe.access_log import Formed
from docxy.observe.metrics import NoMeter
from docxy.web.connections import Connections
from docxy.web.request import Request
from docxy.web.site import LoggedSite
from tests.fakes import Fault
from tests.harness.mirror import RegistryCase
from tests.unit.pull.harness import REPOSITORY, MirrorCase, drain


class RequestIdTests(RegistryCase):
    async def test_taken(self) -> None:
        """An id that a client or a proxy gave comes back, and is in the access log."""
        answer = await self.ask("/health", {"X-Request-Id": "Root=1-67891233-abcdef012345678912345678"})
        self.assertEqual(answer.header("X-Request-Id"), "Root=1-67891233-abcdef012345678912345678")
        self.assertIn(" - - Root=1-67891233-abcdef012345678912345678", self.logged.text)

    async def test_made(self) -> None:
        """Without one, or with one that is too long or not fit for a log, docxy makes one: another for each request."""
        made = set()
        for given in ("", "a b", 'a"b', "a\\b", "x" * 129, "{a}"):
            answer = await self.ask("/health", {"X-Request-Id": given} if given else {})
            found = answer.header("X-Request-Id")
            self.assertRegex(found, r"\A[0-9a-f]{16}\Z")
            made.add(found)
        self.assertEqual(len(made), 6)
        self.assertEqual((await self.ask("/health", {"X-Request-Id": "x" * 128})).header("X-Request-Id"), "x" * 128)

    async def test_errors(self) -> None:
        """A failure of an upstream is a line with the request's id, and without its query."""
        self.upstream.on("manifest", Fault(status=500), times=None)
        await self.ask(f"{self.manifest_path}?x=sesame", {"X-Request-Id": "r-7"})
        lines = [formatEvent(event) for event in self.logged.events]
        start = re.escape(f"GET {self.manifest_path} (request r-7): ")
        self.assertTrue(any(re.match(start, line) for line in lines), lines)
        self.assertNotIn("sesame", self.logged.text)


class Kept(Formed):
    """An access log that a test reads."""

    def __init__(self) -> None:
        Formed.__init__(self, json_line)
        self.lines: list[dict[str, Any]] = []

    def write(self, line: str) -> None:
        self.lines.append(json.loads(line))


class Beginning(Resource):
    """Says as much of 100 bytes as the path has; nothing at all for `/`."""

    isLeaf = True

    def render(self, request: Request) -> int:
        if len(request.path) > 1:
            request.start(200, (), 100)
            request.write(request.path[1:])
        return NOT_DONE_YET


class LostTests(SynchronousTestCase):
    def test_client_gone(self) -> None:
        """A client that goes away has a line, too, with what it got."""
        lines = Kept()
        site: Any = LoggedSite(Beginning(), OpenGate(Perimeter), lines, NoMeter(), Connections(0, 0, time), time)
        site.reactor = MemoryReactorClock()
        for path in (b"/", b"/abc"):
            channel = site.buildProtocol(None)
            channel.makeConnection(StringTransport())
            channel.dataReceived(b"GET %b HTTP/1.1\r\nHost: x\r\nX-Request-Id: r-8\r\n\r\n" % path)
            self.assertEqual(lines.lines, [])
            channel.connectionLost(Failure(ConnectionLost()))
            told = lines.lines.pop()
            self.assertEqual((told["path"], told["request_id"], told["whole"]), (path.decode(), "r-8", False))
            self.assertEqual((told["status"], told["bytes"]), (499, 0) if path == b"/" else (200, 3))


class ServerTimingTests(MirrorCase):
    async def test_server_timing(self) -> None:
        """How the cache answered; and, where the registry was asked, how long that took."""
        self.upstream.add_image(REPOSITORY)
        layer = self.upstream.add_blob(REPOSITORY, b"a layer")
        for ask in (partial(self.mirror.manifest, "latest"), partial(self.mirror.blob, layer)):
            first = (await ask()).header("Server-Timing")
            self.assertRegex(first, r"\Acache;desc=miss, upstream;dur=\d+\.\d\Z")
            await drain(self.mirror, layer)
            self.assertEqual((await ask()).header("Server-Timing"), "cache;desc=hit")
            self.assertEqual((await ask(method="HEAD")).header("Server-Timing"), "cache;desc=hit")

    async def test_where(self) -> None:
        """Manifests and blobs that come, whole or in part, have it; whatever else docxy answers has none."""
        self.upstream.add_image(REPOSITORY)
        layer = self.upstream.add_blob(REPOSITORY, b"a layer")
        manifest, blob = f"/v2/{REPOSITORY}/manifests/latest", f"/v2/{REPOSITORY}/blobs/{layer}"
        etag = str((await self.mirror.ask(manifest)).header("ETag"))
        await self.mirror.ask(blob)
        await drain(self.mirror, layer)
        asked = (
            (manifest, {}, 200),
            (blob, {}, 200),
            (blob, {"Range": "bytes=1-2"}, 206),
            (blob, {"Range": "bytes=100-"}, 416),
            (manifest, {"If-None-Match": etag}, 304),
            (f"/v2/{REPOSITORY}/manifests/none", {}, 404),
            (f"/v2/{REPOSITORY}/tags/list", {}, 200),
            ("/v2/", {}, 200),
            ("/health", {}, 200),
            ("/status.json", {}, 200),
        )
        having = []
        for path, headers, status in asked:
            answer = await self.mirror.ask(path, headers)
            self.assertEqual(answer.status, status, path)
            if answer.header("Server-Timing") is not None:
                having.append((path, status))
        self.assertEqual(having, [(manifest, 200), (blob, 200), (blob, 206), (manifest, 304)])
