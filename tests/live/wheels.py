"""Programs that live tests install from PyPI's wheels, each in an environment of its own.

The law: who asks pins the version; it is installed once, whole, and kept in the tests' cache directory.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

from tests.live.gobuild import cache_directory
from tests.live.requirements import require

INSTALL_SECONDS = 300


def programs(package: str, version: str) -> Path:
    """The directory with the programs of a package.

    A test that cannot have them is skipped, or where `CI` is set failed.
    """
    home = cache_directory() / f"{package}-{version}"
    whole = home / "installed"
    cache_directory().mkdir(parents=True, exist_ok=True)
    with home.with_name(f"{home.name}.lock").open("w") as lock:
        # Another run may be at it: programs are there before what they import.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not whole.exists():
            try:
                subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
                pip = [str(home / "bin" / "pip"), "install", "-q", f"{package}=={version}"]
                subprocess.run(pip, check=True, timeout=INSTALL_SECONDS)
            except (OSError, subprocess.SubprocessError) as error:
                require(lacking=[f"{package} {version} (pip: {error})"])
            whole.touch()
    return home / "bin"
