"""Several processes as one docxy: they share ports, cache, fetches and what they learned, and end together."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
import time
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from docxy.daemon.drain import STOPPED
from tests.harness.certificates import issue
from tests.harness.docxy import TWISTD, spawn
from tests.harness.processes import accepts, fetch, free_port, until
from tests.harness.scrape import values
from tests.process.test_twistd import wait_until_gone
from tests.process.workers.harness import MANIFEST, Upstream, WorkersCase

MIB = 1 << 20


class LifeTests(WorkersCase):
    def test_all_serve(self) -> None:
        """Each worker answers at the one port; one that is stuck holds up only its own connections."""
        self.start()
        pids = self.workers()
        self.assertEqual(len(pids), 2)
        for pid in pids:
            connection = self.connect(pid)
            with self.only(pid):
                self.assertEqual(self.status(connection, "/v2/"), 200)

    def test_crash(self) -> None:
        """A worker that dies is started again; meanwhile the other one serves, and no connection is refused."""
        self.start()
        killed, other = self.workers()
        connection = self.connect(other)
        os.kill(killed, signal.SIGKILL)
        self.daemon.until(lambda: "worker 1 ended" in self.daemon.text())
        for _ in range(20):
            self.assertEqual(self.status(self.connection(), "/health"), 200)
        self.assertEqual(self.status(connection, "/health"), 200)
        self.until_workers(2)
        again = self.workers()
        self.assertEqual((again[1], again[0] != killed), (other, True))
        self.assertEqual(self.status(self.connect(again[0]), "/v2/"), 200)

    def test_stop(self) -> None:
        """At SIGTERM what is being sent is sent to its end, nobody new is let in, and all processes end."""
        upstream = Upstream(self)
        self.start(UPSTREAM=upstream.url)
        path = upstream.add(MIB)
        pids = self.workers()
        connections = [self.connect(pid) for pid in pids]
        responses = [self.ask(connection, path) for connection in connections]
        self.daemon.process.terminate()
        self.daemon.until(lambda: self.daemon.text().count("requests have") == 2)
        self.assertRaises(ConnectionRefusedError, self.connection)
        upstream.gate.set()
        for response in responses:
            self.assertEqual(response.read(), upstream.blobs[path.rpartition("/")[2]])
        self.assertEqual(self.daemon.process.wait(30), -signal.SIGTERM)
        for pid in pids:
            wait_until_gone(pid)
        self.assertNotIn("Traceback", self.daemon.text())

    def test_grace(self) -> None:
        """What does not end within the grace is cut; the history says that docxy stopped, not that the client left."""
        upstream = Upstream(self)
        self.start(UPSTREAM=upstream.url, SHUTDOWN_GRACE="0.5")
        path = upstream.add(MIB)
        response = self.ask(self.connect(self.workers()[0]), path)
        self.daemon.process.terminate()
        self.assertEqual(self.daemon.process.wait(30), -signal.SIGTERM)
        self.assertRaises((HTTPException, OSError), response.read)
        with closing(sqlite3.connect(Path(self.cache) / "pulls.sqlite")) as history:
            ((pull,),) = history.execute("SELECT pull FROM pulls").fetchall()
        self.assertEqual(json.loads(pull)["verdict"]["words"], f"broke off: {STOPPED}")

    def test_stuck(self) -> None:
        """A worker that does not even end after the grace is killed."""
        self.start(SHUTDOWN_GRACE="0")
        stuck, _ = self.workers()
        os.kill(stuck, signal.SIGSTOP)
        self.daemon.process.terminate()
        self.assertEqual(self.daemon.process.wait(30), -signal.SIGTERM)
        wait_until_gone(stuck)
        self.assertIn("worker 1 does not end; killed", self.daemon.text())

    def interrupt(self) -> None:
        """Ctrl-C at the terminal: all processes get it."""
        for pid in [self.daemon.process.pid, *self.workers()]:
            os.kill(pid, signal.SIGINT)

    def test_interrupt(self) -> None:
        """Ctrl-C lets answers end, as SIGTERM does, and nothing is said of errors; a second one ends all at once."""
        upstream = Upstream(self)
        self.start(UPSTREAM=upstream.url, SHUTDOWN_GRACE="300")
        path = upstream.add(MIB)
        pids = self.workers()
        response = self.ask(self.connect(pids[0]), path)
        self.interrupt()
        self.daemon.until(lambda: "requests have 300 s to finish" in self.daemon.text())
        self.interrupt()
        self.assertEqual(self.daemon.process.wait(30), -signal.SIGINT)
        for pid in pids:
            wait_until_gone(pid)
        self.assertRaises((HTTPException, OSError), response.read)
        self.assertNotIn("Traceback", self.daemon.text())

    def test_alone(self) -> None:
        """Workers whose supervisor is gone, however it went, end."""
        self.start()
        pids = self.workers()
        self.daemon.process.kill()
        self.daemon.process.wait()
        for pid in pids:
            wait_until_gone(pid)

    def test_hangup(self) -> None:
        """SIGHUP has every worker load the renewed certificate, one started later too; a broken one leaves it."""
        where = Path(self.mktemp()).resolve()
        where.mkdir()
        cert, key = where / "cert.pem", where / "key.pem"

        def renew() -> bytes:
            issued = issue("mirror.example")
            key.write_bytes(issued.key_pem())
            cert.write_bytes(issued.pem)
            return bytes(issued.certificate.public_bytes(Encoding.DER))

        renew()
        environ = {"HTTP_PORT": "0", "CERT_PATH": str(cert), "KEY_PATH": str(key)}
        self.start(HTTPS_PORT=str(free := free_port()), AUTH="none", **environ)
        self.port = free
        renewed = renew()
        self.daemon.reload()
        for pid in self.workers():
            socket: Any = self.connect(pid, tls=True).sock
            self.assertEqual(socket.getpeercert(True), renewed)
        good = cert.read_bytes()
        cert.write_text("broken")
        self.daemon.reload()
        for pid in self.workers():
            socket = self.connect(pid, tls=True).sock
            self.assertEqual(socket.getpeercert(True), renewed)
        self.assertEqual(self.daemon.text().count("the certificate in use stays"), 2)
        cert.write_bytes(good)
        killed = self.workers()[0]
        os.kill(killed, signal.SIGKILL)
        self.daemon.until(lambda: killed not in self.workers())
        self.until_workers(2)
        fresh: Any = self.connect(self.workers()[0], tls=True).sock
        self.assertEqual(fresh.getpeercert(True), renewed)

    def test_hangup_password(self) -> None:
        """SIGHUP has every worker read the password of docxy's account again, and keep it if there is none now."""
        where = Path(self.mktemp()).resolve()
        where.mkdir()
        password, file = where / "password", where / "docxy.toml"
        password.write_text("old\n")
        file.write_text(
            f'[[upstreams]]\nname = "registry.example"\nurl = "http://127.0.0.1:9"\nprivate = true\n'
            f'username = "ann"\npassword_file = "{password}"\n'
        )
        self.start(DOCXY_CONFIG=str(file), UPSTREAM="")
        password.write_text("new\n")
        self.daemon.reload()
        self.assertEqual(self.daemon.text().count(f"read the new password of ann in {password}"), 2)
        password.write_text("")
        self.daemon.reload()
        self.assertEqual(self.daemon.text().count("the password of ann stays as it was"), 2)
        self.assertEqual(len(self.workers()), 2)

    def test_hangup_without_certificate(self) -> None:
        """Over plain HTTP SIGHUP ends nobody."""
        self.start()
        pids = self.workers()
        self.daemon.reload()
        for _ in range(10):
            self.assertEqual(self.status(self.connection(), "/health"), 200)
        self.assertEqual(self.workers(), pids)

    def test_logfile(self) -> None:
        """What workers of a daemon in the background say is in its log, each line as the worker wrote it."""
        where = Path(self.mktemp()).resolve()
        where.mkdir()
        port = free_port()
        args = ["--pidfile=docxy.pid", "--logfile=docxy.log", "docxy", "--cert=off", "--cache=off", "--workers=2"]
        daemon = spawn(self, [*TWISTD, *args, f"--port={port}", "--interface=127.0.0.1"], cwd=where)
        self.assertEqual(daemon.process.wait(30), 0)
        pid = int((where / "docxy.pid").read_text())
        self.port = port
        try:
            until(accepts(port))
            status = self.status(self.connection(), "/nothing-here")
            self.assertEqual(status, 404)
        finally:
            os.kill(pid, signal.SIGTERM)
        wait_until_gone(pid)
        (line,) = [line for line in (where / "docxy.log").read_text().splitlines() if "nothing-here" in line]
        self.assertRegex(
            line,
            r'^127\.0\.0\.1 - - \[\S+ \+0000\] "GET /nothing-here HTTP/1.1" 404 \d+ "-" "-" \d+\.\d+ - - \w+$',
        )
        daemon_lines = [line for line in (where / "docxy.log").read_text().splitlines() if "docxy starting" in line]
        # The supervisor's own, and that of a worker at least.
        self.assertGreaterEqual(len(daemon_lines), 2)
        for line in daemon_lines:
            self.assertRegex(line, r"^\d{4}-\d\d-\d\dT\S+ \[twisted\] docxy starting on \d+$")

    def test_json(self) -> None:
        """With `--log-format json` every line is an object: of twistd, the supervisor and the workers, of both logs."""
        self.start(LOG_FORMAT="json")
        connection = self.connection()
        self.assertEqual(self.status(connection, "/nothing-here", {"X-Request-Id": "r-1"}), 404)
        self.daemon.until(lambda: "nothing-here" in self.daemon.text())
        told = [json.loads(line) for line in self.daemon.text().splitlines()]
        (access,) = [line for line in told if line.get("path") == "/nothing-here"]
        self.assertEqual((access["log"], access["status"], access["request_id"]), ("access", 404, "r-1"))
        self.assertIn("2 workers: ", "".join(line.get("message", "") for line in told))

    def test_levels(self) -> None:
        """`--log-level` by part counts in all processes: requests to registries are told, and nothing else usual."""
        upstream = Upstream(self)
        self.start(["--log-level=warn,upstream=debug"], UPSTREAM=upstream.url, ADMIN_SOCKET="off")
        upstream.gate.set()
        for pid in self.workers():
            connection = self.connect(pid)
            path = upstream.add(MIB, str(pid))
            self.assertEqual(self.status(connection, path), 200)
            digest = path.rpartition("/")[2]
            self.daemon.until(lambda digest=digest: self.asked(digest))  # type: ignore[misc]  # a lambda's default
        lines = self.daemon.text().splitlines()
        told = [line for line in lines if "] " in line and not line.startswith("127.0.0.1 ")]
        self.assertEqual([line for line in told if "[upstream debug]" not in line], [])

    def asked(self, digest: str) -> bool:
        """Whether the log tells of the request to the registry for it."""
        return any("[upstream debug] GET " in line and digest in line for line in self.daemon.text().splitlines())


