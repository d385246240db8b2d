"""Events of a docxy with workers: whoever saw it, and however many did, a receiver hears of it once."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from docxy.names import OCI_MANIFEST
from tests.process.workers.harness import Upstream, WorkersCase

SECRET = b"0123456789abcdef01234567"
TAG = "/v2/team/app/manifests/latest"


class Receiver:
    """Takes events whose signature is right."""

    def __init__(self, test: WorkersCase) -> None:
        self.events: list[dict[str, Any]] = []
        self.changed = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                signed = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + body
                expected = base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
                right = self.headers["webhook-signature"] == f"v1,{expected}"
                self.send_response(204 if right else 401)
                self.end_headers()
                with receiver.changed:
                    receiver.events += [json.loads(body)] if right else []
                    receiver.changed.notify_all()

            def log_message(self, format: str, *args: object) -> None:
                """Not for the console."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        serving = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        serving.start()
        test.addCleanup(serving.join)
        test.addCleanup(self.server.server_close)
        test.addCleanup(self.server.shutdown)

    def until_subjects(self, expected: list[tuple[str, str]]) -> None:
        """Return when these events have come; each is a type and a subject."""

        def come() -> list[tuple[str, str]]:
            return [(event["type"], event["subject"]) for event in self.events]

        with self.changed:
            if not self.changed.wait_for(lambda: come() == expected, 30):
                raise AssertionError(f"{come()} in place of {expected}")

    def until(self, count: int) -> list[tuple[str, str]]:
        """Types and digests of the events once there are so many."""
        with self.changed:
            if not self.changed.wait_for(lambda: len(self.events) >= count, 30):
                raise AssertionError(f"only {self.events}")
            return [(event["type"], event["data"]["digest"]) for event in self.events]


class WebhookTests(WorkersCase):
    def test_reload(self) -> None:
        """A reload puts receivers in force; a wrong file leaves those that there are."""
        upstream, first, second = Upstream(self), Receiver(self), Receiver(self)
        directory = Path(self.mktemp()).resolve()
        directory.mkdir()
        secret, config = directory / "secret", directory / "docxy.toml"
        secret.write_bytes(SECRET)
        config.write_text("")
        self.start(UPSTREAM=upstream.url, DOCXY_CONFIG=str(config), TAG_TTL="0")

        def hook(receiver: Receiver, secret_file: Path = secret) -> str:
            url = f"http://127.0.0.1:{receiver.server.server_port}/hook"
            return f'[[webhook]]\nurl = "{url}"\nsecret_file = "{secret_file}"\nevents = ["tag-moved"]\n'

        connection = self.connect(self.workers()[0])
        digests = []
        for generation, text in enumerate(("", hook(first), hook(second, directory / "none"), hook(second), "")):
            config.write_text(text)
            self.daemon.reload()
            body = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [], "annotations": {"n": str(generation)}}
            upstream.manifest = json.dumps(body).encode()
            digests.append(f"sha256:{hashlib.sha256(upstream.manifest).hexdigest()}")
            self.assertEqual(self.status(connection, TAG), 200)
            if generation in (1, 2):
                first.until(generation)
            elif generation == 3:
                second.until(1)
        self.daemon.stop()
        self.assertEqual(first.until(2), [("docxy.tag-moved", digest) for digest in digests[1:3]])
        self.assertEqual(second.until(1), [("docxy.tag-moved", digests[3])])

    def test_each(self) -> None:
        """Each kind of event, from what a registry and clients do to the receiver."""
        upstream, receiver = Upstream(self), Receiver(self)
        directory = Path(self.mktemp()).resolve()
        directory.mkdir()
        (directory / "secret").write_bytes(SECRET)
        config = directory / "docxy.toml"
        url = f"http://127.0.0.1:{receiver.server.server_port}/hook"
        text = (
            f'[[webhook]]\nurl = "{url}"\nsecret_file = "{directory / "secret"}"\n'
            f'[[upstreams]]\nname = "hub.test"\nurl = "{upstream.url}"\nprivate = true\n'
        )
        config.write_text(text)
        self.start(DOCXY_CONFIG=str(config), TAG_TTL="0", PREFETCH="off", UPSTREAM="")
        connection = self.connect(self.workers()[0])
        expected: list[tuple[str, str]] = []

        def happens(status: int, tag: str, *events: str) -> None:
            self.assertEqual(self.status(connection, f"/v2/team/app/manifests/{tag}"), status, tag)
            about = "hub.test" if events and events[0].startswith(("quota", "upstream")) else f"hub.test/team/app:{tag}"
            expected.extend((f"docxy.{event}", about) for event in events)
            receiver.until_subjects(expected)

        happens(200, "one")
        upstream.manifest = upstream.manifest.replace(b'"layers": []', b'"layers": [], "annotations": {}')
        happens(200, "one", "tag-moved")
        upstream.status = 404
        happens(404, "one", "tag-vanished")
        upstream.status = 200
        config.write_text(f'{text}[[recall]]\nimage = "hub.test/team/app:two"\nreason = "bad"\n')
        self.daemon.reload()
        happens(403, "two", "recalled-pulled")
        upstream.headers = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "7;w=21600"}
        happens(200, "three", "quota-low")
        upstream.headers, upstream.status = {"Retry-After": "60"}, 503
        happens(503, "four", "upstream-down")
        upstream.headers, upstream.status = {}, 200
        happens(200, "five", "upstream-up")

    def test_once(self) -> None:
        """Both workers see a tag move, twice: two events, in order, from the supervisor, each signed."""
        upstream, receiver = Upstream(self), Receiver(self)
        directory = Path(self.mktemp()).resolve()
        directory.mkdir()
        (directory / "secret").write_bytes(SECRET)
        config = directory / "docxy.toml"
        url = f"http://127.0.0.1:{receiver.server.server_port}/hook"
        config.write_text(
            f'[[webhook]]\nurl = "{url}"\nsecret_file = "{directory / "secret"}"\nevents = ["tag-moved"]\n'
        )
        self.start(UPSTREAM=upstream.url, DOCXY_CONFIG=str(config), TAG_TTL="0")
        digests = []
        for generation in range(3):
            body = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [], "annotations": {"n": str(generation)}}
            upstream.manifest = json.dumps(body).encode()
            digests.append(f"sha256:{hashlib.sha256(upstream.manifest).hexdigest()}")
            for connection in [self.connect(pid) for pid in self.workers()]:
                response = self.ask(connection, TAG)
                response.read()
                self.assertEqual(response.getheader("Docker-Content-Digest"), digests[-1])
        expected = [("docxy.tag-moved", digest) for digest in digests[1:]]
        self.assertEqual(receiver.until(2), expected)
        self.daemon.stop()
        self.assertEqual(receiver.until(2), expected)
        self.assertNotIn("/hook", self.daemon.text())
