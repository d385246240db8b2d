"""Registries of today with what today's tools put there: an upstream for tests/live/test_today.py.

==============  =============================  ==========================================
olareg          docxy asks nobody for a token  referrers API, sha512
distribution 3  token service (tokens.py)      no referrers API: tags take its place
==============  =============================  ==========================================

| repository      | what                                                                  |
|-----------------|-----------------------------------------------------------------------|
| `team/attested` | OCI index: two platforms, an attestation each; an SBOM refers to it, a signature to the SBOM |
| `team/layers`   | OCI, 60 layers, a signature of notation's                             |
| `team/zstd`     | OCI, a layer compressed with zstd                                     |
| `team/sha512`   | OCI, config and layers named by sha512 (olareg only)                  |
| `charts/docxy`  | docxy's own Helm chart, as 0.1.0                                      |

The law: as the bed's.  The tools push straight to the registry; docxy takes no part in it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

from attrs import define, field

from tests.harness.certificates import SEC1, issue
from tests.harness.processes import CHECKOUT, SYSTEM_PATH, Daemon, accepts, free_port, which
from tests.live.bed import push_to
from tests.live.gobuild import built
from tests.live.images import Builder, Image
from tests.live.tokens import Settings, Signer

ATTESTED, LAYERS, ZSTD, SHA512, CHART = "team/attested", "team/layers", "team/zstd", "team/sha512", "charts/docxy"
CHART_VERSION = "0.1.0"
SBOM, SIGNATURE = "application/vnd.docxy.sbom", "application/vnd.docxy.signature"
"""Types of the artifacts that refer to `team/attested`."""


class CannotPush(Exception):
    """A tool could not put something into the registry; the message has what it said."""


@define
class Store:
    """One registry and what is in it; a context manager."""

    directory: Path
    """Its own, existing and empty."""
    images: dict[str, Image] = field(factory=dict, init=False)
    """By repository."""
    referrers: tuple[str, ...] = field(default=(), init=False)
    """Digests of the SBOM and of the signature."""
    chart: bytes = field(default=b"", init=False)
    key: Path = field(init=False)
    """The public key of cosign's signature on `team/attested`."""
    signer: Path = field(init=False)
    """The certificate of notation's signature on `team/layers`."""
    port: int = field(factory=free_port, init=False)
    daemons: list[Daemon] = field(factory=list, init=False)
    """All that it takes to serve."""
    open_port: int = field(init=False)
    """Where `opened` serves."""
    opened: Daemon = field(init=False)
    """The registry on the same storage, asking nobody for a token: what is pushed goes there first."""
    sha512: bool = False
    """Whether it takes digests of sha512."""

    def __enter__(self) -> Store:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """For `--upstream`."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Put everything into it and start it; about 5 s."""
        self.opened.start()
        try:
            self._fill(self.open_port)
        finally:
            self.opened.stop()
        for daemon in self.daemons:
            daemon.start()

    def stop(self) -> None:
        """Stop it."""
        for daemon in self.daemons:
            daemon.stop()

    @contextmanager
    def off(self) -> Iterator[None]:
        """All of it is off while this is open."""
        self.stop()
        try:
            yield
        finally:
            for daemon in self.daemons:
                daemon.start()

    def _fill(self, port: int) -> None:
        at = self.directory / "built"
        at.mkdir()
        busybox = which("busybox")
        assert busybox is not None
        builder = Builder(at, Path(busybox))
        images = [builder.attested(ATTESTED), builder.layered(LAYERS, 60), builder.zstd(ZSTD)]
        if self.sha512:
            images.append(builder.sha512(SHA512))
        for image in images:
            push_to(HTTPConnection("127.0.0.1", port, timeout=60), image, None)
            self.images[image.repository] = image
        self.referrers = self._attach(port)
        self.chart = self._push_chart(port)
        self.key = self._sign(port)
        self.signer = self._notarize(port)

    def _attach(self, port: int) -> tuple[str, ...]:
        """An SBOM for the image, and a signature for the SBOM."""
        subject, digests = self.images[ATTESTED].digest, []
        for kind in (SBOM, SIGNATURE):
            (self.directory / "note.txt").write_text(f"{kind} of {subject}\n")
            name = f"127.0.0.1:{port}/{ATTESTED}@{subject}"
            kinds = f"--artifact-type={kind}"
            told = self._tool("oras", "attach", "--plain-http", "--format=json", kinds, name, "note.txt")
            subject = json.loads(told)["digest"]
            digests.append(subject)
        return tuple(digests)

    def _push_chart(self, port: int) -> bytes:
        self._tool("helm", "package", str(CHECKOUT / "deploy" / "helm" / "docxy"), "--version", CHART_VERSION)
        packed = self.directory / f"docxy-{CHART_VERSION}.tgz"
        self._tool("helm", "push", packed.name, f"oci://127.0.0.1:{port}/charts", "--plain-http")
        return packed.read_bytes()

    def _sign(self, port: int) -> Path:
        self._tool("cosign", "generate-key-pair")
        name = f"127.0.0.1:{port}/{ATTESTED}@{self.images[ATTESTED].digest}"
        offline = ("--tlog-upload=false", "--use-signing-config=false", "--yes")
        self._tool("cosign", "sign", "--key=cosign.key", "--allow-http-registry", *offline, name)
        return self.directory / "cosign.pub"

    def _notarize(self, port: int) -> Path:
        name = f"127.0.0.1:{port}/{LAYERS}@{self.images[LAYERS].digest}"
        self._tool("notation", "cert", "generate-test", "--default", "docxy.test")
        # By the API where there is one, which olareg then answers from.
        self._tool("notation", "sign", "--insecure-registry", "--force-referrers-tag=false", name)
        return self.directory / ".config" / "notation" / "localkeys" / "docxy.test.crt"

    def _tool(self, name: str, *arguments: str) -> str:
        environ = {
            "PATH": SYSTEM_PATH,
            "HOME": str(self.directory),
            "COSIGN_PASSWORD": "",
            # Nobody's: whatever is not on loopback is out of reach.
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "HTTP_PROXY": "http://127.0.0.1:9",
            "NO_PROXY": "127.0.0.1",
        }
        ended = subprocess.run(
            [built(name)[name], *arguments],
            cwd=self.directory,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if ended.returncode != 0:
            raise CannotPush(f"{name} {' '.join(arguments)}:\n{ended.stdout}{ended.stderr}")
        return ended.stdout


def olareg_store(directory: Path) -> Store:
    """An olareg that asks nobody for anything."""
    store = Store(directory, sha512=True)
    storage = directory / "storage"
    storage.mkdir()
    argv = [built("olareg")["olareg"], "serve", "--addr=127.0.0.1", f"--port={store.port}", f"--dir={storage}"]
    argv += ["--gc-frequency=-1s"]
    store.opened = Daemon("olareg", argv, directory / "olareg.log", accepts(store.port))
    store.open_port = store.port
    store.daemons.append(store.opened)
    return store


def distribution(directory: Path, port: int, auth: Mapping[str, object] | None) -> Daemon:
    """distribution 3 on a directory that others may serve too, one after another."""
    settings = {
        "version": "0.1",
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "storage")}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": "only one instance"},
        **({"auth": auth} if auth else {}),
    }
    config = directory / f"registry-{port}.yml"
    config.write_text(json.dumps(settings))
    argv = [built("distribution")["distribution"], "serve", str(config)]
    environ = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
    return Daemon("distribution", argv, directory / f"registry-{port}.log", accepts(port), environ)


def distribution_store(directory: Path) -> Store:
    """A distribution 3 that wants a token for everything; anyone may pull `team/…` and `charts/…`."""
    store = Store(directory)
    pair = issue(common_name="docxy test token service of today")
    signer = Signer(pair.pem.decode(), pair.key_pem(SEC1).decode(), "today", "today.test", 60)
    trusted = directory / "trusted.pem"
    trusted.write_text(signer.certificate)
    token_port = free_port()
    auth = {
        "token": {
            "realm": f"http://127.0.0.1:{token_port}/token",
            "service": signer.service,
            "issuer": signer.issuer,
            "rootcertbundle": str(trusted),
        }
    }
    path = directory / "tokens.json"
    Settings(token_port, signer, {}, ("team/", "charts/"), str(directory / "refuse")).save(path)
    tokens = Daemon(
        "token service",
        [sys.executable, "-m", "tests.live.tokens", str(path)],
        directory / "tokens.log",
        accepts(token_port),
        {**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    store.open_port = free_port()
    store.opened = distribution(directory, store.open_port, None)
    store.daemons += [tokens, distribution(directory, store.port, auth)]
    return store
