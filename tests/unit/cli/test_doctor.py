"""`docxy doctor`: each trouble is found, and named with its mend."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import threading
from datetime import timedelta
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest import mock
from urllib.request import OpenerDirector

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from docxy.cli.checks import certificate, covers, disk, ports, skewed
from docxy.cli.issuing import acme
from docxy.cli.reach import accounts
from docxy.daemon.certificates import make_pair
from docxy.daemon.issuing.state import IssuingRecord, StateDirectory
from docxy.settings.load import load
from docxy.settings.model import Credential, Upstream
from tests.harness.certificates import issue
from tests.unit.cli.case import AdminCase

Found = dict[str, tuple[str, str]]
"""What was found -> level and words."""


class Registry(ThreadingHTTPServer):
    status = 401
    date: float | None = None
    realm = "https://auth.example/token"


class Handler(BaseHTTPRequestHandler):
    server: Registry

    def do_GET(self) -> None:
        if self.path.startswith("/token?service=s"):
            is_right = self.headers["Authorization"] == "Basic dTpodW50ZXIy"
            self.send_response(200 if is_right else 401)
            self.end_headers()
            return
        self.send_response_only(self.server.status)
        self.send_header("Date", formatdate(self.server.date, usegmt=True))
        if self.server.status == 401:
            self.send_header("WWW-Authenticate", f'Bearer realm="{self.server.realm}",service="s"')
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Not for the console."""


class DoctorTests(AdminCase):
    """The whole command, in front of a registry on loopback."""

    def setUp(self) -> None:
        super().setUp()
        self.answers["names"] = [{"done": {}}]
        self.snapshot = {**self.snapshot, "docxy": {**self.snapshot["docxy"], "public_url": "http://127.0.0.1:9"}}
        self.registry = Registry(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.registry.server_port}"
        serving = threading.Thread(target=self.registry.serve_forever, args=(0.01,))
        serving.start()
        self.addCleanup(serving.join)
        self.addCleanup(self.registry.server_close)
        self.addCleanup(self.registry.shutdown)

    def found(
        self, status: int, text: str = "", url: str = "", account: str = "private = true\n"
    ) -> dict[str, tuple[str, str]]:
        """The findings, by what they are about; the last one counts."""
        path = self.directory / "docxy.toml"
        path.write_text(
            f'cert = "off"\nport = "tcp:0:interface=127.0.0.1"\ncache = "{self.directory}"\n{text}\n'
            f'[[upstreams]]\nname = "fake.test"\nurl = "{url or self.url}"\n{account}'
        )
        told = json.loads(self.said(status, "doctor", "--config", str(path), "--json"))
        for each in told:
            self.assertEqual(bool(each["mend"]), each["level"] != "good", each)
        return {each["what"]: (each["level"], each["words"]) for each in told}

    def test_well(self) -> None:
        """All is well; it reads in 80 columns."""
        found = self.found(0)
        self.assertEqual(found["docxy"], ("good", "runs"))
        self.assertIn("asks for a login (Bearer)", found["fake.test"][1])
        self.assertIn("mirrors fake.test", self.said(0, "doctor", "--config", str(self.directory / "docxy.toml")))

    def test_registry(self) -> None:
        """A registry that is none, that nobody serves, that has no address, that speaks no TLS."""
        self.registry.status = 404
        self.assertEqual(self.found(1)["fake.test"], ("bad", f"{self.url} answers 404"))
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            closed = f"http://127.0.0.1:{nobody.getsockname()[1]}"
            self.assertIn("Connection refused", self.found(1, url=closed)["fake.test"][1])
        self.assertIn("no address for", self.found(1, url="http://nowhere.invalid")["fake.test"][1])
        self.assertIn("no TLS", self.found(1, url=self.url.replace("http:", "https:"))["fake.test"][1])

    def test_accounts(self) -> None:
        """The right password, a wrong one, and a token service that may not see it; no password is shown."""
        self.registry.realm = f"{self.url}/token"
        for secret, status, words in (("hunter2", 0, "takes the account u"), ("hunter3", 1, "answers 401 to the")):
            file = self.directory / "secret"
            file.write_text(secret)
            more = f'private = true\nusername = "u"\npassword_file = "{file}"\n'
            self.assertIn(words, self.found(status, account=more)["fake.test"][1])
        self.registry.realm = "http://auth.example/token"
        told = self.found(1, account=more)["fake.test"]
        self.assertIn("realm_hosts", told[1])
        self.assertNotIn("hunter", told[1])

    def test_clock(self) -> None:
        """A clock that is an hour off is found by the Date of an answer."""
        self.registry.date = 1_000_000_000.0
        self.assertEqual(self.found(1)["clock"][0], "bad")
        self.assertIsNone(skewed("x", 30.0))

    def test_configuration(self) -> None:
        """A configuration that docxy would not start with is all that can be said."""
        self.assertEqual(list(self.found(1, "prot = 1")), ["configuration"])

    def test_name(self) -> None:
        """A public URL whose name has no address."""
        told: Any = self.snapshot
        told["docxy"]["public_url"] = "https://nowhere.invalid"
        self.assertEqual(self.found(1)["name"][0], "bad")

    def test_speed(self) -> None:
        """The disk is tried, and nothing is left on it."""
        before = sorted(path.name for path in self.directory.iterdir())
        self.assertIn("syncs in", self.found(0)["disk"][1])
        self.assertEqual(sorted(path.name for path in self.directory.iterdir()), sorted([*before, "docxy.toml"]))

    def test_nothing_cached(self) -> None:
        """Without an image there is nothing to pull."""
        self.assertIn("--image", self.found(0)["a pull"][1])

    def test_disk(self) -> None:
        """A cache that is larger than its disk."""
        self.assertIn("but cache_size is", self.found(0, 'cache_size = "9000TB"')["cache"][1])


