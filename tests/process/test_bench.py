"""The benchmark: its arithmetic, its arguments and its report.  No test here measures anything."""

from __future__ import annotations

import contextlib
import io
import re
import socket
import sys
import threading
from datetime import datetime, timezone
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from bench import cli, load, programs, report
from bench.lab import Lab, Measured, Row, Sizes
from bench.rows import ROWS
from bench.stats import Goal, Summary, bar, number, table
from tests.harness.servers import QuietHandler, serve

WRK = """Running 1s test @ http://127.0.0.1:8080/v2/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     4.21ms    1.02ms  30.11ms   92.11%
    Req/Sec    15.02k   512.10    16.10k    80.00%
  Latency Distribution
     50%    4.01ms
     75%    4.40ms
     90%    5.10ms
     99%    {p99}
  15012 requests in 1.00s, 3.10MB read
{errors}Requests/sec:  15002.31
Transfer/sec:      3.10MB
"""


def row(name: str) -> report.Result:
    return report.Result(next(row for row in ROWS if row.name == name))


class ArithmeticTests(SynchronousTestCase):
    def test_summary(self) -> None:
        """The median and both ends are shown; of one value, only that; of none, nothing can be said."""
        self.assertEqual(Summary.of([3, 1, 2, 9]), Summary(2.5, 1, 9))
        self.assertEqual(Summary.of([3, 1, 2, 9]).shown(), "2.50 (1.00–9.00)")
        self.assertEqual(Summary.of([4]).shown(), "4.00")
        self.assertRaises(ValueError, Summary.of, [])

    def test_number(self) -> None:
        """Three digits that matter, whatever the size."""
        shown = [number(value) for value in (0.047, 1.234, 12.34, 123.4, 1234, 12_340, 123_400, -7.02)]
        self.assertEqual(shown, ["0.05", "1.23", "12.3", "123", "1234", "12.3k", "123k", "-7.02"])

    def test_table(self) -> None:
        """Columns are as wide as their widest cell."""
        self.assertEqual(table(["a", "bb"], [["ccc", "d"]]), "| a   | bb |\n|-----|----|\n| ccc | d  |")

    def test_bar(self) -> None:
        """The longest is as wide as asked; nothing has no bar; little has one block."""
        self.assertEqual([len(bar(value, 4, 8)) for value in (4, 2, 0.01, 0)], [8, 4, 1, 0])

    def test_goal_beside_another(self) -> None:
        """A goal of a ratio is judged by the ratio of medians, at its bound too."""
        goal = Goal("GiB/s", "≥", 1.2, "nginx")
        for ours, reached in ([1.2, 9, 0], True), ([1.1, 9, 0], False):
            verdict = goal.verdict({"docxy": ours, "nginx": [1.0]})
            assert verdict is not None
            self.assertEqual((verdict.reached, verdict.value), (reached, ours[0]))

    def test_goal_alone(self) -> None:
        """A goal without another server is judged by the median itself."""
        for ours, reached in (5.0, True), (5.1, False):
            verdict = Goal("ms", "≤", 5).verdict({"docxy": [ours]})
            assert verdict is not None
            self.assertIs(verdict.reached, reached)

    def test_goal_beyond_another(self) -> None:
        """A goal beyond another server is judged by the difference of medians."""
        goal = Goal("CPU-s/GiB", "≤", 0.5, "nginx", beyond=True)
        for ours, reached in (1.5, True), (1.6, False):
            verdict = goal.verdict({"docxy": [ours], "nginx": [1.0]})
            assert verdict is not None
            self.assertIs(verdict.reached, reached)
        self.assertEqual(goal.shown(), "≤ nginx + 0.5")

    def test_goal_not_measured(self) -> None:
        """What was not measured is neither reached nor missed."""
        goal = Goal("GiB/s", "≥", 1.2, "nginx")
        self.assertIsNone(goal.verdict({"docxy": [1.0]}))
        self.assertIsNone(goal.verdict({"nginx": [1.0]}))
        self.assertIsNone(goal.verdict({"docxy": [1.0], "nginx": [0.0]}))


