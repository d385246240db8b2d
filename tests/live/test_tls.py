"""Certificates that docxy gets for itself, used by real clients: from an ACME server, and of its own CA."""

from __future__ import annotations

import os
import re
import shutil
import signal
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from twisted.internet.defer import Deferred

from docxy.web.pages.clients import containerd
from docxy.web.pages.trust import trust
from tests.harness.certificates import Files
from tests.harness.docxy import environment
from tests.harness.processes import fetch, free_port, run
from tests.live.case import LiveTestCase
from tests.live.certbot import Certbot
from tests.live.clients import Containerd, Docker, Make, Podman, Skopeo
from tests.live.daemon import Docxy
from tests.live.machine import DOCKER_HUB, HOSTNAME, Machine
from tests.live.pebble import Pebble
from tests.live.test_clients import SOME

LIFE = 60
"""Seconds of a certificate that a test sees renewed: pebble draws when, docxy waits for nine tenths at most."""


class OwnTestCase(LiveTestCase):
    """A docxy that gets its certificate itself."""

    def make(self, *options: str, root: Path | None = None) -> Docxy:
        """Not started."""
        docxy = Docxy(
            self.shared.new_directory("docxy"), self.bed.url, "none", options=("--workers=2", *options), own_root=root
        )
        self.addCleanup(docxy.stop)
        return docxy

    def served(self, docxy: Docxy) -> x509.Certificate | None:
        """What HTTPS shows now; None: nothing."""
        try:
            pem = ssl.get_server_certificate(("127.0.0.1", docxy.port), timeout=5)
        except OSError:
            return None
        return x509.load_pem_x509_certificate(pem.encode())

    def all_serve(self, docxy: Docxy) -> None:
        """Every worker shows the same certificate: of many connections each gets some."""
        docxy.daemon.until(lambda: len(shown := {self.served(docxy) for _ in range(12)}) == 1 and None not in shown)

    async def pulled(
        self, docxy: Docxy, make: Make, prepare: Callable[[Machine], object] = lambda machine: None
    ) -> None:
        """A client pulls, as docker.io's and by docxy's own name; what it got is compared."""
        machine = self.machine(docxy.target)
        prepared = prepare(machine)
        if isinstance(prepared, Deferred):
            await prepared
        client = make(machine, self.reactor)
        self.addCleanup(client.stop)
        client.start()
        for name in SOME:
            image = self.bed.images[name]
            self.assertEqual(await client.pull(image, image.digest, DOCKER_HUB), set(), name)
            self.assertEqual(await client.pull(image, "latest", docxy.target.host), set(), name)
            self.assertIn(f"/v2/{name}/manifests/", docxy.daemon.text())

    def private(self, directory: Path) -> None:
        """Nobody else reads what is in the state directory."""
        self.assertEqual(stat.S_IMODE(directory.stat().st_mode), 0o700)
        for path in directory.rglob("*"):
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o700 if path.is_dir() else 0o600, path)


