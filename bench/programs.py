"""The programs that are measured and measure: where they are, which version, what is missing."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import docxy
from tests.live.gobuild import PROGRAMS, CannotBuild, build

PACKAGES: Mapping[str, str] = {
    "nginx": "nginx",
    "docker-registry": "docker-registry",
    "wrk": "wrk",
    "curl": "curl",
    "dockerd": "docker.io",
    "docker": "docker.io",
    "skopeo": "skopeo",
}
"""By program, the Debian package that has it."""
TOP = Path(__file__).resolve().parent.parent


def find(path: str | None = None) -> dict[str, str]:
    """Where the programs are; one that is missing is left out.  `path`: instead of $PATH and the places of daemons."""
    where = os.environ.get("PATH", "") + ":/usr/sbin:/sbin" if path is None else path
    found = {name: shutil.which(name, path=where) for name in PACKAGES}
    return {name: place for name, place in found.items() if place is not None}


def built() -> dict[str, str]:
    """`distribution`, built if there is Go and it was not yet; else nothing."""
    program = PROGRAMS["distribution"]
    try:
        build(program)
    except CannotBuild:
        return {}
    return {program.name: str(program.path)}


def complaint(found: Mapping[str, str]) -> str | None:
    """What to install, or None when all is there."""
    missing = [name for name in PACKAGES if name not in found]
    if not missing:
        return None
    return f"missing: {', '.join(missing)}; --install does: apt-get install {' '.join(packages(found))}"


def packages(found: Mapping[str, str]) -> list[str]:
    """Those that have what is missing."""
    return sorted({package for name, package in PACKAGES.items() if name not in found})


def install(found: Mapping[str, str]) -> None:
    """Install them, as root or with sudo.  Raises subprocess.CalledProcessError."""
    wanted = packages(found)
    if "docker.io" in wanted and _has("docker-cli"):
        # Where docker's command line is a package of its own (Debian 13).
        wanted.append("docker-cli")
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-y"]
    subprocess.run([*as_root, *quiet, "update"], check=True)
    subprocess.run([*as_root, *quiet, "install", "--no-install-recommends", *wanted], check=True)


def _has(package: str) -> bool:
    """Whether there is such a package to be installed."""
    return subprocess.run(["apt-cache", "show", package], capture_output=True, check=False).returncode == 0


def versions(found: Mapping[str, str]) -> dict[str, str]:
    """By name, what is measured and what it stands on."""
    return {
        "docxy": f"{docxy.__version__}{_commit()}",
        "Python": platform.python_version(),
        **{name: version(name) for name in ("Twisted", "treq", "pyOpenSSL")},
        "nginx": _said([found["nginx"], "-v"], r"nginx/(\S+)"),
        "docker-registry": _said([found["docker-registry"], "--version"], r"(\d\S+)\s*$"),
        **({"distribution": PROGRAMS["distribution"].version} if "distribution" in found else {}),
        "curl": _said([found["curl"], "--version"], r"curl (\S+)"),
        "wrk": _said([found["wrk"], "-v"], r"wrk (?:debian/)?(\S+)"),
        "docker": _said([found["docker"], "--version"], r"version ([^\s,]+)"),
        "skopeo": _said([found["skopeo"], "--version"], r"version (\S+)"),
        "OpenSSL": _said([found["curl"], "--version"], r"OpenSSL/(\S+)"),
    }


def machine() -> str:
    """Processor, cores, memory, kernel."""
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text("utf-8"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    name = model[1].strip() if model else platform.machine()
    return f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {'.'.join(platform.release().split('.')[:2])}"


def _said(command: list[str], pattern: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(pattern, done.stdout + done.stderr)
    return found[1] if found else "unknown"


def _commit() -> str:
    """The commit of the checkout, and whether docxy/ differs from it; empty outside of one."""
    git = shutil.which("git")
    if git is None:
        return ""
    head = subprocess.run([git, "-C", TOP, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        return ""
    changed = subprocess.run([git, "-C", TOP, "diff", "--quiet", "HEAD", "--", "docxy"], check=False).returncode
    return f" ({head.stdout.strip()}{', changed' if changed else ''})"
