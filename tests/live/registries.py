"""Registries beside the bed's Docker Hub, each of another kind.

::

    ghcr.test   nginx on 127.0.0.3, docker-registry behind it.  Its challenge has a realm and nothing
                else; the realm is on 127.0.0.1, and the token service there answers `access_token`
                and nothing else.  `bob/…` is for the account bob.
    mcr.test    nginx on 127.0.0.2, plain HTTP, nobody is asked for anything.  It redirects everything
                but the ping, manifests too, to a docker-registry on 127.0.0.1.
    corp.test   docker-registry on 127.0.0.1 over HTTPS, with a CA of its own.

The same repository, `team/app`, is in all of them, and is another image in each.

The law: as the bed's.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from ssl import create_default_context

from attrs import define, evolve, field

from tests.harness.certificates import SEC1, Files, issue, server_files
from tests.harness.processes import CHECKOUT, Daemon, accepts, free_port, which
from tests.live.bed import push_to
from tests.live.fronts import nginx
from tests.live.images import OCI, Builder, Image
from tests.live.tokens import Settings, Signer

GHCR, MCR, CORP = "ghcr.test", "mcr.test", "corp.test"
NAMES = (GHCR, MCR, CORP)
SHARED = "team/app"
"""The repository that every one of them has."""
PRIVATE = "bob/secret"
"""At GHCR, for bob only."""
BOB, BOBS_PASSWORD = "bob", "purple-monkey-dishwasher"
LARGE = "team/large"
"""At MCR: the bed's large image."""
_GHCR_HOST, _MCR_HOST = "127.0.0.3", "127.0.0.2"


@define
class Registry:
    """One docker-registry."""

    directory: Path
    """Its own, existing and empty."""
    auth: Mapping[str, object] | None = None
    """Its `auth` section."""
    certificate: Files | None = None
    """None: plain HTTP."""
    port: int = field(factory=free_port)
    daemon: Daemon = field(init=False)

    def __attrs_post_init__(self) -> None:
        http: dict[str, object] = {"addr": f"127.0.0.1:{self.port}", "secret": "only one instance"}
        if self.certificate is not None:
            http["tls"] = {"certificate": str(self.certificate.chain), "key": str(self.certificate.key)}
        settings = {
            "version": "0.1",
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(self.directory / "storage")}},
            "http": http,
            **({"auth": self.auth} if self.auth else {}),
        }
        config = self.directory / "registry.yml"
        config.write_text(json.dumps(settings))
        argv = [which("docker-registry") or "docker-registry", "serve", str(config)]
        self.daemon = Daemon("docker-registry", argv, self.directory / "registry.log", accepts(self.port))

    @property
    def url(self) -> str:
        """Its own."""
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.port}"

    def push(self, image: Image, token: str | None = None) -> None:
        """Put an image into it."""
        if self.certificate is None:
            connection = HTTPConnection("127.0.0.1", self.port, timeout=60, blocksize=1 << 20)
        else:
            context = create_default_context(cafile=str(self.certificate.root))
            connection = HTTPSConnection("127.0.0.1", self.port, timeout=60, context=context)
        push_to(connection, image, token)