class AccountsTests(SynchronousTestCase):
    def test_related(self) -> None:
        """A token service of the same domain, which may be another customer's, is not asked with a password."""
        opener = mock.Mock(spec=OpenerDirector)
        upstream = Upstream("x", "https://one.example.com", credentials=(Credential("u", "hunter2"),))
        (found,) = accounts(upstream, opener, ['Bearer realm="https://two.example.com/token",service="s"'])
        self.assertEqual(found.level, "bad")
        self.assertEqual(opener.mock_calls, [])


class ChecksTests(SynchronousTestCase):
    """What the command looks at, one by one."""

    def test_certificate(self) -> None:
        """Its end, and whether it covers the public URL."""
        config = evolve(load({}, {"CERT_PATH": "off"}, root=True), public_url="https://mirror.example", cert="c")
        for name, level in (("mirror.example", "good"), ("*.example", "good"), ("other.example", "bad")):
            issued = issue(name)
            pair = make_pair("c", "k", (issued.pem, issued.key_pem()))
            self.assertEqual([found.level for found in certificate(config, pair)][1], level, name)
            for left, expected in ((timedelta(days=13), "warn"), (timedelta(days=-1), "bad")):
                first = next(certificate(config, pair, pair.expires - left))
                self.assertEqual((first.level, bool(first.mend)), (expected, True))
        self.assertFalse(covers("*.example", "a.b.example"))

    def test_own_certificate(self) -> None:
        """One that docxy is still to get: what went wrong the last time, and where to look; short lives are fine."""
        state = StateDirectory(os.path.abspath(tempfile.mkdtemp()))
        self.addCleanup(shutil.rmtree, state.directory)
        given = {"acme": "mirror.example", "cache": "off", "state": state.directory}
        config = load(given, {})
        (found,) = certificate(config, None)
        self.assertEqual(found.level, "warn")
        state.remember(IssuingRecord("https://ca.example", 1, 1.0, "mirror.example was not validated", 1.0))
        (found,) = certificate(config, None)
        self.assertEqual((found.level, found.words), ("bad", "none: mirror.example was not validated"))
        self.assertIn("port 80", found.mend)
        (found,) = certificate(load({"tls": "internal", **given, "acme": None}, {}), None)
        self.assertEqual(found.level, "good")
        issued = issue("mirror.example", days=3)
        pair = make_pair("c", "c", (issued.pem, issued.key_pem()))
        self.assertEqual([each.level for each in certificate(config, pair)], ["good"])

    def test_acme(self) -> None:
        """A name without an address, a port 80 where docxy answers, another program, or nobody."""
        config = load({"acme": "127.0.0.1", "cache": "off", "state": "/s"}, {})
        refused = mock.Mock(side_effect=socket.gaierror(-2, "Name or service not known"))
        (found,) = acme(config, is_running=True, resolve=refused)
        self.assertEqual((found.level, found.words), ("bad", "has no address: Name or service not known"))
        self.assertEqual(list(acme(config, is_running=False)), [])
        self.assertEqual(list(acme(load({"tls": "internal", "cache": "/c"}, {}), is_running=True)), [])
        for body, level in ((b'{"errors": [{"message": "no such challenge is open"}]}', "good"), (b"nginx", "bad")):
            (found,) = acme(config, True, self.answering(body))
            self.assertEqual(found.level, level)
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            (found,) = acme(config, True, closed.getsockname()[1])
        self.assertEqual(found.level, "warn")
        self.assertIn("Connection refused", found.words)

    def answering(self, body: bytes) -> int:
        """A port where some program answers everything so."""

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return server.server_address[1]

    def test_ports(self) -> None:
        """A port that another program has, and one that is free."""
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            number = other.getsockname()[1]
            config = evolve(load({}, {"CERT_PATH": "off"}), http=f"tcp:{number}:interface=127.0.0.1", metrics=None)
            (taken,) = ports(config, is_running=False)
            self.assertEqual((taken.level, taken.what), ("bad", f"port {number}"))
        (free,) = ports(config, is_running=False)
        self.assertEqual(free.level, "good")

    def test_pure_proxy(self) -> None:
        """Without a cache there is no disk to look at."""
        config = load({}, {"CERT_PATH": "off", "CACHE_DIR": "off"})
        self.assertEqual([found.level for found in disk(config, None)], ["good"])
