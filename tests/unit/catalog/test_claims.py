"""Claims die with their process, whichever way it ends."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import os
import signal
import subprocess
import sys

from twisted.internet.defer import Deferred

import docxy
from tests.unit.catalog.fixtures import FileCase

OTHER = """
import sys
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from docxy.catalog.claims import SharedClaims
async def flushed(): pass
claims = SharedClaims(sys.argv[1], Clock(), flushed)
Deferred.fromCoroutine(claims.claim("k", 30)).addCallback(lambda got: print(got, flush=True))
sys.stdin.read()
"""


class Killed(FileCase):
    """Another process asks, and is killed."""

    def test_killed(self) -> None:
        """What a process claimed that was killed may be claimed at once, by who waits and by who comes."""
        catalog = self.open()
        environment = dict(os.environ, PYTHONPATH=os.path.dirname(os.path.dirname(docxy.__file__)))
        with subprocess.Popen(
            [sys.executable, "-c", OTHER, os.path.join(self.directory, "catalog.claims")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        ) as other:
            assert other.stdout is not None
            self.assertEqual(other.stdout.readline(), b"True\n")
            waiting = Deferred.fromCoroutine(catalog.claims.claim("k", 30))
            self.clock.advance(0.1)
            self.assertNoResult(waiting)
            other.send_signal(signal.SIGKILL)
            other.wait()
        self.clock.advance(0.1)
        self.assertTrue(self.successResultOf(waiting))
        catalog.claims.release("k")
        self.assertTrue(self.now(self.open().claims.claim("k", 30)))

    def test_no_locks(self) -> None:
        """Where the file system has no locks, or the file is closed, everybody asks."""
        catalog = self.open()
        catalog.claims.close()
        self.assertTrue(self.now(catalog.claims.claim("k", 30)))
        self.assertTrue(self.now(self.open().claims.claim("k", 30)))
