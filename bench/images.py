"""Whole images, cold, behind an upstream that is far away: what a user waits for."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from bench.lab import SECONDS, Lab, Measured, Row
from bench.load import LoadFailed
from bench.processes import Server
from bench.servers import Target
from bench.stats import Goal

LATENCY, CONNECTION_RATE = 0.05, 20e6
"""Of the line: seconds of a round trip, bytes a second of a connection."""
_PATIENCE = 300
"""Seconds for a pull."""

Pull = Callable[[Lab, str], float]
"""Seconds that it takes to pull `host:port/repository:tag`; leaves nothing behind."""


def row(client: str, pull: Pull) -> Row:
    """A new image for each server and round."""

    def measure(lab: Lab, name: str, round_: int) -> Measured:
        target = far_target(lab, name)
        repository = f"bench/{client}-{round_}"
        image = lab.made(repository, lambda: lab.content.image(repository, lab.sizes.layers))
        took = pull(lab, f"{target.url.removeprefix('http://')}/{image}")
        target.server.settle()
        os.sync()
        return {SECONDS: took}

    title = f"whole cold image of 10 layers, {client}, upstream of {LATENCY * 1e3:.0f} ms"
    title += f" and {CONNECTION_RATE / 1e6:.0f} MB/s a connection"
    goals = (Goal(SECONDS, "≤", 1.0, "proxy"), Goal(SECONDS, "≤", 1.0, "direct"))
    return Row(f"image-{client}", title, measure, goals, ("docxy", "proxy", "direct"))


def far_target(lab: Lab, name: str) -> Target:
    far = lab.started("far", lambda: lab.setup.far(lab.stage.targets["http"]["registry"], LATENCY, CONNECTION_RATE))
    if name == "docxy":
        return lab.started("far docxy", lambda: lab.setup.docxy("docxy-far", far.url))
    if name == "proxy":
        return lab.started("far proxy", lambda: lab.setup.registry("proxy-far", "http", far.url))
    return far


def docker(lab: Lab, image: str) -> float:
    """With `docker pull`, unpacked."""
    at = lab.setup.directory / "docker"
    socket = at / "socket"

    def make() -> Target:
        at.mkdir()
        argv = [lab.programs["dockerd"], "--iptables=false", "--ip6tables=false", "--bridge=none"]
        argv += [f"--data-root={at / 'data'}", f"--exec-root={at / 'exec'}", f"--pidfile={at / 'pid'}"]
        argv += [f"--host=unix://{socket}"]
        return Target(Server("dockerd", argv, [socket], at / "log"), f"unix://{socket}")

    daemon = lab.started("dockerd", make)
    command = [lab.programs["docker"], "--host", daemon.url]
    took = _run([*command, "pull", "--quiet", image])
    _run([*command, "image", "rm", "--force", image])
    daemon.server.settle()
    return took


def skopeo(lab: Lab, image: str) -> float:
    """With `skopeo copy` to a directory."""
    to = lab.setup.directory / "copied"
    try:
        options = ["--quiet", "--insecure-policy", "--src-tls-verify=false"]
        return _run([lab.programs["skopeo"], "copy", *options, f"docker://{image}", f"dir:{to}"])
    finally:
        shutil.rmtree(to, ignore_errors=True)


def _run(command: list[str]) -> float:
    """Seconds."""
    started = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        raise LoadFailed(f"{Path(command[0]).name} took more than {_PATIENCE} s: {command[-2:]}") from None
    if done.returncode:
        raise LoadFailed(f"{' '.join(command[:4])} …: {done.stderr.strip()[:500]}")
    return time.monotonic() - started
