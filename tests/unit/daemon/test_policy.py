"""The policy on its way from the file to whoever goes by it."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.testing import StringTransport
from twisted.protocols.amp import AMP
from twisted.trial.unittest import SynchronousTestCase

from docxy.daemon.policy import PolicyReload
from docxy.daemon.workers.settings import PIECE, SettingsPieces, send_settings
from docxy.names import Digest
from docxy.orders.policies import Policies
from docxy.settings.model import DOCKER_HUB, AuthMode, Config
from docxy.settings.policy import Policy, Recall
from docxy.worker import SupervisorLink
from tests.unit.access.harness import logged

ONE = Digest.of(b"one")
RECALL = f'[[recall]]\ndigest = "{ONE}"\nreason = "bad"\n'


class Reactor:
    """Runs at once."""

    def callWhenRunning(self, work: Callable[[], object]) -> None:
        work()

    def callFromThread(self, work: Callable[..., object], *args: Any) -> None:
        work(*args)


class ReloadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.file = Path(self.mktemp()).resolve()
        self.file.write_text("")
        self.policies = Policies(Policy())
        self.changes = 0
        self.policies.watch(self.changed)
        self.others = 0
        before = signal.signal(signal.SIGHUP, self.other)
        self.addCleanup(signal.signal, signal.SIGHUP, before)

    def changed(self) -> None:
        self.changes += 1

    def other(self, *_: Any) -> None:
        self.others += 1

    def start(self, file: str | None) -> PolicyReload:
        reload = PolicyReload(file, [DOCKER_HUB], self.policies.swap, tuple, Reactor())
        reload.start()
        self.addCleanup(reload.stop)
        return reload

    def test_hang_up(self) -> None:
        """A SIGHUP has the file read again, and others that listen hear of it; after the stop it has not."""
        reload = self.start(str(self.file))
        self.file.write_text(RECALL)
        signal.raise_signal(signal.SIGHUP)
        self.assertEqual(self.policies.current.recalls, (Recall(ONE, None, "bad"),))
        self.assertEqual((self.changes, self.others), (1, 1))
        signal.raise_signal(signal.SIGHUP)
        self.assertEqual((self.changes, self.others), (1, 2))
        reload.stop()
        self.file.write_text("")
        signal.raise_signal(signal.SIGHUP)
        self.assertEqual((self.changes, self.others), (1, 3))

    def test_wrong_file(self) -> None:
        """A file that is wrong anywhere, or gone, takes back no recall; the log says what is wrong."""
        self.start(str(self.file))
        self.file.write_text(RECALL)
        signal.raise_signal(signal.SIGHUP)
        stands = self.policies.current
        for text in ("[[recall]]\n", "[[recall", RECALL + "[acess]\n", None):
            if text is None:
                self.file.unlink()
            else:
                self.file.write_text(text)
            with logged() as lines:
                signal.raise_signal(signal.SIGHUP)
            self.assertIs(self.policies.current, stands)
            self.assertIn("the policy in force stays as it was", lines[0])
            self.assertIn(str(self.file), lines[0])

    def test_told(self) -> None:
        """Who asks for a reload is told what came of it."""
        reload = self.start(str(self.file))
        self.file.write_text(RECALL)
        (told,) = reload.reload()
        self.assertEqual((told.what, told.ok), ("policy", True))
        self.assertIn("1 recall of", told.says)
        self.file.write_text("[[recall]]")
        (told,) = reload.reload()
        self.assertEqual((told.what, told.ok), ("policy", False))
        self.assertIn("give either digest or image", told.says)
        self.assertEqual(self.start(None).reload(), ())

    def test_no_file(self) -> None:
        """Without a file there is nothing to listen for."""
        self.start(None)
        signal.raise_signal(signal.SIGHUP)
        self.assertEqual((self.changes, self.others), (0, 1))


def config(policy: Policy) -> Config:
    return Config(None, None, "", None, "", None, AuthMode.NONE, (DOCKER_HUB,), policy=policy)


class PiecesTests(SynchronousTestCase):
    def test_large(self) -> None:
        """Settings that no message could hold arrive in pieces, and are put in force once, when all are there."""
        recalls = tuple(Recall(Digest.of(str(n).encode()), None, f"reason {n}") for n in range(5_000))
        settings = config(Policy((), recalls))
        pieces: list[tuple[bytes, bool]] = []

        class Link:
            def callRemote(self, command: object, piece: bytes, is_last: bool) -> None:
                pieces.append((piece, is_last))

        send_settings(Link(), settings)  # type: ignore[arg-type]  # as much of one as is needed
        self.assertGreater(len(pieces), 2)
        self.assertLessEqual(max(len(piece) for piece, _ in pieces), PIECE)
        swapped: list[Config] = []
        taking = SettingsPieces(swapped.append)
        for _ in range(2):
            for piece, is_last in pieces:
                taking.take(piece, is_last)
        self.assertEqual(swapped, [settings, settings])

    def test_link(self) -> None:
        """Over the channel between supervisor and worker."""
        swapped: list[Config] = []
        supervisor, worker = AMP(), SupervisorLink(lambda: None, lambda grace: None, swapped.append, Reactor())
        ours, theirs = StringTransport(), StringTransport()
        supervisor.makeConnection(ours)
        worker.makeConnection(theirs)
        settings = config(Policy((), (Recall(ONE, None, "bad"),)))
        send_settings(supervisor, settings)
        worker.dataReceived(ours.value())
        self.assertEqual(swapped, [settings])
