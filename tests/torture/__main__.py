"""The command: `python -m tests.torture --seed N --time SECONDS [phase ...]`."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from tests.torture.daemons import TARGETS, DidNotStart
from tests.torture.marks import Marks
from tests.torture.phases import PHASES
from tests.torture.stage import Stage


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="all choices come from it; left out: a random one")
    parser.add_argument("--time", type=float, default=180.0, help="seconds for all phases together")
    parser.add_argument("--target", choices=sorted(TARGETS), default="docxy", help="what is tried")
    parser.add_argument("--keep", action="store_true", help="keep logs and caches, and say where")
    parser.add_argument("phase", nargs="*", choices=[*PHASES, []], help="left out: all")
    return parser.parse_args(words)


def say(line: str) -> None:
    """A line for people."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def torture(told: argparse.Namespace, marks: Marks, directory: Path) -> None:
    """Run the phases, each within its share of the time."""
    names = told.phase or list(PHASES)
    for number, name in enumerate(names):
        rest = sum(PHASES[each].weight for each in names[number:])
        left = told.time - (time.monotonic() - told.started)
        share = max(1.0, left * PHASES[name].weight / rest)
        where = directory / name
        where.mkdir()
        marks.phase = name
        before, counted, against = time.monotonic(), marks.counted.copy(), marks.against.copy()
        stage = Stage(told.seed, name, marks, where, before + share, TARGETS[told.target])
        try:
            await PHASES[name].run(stage)
        except DidNotStart as error:
            marks.add("unhealed", str(error))
        finally:
            stage.close()
        say(f"{name}: {time.monotonic() - before:.0f} s, {marks.since(counted, against)}")


def main(words: Sequence[str]) -> int:
    """The exit status."""
    told = parse(words)
    told.started = time.monotonic()
    if told.seed is None:
        told.seed = random.SystemRandom().randrange(1 << 32)
    directory = Path(tempfile.mkdtemp(prefix=f"docxy-torture-{os.getpid()}-"))
    marks = Marks(say)
    say(f"seed {told.seed}, {told.time:g} s, {told.target}")
    broken = False
    try:
        asyncio.run(torture(told, marks, directory))
    except Exception:
        say(traceback.format_exc())
        broken = True
    finally:
        if told.keep:
            say(f"kept: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    for what, count in sorted(marks.counted.items()):
        say(f"  {count:>10}  {what}")
    say(marks.summary(told.seed, time.monotonic() - told.started))
    return 0 if marks.clean and not broken else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
