"""The real clients: dockerd, containerd, podman and skopeo.

Each pulls one image by tag or digest, says what it got, and forgets it again, so that the
next pull starts from nothing.  The law: what a client says it got is compared with what
was pushed, never only its exit status.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from attrs import define, field, frozen

from tests.harness.processes import Daemon, Output, Reactor, run, which
from tests.live.images import Image, host_architecture
from tests.live.machine import DOCKER_HUB, Machine


@frozen
class Got:
    """What a client has after a pull."""

    digests: frozenset[str]
    """What it holds, as far as the client can tell: manifests, configs, layers."""

    def missing(self, *wanted: str) -> set[str]:
        """Those of the digests it does not have."""
        return set(wanted) - self.digests


class Client(Protocol):
    """Something that pulls."""

    name: str

    def start(self) -> None:
        """Start its daemon, if it has one."""

    def stop(self) -> None:
        """Stop it."""

    async def pull(self, image: Image, reference: str, host: str = DOCKER_HUB) -> set[str]:
        """Pull, compare with what was pushed, forget; what was not right (digests), hopefully nothing.

        `reference`: `latest` or a digest.  `host`: DOCKER_HUB goes through the configured
        mirror, docxy's own host and port go there by name.  Raises CommandFailed.
        """

    async def login(self, host: str, user: str, password: str) -> None:
        """Use this account there from now on; raises CommandFailed when it is refused at once."""

    async def logout(self, host: str) -> None:
        """Use no account there any more."""


def named(image: Image, reference: str, host: str) -> str:
    """The name of an image as clients take it."""
    return f"{host}/{image.repository}{'@' if ':' in reference else ':'}{reference}"


Make = Callable[[Machine, Reactor], Client]
"""Makes a client on a machine."""


class _CommandLine:
    """A command that keeps accounts and asks for the password on its standard input."""

    async def command(self, *arguments: str, stdin: bytes = b"", check: bool = True) -> Output:
        """Run it with these arguments; raises CommandFailed if `check`."""
        raise NotImplementedError

    async def login(self, host: str, user: str, password: str) -> None:
        """See Client."""
        await self.command("login", "--username", user, "--password-stdin", host, stdin=password.encode())

    async def logout(self, host: str) -> None:
        """See Client."""
        await self.command("logout", host)


class _Daemonless(_CommandLine):
    def start(self) -> None:
        """It has no daemon."""

    def stop(self) -> None:
        """It has no daemon."""


@define
class Docker(_CommandLine):
    """Debian's dockerd without a network of its own, and its command line."""

    machine: Machine
    reactor: Reactor
    name: str = "docker"
    daemon: Daemon = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._set_up(which("dockerd") or "dockerd", "--storage-driver=vfs")

    def _set_up(self, program: str, *options: str) -> None:
        at = self.machine.directory
        argv = [
            program,
            *("--iptables=false", "--ip6tables=false", "--bridge=none", *options),
            f"--data-root={at / 'docker-data'}",
            f"--exec-root={at / 'docker-exec'}",
            f"--pidfile={at / 'docker.pid'}",
            f"--host={self._host}",
        ]
        self.daemon = Daemon(
            "dockerd",
            self.machine.command(argv),
            at / "dockerd.log",
            lambda: "API listen on" in self.daemon.text(),
            self.machine.environ,
        )

    @property
    def _host(self) -> str:
        return f"unix://{self.machine.directory / 'docker.sock'}"

    def start(self) -> None:
        """Start dockerd."""
        self.daemon.log.unlink(missing_ok=True)
        self.daemon.start()

    def stop(self) -> None:
        """Stop dockerd and what it keeps."""
        self.daemon.stop()
        for left in ("docker-data", "docker-exec"):
            shutil.rmtree(self.machine.directory / left, ignore_errors=True)

    async def command(self, *arguments: str, stdin: bytes = b"", check: bool = True) -> Output:
        """Run `docker …`."""
        argv = ["docker", "--host", self._host, *arguments]
        return await run(self.reactor, argv, self.machine.environ, stdin=stdin, check=check)

    async def pull(self, image: Image, reference: str, host: str = DOCKER_HUB) -> set[str]:
        """See Client."""
        name = named(image, reference, host)
        try:
            await self.command("pull", "--quiet", name)
            inspected = json.loads((await self.command("image", "inspect", name)).stdout)[0]
            got = Got(frozenset(d.partition("@")[2] for d in inspected["RepoDigests"]) | {inspected["Id"]})
            # A containerd image store identifies an image by what was pulled, not by its config.
            identity = image.config if image.config in got.digests else inspected["Id"]
            wrong = got.missing(image.digest, identity)
            wrong |= await self._kept(image, name)
        finally:
            await self.command("image", "rm", "--force", name, check=False)
        return wrong

    async def _kept(self, image: Image, name: str) -> set[str]:
        """What is not right with what it keeps: a container is run."""
        if not image.runnable:
            return set()
        output = await self.command("run", "--rm", "--network", "none", name, "/bin/echo", "hi")
        return set() if output.stdout == "hi\n" else {f"said {output.text!r}"}


