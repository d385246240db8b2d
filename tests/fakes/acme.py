"""An ACME server (RFC 8555) that does what a test wants at each step.

It believes every signature; what it shows is how docxy takes its answers.  pebble, in tests/live, believes none.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from tests.harness.certificates import Issued, issue


def problem(kind: str, detail: str, **more: Any) -> dict[str, Any]:
    """An RFC 7807 document."""
    return {"type": f"urn:ietf:params:acme:error:{kind}", "detail": detail, **more}


Answer = tuple[int, Any, Mapping[str, str]]


class FakeAcme:
    """Runs in threads of its own until `close`."""

    def __init__(self) -> None:
        self.authority: Issued = issue(common_name="fake authority")
        self.broken: dict[str, Answer] = {}
        """What to answer at a step (`directory`, `account`, `order`, `authorization`, `challenge`, `finalize`,
        `certificate`, `renewal`) in place of what is right."""
        self.seen: list[tuple[str, Any]] = []
        """Steps, each with its payload."""
        self.window: tuple[str, str] | None = None
        """When renewal is suggested; None: the server does not say."""
        self.validate: Callable[[str], Mapping[str, Any] | None] = lambda token: None
        """What is wrong with the answer to a challenge; None: it is right."""
        self.is_known = False
        self.binding_required = False
        self.types = ["http-01", "dns-01"]
        self._failure: Mapping[str, Any] | None = None
        self._identifiers: list[Any] = []
        self._csr: x509.CertificateSigningRequest | None = None
        self._asked = False
        """Whether a challenge of the order has been met, rightly or not."""
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                """Nothing."""

            def do_GET(self) -> None:
                self._answer(fake.answer(self.path.strip("/"), None))

            def do_HEAD(self) -> None:
                self._answer((200, None, {}))

            def do_POST(self) -> None:
                jws = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                payload = base64.urlsafe_b64decode(jws["payload"] + "==")
                self._answer(fake.answer(self.path.strip("/"), json.loads(payload) if payload else None))

            def _answer(self, answer: Answer) -> None:
                status, content, headers = answer
                body = (
                    b""
                    if content is None
                    else content.encode()
                    if isinstance(content, str)
                    else json.dumps(content).encode()
                )
                self.send_response(status)
                kind = "application/problem+json" if status >= 400 else "application/json"
                for name, value in {"Content-Type": kind, "Replay-Nonce": "bm9uY2U", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def payload(self, step: str) -> Any:
        """Of the last request of a step."""
        return next(payload for name, payload in reversed(self.seen) if name == step)

    def answer(self, path: str, payload: Any) -> Answer:
        """To one request."""
        step, _, rest = path.partition("/")
        self.seen.append((step, payload))
        if step in self.broken:
            return self.broken[step]
        answered: Answer = getattr(self, f"_{step}")(rest, payload)
        return answered

    def _directory(self, rest: str, payload: Any) -> Answer:
        names = {"newNonce": "nonce", "newAccount": "account", "newOrder": "order", "revokeCert": "revoke"}
        more = {} if self.window is None else {"renewalInfo": f"{self.url}/renewal"}
        meta = {"externalAccountRequired": self.binding_required}
        return 200, {name: f"{self.url}/{step}" for name, step in names.items()} | more | {"meta": meta}, {}

    def _nonce(self, rest: str, payload: Any) -> Answer:
        return 200, None, {}

    def _account(self, rest: str, payload: Any) -> Answer:
        return 200 if self.is_known else 201, {"status": "valid"}, {"Location": f"{self.url}/account/1"}

    def _order(self, rest: str, payload: Any) -> Answer:
        if payload is not None:
            self._identifiers, self._failure, self._csr = payload["identifiers"], None, None
            self._asked = False
        status = "pending" if self._csr is None else "valid"
        order = {
            "status": status,
            "identifiers": self._identifiers,
            "authorizations": [f"{self.url}/authorization/{n}" for n in range(len(self._identifiers))],
            "finalize": f"{self.url}/finalize",
        }
        if self._csr is not None:
            order["certificate"] = f"{self.url}/certificate"
        return 201 if payload else 200, order, {"Location": f"{self.url}/order/1"}

    def _authorization(self, rest: str, payload: Any) -> Answer:
        number = int(rest)
        status = "pending" if not self._asked else "invalid" if self._failure else "valid"
        challenges = [
            {"type": kind, "url": f"{self.url}/challenge/{number}", "token": self.token(number), "status": status}
            | ({"error": self._failure} if self._failure and kind == "http-01" else {})
            for kind in self.types
        ]
        return 200, {"status": status, "identifier": self._identifiers[number], "challenges": challenges}, {}

    def token(self, number: int) -> str:
        """Of the challenge of one name."""
        return base64.urlsafe_b64encode(f"token of number {number}".encode().ljust(32)).decode().rstrip("=")

    def _challenge(self, rest: str, payload: Any) -> Answer:
        self._asked = True
        self._failure = self._failure or self.validate(self.token(int(rest)))
        told = {"type": "http-01", "url": f"{self.url}/challenge/{rest}", "token": self.token(int(rest))}
        return 200, told | {"status": "pending"}, {"Link": f'<{self.url}/authorization/{rest}>;rel="up"'}

    def _finalize(self, rest: str, payload: Any) -> Answer:
        self._csr = x509.load_der_x509_csr(base64.urlsafe_b64decode(payload["csr"] + "=="))
        return self._order("", None)

    def _certificate(self, rest: str, payload: Any) -> Answer:
        assert self._csr is not None
        names = self._csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        template = issue(general=list(names), by=self.authority, begins=0, days=90)
        builder = (
            x509.CertificateBuilder()
            .subject_name(template.certificate.subject)
            .issuer_name(self.authority.certificate.subject)
            .public_key(self._csr.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(template.certificate.not_valid_before_utc)
            .not_valid_after(template.certificate.not_valid_after_utc)
        )
        for extension in template.certificate.extensions:
            if not isinstance(extension.value, x509.SubjectKeyIdentifier):
                builder = builder.add_extension(extension.value, extension.critical)
        leaf = builder.sign(self.authority.key, hashes.SHA256())
        return 200, (leaf.public_bytes(Encoding.PEM) + self.authority.pem).decode(), {}

    def _renewal(self, rest: str, payload: Any) -> Answer:
        assert self.window is not None
        start, end = self.window
        return 200, {"suggestedWindow": {"start": start, "end": end}}, {"Retry-After": "21600"}
