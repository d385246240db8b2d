"""What the live tests need of the machine, and who gives it.

The law: on a developer's machine a test that lacks something is skipped and says what to
install; where `CI` is set it fails.
"""

from __future__ import annotations

import os
import subprocess
import unittest
from collections.abc import Mapping

from tests.harness.processes import which

PACKAGES = {
    "docker-registry": "docker-registry",
    "nginx": "nginx",
    "haproxy": "haproxy",
    "busybox": "busybox-static",
    "dockerd": "docker.io",
    "docker": "docker.io",
    "containerd": "containerd",
    "ctr": "containerd",
    "podman": "podman",
    "skopeo": "skopeo",
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
    "unshare": "util-linux",
    "setpriv": "util-linux",
}
"""Program -> the Debian or Ubuntu package that has it (Debian 13: docker-cli for docker)."""


def missing(packages: Mapping[str, str] = PACKAGES) -> list[str]:
    """What is missing, each with what to do about it; empty when all is there.

    `packages`: the package by program.
    """
    lacking = [f"{name} (apt-get install {package})" for name, package in packages.items() if which(name) is None]
    if which("unshare") is not None and not _may_mount():
        lacking.append("the right to make mount namespaces (run as root; in a container, with CAP_SYS_ADMIN)")
    return lacking


def require(environ: Mapping[str, str] = os.environ, lacking: list[str] | None = None) -> None:
    """Return when everything is there; else skip the test, or fail it where `CI` is set."""
    lacking = missing() if lacking is None else lacking
    if not lacking:
        return
    message = f"the live tests need {', '.join(lacking)}; tests/live/setup.sh installs everything"
    if environ.get("CI"):
        raise AssertionError(message)
    raise unittest.SkipTest(message)


def _may_mount() -> bool:
    command = ["unshare", "--mount", "--propagation", "private", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