@define
class Containerd:
    """containerd with its `ctr`, configured by a hosts directory."""

    machine: Machine
    reactor: Reactor
    name: str = "containerd"
    daemon: Daemon = field(init=False)
    _user: list[str] = field(factory=list, init=False)
    _ctr: str = field(default="ctr", init=False)

    def __attrs_post_init__(self) -> None:
        self._set_up(which("containerd") or "containerd", 'disabled_plugins = ["io.containerd.grpc.v1.cri"]', 2)

    def _set_up(self, program: str, settings: str, version: int) -> None:
        at = self.machine.directory
        config = at / "containerd.toml"
        config.write_text(
            f"""
version = {version}
{settings}
[plugins."io.containerd.internal.v1.opt"]
path = "{at / "containerd-opt"}"
"""
        )
        argv = [
            program,
            f"--config={config}",
            f"--root={at / 'containerd-root'}",
            f"--state={at / 'containerd-state'}",
            f"--address={self.socket}",
        ]
        self.daemon = Daemon(
            "containerd",
            self.machine.command(argv),
            at / "containerd.log",
            lambda: "containerd successfully booted" in self.daemon.text(),
            self.machine.environ,
        )

    @property
    def socket(self) -> Path:
        return self.machine.directory / "containerd.sock"

    def start(self) -> None:
        """Start containerd."""
        self.daemon.log.unlink(missing_ok=True)
        self.daemon.start()

    def stop(self) -> None:
        """Stop containerd and what it keeps."""
        self.daemon.stop()
        for left in ("containerd-root", "containerd-state", "containerd-opt"):
            shutil.rmtree(self.machine.directory / left, ignore_errors=True)

    async def command(self, *arguments: str, check: bool = True, namespace: str = "docxy") -> Output:
        """Run `ctr …`."""
        argv = self.machine.command(self.ctr(*arguments, namespace=namespace))
        return await run(self.reactor, argv, self.machine.environ, check=check)

    def ctr(self, *arguments: str, namespace: str = "docxy") -> list[str]:
        """The command line of `ctr …`."""
        return [self._ctr, "--address", str(self.socket), "--namespace", namespace, *arguments]

    async def pull(self, image: Image, reference: str, host: str = DOCKER_HUB) -> set[str]:
        """See Client."""
        name = named(image, reference, host)
        options = [
            f"--hosts-dir={self.machine.hosts_dir}",
            "--snapshotter=native",
            f"--platform=linux/{host_architecture()}",
            *self._user,
        ]
        try:
            await self.command("images", "pull", *options, name)
            listed = (await self.command("images", "ls", f"name=={name}")).stdout.split()
            kept = (await self.command("content", "ls", "--quiet")).stdout.split()
            wrong = Got(frozenset(kept)).missing(
                image.digest, image.local.digest, image.config, *(digest for digest, _ in image.layers)
            )
            wrong |= Got(frozenset(listed)).missing(image.digest)
        finally:
            await self.command("images", "rm", "--sync", name, check=False)
        return wrong

    async def login(self, host: str, user: str, password: str) -> None:
        """See Client; ctr is told with each pull, and nothing is asked now."""
        self._user = ["--user", f"{user}:{password}"]

    async def logout(self, host: str) -> None:
        """See Client."""
        self._user = []


@define
class Podman(_Daemonless):
    """podman with the vfs driver."""

    machine: Machine
    reactor: Reactor
    name: str = "podman"

    async def command(self, *arguments: str, stdin: bytes = b"", check: bool = True) -> Output:
        """Run `podman …`."""
        at = self.machine.directory
        # podman takes no runroot of more than 50 characters.
        argv = ["podman", "--storage-driver=vfs", f"--root={at / 'podman'}", f"--runroot={at / 'r'}"]
        command = self.machine.command([*argv, *arguments])
        return await run(self.reactor, command, self.machine.environ, stdin=stdin, check=check)

    async def pull(self, image: Image, reference: str, host: str = DOCKER_HUB) -> set[str]:
        """See Client."""
        name = named(image, reference, host)
        try:
            await self.command("pull", "--quiet", name)
            inspected = json.loads((await self.command("image", "inspect", name)).stdout)[0]
            got = {f"sha256:{inspected['Id']}", inspected["Digest"]}
            got |= {digest.partition("@")[2] for digest in inspected["RepoDigests"]}
            wrong = Got(frozenset(got)).missing(image.config, image.digest)
        finally:
            await self.command("rmi", "--force", name, check=False)
        return wrong


@define
class Skopeo(_Daemonless):
    """skopeo, which copies everything, an index's every platform too, so that every byte can be compared."""

    machine: Machine
    reactor: Reactor
    name: str = "skopeo"

    async def command(self, *arguments: str, stdin: bytes = b"", check: bool = True) -> Output:
        """Run `skopeo …`."""
        command = self.machine.command(["skopeo", *arguments])
        return await run(self.reactor, command, self.machine.environ, stdin=stdin, check=check)

    async def pull(self, image: Image, reference: str, host: str = DOCKER_HUB) -> set[str]:
        """See Client."""
        copied = self.machine.directory / "copied"
        try:
            source = f"docker://{named(image, reference, host)}"
            await self.command("copy", "--quiet", "--all", source, f"dir:{copied}")
            got = Got(frozenset(_digest(file) for file in copied.iterdir()))
            children = (child.digest for child in image.children.values())
            return got.missing(image.digest, *children, *image.blobs)
        finally:
            shutil.rmtree(copied, ignore_errors=True)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return f"sha256:{digest.hexdigest()}"


def every_client(machine: Machine, reactor: Reactor) -> list[Client]:
    """One of each."""
    return [
        Docker(machine, reactor),
        Containerd(machine, reactor),
        Podman(machine, reactor),
        Skopeo(machine, reactor),
    ]
