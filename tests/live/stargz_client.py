"""containerd 2 with stargz-snapshotter, which mounts eStargz layers without pulling them.

The law: what it mounts is read in its own mount namespace, as a container would.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from attrs import define, field

from tests.harness.processes import Daemon, Output, Reactor, run
from tests.live.clients import named
from tests.live.clients_today import Containerd2
from tests.live.gobuild import built
from tests.live.images import Image, host_architecture
from tests.live.machine import DOCKER_HUB, Machine


@define
class Stargz:
    """Both daemons.  `name` and `daemon` are the snapshotter's."""

    machine: Machine
    reactor: Reactor
    name: str = "stargz-snapshotter"
    daemon: Daemon = field(init=False)
    containerd: Containerd2 = field(init=False)

    def __attrs_post_init__(self) -> None:
        at = self.machine.directory
        socket = at / "stargz.sock"
        self.containerd = Containerd2(
            self.machine,
            self.reactor,
            snapshotter="stargz",
            settings=f"""
[proxy_plugins.stargz]
type = "snapshot"
address = "{socket}"
[proxy_plugins.stargz.exports]
enable_remote_snapshot_annotations = "true"
""",
        )
        argv = [built("stargz")["stargz"], str(socket), str(self._root), str(self.machine.hosts_dir)]
        self.daemon = Daemon(
            self.name,
            self.machine.command(argv),
            at / "stargz.log",
            lambda: "serving" in self.daemon.text(),
            self.machine.environ,
        )

    @property
    def _root(self) -> Path:
        return self.machine.directory / "stargz"

    def start(self) -> None:
        """Start the snapshotter, then containerd."""
        self.daemon.start()
        self.containerd.start()

    def stop(self) -> None:
        """Stop both and what they keep."""
        self.containerd.stop()
        self.daemon.stop()
        shutil.rmtree(self._root, ignore_errors=True)

    async def pull(self, image: Image, host: str = DOCKER_HUB) -> set[str]:
        """Pull by digest; the digests of what containerd then has."""
        options = (f"--hosts-dir={self.machine.hosts_dir}", "--snapshotter=stargz")
        platform = f"--platform=linux/{host_architecture()}"
        await self.containerd.command("images", "pull", *options, platform, named(image, image.digest, host))
        return set((await self.containerd.command("content", "ls", "--quiet")).stdout.split())

    async def mounted(self, image: Image) -> Path:
        """Mount a pulled image of one layer; where."""
        there = self.machine.directory / "mounted"
        there.mkdir()
        (chain,) = json.loads(image.blobs[image.config].read_bytes())["rootfs"]["diff_ids"]
        # As for a container: unlike a view it is no garbage before it is mounted.
        prepare = ("snapshots", "--snapshotter=stargz", "prepare", f"--target={there}", "docxy", chain)
        told = await self.containerd.command(*prepare)
        await self.inside("sh", "-e", "-c", told.stdout)
        return there

    async def inside(self, *argv: str) -> Output:
        """Run a command where the mounts are."""
        enter = ["nsenter", f"--target={self.daemon.process.pid}", "--mount", *argv]
        return await run(self.reactor, enter, self.machine.environ)
