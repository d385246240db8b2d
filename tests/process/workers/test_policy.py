"""What an operator recalls stands in every worker at once: by the file and SIGHUP, by command, and after a restart."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext

from tests.harness.certificates import issue
from tests.harness.docxy import environment
from tests.process.workers.harness import MANIFEST, Upstream, WorkersCase

DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"


class PolicyTests(WorkersCase):
    def setUp(self) -> None:
        super().setUp()
        self.upstream = Upstream(self)
        self.upstream.gate.set()
        # A socket's path has a bound, which that of a test's directory may be beyond.
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        self.socket = f"{directory}/admin.sock"
        self.file = Path(self.mktemp()).resolve()
        self.table = f'[[upstreams]]\nname = "registry.example"\nurl = "{self.upstream.url}"\nprivate = true\n'
        self.file.write_text(self.table)

    def order(self, *arguments: str) -> None:
        """`docxy …`, which has to succeed."""
        code = "from docxy.cli.main import main; main()"
        environ = environment(ADMIN_SOCKET=self.socket)
        done = subprocess.run([sys.executable, "-c", code, *arguments], env=environ, capture_output=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)

    def answers(self, *paths: str) -> set[int]:
        """What each worker says to each path."""
        found = set()
        for pid in self.workers():
            connection = self.connect(pid)
            found |= {self.status(connection, path, {"Accept": "*/*"}) for path in paths}
        return found

    def leads(self, path: str) -> set[str | None]:
        """Where each worker says that a tag leads."""
        found = set()
        for pid in self.workers():
            response = self.ask(self.connect(pid), path, {"Accept": "*/*"})
            response.read()
            found.add(response.getheader("Docker-Content-Digest"))
        return found

    def test_hangup(self) -> None:
        """When a reload has ended every worker goes by the file's recalls and freezes; a wrong file takes none back."""
        self.start(DOCXY_CONFIG=str(self.file), UPSTREAM="", ADMIN_SOCKET=self.socket)
        paths = ("/v2/team/app/manifests/v1", f"/v2/other/app/manifests/{DIGEST}")
        self.assertEqual(self.answers(*paths), {200})
        recall = f'[[recall]]\ndigest = "{DIGEST}"\nreason = "bad"\n'
        self.file.write_text(self.table + recall)
        self.daemon.reload()
        self.assertEqual(self.answers(*paths), {403})
        self.file.write_text(self.table + recall + "[[recall]]\n")
        self.daemon.reload()
        self.assertEqual(self.answers(*paths), {403})
        self.assertIn("the policy in force stays as it was", self.daemon.text())
        # A worker that is started again has it, too, whatever the file says now.
        killed = self.workers()[0]
        os.kill(killed, signal.SIGKILL)
        self.daemon.until(lambda: killed not in self.workers())
        self.until_workers(2)
        self.assertEqual(self.answers(*paths), {403})
        self.file.write_text(self.table)
        self.daemon.reload()
        self.assertEqual(self.answers(*paths), {200})
        # A tag that nobody asked for yet, which leads elsewhere by now.
        self.upstream.manifest = MANIFEST.replace(b'"layers": []', b'"layers": [], "annotations": {}')
        freeze = f'[[freeze]]\nimage = "registry.example/team/app:v2"\ndigest = "{DIGEST}"\n'
        for text in (freeze, freeze + "[[freeze]]\n", ""):
            self.file.write_text(self.table + text)
            self.daemon.reload()
            led = self.leads("/v2/team/app/manifests/v2")
            self.assertEqual(led == {DIGEST}, bool(text), led)

    def test_addresses(self) -> None:
        """When a reload has ended every worker answers whom and for what the file says; a wrong one changes nothing."""
        self.start(DOCXY_CONFIG=str(self.file), UPSTREAM="", ADMIN_SOCKET=self.socket)
        path = "/v2/team/app/manifests/v1"
        self.assertEqual(self.answers(path), {200})
        denied = '[access]\ndeny = ["127.0.0.0/8"]\n'
        for text, status in (
            (self.table + denied, 403),
            (self.table + '[access]\ndeny = ["127.0.0.0/99"]\n', 403),
            (self.table + '[access]\nhtpasswd = "/nowhere"\n', 200),
            (self.table + denied, 403),
            (self.table + 'deny = ["team/*"]\n', 403),
            (self.table + 'allow = ["team/*"]\n', 200),
            (self.table, 200),
        ):
            self.file.write_text(text)
            self.daemon.reload()
            self.assertEqual(self.answers(path), {status}, text)
        self.assertIn("in force now: access (addresses)", self.daemon.text())
        self.assertIn("docxy would not start with the settings as they are now", self.daemon.text())
        self.assertIn("not in force yet, docxy upgrade does that: access (htpasswd)", self.daemon.text())

    def test_ages(self) -> None:
        """When a reload has ended every worker goes by the `min_age` of the file, and by the tags that never move."""
        self.start(DOCXY_CONFIG=str(self.file), UPSTREAM="", ADMIN_SOCKET=self.socket, TAG_TTL="0", PREFETCH="off")
        path = "/v2/team/app/manifests/v1"
        denying = self.table + 'min_age = "3d"\non_new = "deny"\n'
        excepted = '[[cooldown]]\nimages = ["registry.example/team/**"]\nmin_age = "0s"\n'
        self.assertEqual(self.answers(path), {200})
        for text, status in (
            (denying, 403),
            (self.table + 'min_age = "three"\n', 403),
            (self.table + "min_age", 403),
            (denying + excepted, 200),
            (denying, 403),
        ):
            self.file.write_text(text)
            self.daemon.reload()
            self.assertEqual(self.answers(path), {status}, text)
        self.assertIn("in force now: upstreams.registry.example (min_age)", self.daemon.text())
        killed = self.workers()[0]
        os.kill(killed, signal.SIGKILL)
        self.daemon.until(lambda: killed not in self.workers())
        self.until_workers(2)
        self.assertEqual(self.answers(path), {403})
        self.file.write_text(self.table + 'immutable = ["team/app:v*"]\n')
        self.daemon.reload()
        self.assertEqual(self.answers(path), {200})
        asked = len(self.upstream.asked)
        self.assertEqual(self.answers(path), {200})
        self.assertEqual(len(self.upstream.asked), asked)
        self.file.write_text(self.table)
        self.daemon.reload()
        self.assertEqual(self.answers(path), {200})
        self.assertGreater(len(self.upstream.asked), asked)

    def test_authorities(self) -> None:
        """A registry's new CA is trusted, and its old one is not, by every worker, one started later included."""
        old, new = issue(common_name="old"), issue(common_name="new")
        directory = Path(self.mktemp()).resolve()
        directory.mkdir()
        pem = directory / "ca.pem"
        pem.write_bytes(old.pem)
        server = issue("127.0.0.1", by=new)
        (directory / "server.pem").write_bytes(server.pem + server.key_pem())
        context = SSLContext(PROTOCOL_TLS_SERVER)
        context.load_cert_chain(directory / "server.pem")
        upstream = Upstream(self, context)
        upstream.gate.set()
        table = f'[[upstreams]]\nname = "tls.example"\nurl = "{upstream.url}"\nprivate = true\nca_file = "{pem}"\n'
        self.file.write_text(self.table + table)
        self.start(DOCXY_CONFIG=str(self.file), UPSTREAM="", ADMIN_SOCKET=self.socket)
        tags = iter(range(100))

        def pulls() -> set[int]:
            # Each worker has to ask for itself.
            path = "/v2/tls.example/team/app/manifests/v"
            return {self.status(self.connect(pid), f"{path}{next(tags)}", {"Accept": "*/*"}) for pid in self.workers()}

        self.assertEqual(pulls(), {502})
        pem.write_bytes(b"nothing")
        self.daemon.reload()
        self.assertEqual(pulls(), {502})
        pem.write_bytes(new.pem)
        self.daemon.reload()
        self.assertEqual(pulls(), {200})
        killed = self.workers()[0]
        os.kill(killed, signal.SIGKILL)
        self.daemon.until(lambda: killed not in self.workers())
        self.until_workers(2)
        self.assertEqual(pulls(), {200})
        # One that cannot be read takes the place of none, neither of the CA that is trusted now.
        pem.write_bytes(b"nothing")
        self.daemon.reload()
        self.assertEqual(pulls(), {200})
        self.assertEqual(self.daemon.text().count("holds no PEM certificate"), 2)
        pem.write_bytes(old.pem)
        self.daemon.reload()
        self.assertEqual(pulls(), {502})

    def test_command(self) -> None:
        """When the command has ended no worker serves it, and what both sent of it is cut, while the fill waits."""
        self.upstream.gate.clear()
        self.start(DOCXY_CONFIG=str(self.file), UPSTREAM="", ADMIN_SOCKET=self.socket, PREFETCH="off")
        path = self.upstream.add(1 << 20)
        followers = []
        for pid in self.workers():
            response = self.ask(self.connect(pid), path)
            self.assertEqual(len(response.read(1 << 19)), 1 << 19)
            followers.append(response)
        self.order("recall", path.rpartition("/")[2], "--reason", "bad")
        for response in followers:
            self.assertLess(self.rest(response), 1 << 19)
        self.assertEqual(self.answers(path), {403})
        self.upstream.gate.set()
        self.order("recall", "--lift", path.rpartition("/")[2])
        self.assertEqual(self.answers(path), {200})

    def rest(self, response: HTTPResponse) -> int:
        """Bytes that still come, until the connection is cut."""
        try:
            return len(response.read())
        except (HTTPException, ConnectionError) as error:
            return len(getattr(error, "partial", b""))

    def test_restart(self) -> None:
        """What a command recalled is recalled in the next docxy."""
        self.start(DOCXY_CONFIG=str(self.file), UPSTREAM="", ADMIN_SOCKET=self.socket)
        self.order("recall", "registry.example/team/app:v1")
        self.assertEqual(self.answers("/v2/team/app/manifests/v1"), {403})
        cache = self.cache
        self.daemon.stop()
        self.start(DOCXY_CONFIG=str(self.file), UPSTREAM="", ADMIN_SOCKET=self.socket, CACHE_DIR=cache)
        self.assertEqual(self.answers("/v2/team/app/manifests/v1"), {403})
        self.assertIsInstance(self.connection(), HTTPConnection)
