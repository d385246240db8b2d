"""The preloaded library: built with the machine's C compiler, steered through a shared page.

The law: what is set strikes at once, in every process of the daemon, and only below its cache directory.
"""

from __future__ import annotations

import errno
import mmap
import shutil
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
CALLS = ("open", "read", "write", "sync", "rename", "lock", "sendfile", "unlink", "mkdir", "stat", "list", "change")
"""In the order of `enum call`."""
_HEAD = struct.Struct("=IIq")
_CALL = struct.Struct("=IIII")


def compiler() -> str | None:
    """The C compiler, if there is one."""
    return shutil.which("cc")


class Shim:
    """One page, and the library that reads it."""

    def __init__(self, directory: Path, cache: Path, seed: int) -> None:
        """Builds it in `directory`; raises CalledProcessError with what the compiler said."""
        self._library = directory / "shim.so"
        cc = compiler()
        assert cc is not None, "asked before"
        subprocess.run([cc, "-shared", "-fPIC", "-O1", "-o", self._library, SOURCE, "-ldl"], check=True)
        self._control = directory / "control"
        self._control.write_bytes(bytes(_HEAD.size + len(CALLS) * _CALL.size))
        self._cache = cache
        with self._control.open("r+b") as opened:
            self._page = mmap.mmap(opened.fileno(), 0)
        _HEAD.pack_into(self._page, 0, seed & 0xFFFFFFFF, 0, 0)

    @property
    def environ(self) -> dict[str, str]:
        """What a daemon's environment needs."""
        return {
            "LD_PRELOAD": str(self._library),
            "TORTURE_CONTROL": str(self._control),
            "TORTURE_DIRECTORY": str(self._cache),
        }

    def fail(self, call: str, error: str, share: float) -> None:
        """From now on this share of these calls fails with the error, as `ENOSPC`."""
        at = _HEAD.size + CALLS.index(call) * _CALL.size
        struck, seen = self._counted(call)
        _CALL.pack_into(self._page, at, int(share * 65536), getattr(errno, error), struck, seen)

    def well(self) -> None:
        """No call fails any more."""
        for call in CALLS:
            self.fail(call, "EIO", 0.0)

    def step(self, seconds: int) -> None:
        """The time of day is off by this from now on."""
        struct.pack_into("=q", self._page, 8, seconds)

    def struck(self) -> int:
        """How many calls failed so far."""
        return sum(self._counted(call)[0] for call in CALLS)

    def _counted(self, call: str) -> tuple[int, int]:
        at = _HEAD.size + CALLS.index(call) * _CALL.size
        _, _, struck, seen = _CALL.unpack_from(self._page, at)
        return struck, seen

    def close(self) -> None:
        self._page.close()
