"""The clients of today, built from Go modules: containerd 2, dockerd 2 on it, and BuildKit.

The law is that of clients.py.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import tarfile
from pathlib import Path

from attrs import define, field

from tests.harness.processes import Daemon, Output, Reactor, run
from tests.live.clients import Containerd, Docker, Got, named
from tests.live.gobuild import built
from tests.live.images import Image, host_architecture
from tests.live.machine import DOCKER_HUB, Machine

_CHUNK = 8 << 20
"""Bytes of a range that containerd 2 fetches; a layer is several."""


@define
class Containerd2(Containerd):
    """containerd 2, whose transfer service pulls each layer in overlapping ranges at once."""

    name: str = "containerd 2"
    snapshotter: str = "native"
    settings: str = ""
    """More of its configuration."""

    def __attrs_post_init__(self) -> None:
        programs = built("containerd2", "ctr2")
        self._ctr = programs["ctr2"]
        self._set_up(
            programs["containerd2"],
            f"""
disabled_plugins = ["io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"]
[plugins."io.containerd.transfer.v1.local"]
max_concurrent_downloads = 12
concurrent_layer_fetch_buffer = {_CHUNK}
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
platform = "linux/{host_architecture()}"
snapshotter = "{self.snapshotter}"
{self.settings}
""",
            3,
        )


@define
class Docker2(Docker):
    """dockerd 2 with the containerd image store, on a containerd 2 beside it."""

    name: str = "docker 2"
    containerd: Containerd2 = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.containerd = Containerd2(self.machine, self.reactor)
        options = (f"--containerd={self.containerd.socket}", "--storage-driver=native")
        self._set_up(built("dockerd2")["dockerd2"], *options)
        # The command line of the distribution speaks an older API.
        self.daemon.environ = {**self.machine.environ, "DOCKER_MIN_API_VERSION": "1.24"}

    def start(self) -> None:
        """Start containerd, then dockerd."""
        self.containerd.start()
        super().start()

    def stop(self) -> None:
        """Stop both."""
        super().stop()
        self.containerd.stop()

    async def _kept(self, image: Image, name: str) -> set[str]:
        """What is not right with what it keeps.  To run it would take a shim as new as its containerd."""
        kept = (await self.containerd.command("content", "ls", "--quiet", namespace="moby")).stdout.split()
        layers = (digest for digest, _ in image.layers)
        return Got(frozenset(kept)).missing(image.digest, image.local.digest, image.config, *layers)


@define
class BuildKit:
    """buildkitd without containerd, and `buildctl`; builds an image of one line on what it pulls."""

    machine: Machine
    reactor: Reactor
    name: str = "buildkit"
    daemon: Daemon = field(init=False)
    _buildctl: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        programs = built("buildkitd", "buildctl")
        self._buildctl = programs["buildctl"]
        at, target = self.machine.directory, self.machine.target
        trust = f'ca = ["{target.root}"]' if target.root else "http = true\ninsecure = true"
        (at / "buildkitd.toml").write_text(
            f"""
[registry."{DOCKER_HUB}"]
mirrors = ["{target.host}"]
[registry."{target.host}"]
{trust}
"""
        )
        argv = [
            programs["buildkitd"],
            *(f"--addr={self._address}", f"--root={at / 'buildkit'}", f"--config={at / 'buildkitd.toml'}"),
            *("--containerd-worker=false", "--oci-worker-snapshotter=native", "--oci-worker-net=host"),
        ]
        self.daemon = Daemon(
            "buildkitd",
            self.machine.command(argv),
            at / "buildkitd.log",
            lambda: "running server" in self.daemon.text(),
            self.machine.environ,
        )

    @property
    def _address(self) -> str:
        return f"unix://{self.machine.directory / 'buildkit.sock'}"

    def start(self) -> None:
        """Start buildkitd."""
        self.daemon.log.unlink(missing_ok=True)
        self.daemon.start()

    def stop(self) -> None:
        """Stop buildkitd and what it keeps."""
        self.daemon.stop()
        shutil.rmtree(self.machine.directory / "buildkit", ignore_errors=True)

    async def command(self, *arguments: str) -> Output:
        """Run `buildctl …`."""
        argv = [self._buildctl, f"--addr={self._address}", *arguments]
        # The command line fetches the tokens, with trust of its own.
        trust = {"SSL_CERT_FILE": str(self.machine.target.root)} if self.machine.target.root else {}
        return await run(self.reactor, self.machine.command(argv), {**self.machine.environ, **trust})

    async def pull(self, image: Image, reference: str, host: str = DOCKER_HUB) -> set[str]:
        """See Client."""
        context, made = self.machine.directory / "context", self.machine.directory / "made.tar"
        context.mkdir(exist_ok=True)
        (context / "Dockerfile").write_text(f"FROM {named(image, reference, host)}\nLABEL made=here\n")
        places = (f"--local=context={context}", f"--local=dockerfile={context}", f"--output=type=oci,dest={made}")
        try:
            await self.command("build", "--progress=plain", "--frontend=dockerfile.v0", *places)
            with tarfile.open(made) as archive:
                # Layers that were pulled go into the image as they came.
                kept = {name.removeprefix("blobs/").replace("/", ":") for name in archive.getnames()}
                wrong = Got(frozenset(kept)).missing(*(digest for digest, _ in image.layers))
                for digest, _ in image.layers:
                    file = None if digest in wrong else archive.extractfile(f"blobs/{digest.replace(':', '/')}")
                    if file is not None and f"sha256:{hashlib.sha256(file.read()).hexdigest()}" != digest:
                        wrong.add(digest)
        finally:
            made.unlink(missing_ok=True)
            await self.command("prune", "--all")
        return wrong

    async def login(self, host: str, user: str, password: str) -> None:
        """See Client: as `docker login` would write it down."""
        entry = {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}
        self._accounts.parent.mkdir(exist_ok=True)
        self._accounts.write_text(json.dumps({"auths": {host: entry}}))

    async def logout(self, host: str) -> None:
        """See Client."""
        self._accounts.unlink(missing_ok=True)

    @property
    def _accounts(self) -> Path:
        """Where the command line looks for accounts."""
        return Path(self.machine.environ["HOME"], ".docker", "config.json")
