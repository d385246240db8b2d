"""Credentials that a program prints: what is understood, when it runs, and what becomes of one that fails."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import json
import sys
from pathlib import Path
from random import Random
from typing import Any

from attrs import define, field
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from docxy.errors import AccountRefused
from docxy.settings.model import CredentialProgram
from docxy.upstream import credential_program
from docxy.upstream.credential_program import (
    MOST_OUTPUT,
    RENEWED_AFTER,
    WITHIN,
    Printed,
    ProgramFailed,
    ProgramSecret,
    parse,
    run,
)
from docxy.upstream.login import Login

reactor: Any = _reactor
SECRET = "hunter2"
GOOD = b'{"ServerURL": "x", "Username": "AWS", "Secret": "hunter2"}'


@define
class Processes:
    """A reactor that only writes down what it is to run."""

    started: list[Any] = field(factory=list)

    def spawnProcess(self, protocol: Any, *command: Any) -> None:
        self.started.append(protocol)
        protocol.makeConnection(_Transport(protocol))


@define
class _Transport:
    protocol: Any
    said: bytes = b""
    killed: bool = False

    def write(self, data: bytes) -> None:
        self.said += data

    def closeStdin(self) -> None:
        pass

    def signalProcess(self, name: str) -> None:
        self.killed = True

    def loseConnection(self) -> None:
        pass


class ParseTests(SynchronousTestCase):
    def test_understood(self) -> None:
        """What Docker's helpers print, what a script may, and when it ends in each spelling."""
        for printed, expires in (
            ({"ServerURL": "x", "Username": "u", "Secret": "s"}, None),
            ({"username": "u", "secret": "s"}, None),
            ({"username": "u", "password": "s", "expires_in": 600}, 1600.0),
            ({"Username": "u", "Secret": "s", "ExpiresAt": "1970-01-01T00:30:00Z"}, 1800.0),
            ({"username": "u", "secret": "s", "expiration": "1970-01-01T00:30:00"}, 1800.0),
            ({"username": "u", "secret": "s", "expires_in": True, "expires_at": "soon"}, None),
        ):
            found = parse(json.dumps(printed).encode(), 1000.0)
            self.assertEqual(found, Printed(Login("u", "s"), expires), printed)
        self.assertTrue(parse(b'{"Username": "<token>", "Secret": "s"}', 0.0).login.is_identity)

    def test_refused(self) -> None:
        """Anything else is refused, without saying what it was."""
        for printed in (
            b"",
            b"hunter2",
            b'"hunter2"',
            b"[" * 100_000,
            b'{"Username": "hunter2"}',
            b'{"Username": "u", "Secret": ""}',
            b'{"Username": "u", "Secret": 7}',
            b'{"Username": "u:v", "Secret": "hunter2"}',
            b'{"Username": "u", "Secret": "hunter2\\n"}',
            b"\xff",
        ):
            error = self.assertRaises(ProgramFailed, parse, printed, 0.0)
            self.assertNotIn(SECRET, str(error))
        self.assertNotIn(SECRET, repr(parse(GOOD, 0.0)))


class SecretTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.processes = Processes()
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self.log)
        self.addCleanup(globalLogPublisher.removeObserver, self.log)
        self.secret = self.made()

    def log(self, event: Any) -> None:
        self.lines.append(str(event))

    def made(self, or_anonymous: bool = False) -> ProgramSecret:
        program = CredentialProgram("helper", ("/bin/helper", "get"), "registry.example", or_anonymous)
        return ProgramSecret(program, "registry.example", self.clock, self.clock.seconds, Random(1), self.processes)

    def login(self) -> Deferred[Login | None]:
        return Deferred.fromCoroutine(self.secret.login())

    def end(self, output: bytes = GOOD, status: int = 0) -> None:
        """The program that was started last prints this and ends."""
        protocol = self.processes.started[-1]
        protocol.outReceived(output)
        protocol.errReceived(b"hunter2 on its error output")
        protocol.processEnded(Failure(ProcessDone(0) if status == 0 else ProcessTerminated(status)))

    def test_once_for_all(self) -> None:
        """All who ask at once get what one run prints; those who come later too, as long as it is said to be good."""
        asked = [self.login() for _ in range(5)]
        self.assertEqual(self.processes.started[0].transport.said, b"registry.example\n")
        self.end(b'{"Username": "AWS", "Secret": "hunter2", "expires_in": 600}')
        self.assertEqual([self.successResultOf(each) for each in asked], [Login("AWS", SECRET)] * 5)
        self.clock.advance(530)
        self.successResultOf(self.login())
        self.assertEqual(len(self.processes.started), 1)
        self.clock.advance(20)
        later = self.login()
        self.assertEqual(len(self.processes.started), 2)
        self.end()
        self.successResultOf(later)

    def test_refused_by_the_registry(self) -> None:
        """Where nothing is said of an end, a refusal is the end: it runs again, but not time and again."""
        first = self.login()
        self.end()
        self.successResultOf(first)
        self.assertFalse(self.successResultOf(self.secret.renew()))
        self.clock.advance(RENEWED_AFTER)
        renewed = Deferred.fromCoroutine(self.secret.renew())
        self.end(b'{"Username": "AWS", "Secret": "new"}')
        self.assertTrue(self.successResultOf(renewed))
        self.assertEqual(self.successResultOf(self.login()), Login("AWS", "new"))
        self.assertEqual(len(self.processes.started), 2)

    def test_failures(self) -> None:
        """After a failure it is left alone for a time that grows; the error says why, and nothing that was printed."""
        for output, status, why in (
            (b"hunter2", 1, "ended with status 1"),
            (b"hunter2", 0, "printed something that is not JSON"),
            (b"credentials not found in native keychain", 1, "has no credential for this registry"),
            (b'{"Username": "u", "Secret": "hunter2", "expires_at": "1970-01-01T00:00:00Z"}', 0, "that has ended"),
            (b"x" * (MOST_OUTPUT + 1), 0, "printed more than"),
        ):
            self.secret, before = self.made(), len(self.processes.started)
            asked = [self.login(), self.login()]
            self.end(output, status)
            for each in asked:
                self.assertIn(why, self.failureResultOf(each, AccountRefused).value.message)
            self.failureResultOf(self.login(), AccountRefused)
            self.assertEqual(len(self.processes.started), before + 1)
            self.clock.advance(5)
            again = self.login()
            self.end(output, status)
            self.failureResultOf(again, AccountRefused)
            self.clock.advance(4.9)
            self.failureResultOf(self.login(), AccountRefused)
            self.assertEqual(len(self.processes.started), before + 2)
            self.assertIsNotNone(self.secret.reload())
            mended = self.login()
            self.end()
            self.successResultOf(mended)
        self.assertIn("no credential for", "".join(self.lines))
        self.assertEqual([line for line in self.lines if SECRET in line], [])

    def test_slow(self) -> None:
        """A program that takes too long is ended."""
        asked = self.login()
        self.clock.advance(WITHIN)
        self.assertIn("took more than 30 s", self.failureResultOf(asked, AccountRefused).value.message)
        self.assertTrue(self.processes.started[0].transport.killed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopped(self) -> None:
        """At docxy's stop, too, and who waited is told."""
        asked = self.login()
        self.successResultOf(Deferred.fromCoroutine(self.secret.stop()))
        self.failureResultOf(asked, AccountRefused)
        self.assertTrue(self.processes.started[0].transport.killed)

    def test_anonymous(self) -> None:
        """docxy asks without an account while it fails only if the operator said so."""
        self.secret = self.made(or_anonymous=True)
        asked = self.login()
        self.end(status=1)
        self.assertIsNone(self.successResultOf(asked))
        self.assertIsNone(self.successResultOf(self.login()))
        self.assertEqual(len(self.processes.started), 1)


class ProcessTests(TestCase):
    """Real programs."""

    def program(self, script: str) -> CredentialProgram:
        path = Path(self.mktemp()).resolve()
        path.write_text(f"#!{sys.executable}\n{script}\n")
        path.chmod(0o700)
        return CredentialProgram("script", (str(path), "get"), "registry.example")

    async def test_protocol(self) -> None:
        """Docker's protocol: `get`, the registry on standard input until its end, JSON on standard output."""
        script = (
            "import json, sys\nassert sys.argv[1:] == ['get']\n"
            "print(json.dumps({'Username': 'u', 'Secret': sys.stdin.read()}))"
        )
        printed = await run(self.program(script), reactor, reactor)
        self.assertEqual(json.loads(printed), {"Username": "u", "Secret": "registry.example\n"})

    async def test_cannot_run(self) -> None:
        """A program that is not there, or ends badly, is a failure like any other."""
        for program in (
            CredentialProgram("gone", ("/nonexistent/helper",), "x"),
            self.program("raise SystemExit(3)"),
            self.program("import os; os.kill(os.getpid(), 9)"),
        ):
            with self.assertRaises(ProgramFailed):
                await run(program, reactor, reactor)

    async def test_endless(self) -> None:
        """One that prints without end, or leaves a child with its output, is over when docxy says so."""
        self.patch(credential_program, "WITHIN", 0.5)
        for script in (
            "while True: print('x' * 1000)",
            "import os, time\nif os.fork() == 0: time.sleep(5)\n",
        ):
            with self.assertRaises(ProgramFailed):
                await run(self.program(script), reactor, reactor)
