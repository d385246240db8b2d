"""The machine that the clients under test run on.

It has its own /etc/hosts, /etc/docker and /etc/containers, by a mount namespace, so that
clients are configured the way an operator does it while the real machine's files are
neither read nor written; mounts the clients make vanish with their processes.

The law: a pull that succeeds came through docxy.  The machine knows docxy's names
only; every other one leads to a proxy that nobody runs, so the real Docker Hub is out of reach.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from attrs import define, field, frozen

from tests.harness.processes import SYSTEM_PATH

HOSTNAME = "docxy.test"
ALIAS = "ghcr.docxy.test"
"""Another name of docxy's, which means another registry than the first (test_registries.py)."""
_ADDRESS = "0.0.0.0"
"""Leads to loopback but is not in 127.0.0.0/8, whose certificates dockerd does not check."""
_DEAD_PROXY = "http://127.0.0.1:9"
DOCKER_HUB = "docker.io"


@frozen
class Target:
    """The registry the clients are pointed at, most often docxy."""

    port: int
    root: Path | None = None
    """The root certificate to trust; None: plain HTTP."""

    @property
    def host(self) -> str:
        """Host and port, as in image names."""
        # Docker takes plain HTTP from addresses in 127.0.0.0/8 unasked.
        return f"{HOSTNAME if self.root else '127.0.0.1'}:{self.port}"

    @property
    def url(self) -> str:
        """As in `registry-mirrors`."""
        return f"{'https' if self.root else 'http'}://{self.host}"


@define
class Machine:
    """Configured for one target; a directory holds all it has."""

    directory: Path
    target: Target
    environ: dict[str, str] = field(init=False)
    """What every client on it sees."""

    def __attrs_post_init__(self) -> None:
        for name in ("home", "run", "tmp", "containers", "docker", "hosts.d", "state"):
            (self.directory / name).mkdir(parents=True)
        (self.directory / "hosts").write_text(f"127.0.0.1 localhost\n{_ADDRESS} {HOSTNAME} {ALIAS}\n")
        self._write_enter()
        self._configure_docker()
        self._configure_podman()
        self._configure_containerd()
        self.environ = {
            "PATH": SYSTEM_PATH,
            "LANG": "C.UTF-8",
            "HOME": str(self.directory / "home"),
            "XDG_RUNTIME_DIR": str(self.directory / "run"),
            "TMPDIR": str(self.directory / "tmp"),
            "HTTP_PROXY": _DEAD_PROXY,
            "HTTPS_PROXY": _DEAD_PROXY,
            "NO_PROXY": f"localhost,127.0.0.1,127.0.0.2,{HOSTNAME}",
            "CONTAINERS_CONF": str(self.directory / "containers" / "containers.conf"),
        }

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` on this machine."""
        return ["unshare", "--mount", "--propagation", "private", "sh", str(self.directory / "enter"), *argv]

    def remove(self) -> None:
        """Leave nothing of it."""
        shutil.rmtree(self.directory)

    def mirror(self, name: str) -> None:
        """Let containerd and podman go to docxy for this registry too."""
        self._write_hosts(name)
        with (self.directory / "containers" / "registries.conf").open("a") as file:
            file.write(
                f"""
[[registry]]
location = "{name}"
[[registry.mirror]]
location = "{self.target.host}/{name}"
insecure = {"false" if self.target.root else "true"}
"""
            )

    @property
    def hosts_dir(self) -> Path:
        """For `ctr --hosts-dir`."""
        return self.directory / "hosts.d"

    @property
    def daemon_json(self) -> Path:
        """For dockerd."""
        return self.directory / "docker" / "daemon.json"

    def _write_enter(self) -> None:
        binds = {
            "hosts": "/etc/hosts",
            "docker": "/etc/docker",
            "containers": "/etc/containers",
            "state": "/var/lib/containers",
        }
        lines = (
            f"if [ -e {there} ]; then mount --bind {shlex.quote(str(self.directory / name))} {there} || exit; fi"
            for name, there in binds.items()
        )
        (self.directory / "enter").write_text("\n".join([*lines, 'exec "$@"', ""]))

    def _configure_docker(self) -> None:
        self.daemon_json.write_text(json.dumps({"registry-mirrors": [self.target.url]}))
        self._trust(self.directory / "docker" / "certs.d")

    def _configure_podman(self) -> None:
        etc = self.directory / "containers"
        self._trust(etc / "certs.d")
        insecure = "false" if self.target.root else "true"
        (etc / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        (etc / "registries.conf").write_text(
            f"""
unqualified-search-registries = ["{DOCKER_HUB}"]

[[registry]]
location = "{DOCKER_HUB}"
[[registry.mirror]]
location = "{self.target.host}"
insecure = {insecure}

[[registry]]
location = "{self.target.host}"
insecure = {insecure}
"""
        )
        # Locks in files, so that nothing is left in /dev/shm.
        (etc / "containers.conf").write_text(
            f"""
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
tmp_dir = "{self.directory / "run"}"
"""
        )

    def _configure_containerd(self) -> None:
        for name in (DOCKER_HUB, self.target.host):
            self._write_hosts(name)

    def _write_hosts(self, name: str) -> None:
        authority = f'ca = "{self.target.root}"' if self.target.root else ""
        (self.hosts_dir / name).mkdir()
        (self.hosts_dir / name / "hosts.toml").write_text(
            f"""
[host."{self.target.url}"]
capabilities = ["pull", "resolve"]
{authority}
"""
        )

    def _trust(self, certificates: Path) -> None:
        if self.target.root is not None:
            for name in (HOSTNAME, ALIAS):
                (certificates / f"{name}:{self.target.port}").mkdir(parents=True)
                shutil.copy(self.target.root, certificates / f"{name}:{self.target.port}" / "ca.crt")