class AcmeTests(OwnTestCase):
    """With pebble."""

    def start(self, life: int = 90 * 24 * 3600, names: str = HOSTNAME) -> tuple[Pebble, Docxy]:
        """Both, with a certificate."""
        pebble = Pebble(self.shared.new_directory("pebble"), self.shared.certificate, free_port(), life)
        self.addCleanup(pebble.daemon.stop)
        pebble.daemon.start()
        root = pebble.directory / "root.pem"
        root.write_bytes(pebble.root())
        # Where no profile is asked for, pebble takes any of them.
        profile = () if "127.0.0.1" in names else ("--acme-profile=default",)
        docxy = self.make(f"--acme={names}", "--acme-email=you@docxy.test", *profile, *pebble.options, root=root)
        docxy.redirect_port = pebble.http_port
        docxy.set_up()
        docxy.start()
        self.all_serve(docxy)
        return pebble, docxy

    def pulls(self, make: Make) -> Deferred[None]:
        """Check one client."""
        return Deferred.fromCoroutine(self.pulled(self.start()[1], make))

    def test_docker(self) -> Deferred[None]:
        """Docker pulls over a certificate of which there was nothing when docxy started."""
        return self.pulls(Docker)

    def test_skopeo(self) -> Deferred[None]:
        """Skopeo, too."""
        return self.pulls(Skopeo)

    def test_address(self) -> None:
        """An IP address beside a name: the profile whose certificates last six days; and all of it is private."""
        _, docxy = self.start(names=f"{HOSTNAME},127.0.0.1")
        leaf = self.served(docxy)
        assert leaf is not None
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual([str(name) for name in names.get_values_for_type(x509.IPAddress)], ["127.0.0.1"])
        self.assertLess((leaf.not_valid_after_utc - leaf.not_valid_before_utc).days, 7)
        assert docxy.cache_directory is not None
        self.private(docxy.cache_directory / "tls")
        self.assertEqual(list((docxy.cache_directory / "tls" / "challenges").iterdir()), [])
        # A worker that is started again serves what it finds: the supervisor read nothing at its start.
        (workers,) = re.findall(r"2 workers: (\d+), (\d+)", docxy.daemon.text())
        for pid in workers:
            os.kill(int(pid), signal.SIGKILL)
        docxy.daemon.until(lambda: docxy.daemon.text().count("starting it again") == 2)
        self.all_serve(docxy)
        self.assertEqual(self.served(docxy), leaf)

    def test_renewal(self) -> None:
        """Renewed in time by all workers; the certificate stays while pebble is down, and a SIGHUP asks again."""
        pebble, docxy = self.start(LIFE)
        first = self.served(docxy)
        docxy.daemon.until(lambda: self.served(docxy) not in (None, first), 2 * LIFE)
        self.all_serve(docxy)
        pebble.daemon.stop()
        # Until here it may have issued another one: which one stays is known when there can be no other any more.
        there = len(docxy.daemon.text())
        docxy.daemon.until(lambda: "the one in use stays" in docxy.daemon.text()[there:], 2 * LIFE)
        self.assertIn("cannot be reached", docxy.daemon.text()[there:])
        self.all_serve(docxy)
        last = self.served(docxy)
        self.assertNotIn(last, (None, first))
        pebble.daemon.start()
        docxy.daemon.signal(signal.SIGHUP)
        docxy.daemon.until(lambda: self.served(docxy) not in (None, last), 2 * LIFE)
        self.all_serve(docxy)

    def test_refused(self) -> None:
        """Nobody answers where the server asks: port 80 says that docxy has not started, and the log why."""
        elsewhere = free_port()
        pebble = Pebble(self.shared.new_directory("pebble"), self.shared.certificate, elsewhere)
        self.addCleanup(pebble.daemon.stop)
        pebble.daemon.start()
        docxy = self.make(f"--acme={HOSTNAME}", *pebble.options, root=pebble.certificate.root)
        docxy.daemon.spawn()
        docxy.daemon.until(lambda: "was not validated" in docxy.daemon.text())
        self.assertRegex(
            docxy.daemon.text(),
            rf"no new certificate for {HOSTNAME}: .*check that DNS leads {HOSTNAME} to this machine and that its port "
            "80 leads to --http-port; HTTPS waits for it",
        )
        self.assertIsNone(self.served(docxy))
        status, _, body = fetch(f"http://127.0.0.1:{docxy.redirect_port}/startup")
        self.assertEqual(status, 503)
        self.assertIn(b"no certificate yet", body)