class SharingTests(WorkersCase):
    def test_one_fetch(self) -> None:
        """Clients of all workers get the same blob from one fetch, while it runs."""
        upstream = Upstream(self)
        self.start(UPSTREAM=upstream.url)
        path = upstream.add(4 * MIB)
        whole = upstream.blobs[path.rpartition("/")[2]]
        connections = [self.connect(pid) for pid in self.workers() for _ in range(3)]
        responses = [self.ask(connection, path) for connection in connections]
        self.assertEqual([response.read(MIB) for response in responses], [whole[:MIB]] * 6)
        upstream.gate.set()
        self.assertEqual([response.read() for response in responses], [whole[MIB:]] * 6)
        fetches = [asked for asked in upstream.asked if "/blobs/" in asked]
        # A worker that joins asks with a GET of one byte whether this repository has the blob.
        self.assertEqual(sum("GET" in asked for asked in fetches), len(fetches))
        self.assertLessEqual(len(fetches), 2)

    def test_told_as_one(self) -> None:
        """A client whose answers come from two workers made one pull; who joined a fetch of the other is told whose."""
        upstream = Upstream(self)
        self.start(UPSTREAM=upstream.url)
        path = upstream.add(4 * MIB)
        responses, ids = [], ("1" * 16, "2" * 16)
        for pid, name in zip(self.workers(), ids, strict=True):
            connection = self.connect(pid)
            connection.request("GET", path, headers={"X-Request-Id": name})
            responses.append(connection.getresponse())
            responses[-1].read(MIB)
        upstream.gate.set()
        for response in responses:
            response.read()
        connection = self.connect(self.workers()[0])

        def told() -> list[dict[str, str | None]]:
            connection.request("GET", "/pulls.json")
            pulls = json.loads(connection.getresponse().read())["pulls"]
            return [{part["request_id"]: part.get("joined") for part in pull["parts"]} for pull in pulls]

        self.daemon.until(lambda: told() == [{ids[0]: None, ids[1]: ids[0]}])

    def test_filler_dies(self) -> None:
        """When the worker that fetches dies, a client of another one gets the rest all the same."""
        upstream = Upstream(self)
        self.start(UPSTREAM=upstream.url)
        path = upstream.add(4 * MIB)
        whole = upstream.blobs[path.rpartition("/")[2]]
        first, second = self.workers()
        self.ask(self.connect(first), path)
        upstream.until_asked(1)
        response = self.ask(self.connect(second), path)
        self.assertEqual(response.read(MIB), whole[:MIB])
        os.kill(first, signal.SIGKILL)
        upstream.gate.set()
        self.assertEqual(response.read(), whole[MIB:])

    def limited(self, upstream: Upstream) -> None:
        config = Path(self.mktemp()).resolve()
        config.write_text(f'[[upstreams]]\nname = "up"\nurl = "{upstream.url}"\nmax_connections = 2\n')
        self.start(DOCXY_CONFIG=str(config))

    def test_connections(self) -> None:
        """`max_connections` is for all workers together."""
        upstream = Upstream(self)
        self.limited(upstream)
        paths = [upstream.add(MIB, str(n)) for n in range(6)]
        got: dict[str, bytes] = {}

        def pull(connection: HTTPConnection, path: str) -> None:
            got[path] = self.ask(connection, path).read()

        connections = [self.connect(pid) for pid in self.workers() for _ in range(3)]
        pulls = [threading.Thread(target=pull, args=each) for each in zip(connections, paths, strict=True)]
        for each in pulls:
            each.start()
        upstream.until_asked(2)
        for pid in self.workers() * 2:
            self.connect(pid)  # turns enough for others to ask, if they could
        upstream.gate.set()
        for each in pulls:
            each.join()
        self.assertEqual(got, {path: upstream.blobs[path.rpartition("/")[2]] for path in paths})
        self.assertEqual((len(upstream.asked), upstream.most_at_once), (6, 2))

    def test_rate(self) -> None:
        """`max_rate` is for all workers together: two that fetch at once take as long as one that fetched both."""
        upstream = Upstream(self)
        upstream.gate.set()
        self.start(UPSTREAM=upstream.url, MAX_RATE="4MB/s")
        paths = [upstream.add(4 * MIB, str(n)) for n in range(2)]
        connections = [self.connect(pid) for pid in self.workers()]
        got: dict[str, bytes] = {}

        def pull(connection: HTTPConnection, path: str) -> None:
            got[path] = self.ask(connection, path).read()

        pulls = [threading.Thread(target=pull, args=each) for each in zip(connections, paths, strict=True)]
        began = time.monotonic()
        for each in pulls:
            each.start()
        for each in pulls:
            each.join()
        took = time.monotonic() - began
        self.assertEqual(got, {path: upstream.blobs[path.rpartition("/")[2]] for path in paths})
        # A tenth of a second's bytes may be ahead.
        self.assertGreater(took, (8 * MIB - 400_000) / 4e6)

    def test_connections_of_the_dead(self) -> None:
        """What a worker had of them is free again when it dies, and what it waited for is nobody's."""
        upstream = Upstream(self)
        self.limited(upstream)
        first, second = self.workers()
        for n in range(4):
            connection = self.connect(first)
            connection.request("GET", upstream.add(MIB, str(n)))
        upstream.until_asked(2)
        path = upstream.add(MIB, "of the other")
        connection = self.connect(second)
        connection.request("GET", path)
        os.kill(first, signal.SIGKILL)
        upstream.until_asked(3)
        self.assertEqual(upstream.asked[2], f"GET {path}")
        upstream.gate.set()
        self.assertEqual(connection.getresponse().read(), upstream.blobs[path.rpartition("/")[2]])

    def test_limits(self) -> None:
        """When the upstream told one worker to wait, the others wait too."""
        upstream = Upstream(self)
        self.start(UPSTREAM=upstream.url)
        upstream.limited = True
        first, second = (self.connect(pid) for pid in self.workers())
        self.assertEqual(self.status(first, "/v2/team/app/manifests/a"), 429)
        self.settle()
        self.assertEqual(self.status(second, "/v2/team/app/manifests/a"), 429)
        self.assertEqual(len(upstream.asked), 1)

    def test_manifests(self) -> None:
        """What one worker fetched, another serves."""
        upstream = Upstream(self)
        self.start(UPSTREAM=upstream.url)
        first, second = (self.connect(pid) for pid in self.workers())
        self.assertEqual(self.ask(first, "/v2/team/app/manifests/latest").read(), MANIFEST)
        response = self.ask(second, "/v2/team/app/manifests/latest")
        self.assertEqual(response.read(), MANIFEST)
        self.assertRegex(str(response.getheader("Cache-Status")), r"docxy; hit; ttl=\d+")
        self.assertEqual(len(upstream.asked), 1)


