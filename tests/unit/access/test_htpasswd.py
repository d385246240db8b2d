"""The htpasswd file: what is read, what is refused, what happens when it changes."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from docxy.access import htpasswd
from docxy.access.htpasswd import CHECK_INTERVAL, Accounts, HtpasswdFile
from docxy.settings.model import ConfigError
from tests.unit.access.harness import hashed, logged, write

GOOD = hashed("x")


class ParseTests(SynchronousTestCase):
    def test_read(self) -> None:
        """All three names of bcrypt, comments, empty lines, blanks and CRs at lines' ends."""
        text = f"# people\n\na:{hashed('x', '2a')}\r\nb:{hashed('x', '2b')}  \n  c d:{hashed('x', '2y')}"
        self.assertEqual(list(Accounts.parse(text, "f").hashes), ["a", "b", "c d"])
        self.assertEqual(Accounts.parse("", "f").hashes, {})

    def test_refused(self) -> None:
        """Each line that cannot be used is named by its number, and nothing of a hash is told."""
        secret = "Zm9vYmFyYmF6cXV4"
        for line, wanted in (
            ("alice", "not a line of the form user:hash"),
            (f":{GOOD}", "not a line of the form user:hash"),
            (f"a\x07b:{GOOD}", "not a line of the form user:hash"),
            (f"alice:$apr1$abc${secret}", "of the kind MD5"),
            ("alice:{SHA}" + secret, "of the kind SHA-1"),
            (f"alice:$6$abc${secret}", "of the kind SHA-512"),
            (f"alice:{secret}", "not a bcrypt hash"),
            ("alice:", "not a bcrypt hash"),
            (f"alice:{GOOD[:-1]}", "not a bcrypt hash"),
            (f"alice:{GOOD}:x", "not a bcrypt hash"),
            (f"alice:{GOOD.replace('$2b$', '$2x$')}", "not a bcrypt hash"),
            (f"alice:{GOOD.replace('$04$', '$03$')}", "not a bcrypt hash"),
            (f"bob:{GOOD}", "'bob' is in the file twice"),
        ):
            error = str(self.assertRaises(ConfigError, Accounts.parse, f"bob:{GOOD}\n{line}\n", "/etc/htpasswd"))
            self.assertIn("/etc/htpasswd, line 2: ", error)
            self.assertIn(wanted, error)
            self.assertNotIn(secret, error)
            self.assertNotIn(GOOD[10:20], error)
            self.assertNotIn("\n", error)

    def test_cost(self) -> None:
        """Every check is to take as long as one of the highest cost in the file."""
        text = f"a:{GOOD}\nb:{GOOD}\nc:{GOOD.replace('$04$', '$12$')}\n"
        self.assertEqual([Accounts.parse(each, "f").cost for each in (text, text[:-1], "")], [12, 12, 10])


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.path = self.mktemp()

    def users(self, after: float = CHECK_INTERVAL) -> list[str]:
        self.clock.advance(after)
        return list(self.file.accounts().hashes)

    def open(self, text: str = f"alice:{GOOD}\n") -> None:
        write(self.path, text)
        self.file = HtpasswdFile(self.path, self.clock)

    def test_unusable_at_start(self) -> None:
        """A file that is missing, a directory, no text or wrong is an error of one line with its path."""
        Path(self.path + ".binary").write_bytes(b"\xff\xfe")
        write(self.path + ".wrong", "alice:x\n")
        for path, wanted in (
            (self.path, "No such file"),
            (os.path.dirname(os.path.abspath(self.path)), "Is a directory"),
            (self.path + ".binary", "not UTF-8"),
            (self.path + ".wrong", "line 1"),
        ):
            error = str(self.assertRaises(ConfigError, HtpasswdFile, path, self.clock))
            self.assertIn(path, error)
            self.assertIn(wanted, error)
        self.patch(htpasswd, "MAX_FILE", 10)
        write(self.path, "#" * 11)
        self.assertIn("larger", str(self.assertRaises(ConfigError, HtpasswdFile, self.path, self.clock)))

    def test_reloaded(self) -> None:
        """A change counts, but is looked for once a second only."""
        self.open()
        self.assertEqual(self.users(), ["alice"])
        write(self.path, f"bob:{GOOD}\n")
        self.assertEqual(self.users(after=CHECK_INTERVAL / 2), ["alice"])
        with logged() as lines:
            self.assertEqual(self.users(), ["bob"])
        self.assertEqual(lines, ["htpasswd file reloaded: 1 users"])
        write(self.path, "")
        self.assertEqual(self.users(), [])

    def test_changed_in_place(self) -> None:
        """Another size or time is enough; one that stays the same is not read again."""
        self.open()
        with open(self.path, "a") as file:
            file.write(f"bob:{GOOD}\n")
        self.assertEqual(self.users(), ["alice", "bob"])
        with open(self.path, "w") as file:
            file.write(f"carol:{GOOD}\ndan:{GOOD}\n")
        os.utime(self.path, ns=(1, 1))
        self.assertEqual(self.users(), ["carol", "dan"])
        with logged() as lines:
            self.assertEqual(self.users(), ["carol", "dan"])
        self.assertEqual(lines, [])

    def test_broken(self) -> None:
        """While the file is broken or gone the old accounts stay, and the log says so once; then it counts again."""
        self.open()
        write(self.path, "alice:{SHA}x\n")
        with logged() as lines:
            self.assertEqual([self.users(), self.users(), self.users()], [["alice"]] * 3)
        self.assertEqual(len(lines), 1)
        self.assertIn("the accounts stay as they were", lines[0])
        self.assertIn("line 1", lines[0])
        os.remove(self.path)
        with logged() as lines:
            self.assertEqual([self.users(), self.users()], [["alice"]] * 2)
        self.assertEqual(len(lines), 1)
        write(self.path, f"bob:{GOOD}\n")
        self.assertEqual(self.users(), ["bob"])
