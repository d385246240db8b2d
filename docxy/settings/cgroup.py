"""What there is to use: cores and memory, as the container or the machine allows.

The law: the least of what anybody says counts; what cannot be read says nothing.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
MEMORY_OF_A_WORKER = 512 * 1024 * 1024
"""Bytes for which there is one worker at most: it takes a tenth of that, and the page cache serves the blobs."""


def workers(cgroup: Path = _CGROUP) -> int:
    """How many worker processes to run: one a core, fewer where memory is short."""
    return max(1, min(cores(cgroup), memory(cgroup) // MEMORY_OF_A_WORKER))


def cores(cgroup: Path = _CGROUP) -> int:
    """Cores that this process may use, at least one."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _read(cgroup / "cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        there = min(there, math.ceil(int(quota) / int(period)))
    return max(1, there)


def memory(cgroup: Path = _CGROUP) -> int:
    """Bytes of memory that this process and its children may use."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _read(cgroup / "memory.max")
    return min(there, int(limit)) if limit.isdigit() else there


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""
