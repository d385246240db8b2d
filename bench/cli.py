"""Arguments, the order of measurements, and where the results go."""

from __future__ import annotations

import argparse
import contextlib
import os
import pstats
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench import programs, report
from bench.content import Content, PushFailed
from bench.load import LoadFailed
from bench.processes import ServerFailed
from bench.report import Result
from bench.rows import ROWS, Lab, Row, Sizes
from bench.servers import Stage, build

DOCUMENT = programs.TOP / "docs" / "performance.md"
MIB = 1 << 20


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Exits with 2 and a message for what it does not take."""
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(
        prog="bench/run.py",
        description="Measure docxy against nginx and docker-registry, all on loopback. Wants a quiet machine.",
        epilog=f"Rows: {', '.join(names)}.",
    )
    parser.add_argument("--rows", metavar="NAMES", help="only these, separated by commas")
    parser.add_argument("--rounds", type=int, help="of each row (5; with --quick 1)")
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no row after this time (60)")
    parser.add_argument("--wrk-seconds", type=int, help="of each run of wrk (5; with --quick 1)")
    parser.add_argument(
        "--quick", action="store_true", help="see that all of it works: small blobs; figures mean nothing"
    )
    parser.add_argument("--write", action="store_true", help=f"write {DOCUMENT.relative_to(programs.TOP)}")
    parser.add_argument("--directory", type=Path, help="for 15 GB of blobs and caches; left out: a temporary one")
    parser.add_argument(
        "--profile", type=Path, metavar="DIR", help="run docxy under cProfile and put its profiles there"
    )
    args = parser.parse_args(argv)
    args.rows = names if args.rows is None else args.rows.split(",")
    unknown = sorted(set(args.rows) - set(names))
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(names)}")
    args.rounds = args.rounds if args.rounds is not None else 1 if args.quick else 5
    args.wrk_seconds = args.wrk_seconds if args.wrk_seconds is not None else 1 if args.quick else 5
    if args.rounds < 1 or args.wrk_seconds < 1:
        parser.error("--rounds and --wrk-seconds are at least 1")
    if args.write and (args.quick or args.profile is not None or args.rounds < 5 or args.rows != names):
        parser.error("--write takes a whole run: all rows, 5 rounds or more, no --quick, no --profile")
    return args


def main(argv: Sequence[str]) -> int:
    """The exit status: 0, 1 when something failed, 2 when something is missing."""
    args = parse(argv)
    # So that the servers are stopped then too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    found = programs.find()
    complaint = programs.complaint(found)
    if complaint is not None:
        sys.stderr.write(f"{complaint}\n")
        return 2
    rows = [row for row in ROWS if row.name in args.rows]
    sizes = Sizes(256 * MIB, 8 * MIB, args.wrk_seconds, 200)
    if args.quick:
        sizes = Sizes(8 * MIB, 2 * MIB, args.wrk_seconds, 20)
    before = os.getloadavg()[0]
    if before > 0.5:
        _say(f"The machine is not quiet: load average {before:.2f}.")
    if args.profile is not None:
        args.profile.mkdir(parents=True, exist_ok=True)
        _say("docxy runs under cProfile: its figures are not its own.")
    try:
        with tempfile.TemporaryDirectory(prefix="docxy-bench-", dir=args.directory) as directory:
            results = run(Path(directory), found, rows, sizes, args)
    except (LoadFailed, PushFailed, ServerFailed) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    run_as = report.Run(
        "python bench/run.py " + " ".join(argv),
        programs.versions(found),
        programs.machine(),
        args.rounds,
        sizes,
        (before, os.getloadavg()[0]),
        [row.title for row in rows[len(results) :]],
    )
    _say("\n" + report.text(results, run_as))
    if args.write:
        DOCUMENT.write_text(report.document(results, run_as), "utf-8")
    if args.profile is not None:
        for saved in sorted(args.profile.glob("docxy-*.prof")):
            _say(f"\n{saved}")
            pstats.Stats(str(saved), stream=sys.stdout).sort_stats("tottime").print_stats(25)
    return 0


def run(
    directory: Path, found: dict[str, str], rows: Sequence[Row], sizes: Sizes, args: argparse.Namespace
) -> list[Result]:
    """As many rows as are begun within `args.minutes`.  Raises LoadFailed, PushFailed, ServerFailed.

    Whatever happens, the servers are stopped.
    """
    until = time.monotonic() + args.minutes * 60
    # nginx's worker may run as another user.
    directory.chmod(0o755)
    stage = build(directory, found, frozenset(row.scheme for row in rows), args.profile)
    results = []
    with _started(stage):
        lab = Lab(stage, Content(stage.registry.ports[0], stage.registry.log), found, sizes)
        for row in rows:
            if time.monotonic() > until:
                break
            results.append(_measure(row, lab, args.rounds))
    return results


def _started(stage: Stage) -> contextlib.ExitStack:
    with contextlib.ExitStack() as stack:
        for server in stage.servers:
            stack.callback(server.stop)
            server.start()
        return stack.pop_all()


def _measure(row: Row, lab: Lab, rounds: int) -> Result:
    """A B C, A B C, …; the first of them to warm up."""
    result = Result(row)
    _say(f"{row.title} …")
    for round_ in [1] if row.once else range(rounds + 1):
        for name in row.servers:
            measured = row.measure(lab, name, round_)
            if round_ > 0:
                result.add(name, measured)
    # At once, so that a run that is broken off was not for nothing.
    _say(f"{report.figures(result)}\n")
    return result


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
