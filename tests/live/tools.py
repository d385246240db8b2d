"""Today's command line tools: crane, regctl, oras, helm, cosign and notation, on a Machine.

Each is given an account or none, copies what it is told to, and compares it with what was
pushed.  The law is that of clients.py: what a tool says it got is compared byte for byte.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from attrs import define, field

from tests.harness.processes import Output, Reactor, run
from tests.live.gobuild import built
from tests.live.images import Image
from tests.live.machine import Machine
from tests.live.stores import ATTESTED, CHART, CHART_VERSION, LAYERS, SHA512, SIGNATURE, Store


class Tool(Protocol):
    """Something that copies."""

    async def check(self, store: Store) -> list[str]:
        """Copy all that it can of a store; what was not right, hopefully nothing.  Raises CommandFailed."""


@define
class _Command:
    """A program on a machine, which trusts docxy's certificate and uses this account."""

    machine: Machine
    reactor: Reactor
    name: str
    account: tuple[str, str] | None = None
    _path: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._path = built(self.name)[self.name]
        auths = {}
        if self.account is not None:
            auths[self.host] = {"auth": base64.b64encode(":".join(self.account).encode()).decode()}
        # Where docker, and everybody after it, keeps accounts; helm has a place of its own.
        for place in (".docker", ".config/helm/registry"):
            directory = Path(self.machine.environ["HOME"], place)
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "config.json").write_text(json.dumps({"auths": auths}))

    @property
    def host(self) -> str:
        """docxy's."""
        return self.machine.target.host

    async def __call__(self, *arguments: str) -> Output:
        environ = {**self.machine.environ, "SSL_CERT_FILE": str(self.machine.target.root)}
        return await run(self.reactor, self.machine.command([self._path, *arguments]), environ)

    def scratch(self) -> Path:
        """An empty directory, the same each time."""
        directory = self.machine.directory / "copied"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        return directory


class Crane:
    """crane pulls whole indexes as OCI layouts; sha512 it does not know."""

    def __init__(self, machine: Machine, reactor: Reactor, account: tuple[str, str] | None) -> None:
        self._run = _Command(machine, reactor, "crane", account)

    async def check(self, store: Store) -> list[str]:
        """See Tool: every image by tag and by digest, and the list of tags."""
        wrong = []
        for image in store.images.values():
            if image.repository == SHA512:
                continue
            for reference in (":latest", f"@{image.digest}"):
                layout = self._run.scratch()
                await self._run("pull", "--format=oci", f"{self._run.host}/{image.repository}{reference}", str(layout))
                wrong += lacking(layout, image)
            told = (await self._run("digest", f"{self._run.host}/{image.repository}:latest")).stdout.strip()
            wrong += [] if told == image.digest else [f"{image.repository} is {told}"]
        tags = (await self._run("ls", f"{self._run.host}/{ATTESTED}")).stdout.split()
        return wrong if "latest" in tags else [*wrong, f"the tags are {tags}"]


class Regctl:
    """regctl copies images with all that refers to them."""

    def __init__(self, machine: Machine, reactor: Reactor, account: tuple[str, str] | None) -> None:
        self._run = _Command(machine, reactor, "regctl", account)

    async def check(self, store: Store) -> list[str]:
        """See Tool: every image by tag, with its referrers, and the tree of them."""
        wrong = []
        for image in store.images.values():
            layout = self._run.scratch()
            source = f"{self._run.host}/{image.repository}:latest"
            await self._run("image", "copy", "--referrers", source, f"ocidir://{layout}:latest")
            wrong += lacking(layout, image, store.referrers if image.repository == ATTESTED else ())
        tree = (await self._run("artifact", "tree", f"{self._run.host}/{ATTESTED}:latest")).stdout
        return wrong + [f"{digest} is not in the tree:\n{tree}" for digest in store.referrers if digest not in tree]