class MetricsTests(WorkersCase):
    def test_one_view(self) -> None:
        """What all workers counted is one sum, and stays when one of them is gone; what it was at does not."""
        metrics = free_port()
        self.start(METRICS_PORT=str(metrics))

        def told(name: str) -> float:
            return values(fetch(f"http://127.0.0.1:{metrics}/metrics")[2].decode()).get(name, 0)

        first, second = self.workers()
        connections = [self.connect(first), self.connect(second), self.connect(second)]
        for connection in connections:
            self.assertEqual(self.status(connection, "/v2/"), 200)
        self.assertEqual(told("docxy_requests_total ping 200 docker.io"), 3)
        self.daemon.until(lambda: told("docxy_connections") == 3)
        os.kill(second, signal.SIGKILL)
        self.daemon.until(lambda: told("docxy_worker_restarts_total") == 1)
        self.until_workers(2)
        self.assertEqual(told("docxy_requests_total ping 200 docker.io"), 3)
        self.assertEqual(self.status(self.connect(self.workers()[1]), "/v2/"), 200)
        self.assertEqual(told("docxy_requests_total ping 200 docker.io"), 4)
        self.daemon.until(lambda: told("docxy_connections") == 2)
        (directory,) = [
            name.partition("=")[2]
            for name in Path(f"/proc/{first}/environ").read_text().split("\0")
            if name.startswith("PROMETHEUS_MULTIPROC_DIR=")
        ]
        self.assertTrue(Path(directory).is_dir())
        self.daemon.stop()
        self.assertFalse(Path(directory).exists())
