"""The torture programme: it catches what is wrong, blames nobody for what is right, and docxy stands it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.harness.processes import CHECKOUT
from tests.torture.broken import Broken
from tests.torture.faults import Weather
from tests.torture.library import SMALL, Shape
from tests.torture.marks import NAMES, Marks
from tests.torture.phases.evict import look
from tests.torture.stage import Stage

BUDGET = 24 << 20


class CatchesTests(SynchronousTestCase):
    """Each mark is given to a mirror that earns it, and no other mark is."""

    timeout = 60

    def tried(self, wrong: str) -> Marks:
        """The marks of a mirror that is wrong in this way."""
        directory = Path(self.mktemp()).resolve()
        directory.mkdir(parents=True)
        self.said: list[str] = []
        marks = Marks(self.said.append)
        asyncio.run(self._try(wrong, marks, directory))
        return marks

    async def _try(self, wrong: str, marks: Marks, directory: Path) -> None:
        stage = Stage(3, "trial", marks, directory, time.monotonic() + 20, Broken)
        stage.bound = 1.0 if wrong == "hangs" else 20.0
        try:
            await stage.open(Shape(images=2, layers=3, sizes=SMALL))
            daemon = stage.daemon(size=wrong)
            await daemon.start()
            if wrong in ("healable", "unhealed"):
                # Half of all answers are an honest 500, never two in a row for long.
                await stage.upstream.be(Weather(rate=0.5, kinds=("500",)))
            if wrong == "hangs":
                await stage.pull(daemon, stage.library.images[0], stage.random(0))
                return
            await stage.pulls([daemon], 6)
            looking = asyncio.ensure_future(look(stage, [daemon], BUDGET))
            await stage.heal([daemon], 0.3)
            looking.cancel()
        finally:
            stage.close()

    def test_nothing(self) -> None:
        """A mirror that does nothing wrong gets no mark, though the upstream is asked through it."""
        marks = self.tried("nothing")
        self.assertTrue(marks.clean, self.said)
        self.assertGreater(marks.counted["requests"], 20)

    def test_each(self) -> None:
        """For every mark there is a mirror that earns it."""
        for wrong in NAMES:
            marks = self.tried(wrong)
            self.assertIn(wrong, +marks.against, self.said)
            # What fails for ever fails without a cause of the upstream's too.
            follows = {"unexplained": {"unhealed"}, "unhealed": {"unexplained", "healable"}, "500s": {"unhealed"}}
            follows["wrong"] = {"unhealed"}
            self.assertLessEqual(set(+marks.against), {wrong, *follows.get(wrong, ())}, self.said)


class DocxyTests(SynchronousTestCase):
    """docxy itself."""

    timeout = 240

    def test_run(self) -> None:
        """A short run with a fixed seed ends in time, with one line that sums it up and no mark in it."""
        command = [sys.executable, "-m", "tests.torture", "--seed", "2026", "--time", "20", "crash"]
        run = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=200)
        last = run.stdout.splitlines()[-1]
        self.assertEqual((run.returncode, run.stderr), (0, ""), run.stdout)
        self.assertRegex(
            last, r"^torture ok seed=2026 seconds=\d+ pulls=\d+ requests=\d+ kills=\d+ excused=\d+ \| wrong=0 "
        )

    def test_refused(self) -> None:
        """A phase that does not exist is refused, with the names of those that do."""
        command = [sys.executable, "-m", "tests.torture", "nonsense"]
        run = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
        self.assertEqual(run.returncode, 2)
        self.assertIn("faults", run.stderr)
