"""Whether a bucket ends incomplete uploads."""

from __future__ import annotations

import threading
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from docxy.archive import lifecycle
from docxy.archive.lifecycle import ends_incomplete
from docxy.settings.model import ArchiveSettings

RULE = (
    b"<LifecycleConfiguration><Rule><Status>%s</Status><AbortIncompleteMultipartUpload><DaysAfterInitiation>1"
    b"</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule></LifecycleConfiguration>"
)
OTHER = b"<LifecycleConfiguration><Rule><Status>Enabled</Status><Expiration/></Rule></LifecycleConfiguration>"


class Store(ThreadingHTTPServer):
    answer = (200, b"")
    paths: list[str]


class Handler(BaseHTTPRequestHandler):
    server: Store

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        status, body = self.server.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Not for the console."""


class LifecycleTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.store = Store(("127.0.0.1", 0), Handler)
        self.store.paths = []
        serving = threading.Thread(target=self.store.serve_forever, args=(0.01,))
        serving.start()
        self.addCleanup(serving.join)
        self.addCleanup(self.store.server_close)
        self.addCleanup(self.store.shutdown)
        self.settings = ArchiveSettings(
            "s3://bucket/prefix",
            endpoint=f"http://127.0.0.1:{self.store.server_port}",
            access_key="docxy",
            secret=b"secret",
        )

    def test_says(self) -> None:
        """What each answer means; the bucket is asked, not the prefix."""
        for answer, ends in (
            ((200, RULE % b"Enabled"), True),
            ((200, RULE % b"Disabled"), False),
            ((200, OTHER), False),
            ((404, b"<Error><Code>NoSuchLifecycleConfiguration</Code></Error>"), False),
            ((501, b"<Error><Code>NotImplemented</Code></Error>"), None),
            ((403, b""), None),
        ):
            self.store.answer = answer
            self.assertIs(ends_incomplete(self.settings), ends, answer)
        self.assertEqual(set(self.store.paths), {"/bucket?lifecycle="})

    def test_not_asked(self) -> None:
        """Where there is nothing to sign with, and where it is no S3, nobody is asked."""
        for settings in (evolve(self.settings, access_key=None, secret=None), ArchiveSettings("gs://bucket")):
            self.assertIsNone(ends_incomplete(settings))
        self.assertEqual(self.store.paths, [])

    def test_nobody_there(self) -> None:
        self.assertIsNone(ends_incomplete(evolve(self.settings, endpoint="http://127.0.0.1:9")))

    def test_signature(self) -> None:
        """That of the example in Amazon's documentation of Signature Version 4."""
        headers = lifecycle._signed(
            "examplebucket.s3.amazonaws.com",
            "/",
            "us-east-1",
            "AKIAIOSFODNN7EXAMPLE",
            b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            datetime(2013, 5, 24, tzinfo=timezone.utc),
        )
        self.assertIn(
            "Signature=fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543", headers["Authorization"]
        )
