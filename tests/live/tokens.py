"""The token service of the test bed: what auth.docker.io is to Docker Hub.

Runs in a process of its own (`python -m tests.live.tokens SETTINGS`, a JSON file).  Anyone
may pull what is public, an account also what lies under its own name; whatever else is
asked for is left out of the token, as Docker Hub does.  Wrong passwords and made-up
refresh tokens get 401.  One JSON line per request goes to standard output; secrets never do.
"""

from __future__ import annotations

import base64
import json
import sys
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

import jwt
from attrs import asdict, frozen
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IReactorCore
from twisted.internet.task import react
from twisted.web.resource import Resource
from twisted.web.server import Request, Site


@frozen
class Signer:
    """Makes tokens the registry accepts."""

    certificate: str
    """PEM; the registry trusts it."""
    key: str
    """PEM."""
    issuer: str
    service: str
    lifetime: int
    """Seconds."""

    def token(self, account: str, access: Iterable[tuple[str, Iterable[str]]]) -> str:
        """A token for these repositories and actions."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": account,
            "aud": self.service,
            "iat": now,
            "nbf": now - 5,
            "exp": now + self.lifetime,
            "jti": uuid.uuid4().hex,
            "access": [{"type": "repository", "name": n, "actions": list(actions)} for n, actions in access],
        }
        key = serialization.load_pem_private_key(self.key.encode(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        leaf = x509.load_pem_x509_certificate(self.certificate.encode())
        chain = [base64.b64encode(leaf.public_bytes(serialization.Encoding.DER)).decode()]
        return jwt.encode(claims, key, algorithm="ES256", headers={"x5c": chain})


@frozen
class Settings:
    """Everything the token service is told at start."""

    port: int
    signer: Signer
    accounts: Mapping[str, str]
    """Passwords by name."""
    public: tuple[str, ...]
    """What the names of public repositories begin with."""
    refusal: str
    """Path of a file; while it exists, its text is the status of every answer."""
    terse: bool = False
    """Whether an answer is only what RFC 6749 asks for at least."""

    def save(self, path: Path) -> None:
        """Write it where the service will read it."""
        path.touch(mode=0o600)
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Settings:
        """Read what `save` wrote."""
        said = json.loads(path.read_text())
        return cls(**{**said, "signer": Signer(**said["signer"]), "public": tuple(said["public"])})


def granted(settings: Settings, account: str, scopes: Iterable[str]) -> list[tuple[str, list[str]]]:
    """What of the asked scopes an account ("" for anyone) gets."""
    grants = []
    for scope in scopes:
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        may = name.startswith(settings.public) or (account != "" and name.startswith(f"{account}/"))
        if kind == "repository" and may and "pull" in actions.split(","):
            grants.append((name, ["pull"]))
    return grants


class Token(Resource):
    """`GET /token` with Basic or without, `POST /token` with a password or a refresh token."""

    isLeaf = True

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings
        self._refreshers: dict[str, str] = {}

    def render(self, request: Request) -> bytes:
        """Answer and tell standard output about it."""
        fields = {key.decode(): [v.decode() for v in values] for key, values in request.args.items()}
        scopes = [scope for value in fields.get("scope", []) for scope in value.split(" ") if scope]
        account: str | None = None
        status, answer = self._refusal()
        if status == 200:
            account = self._account(request, fields)
            if account is None:
                status, answer = 401, {"details": "incorrect username or password"}
            else:
                answer = self._answer(account, scopes, fields)
        told = {
            "method": request.method.decode(),
            "path": request.path.decode(),
            "status": status,
            "account": account,
            "scopes": scopes,
            "service": fields.get("service", []),
            "grant": fields.get("grant_type", []),
            "client": fields.get("client_id", []),
        }
        print(json.dumps(told), flush=True)  # noqa: T201  # standard output is the log
        request.setResponseCode(status)
        request.setHeader("Content-Type", "application/json")
        return json.dumps(answer).encode()

    def _refusal(self) -> tuple[int, dict[str, object]]:
        path = Path(self._settings.refusal)
        if not path.exists():
            return 200, {}
        return int(path.read_text()), {"details": "switched off"}

    def _account(self, request: Request, fields: Mapping[str, list[str]]) -> str | None:
        """The account's name, "" for anyone, None when refused."""
        if request.method == b"POST" and fields.get("grant_type") == ["refresh_token"]:
            return self._refreshers.get(fields.get("refresh_token", [""])[0])
        if request.method == b"POST" and fields.get("grant_type") == ["password"]:
            user, password = fields.get("username", [""])[0], fields.get("password", [""])[0]
        elif request.getHeader("Authorization"):
            user, password = request.getUser().decode(), request.getPassword().decode()
        else:
            return ""
        return user if self._settings.accounts.get(user) == password else None

    def _answer(self, account: str, scopes: list[str], fields: Mapping[str, list[str]]) -> dict[str, object]:
        signer = self._settings.signer
        token = signer.token(account, granted(self._settings, account, scopes))
        if self._settings.terse:
            return {"access_token": token}
        answer: dict[str, object] = {
            "token": token,
            "access_token": token,
            "expires_in": signer.lifetime,
            "issued_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        if account and ("true" in fields.get("offline_token", []) or "offline" in fields.get("access_type", [])):
            refresher = uuid.uuid4().hex
            self._refreshers[refresher] = account
            answer["refresh_token"] = refresher
        return answer


def main(reactor: IReactorCore, path: str) -> Deferred[None]:
    """Serve until stopped."""
    settings = Settings.load(Path(path))
    serverFromString(reactor, f"tcp:{settings.port}:interface=127.0.0.1").listen(Site(Token(settings)))
    return Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
