"""What `[[upstreams]]` says of how a registry is reached, as a whole docxy does it, in each of its workers."""

from __future__ import annotations

import base64
import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from ssl import CERT_REQUIRED, PROTOCOL_TLS_SERVER, SSLContext

from twisted.trial.unittest import SynchronousTestCase

from tests.harness.certificates import Issued, issue
from tests.process.workers.harness import Upstream, WorkersCase

ACCOUNT = "robot", "secret"
PROGRAM = f"""#!/bin/sh
cat > "$0.asked"
echo '{json.dumps({"Username": ACCOUNT[0], "Secret": ACCOUNT[1]})}'
"""


class Registry(Upstream):
    """One that asks for an account, or has no repository at all."""

    def __init__(self, test: SynchronousTestCase, tls: SSLContext | None = None) -> None:
        super().__init__(test, tls)
        self.gate.set()
        self.private = self.empty = False

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        basic = f"Basic {base64.b64encode(':'.join(ACCOUNT).encode()).decode()}"
        if self.private and request.headers["Authorization"] != basic:
            self.refuse(request, 401, "UNAUTHORIZED")
        elif self.empty:
            self.refuse(request, 404, "MANIFEST_UNKNOWN")
        else:
            super().answer(request)

    def refuse(self, request: BaseHTTPRequestHandler, status: int, code: str) -> None:
        body = json.dumps({"errors": [{"code": code}]}).encode()
        request.send_response(status)
        request.send_header("WWW-Authenticate", 'Basic realm="registry"')
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body)


class UpstreamsTests(WorkersCase):
    def setUp(self) -> None:
        super().setUp()
        self.where = Path(self.mktemp()).resolve()
        self.where.mkdir()
        self.tables = ['[[upstreams]]\nname = "first.example"\nurl = "http://127.0.0.1:9"\n']
        self.tags = iter(range(1000))

    def add(self, name: str, registry: Registry, more: str = "", path: str = "") -> None:
        """Another table, of a registry that is at this path of its URL."""
        self.tables.append(f'[[upstreams]]\nname = "{name}"\nurl = "{registry.url}{path}"\n{more}\n')

    def serve(self, **environ: str) -> None:
        file = self.where / "docxy.toml"
        file.write_text('auth = "none"\n' + "\n".join(self.tables))
        self.start(DOCXY_CONFIG=str(file), UPSTREAM="", **environ)

    def pulls(self, name: str) -> set[int]:
        """What each worker answers to a tag that nobody asked for yet."""
        base, accept = f"/v2/{name}/team/app/manifests", {"Accept": "*/*"}
        return {self.status(self.connect(pid), f"{base}/t{next(self.tags)}", accept) for pid in self.workers()}

    def written(self, name: str, issued: Issued) -> Path:
        """A certificate and its key in one file."""
        path = self.where / f"{name}.pem"
        path.write_bytes(issued.pem + issued.key_pem())
        return path

    def test_certificates(self) -> None:
        """`ca_file` adds to the system's CAs, `ca_only` replaces them; a client's certificate is shown to who asks."""
        system, own = issue(common_name="the system's"), issue(common_name="our own")
        servers = {}
        for name, authority in (("system", system), ("own", own)):
            servers[name] = SSLContext(PROTOCOL_TLS_SERVER)
            servers[name].load_cert_chain(self.written(f"{name}-server", issue("127.0.0.1", by=authority)))
        servers["own"].verify_mode = CERT_REQUIRED
        servers["own"].load_verify_locations(cadata=own.pem.decode())
        by_system, asks = Registry(self, servers["system"]), Registry(self, servers["own"])
        ca = f'ca_file = "{self.written("own", own)}"\n'
        client = self.written("client", issue("docxy.example", by=own))
        self.add("added.example", by_system, ca)
        self.add("only.example", by_system, f"{ca}ca_only = true\n")
        self.add("client.example", asks, f'{ca}client_cert = "{client}"\nclient_key = "{client}"\n')
        self.add("stranger.example", asks, ca)
        self.serve(SSL_CERT_FILE=str(self.written("system", system)))
        for name, status in (("added", 200), ("only", 502), ("client", 200), ("stranger", 502)):
            self.assertEqual(self.pulls(f"{name}.example"), {status}, name)

    def test_accounts(self) -> None:
        """A helper of Docker's and a command print the account; each is told which registry."""
        registry = Registry(self)
        registry.private = True
        programs = {name: self.where / name for name in ("docker-credential-kept", "command")}
        for path in programs.values():
            path.write_text(PROGRAM)
            path.chmod(0o700)
        self.add("helper.example", registry, 'credential_helper = "kept"\n')
        self.add("command.example", registry, f'credential_command = ["{programs["command"]}", "--now"]\n')
        self.add("nobody.example", registry)
        self.serve(PATH=f"{self.where}:/usr/bin:/bin")
        for name, status in (("helper", 200), ("command", 200), ("nobody", 404)):
            self.assertEqual(self.pulls(f"{name}.example"), {status}, name)
        asked = Path(f"{programs['docker-credential-kept']}.asked").read_text().strip()
        self.assertEqual(asked, registry.url.partition("://")[2])
        self.assertNotIn("secret", self.daemon.text())

    def test_paths_and_tags(self) -> None:
        """A path goes in front of a repository, a search goes on where there is none, immutable tags are asked once."""
        registry, empty = Registry(self), Registry(self)
        empty.empty = True
        self.add("path.example", registry, path="/proxy/cache")
        self.add("empty.example", empty)
        self.add("kept.example", registry, 'tag_ttl = 0\nimmutable = ["*:v*.*.*"]\n')
        self.tables.append('[[upstreams]]\nname = "images.example"\nsearch = ["empty.example", "path.example"]\n')
        self.serve(CACHE_DIR=str(self.where / "cache"))
        for name, status in (("path", 200), ("empty", 404), ("images", 200)):
            self.assertEqual(self.pulls(f"{name}.example"), {status}, name)
        self.assertEqual(
            {each.split()[1].rpartition("/")[0] for each in registry.asked}, {"/v2/proxy/cache/team/app/manifests"}
        )
        for tag, again in (("v1.2.3", False), ("latest", True)):
            before = len(registry.asked)
            for pid in self.workers():
                connection = self.connect(pid)
                path = f"/v2/kept.example/team/app/manifests/{tag}"
                self.assertEqual(self.status(connection, path, {"Accept": "*/*"}), 200)
                first = len(registry.asked)
                self.assertEqual(self.status(connection, path, {"Accept": "*/*"}), 200)
                self.assertEqual(len(registry.asked) > first, again, registry.asked[before:])
