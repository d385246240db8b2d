"""The files of certificates that docxy gets for itself: private, whole, and named by nobody else."""

from __future__ import annotations

import errno
import os
import stat

from twisted.trial.unittest import SynchronousTestCase

from docxy.daemon.issuing.state import IssuingRecord, StateDirectory


def mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


class StateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.state = StateDirectory(os.path.abspath(self.mktemp()))

    def test_modes(self) -> None:
        """Directories are 0700 and files 0600, whatever the umask lets through."""
        self.addCleanup(os.umask, os.umask(0))
        self.state.create()
        self.state.write(self.state.ca_key, b"key")
        self.state.offer("abc", b"answer")
        with self.state.alone():
            for path in (self.state.directory, os.path.join(self.state.directory, "challenges")):
                self.assertEqual(mode(path), 0o700, path)
            for name in ("ca.key", "challenges/abc", "lock"):
                self.assertEqual(mode(os.path.join(self.state.directory, name)), 0o600, name)

    def test_a_failed_write_changes_nothing(self) -> None:
        """The disk is full while a certificate is written: the old one stays, and nothing lies beside it."""
        self.state.write(self.state.certificate, b"old")

        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self.patch(os, "fsync", full)
        self.assertRaises(OSError, self.state.write, self.state.certificate, b"new")
        self.assertEqual(self.state.read(self.state.certificate), b"old")
        self.assertEqual(os.listdir(self.state.directory), ["certificate.pem"])

    def test_challenges(self) -> None:
        """A token is answered from its offer until it is withdrawn, by whoever has the directory."""
        self.assertIsNone(self.state.challenge("abc"))
        self.state.offer("abc", b"abc.thumb")
        self.assertEqual(StateDirectory(self.state.directory).challenge("abc"), b"abc.thumb")
        self.state.withdraw()
        self.assertIsNone(self.state.challenge("abc"))

    def test_no_other_file_can_be_named(self) -> None:
        """What is no token names nothing: a key beside the challenges is not read, nor written over."""
        self.state.write(self.state.ca_key, b"key")
        self.state.offer("abc", b"answer")
        for token in ("../ca.key", "..%2fca.key", "", ".", "abc/", "a" * 129, "abc\n", "äbc"):
            self.assertIsNone(self.state.challenge(token), token)
            self.assertRaises(ValueError, self.state.offer, token, b"x")

    def test_record(self) -> None:
        """What a restart must know comes back; a file that cannot be read counts as none."""
        self.assertEqual(self.state.record(), IssuingRecord())
        record = IssuingRecord("https://ca.example", 3, 12.5, "no", 2.5)
        self.state.remember(record)
        self.assertEqual(self.state.record(), record)
        for broken in (b"{", b'{"unknown": 1}', b"[]"):
            self.state.write(os.path.join(self.state.directory, "renewal.json"), broken)
            self.assertEqual(self.state.record(), IssuingRecord())

    def test_one_at_a_time(self) -> None:
        """Whoever comes second to the same directory is told so; afterwards it is free again."""
        with self.state.alone() as first, StateDirectory(self.state.directory).alone() as second:
            self.assertEqual((first, second), (True, False))
        with self.state.alone() as again:
            self.assertTrue(again)