@define
class Registries:
    """All of them; `start` and `stop` them, or use it as a context manager."""

    directory: Path
    """Its own, existing and empty."""
    large: Image
    """The bed's."""
    images: dict[tuple[str, str], Image] = field(factory=dict, init=False)
    """By registry and repository."""
    ghcr: Registry = field(init=False)
    mcr: Registry = field(init=False)
    corp: Registry = field(init=False)
    _signer: Signer = field(init=False)
    _fronts: dict[str, str] = field(factory=dict, init=False)
    _daemons: list[Daemon] = field(factory=list, init=False)
    _open: ExitStack = field(factory=ExitStack, init=False)

    def __attrs_post_init__(self) -> None:
        pair = issue(common_name="docxy test other token service")
        self._signer = Signer(pair.pem.decode(), pair.key_pem(SEC1).decode(), "other", "ghcr", 60)
        (self.directory / "trusted.pem").write_text(self._signer.certificate)
        token_port = free_port()
        realm = f"http://127.0.0.1:{token_port}/token"
        auth = {
            "token": {
                "realm": realm,
                "service": self._signer.service,
                "issuer": self._signer.issuer,
                "rootcertbundle": str(self.directory / "trusted.pem"),
            }
        }
        self.ghcr = Registry(self._new(GHCR), auth)
        self.mcr = Registry(self._new(MCR))
        certificate = server_files(self._new("certificate"), ("corp.test", "127.0.0.1"))
        self.corp = Registry(self._new(CORP), None, certificate)
        self._daemons = [
            self._tokens(token_port),
            *(registry.daemon for registry in (self.ghcr, self.mcr, self.corp)),
            self._front(GHCR, _GHCR_HOST, _only_realm(realm), f"location / {{ {_proxied(self.ghcr.url)} }}"),
            self._front(
                MCR,
                _MCR_HOST,
                "",
                f"location = /v2/ {{ return 200 '{{}}'; }} location / {{ return 307 {self.mcr.url}$request_uri; }}",
            ),
        ]

    def __enter__(self) -> Registries:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start every part and push the images; about 2 s."""
        with ExitStack() as started:
            for daemon in self._daemons:
                daemon.start()
                started.callback(daemon.stop)
            self._push_all()
            self._open = started.pop_all()

    def stop(self) -> None:
        """Stop every part."""
        self._open.close()

    def tables(self, password_env: str) -> str:
        """Their `[[upstreams]]`; bob's password is in this variable of docxy's environment."""
        return f"""
[[upstreams]]
name = "{GHCR}"
url = "{self._fronts[GHCR]}"
hosts = ["ghcr.docxy.test"]
realm_hosts = ["127.0.0.1"]
username = "{BOB}"
password_env = "{password_env}"

[[upstreams]]
name = "{MCR}"
url = "{self._fronts[MCR]}"

[[upstreams]]
name = "{CORP}"
url = "{self.corp.url}"
ca_file = "{self.corp.certificate.root if self.corp.certificate else ""}"
"""

    def _new(self, name: str) -> Path:
        directory = self.directory / name
        directory.mkdir()
        return directory

    def _push_all(self) -> None:
        busybox = which("busybox")
        assert busybox is not None
        for name in NAMES:
            # The content says which registry it is from.
            built = Builder(self._new(f"built-{name}"), Path(busybox)).single(f"{name}/{SHARED}", OCI)
            self.images[name, SHARED] = evolve(built, repository=SHARED)
        self.images[GHCR, PRIVATE] = Builder(self._new("private"), Path(busybox)).single(PRIVATE, OCI)
        self.images[MCR, LARGE] = evolve(self.large, repository=LARGE)
        for (name, repository), image in self.images.items():
            token = self._signer.token("pusher", [(repository, ("pull", "push"))]) if name == GHCR else None
            {GHCR: self.ghcr, MCR: self.mcr, CORP: self.corp}[name].push(image, token)

    def _tokens(self, port: int) -> Daemon:
        path = self.directory / "tokens.json"
        nothing = str(self.directory / "refuse")
        Settings(port, self._signer, {BOB: BOBS_PASSWORD}, ("team/",), nothing, terse=True).save(path)
        environ = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
        argv = [sys.executable, "-m", "tests.live.tokens", str(path)]
        return Daemon("token service", argv, self.directory / "tokens.log", accepts(port), environ)

    def _front(self, name: str, host: str, before: str, locations: str) -> Daemon:
        port = free_port(host)
        self._fronts[name] = f"http://{host}:{port}"
        server = f"{before} server {{ listen {host}:{port}; {locations} }}"
        return nginx(self._new(f"front-{name}"), server, port, host)


def _only_realm(realm: str) -> str:
    return f"""map $upstream_status $challenge {{ 401 'Bearer realm="{realm}"'; default ""; }}"""


def _proxied(origin: str) -> str:
    return f"""
            proxy_pass {origin};
            proxy_set_header Host $http_host;
            proxy_hide_header WWW-Authenticate;
            add_header WWW-Authenticate $challenge always;
            proxy_buffering off;
"""