class Oras:
    """oras copies graphs, and pulls the files of an artifact."""

    def __init__(self, machine: Machine, reactor: Reactor, account: tuple[str, str] | None) -> None:
        self._run = _Command(machine, reactor, "oras", account)

    async def check(self, store: Store) -> list[str]:
        """See Tool: every image with its referrers, the tree of them, and the signature's file."""
        wrong = []
        for image in store.images.values():
            layout = self._run.scratch()
            source = f"{self._run.host}/{image.repository}:latest"
            await self._run("cp", "--no-tty", "-r", "--to-oci-layout", source, f"{layout}:latest")
            wrong += lacking(layout, image, store.referrers if image.repository == ATTESTED else ())
        tree = (await self._run("discover", f"{self._run.host}/{ATTESTED}:latest")).stdout
        wrong += [f"{digest} is not in the tree:\n{tree}" for digest in store.referrers if digest not in tree]
        sbom, signature = store.referrers
        directory = self._run.scratch()
        await self._run("pull", "--no-tty", "-o", str(directory), f"{self._run.host}/{ATTESTED}@{signature}")
        text = (directory / "note.txt").read_text()
        return wrong if text == f"{SIGNATURE} of {sbom}\n" else [*wrong, f"the signature is {text!r}"]


class Helm:
    """helm pulls charts."""

    def __init__(self, machine: Machine, reactor: Reactor, account: tuple[str, str] | None) -> None:
        self._run = _Command(machine, reactor, "helm", account)

    async def check(self, store: Store) -> list[str]:
        """See Tool: the chart by its version, and by no version, which asks for the tags."""
        wrong = []
        for version in ([f"--version={CHART_VERSION}"], []):
            directory = self._run.scratch()
            await self._run("pull", f"oci://{self._run.host}/{CHART}", *version, "-d", str(directory))
            if (directory / f"docxy-{CHART_VERSION}.tgz").read_bytes() != store.chart:
                wrong.append(f"another chart with {version}")
        return wrong


class Cosign:
    """cosign verifies signatures."""

    def __init__(self, machine: Machine, reactor: Reactor, account: tuple[str, str] | None) -> None:
        self._run = _Command(machine, reactor, "cosign", account)

    async def check(self, store: Store) -> list[str]:
        """See Tool: the signature of the image, by tag and by digest, and the tree."""
        wrong = []
        digest = store.images[ATTESTED].digest
        for reference in (":latest", f"@{digest}"):
            name = f"{self._run.host}/{ATTESTED}{reference}"
            told = await self._run("verify", f"--key={store.key}", "--insecure-ignore-tlog", name)
            if digest not in told.stdout:
                wrong.append(f"{name} is verified as {told.text}")
        return wrong


class Notation:
    """notation verifies signatures by the certificate of who signed."""

    def __init__(self, machine: Machine, reactor: Reactor, account: tuple[str, str] | None) -> None:
        self._run = _Command(machine, reactor, "notation", account)
        self._pull = _Command(machine, reactor, "crane", account)

    async def check(self, store: Store) -> list[str]:
        """See Tool: the signature of the image, by tag and by digest."""
        self._trust(store.signer)
        wrong = []
        digest = store.images[LAYERS].digest
        for reference in (":latest", f"@{digest}"):
            name = f"{self._run.host}/{LAYERS}{reference}"
            # notation itself asks only whether it is there, which leaves nothing of it in a cache.
            await self._pull("manifest", name)
            told = await self._run("verify", name)
            if f"Successfully verified signature for {self._run.host}/{LAYERS}@{digest}" not in told.text:
                wrong.append(f"{name} is verified as {told.text}")
        return wrong

    def _trust(self, certificate: Path) -> None:
        at = Path(self._run.machine.environ["HOME"], ".config", "notation")
        trusted = at / "truststore" / "x509" / "ca" / "docxy.test"
        trusted.mkdir(parents=True, exist_ok=True)
        shutil.copy(certificate, trusted)
        policy = {
            "name": "all",
            "registryScopes": ["*"],
            "signatureVerification": {"level": "strict"},
            "trustStores": ["ca:docxy.test"],
            "trustedIdentities": ["*"],
        }
        (at / "trustpolicy.json").write_text(json.dumps({"version": "1.0", "trustPolicies": [policy]}))


def lacking(layout: Path, image: Image, more: Iterable[str] = ()) -> list[str]:
    """What of an image, and more digests, an OCI layout lacks; and its files that are not what their names say."""
    wrong, there = [], set()
    for file in layout.glob("blobs/*/*"):
        digest = f"{file.parent.name}:{file.name}"
        if hashlib.new(file.parent.name, file.read_bytes()).hexdigest() == file.name:
            there.add(digest)
        else:
            wrong.append(f"wrong bytes in {digest}")
    wanted = {image.digest, *(child.digest for child in image.children.values()), *image.blobs, *more}
    return wrong + [f"{image.repository} lacks {digest}" for digest in sorted(wanted - there)]