class WrkTests(SynchronousTestCase):
    def test_figures(self) -> None:
        """Requests a second, and the 99th percentile in milliseconds whatever its unit."""
        for p99, milliseconds in ("5.12ms", 5.12), ("512.00us", 0.512), ("1.20s", 1200.0):
            got = load.requests(WRK.format(p99=p99, errors=""), 0.5)
            self.assertEqual((got.rate, got.cpu), (15002.31, 0.5))
            self.assertAlmostEqual(got.p99, milliseconds)

    def test_errors_are_no_figures(self) -> None:
        """Answers other than 2xx and 3xx, and broken connections, are failures."""
        for errors in (
            "  Non-2xx or 3xx responses: 15012\n",
            "  Socket errors: connect 0, read 3, write 0, timeout 0\n",
        ):
            error = self.assertRaises(load.LoadFailed, load.requests, WRK.format(p99="5.12ms", errors=errors), 0.5)
            self.assertIn(errors.strip(), str(error))

    def test_no_output(self) -> None:
        """Output without figures is a failure."""
        self.assertRaises(load.LoadFailed, load.requests, "unable to connect", 0.5)


class DrainTests(SynchronousTestCase):
    """The client that has the kernel discard what comes."""

    def drain(self, answer: bytes, size: int, clients: int = 1) -> load.Transfer:
        """From a server that sends these bytes to each client."""
        server = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(server.close)

        def serve() -> None:
            for _ in range(clients):
                connection, _ = server.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        self.addCleanup(thread.join)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        return load.drain(url, size, clients, Path("no.pem"))

    def test_whole(self) -> None:
        """All that clients got is counted, whether it came with the head or after it."""
        got = self.drain(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 300_000, 300_000, clients=3)
        self.assertEqual(got.bytes, 900_000)
        self.assertGreater(got.seconds, 0)

    def test_cut_short(self) -> None:
        """A body that ends early is a failure."""
        answer = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 299_999
        error = self.assertRaises(load.LoadFailed, self.drain, answer, 300_000)
        self.assertIn("299999 bytes of 300000", str(error))

    def test_refused(self) -> None:
        """So is any answer but 200."""
        error = self.assertRaises(load.LoadFailed, self.drain, b"HTTP/1.1 404 Not Found\r\n\r\n", 0)
        self.assertIn("404 Not Found", str(error))


class HeadTests(SynchronousTestCase):
    """HEAD, whose answers have a length and no body."""

    def ask(self, status: int, *fields: tuple[str, str]) -> load.Requests:
        seen: list[tuple[str, ...]] = []
        self.seen = seen

        class Handler(QuietHandler):
            def do_HEAD(self) -> None:
                seen.append((self.headers["X-Count"], self.headers["Authorization"], self.headers["Accept"]))
                self.send_response(status)
                for field in fields:
                    self.send_header(*field)
                self.end_headers()

        return load.heads(f"{serve(self, Handler)}/v2/", 1, "a/b", Path("no-ca"))

    def test_all_different(self) -> None:
        """All connections are used, each request differs from all others, and each answer counts once."""
        got = self.ask(200, ("Content-Length", "1000"))
        self.assertGreaterEqual(len(self.seen), got.count)
        self.assertGreaterEqual(got.count, 64)
        self.assertLessEqual(len(self.seen) - got.count, 64)
        self.assertEqual(len({count for count, _, _ in self.seen}), len(self.seen))
        self.assertEqual({each[1:] for each in self.seen}, {("Basic YmVuY2g6YmVuY2g=", "a/b")})

    def test_errors_are_no_figures(self) -> None:
        """Another status, or an answer that does not say how long the body would be, is a failure."""
        self.assertIn("404", str(self.assertRaises(load.LoadFailed, self.ask, 404, ("Content-Length", "1000"))))
        self.assertRaises(load.LoadFailed, self.ask, 200)


class ArgumentTests(SynchronousTestCase):
    def refused(self, *argv: str) -> str:
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors):
            ended = self.assertRaises(SystemExit, cli.parse, argv)
        self.assertEqual(ended.code, 2)
        return errors.getvalue()

    def test_defaults(self) -> None:
        """Without arguments: every row, five rounds."""
        args = cli.parse([])
        self.assertEqual(args.rows, [row.name for row in ROWS])
        self.assertEqual((args.rounds, args.wrk_seconds, args.soak_minutes, args.write), (5, 5, 60, False))

    def test_quick(self) -> None:
        """`--quick` is one round, unless more are asked for."""
        self.assertEqual((cli.parse(["--quick"]).rounds, cli.parse(["--quick", "--rounds", "3"]).rounds), (1, 3))

    def test_unknown_row(self) -> None:
        """A row that there is not is named, with those that there are."""
        message = self.refused("--rows", "idle,lunch")
        self.assertIn("lunch", message)
        self.assertIn("cached-http-1", message)

    def test_only_a_whole_run_is_written(self) -> None:
        """Figures that say less than the page claims never get there."""
        for less in (["--quick"], ["--rows", "idle"], ["--rounds", "4"], ["--profile", "x"]):
            self.assertIn("--write", self.refused("--write", *less))

    def test_names_are_unique(self) -> None:
        """A row's name means one row."""
        self.assertEqual(len({row.name for row in ROWS}), len(ROWS))


