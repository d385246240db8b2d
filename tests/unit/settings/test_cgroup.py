"""Cores and memory: what the container allows, what the machine has, and what cannot be read."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from docxy.settings import cgroup

GIB = 1 << 30


class MachineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.cgroup = Path(self.mktemp())
        self.cgroup.mkdir()
        self.patch(os, "sched_getaffinity", lambda _: set(range(16)))
        self.patch(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 64 * GIB // 4096}.__getitem__)

    def limits(self, cores: str | None = None, memory: str | None = None) -> int:
        for name, limit in (("cpu.max", cores), ("memory.max", memory)):
            path = self.cgroup / name
            path.unlink(missing_ok=True)
            if limit is not None:
                path.write_text(f"{limit}\n")
        return cgroup.workers(self.cgroup)

    def test_cores(self) -> None:
        """One a core, as many as the container may use, a part of one counted as one."""
        for quota, count in (
            (None, 16),
            ("max 100000", 16),
            ("400000 100000", 4),
            ("150000 100000", 2),
            ("5000 100000", 1),
            ("9900000 100000", 16),
        ):
            self.assertEqual(self.limits(cores=quota), count, quota)

    def test_memory(self) -> None:
        """No more than one for 512 MiB, and at least one."""
        for limit, count in (
            ("max", 16),
            (str(4 * GIB), 8),
            (str(GIB), 2),
            (str(GIB - 1), 1),
            (str(100 << 20), 1),
            (str(999 * GIB), 16),
        ):
            self.assertEqual(self.limits(memory=limit), count, limit)

    def test_unreadable(self) -> None:
        """What is missing or makes no sense says nothing."""
        for nonsense in ("", "x", "1 0", "-5", "1e3 100000", "\xff"):
            self.assertEqual(self.limits(cores=nonsense, memory=nonsense), 16, nonsense)
        self.assertEqual(cgroup.workers(self.cgroup / "none"), 16)

    def test_affinity(self) -> None:
        """Cores that this process is kept from do not count."""
        self.patch(os, "sched_getaffinity", lambda _: {3})
        self.assertEqual(self.limits(), 1)
