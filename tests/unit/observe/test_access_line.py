"""What a line of the access log says."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from docxy.observe.access_line import Combined, json_line
from docxy.routing import EndpointKind, Target
from docxy.settings.model import DOCKER_HUB
from docxy.web.request import Request

COMBINED = r'(\S+) \S+ (\S+) \[([^]]+)\] "([^"]*)" (\d+) (\d+) "([^"]*)" "([^"]*)" (.*)'
STAMP = "[15/Jan/2027:08:00:00 +0000]"


NOW = 1_800_000_000.25


def answered(uri: bytes, method: bytes = b"GET", agent: bytes | None = None, **more: Any) -> Any:
    """A request that was answered."""
    fields: dict[bytes, list[bytes]] = {} if agent is None else {b"user-agent": [agent]}
    channel: Any = SimpleNamespace(site=None)
    request = Request(channel, method, uri, "1.1", fields)
    request.code, request.sentLength = 200, 7
    for name, value in {"request_id": "r-1", "headed": 0.0, "length": 7, **more}.items():
        setattr(request, name, value)
    return request


def asked(uri: bytes, method: bytes = b"GET", agent: bytes | None = None, **more: Any) -> str:
    """A request's line, without its start up to the time."""
    request = answered(uri, method, agent, **more)
    start = f"192.0.2.1 - - {STAMP} "
    line = Combined()(request, "192.0.2.1", NOW, 0.25)
    assert line.startswith(start) or "account" in more, line
    return line.removeprefix(start)


class LineTests(SynchronousTestCase):
    def test_line(self) -> None:
        """The Combined Log Format, and behind it duration, cache, upstream and id; never the query."""
        self.assertEqual(
            asked(b"/v2/a/manifests/b?ns=x&token=sesame"),
            '"GET /v2/a/manifests/b HTTP/1.1" 200 7 "-" "-" 0.250 - - r-1',
        )
        line = asked(b"/v2/", agent=b"containerd/2.1", about=("docker.io", "blobs"), cache_status="docxy; hit; ttl=9")
        self.assertEqual(line, '"GET /v2/ HTTP/1.1" 200 7 "-" "containerd/2.1" 0.250 hit docker.io r-1')

    def test_combined(self) -> None:
        """What reads that format, GoAccess or fail2ban, finds each field."""
        line = asked(b"/v2/", agent=b"docker/29.0 (linux)", account='alice b"c\u20ac')
        fields = re.fullmatch(COMBINED, line)
        assert fields is not None, line
        self.assertEqual(
            fields.groups(),
            (
                "192.0.2.1",
                r"alice\x20b\x22c\xe2\x82\xac",
                STAMP[1:-1],
                "GET /v2/ HTTP/1.1",
                "200",
                "7",
                "-",
                "docker/29.0 (linux)",
                "0.250 - - r-1",
            ),
        )

    def test_forged(self) -> None:
        """Nothing a client writes ends the line or its quotes, or is a terminal's control sequence."""
        for uri, shown in (
            (b'/a" 500 1', "/a\\x22 500 1"),
            (b"/a\\", "/a\\x5c"),
            (b"/\x1b[2J", "/\\x1b[2J"),
            (b"/\xff\xfe", "/\\xff\\xfe"),
            (b"/a\r\n127.0.0.1", "/a\\x0d\\x0a127.0.0.1"),
        ):
            self.assertEqual(asked(uri), f'"GET {shown} HTTP/1.1" 200 7 "-" "-" 0.250 - - r-1')
        self.assertIn('"G\\x0aT\\xff / HTTP/1.1"', asked(b"/", b"G\nT\xff"))
        self.assertIn(' "a\\x22 b\\x0a" 0.250', asked(b"/", agent=b'a" b\n'))

    def test_long(self) -> None:
        """A path, a method or a client's name of any length makes a line of some hundred characters."""
        self.assertLess(len(asked(b"/" + b"a" * 10_000, b"M" * 10_000, b"u" * 10_000)), 750)


class JSONTests(SynchronousTestCase):
    """An object a line."""

    def told(self, uri: bytes, **more: Any) -> dict[str, Any]:
        line = json_line(answered(uri, **more), "192.0.2.1", NOW, 0.25)
        self.assertNotIn("\n", line)
        found: dict[str, Any] = json.loads(line)
        return found

    def test_pull(self) -> None:
        """A pull is there with all that is known of it, and without its query."""
        digest = "sha256:" + "a" * 64
        told = self.told(
            b"/v2/library/alpine/manifests/3.20?ns=docker.io&sig=sesame",
            agent=b"containerd/2.1",
            account="alice",
            about=("docker.io", "manifests"),
            target=Target(DOCKER_HUB, EndpointKind.MANIFESTS, "library/alpine", "3.20"),
            digest=digest,
            cache_status="docxy; fwd=miss; stored",
            started=10.0,
            headed=10.125,
        )
        self.assertEqual(
            told,
            {
                "time": "2027-01-15T08:00:00.250Z",
                "log": "access",
                "client": "192.0.2.1",
                "user": "alice",
                "method": "GET",
                "path": "/v2/library/alpine/manifests/3.20",
                "status": 200,
                "bytes": 7,
                "whole": True,
                "seconds": 0.25,
                "first_byte": 0.125,
                "upstream": "docker.io",
                "repository": "library/alpine",
                "reference": "3.20",
                "digest": digest,
                "cache": "miss",
                "agent": "containerd/2.1",
                "request_id": "r-1",
            },
        )

    def test_anything_else(self) -> None:
        """All keys are in each line, null where there is nothing to say."""
        told = self.told(b"/health")
        nothing = {"user", "upstream", "repository", "reference", "digest", "cache", "agent"}
        self.assertEqual({key for key, value in told.items() if value is None}, nothing)

    def test_client_gone(self) -> None:
        """An answer that broke off is not whole; where there was none, the status is 499."""
        told = self.told(b"/v2/a/blobs/b", length=100)
        self.assertEqual((told["status"], told["bytes"], told["whole"]), (200, 7, False))
        told = self.told(b"/v2/a/blobs/b", length=None, headed=None, sentLength=0)
        self.assertEqual((told["status"], told["bytes"], told["whole"], told["first_byte"]), (499, 0, False, None))

    def test_forged_and_long(self) -> None:
        """What a client writes stays within its string, and within bounds."""
        told = self.told(b'/a"\r\n,\xff' + b"a" * 10_000, agent=b'u"' * 10_000, method=b"M" * 10_000)
        self.assertTrue(told["path"].startswith('/a"\r\n,\ufffd'))
        self.assertEqual([len(told[name]) for name in ("path", "agent", "method")], [512, 128, 16])
