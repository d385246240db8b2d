"""Arguments, the order of measurements, and where the results go."""

from __future__ import annotations

import argparse
import contextlib
import os
import pstats
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench import certificate, programs, report
from bench.content import Content, PushFailed
from bench.lab import Lab, Row, Sizes
from bench.load import LoadFailed
from bench.processes import ServerFailed
from bench.report import Result
from bench.rows import ROWS
from bench.servers import Setup

DOCUMENT = programs.TOP / "docs" / "performance.md"
MIB = 1 << 20


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Exits with 2 and a message for what it does not take."""
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(
        prog="bench/run.py",
        description="Measure docxy against nginx and distribution, all on loopback. Wants a quiet machine.",
        epilog=f"Rows: {', '.join(names)}.",
    )
    parser.add_argument("--rows", metavar="NAMES", help="only these, separated by commas")
    parser.add_argument("--rounds", type=int, help="of each row (5; with --quick 1)")
    parser.add_argument("--minutes", type=float, default=120.0, help="begin no row after this time (120)")
    parser.add_argument(
        "--soak-minutes", type=float, help="of load in the row that watches memory (60; with --quick 0.1)"
    )
    parser.add_argument("--wrk-seconds", type=int, help="of each run of wrk (5; with --quick 1)")
    parser.add_argument(
        "--quick", action="store_true", help="see that all of it works: small blobs; figures mean nothing"
    )
    parser.add_argument("--write", action="store_true", help=f"write {DOCUMENT.relative_to(programs.TOP)}")
    parser.add_argument("--directory", type=Path, help="for 60 GB of blobs and caches; left out: a temporary one")
    parser.add_argument("--install", action="store_true", help="install the programs that are missing, with apt-get")
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
    args.soak_minutes = args.soak_minutes if args.soak_minutes is not None else 0.1 if args.quick else 60.0
    if args.rounds < 1 or args.wrk_seconds < 1 or args.soak_minutes <= 0:
        parser.error("--rounds and --wrk-seconds are at least 1, --soak-minutes more than 0")
    if args.write and (args.quick or args.profile is not None or args.rounds < 5 or args.rows != names):
        parser.error("--write takes a whole run: all rows, 5 rounds or more, no --quick, no --profile")
    return args


def main(argv: Sequence[str]) -> int:
    """The exit status: 0, 1 when a row was not measured, 2 when a program is missing."""
    args = parse(argv)
    # So that the servers are stopped then too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    found = programs.find()
    if args.install and programs.packages(found):
        try:
            programs.install(found)
        except subprocess.CalledProcessError as error:
            sys.stderr.write(f"{' '.join(error.cmd)}: exit status {error.returncode}\n")
            return 2
        found = programs.find()
    complaint = programs.complaint(found)
    if complaint is not None:
        sys.stderr.write(f"{complaint}\n")
        return 2
    found |= programs.built()
    rows = [row for row in ROWS if row.name in args.rows]
    layers = tuple(int(size * MIB) for size in (64, 48, 24, 16, 8, 4, 2, 1, 0.5, 0.25))
    sizes = Sizes(256 * MIB, 64 * MIB, 8 * MIB, layers, args.wrk_seconds, 200, 1000, 1_000_000, args.soak_minutes)
    if args.quick:
        layers = (MIB,) * 10
        sizes = Sizes(8 * MIB, 2 * MIB, 2 * MIB, layers, args.wrk_seconds, 20, 500, 1000, args.soak_minutes)
    before = os.getloadavg()[0]
    if before > 0.5:
        _say(f"The machine is not quiet: load average {before:.2f}.")
    if args.profile is not None:
        args.profile.mkdir(parents=True, exist_ok=True)
        _say("docxy runs under cProfile: its figures are not its own.")
    try:
        with tempfile.TemporaryDirectory(prefix="docxy-bench-", dir=args.directory) as directory:
            results, missing = run(Path(directory), found, rows, sizes, args)
    except (PushFailed, ServerFailed) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    run_as = report.Run(
        "python bench/run.py " + " ".join(argv),
        programs.versions(found),
        programs.machine(),
        args.rounds,
        sizes,
        (before, os.getloadavg()[0]),
        missing,
    )
    _say("\n" + report.text(results, run_as))
    if args.write:
        DOCUMENT.write_text(report.document(results, run_as), "utf-8")
    if args.profile is not None:
        for saved in sorted(args.profile.glob("docxy-*.prof")):
            _say(f"\n{saved}")
            pstats.Stats(str(saved), stream=sys.stdout).sort_stats("tottime").print_stats(25)
    return 1 if missing else 0


def run(
    directory: Path, found: dict[str, str], rows: Sequence[Row], sizes: Sizes, args: argparse.Namespace
) -> tuple[list[Result], dict[str, str]]:
    """As many rows as are begun within `args.minutes`, and by the titles of the others why they are missing.

    Raises PushFailed and ServerFailed when there is nothing to measure with.  Whatever happens, the
    servers are stopped.
    """
    until = time.monotonic() + args.minutes * 60
    # nginx's worker may run as another user.
    directory.chmod(0o755)
    if not args.quick:
        _fill_memory(directory)
    cert, key = certificate.make(directory)
    setup = Setup(directory, found, cert, key, args.profile)
    stage = setup.stage(frozenset(row.scheme for row in rows))
    results: list[Result] = []
    missing: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        for server in stage.servers:
            stack.callback(server.stop)
            server.start()
        lab = Lab(
            setup, stage, Content(stage.targets["http"]["registry"].url, stage.upstream.server.log), found, sizes, stack
        )
        for row in rows:
            if time.monotonic() > until:
                missing[row.title] = "there was no time"
                continue
            try:
                results.append(_measure(row, lab, args.rounds))
            except (LoadFailed, PushFailed, ServerFailed) as error:
                missing[row.title] = str(error)
                _say(f"{error}\n")
    return results, missing


def _fill_memory(directory: Path) -> None:
    """Have the page cache take all memory that is free but 2 GiB, by reading a file that takes no disk.

    A virtual machine may have given free memory back to its host: whoever touches it first then waits
    for the host, and the first to be measured would look slow.
    """
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") - (2 << 30)
    hole = directory / "hole"
    with hole.open("w+b", buffering=0) as file:
        file.truncate(max(0, free))
        while file.read(16 * MIB):
            pass


def _measure(row: Row, lab: Lab, rounds: int) -> Result:
    """A B C, B C A, …; the first of them to warm up."""
    result = Result(row)
    _say(f"{row.title} …")
    for round_ in [1] if row.once else range(rounds + 1):
        servers = tuple(name for name in row.servers if name != "proxy3" or name in lab.stage.targets[row.scheme])
        first = round_ % len(servers)
        for name in servers[first:] + servers[:first]:
            measured = row.measure(lab, name, round_)
            if round_ > 0:
                result.add(name, measured)
    # At once, so that a run that is broken off was not for nothing.
    _say(f"{report.figures(result)}\n")
    return result


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