class InternalTests(OwnTestCase):
    """With docxy's own CA, which clients come to trust by the lines that docxy prints."""

    def start(self) -> Docxy:
        docxy = self.make("--tls=internal", root=self.shared.new_directory("root") / "ca.pem")
        docxy.start()
        return docxy

    async def typed(self, docxy: Docxy, machine: Machine, line: str) -> None:
        """An operator types a line on a client."""
        await run(self.reactor, machine.command(["sh", "-e", "-c", line]), machine.environ)

    def line(self, docxy: Docxy, client: str) -> str:
        (found,) = [each.text for each in trust(docxy.url) if each.name.startswith(f"CA · {client}")]
        return found

    def test_docker(self) -> Deferred[None]:
        """Docker trusts the CA in certs.d for this mirror, and pulls."""
        docxy = self.start()

        def prepare(machine: Machine) -> Deferred[None]:
            shutil.rmtree(machine.directory / "docker" / "certs.d")
            return Deferred.fromCoroutine(self.typed(docxy, machine, self.line(docxy, "Docker")))

        return Deferred.fromCoroutine(self.pulled(docxy, Docker, prepare))

    def test_podman(self) -> Deferred[None]:
        """Podman, too."""
        docxy = self.start()

        def prepare(machine: Machine) -> Deferred[None]:
            shutil.rmtree(machine.directory / "containers" / "certs.d")
            return Deferred.fromCoroutine(self.typed(docxy, machine, self.line(docxy, "Podman")))

        return Deferred.fromCoroutine(self.pulled(docxy, Podman, prepare))

    def test_containerd(self) -> Deferred[None]:
        """Containerd trusts it by a line at the end of the one hosts.toml that covers every registry."""
        docxy = self.start()

        def prepare(machine: Machine) -> Deferred[None]:
            shutil.rmtree(machine.hosts_dir)
            (machine.hosts_dir / "_default").mkdir(parents=True)
            (machine.hosts_dir / "_default" / "hosts.toml").write_text(containerd(docxy.url).text + "\n")
            line = self.line(docxy, "containerd").replace("/etc/containerd/certs.d", str(machine.hosts_dir))
            line = line.replace("/etc/containerd", str(machine.directory))
            return Deferred.fromCoroutine(self.typed(docxy, machine, line))

        return Deferred.fromCoroutine(self.pulled(docxy, Containerd, prepare))

    def test_ca(self) -> None:
        """The CA is on the redirect port and on HTTPS, the same after a restart; all else of it is private."""
        docxy = self.start()
        plain = fetch(f"http://127.0.0.1:{docxy.redirect_port}/ca.pem")
        connection = docxy.connect()
        connection.request("GET", "/ca.pem")
        body = connection.getresponse().read()
        connection.close()
        self.assertEqual((plain[0], plain[2]), (200, body))
        assert docxy.cache_directory is not None
        state = docxy.cache_directory / "tls"
        self.private(state)
        self.assertEqual((state / "ca.pem").read_bytes(), body)
        served = self.served(docxy)
        docxy.stop()
        docxy.start()
        self.assertEqual(self.served(docxy), served)
        self.assertEqual(fetch(f"http://127.0.0.1:{docxy.redirect_port}/ca.pem")[2], body)
        self.assertEqual(os.stat(state / "ca.key").st_mode & 0o077, 0)


class HookTests(OwnTestCase):
    """With files of another program, which tells docxy by its hook."""

    def test_certbot(self) -> None:
        """certbot renews, and its deploy hook runs `docxy reload`, after which all workers serve what it got."""
        pebble = Pebble(self.shared.new_directory("pebble"), self.shared.certificate, free_port())
        self.addCleanup(pebble.daemon.stop)
        pebble.daemon.start()
        certbot = Certbot(self.shared.new_directory("certbot"), pebble)
        certbot.obtain()
        chain = certbot.live / "fullchain.pem"
        files = Files(chain, certbot.live / "privkey.pem", chain)
        docxy = Docxy(self.shared.new_directory("docxy"), self.bed.url, "none", files, options=("--workers=2",))
        self.addCleanup(docxy.stop)
        docxy.daemon.spawn()
        assert docxy.cache_directory is not None
        command = f"{sys.executable} -c 'from docxy.cli.main import main; main()'"
        hook = f"{command} reload --socket {docxy.cache_directory / 'admin.sock'}"

        def ready() -> bool:
            done = subprocess.run(["sh", "-c", f"{hook} --json"], env=environment(), capture_output=True, timeout=120)
            return b'"workers": 2' in done.stdout

        # One that is not ready yet may have read the old pair, and would not be asked.
        docxy.daemon.until(ready)
        old = self.served(docxy)
        self.assertEqual(old, x509.load_pem_x509_certificate(chain.read_bytes()))
        said = certbot.renew(hook)
        new = x509.load_pem_x509_certificate(chain.read_bytes())
        self.assertNotEqual(new, old)
        self.assertEqual({self.served(docxy) for _ in range(12)}, {new}, said)
        self.assertNotIn("error", said)