class ProgramTests(SynchronousTestCase):
    def test_missing(self) -> None:
        """What is missing is named with the packages that have it; when all is there, nothing is said."""
        complaint = programs.complaint(programs.find(self.mktemp()))
        for name, package in programs.PACKAGES.items():
            self.assertIn(name, str(complaint))
            self.assertIn(package, str(complaint).partition("apt-get install")[2].split())
        self.assertIsNone(programs.complaint({name: f"/usr/bin/{name}" for name in programs.PACKAGES}))


class ReportTests(SynchronousTestCase):
    RUN = report.Run(
        "python bench/run.py --write",
        {"docxy": "9.9 (abc1234)", "nginx": "1.2"},
        "an abacus, 2 cores",
        5,
        Sizes(256 << 20, 64 << 20, 8 << 20, (1 << 20,) * 10, 5, 200, 1000, 1_000_000, 60),
        (0.1, 1.5),
        {"a row for which there was no time": "there was no\ntime"},
        datetime(2030, 1, 2, 3, 4, tzinfo=timezone.utc),
    )

    def test_page(self) -> None:
        """The page names the run, the command and what is behind, and does not call that reached."""
        result = row("idle")
        result.add("docxy", {"RSS, MB": 61})
        result.add("nginx", {"RSS, MB": 20})
        page = report.document([result], self.RUN)
        for part in ("python bench/run.py --write", "2030-01-02 03:04 UTC, docxy 9.9 (abc1234)", "an abacus"):
            self.assertIn(part, page)
        self.assertIn("0 of 1 goals are reached", page)
        self.assertIn("≤ 60: 61.0, **behind**", page)
        self.assertNotIn("61.0, reached", page)
        missing = page.partition("Not measured in this run")[2]
        self.assertIn("- a row for which there was no time: there was no time\n", missing)

    def test_reached(self) -> None:
        """When every goal is reached there is no list of others."""
        result = row("idle")
        result.add("docxy", {"RSS, MB": 40})
        self.assertEqual(report.summary([result]), "1 of 1 goals are reached.")

    def test_columns(self) -> None:
        """Only servers that were asked have a column, and a ratio only where there is one."""
        result = row("first-byte")
        result.add("docxy", {"ms": 2.0})
        result.add("nginx", {"ms": -1.0})
        head, _, line = report.figures(result).splitlines()
        self.assertEqual([cell.strip() for cell in head.split("|")[1:-1]][1:4], ["docxy", "nginx", "docxy ÷ nginx"])
        self.assertEqual([cell.strip() for cell in line.split("|")[1:-1]][1:4], ["2.00", "-1.00", ""])

    def test_chart(self) -> None:
        """Servers stand in the order of columns, whoever was asked first."""
        result = row("cached-http-1")
        for name in ("nginx", "proxy", "docxy"):
            result.add(name, {"GiB/s": 1.0})
        self.assertEqual(re.findall(r"^  (\w+)", report.charts([result]), re.MULTILINE), ["docxy", "nginx", "proxy"])


class RunTests(SynchronousTestCase):
    def test_row_that_fails(self) -> None:
        """A row that cannot be measured is named with the reason, and the others are measured."""
        if programs.complaint(programs.find()) is not None:
            raise SkipTest("programs are missing")

        def fail(_lab: Lab, _name: str, _round: int) -> Measured:
            raise load.LoadFailed("half of it came")

        rows = [Row("broken", "a broken row", fail, ()), Row("fine", "a fine row", lambda *_: {"x": 1.0}, ())]
        directory = Path(self.mktemp()).resolve()
        directory.mkdir()
        sizes = Sizes(1 << 20, 1 << 20, 1 << 20, (), 1, 1, 1, 2, 0.1)
        self.patch(sys, "stdout", io.StringIO())
        results, missing = cli.run(directory, programs.find(), rows, sizes, cli.parse(["--quick"]))
        self.assertEqual([result.row.name for result in results], ["fine"])
        self.assertEqual(missing, {"a broken row": "half of it came"})
