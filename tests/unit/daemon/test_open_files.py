"""Tests for docxy.daemon.open_files."""

from __future__ import annotations

import resource

from twisted.trial.unittest import SynchronousTestCase

from docxy.daemon import open_files
from docxy.daemon.open_files import ENOUGH, raise_limit


class RaiseTests(SynchronousTestCase):
    """The soft limit of a process."""

    def raised(self, soft: int, hard: int) -> tuple[int, list[tuple[int, int]]]:
        """What it is afterwards, and what was set."""
        put: list[tuple[int, int]] = []
        self.patch(open_files.resource, "getrlimit", lambda _: (soft, hard))
        self.patch(open_files.resource, "setrlimit", lambda _, limits: put.append(limits))
        return raise_limit(), put

    def test_raised(self) -> None:
        """To the hard limit, which stays."""
        self.assertEqual(self.raised(1_024, 4_096), (4_096, [(4_096, 4_096)]))

    def test_enough(self) -> None:
        """No further than `ENOUGH`, also where nothing bounds it."""
        for hard in (1 << 30, resource.RLIM_INFINITY):
            self.assertEqual(self.raised(1_024, hard), (ENOUGH, [(ENOUGH, hard)]))

    def test_left(self) -> None:
        """What is more already stays."""
        for soft in (4_096, ENOUGH + 1, resource.RLIM_INFINITY):
            hard = max(soft, 4_096) if soft != resource.RLIM_INFINITY else soft
            self.assertEqual(self.raised(soft, hard), (soft, []))
