"""Keys of tokens in a file: several docxys with the same one accept each other's tokens."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from docxy.access.signer import LIFETIME
from docxy.access.token_keys import CHECK_INTERVAL, MAX_FILE, KeyFile, derive, load
from docxy.moments import LEEWAY
from docxy.settings.model import ConfigError
from tests.unit.access.harness import PASSWORDS, Door, basic, door, lines, logged, write

FIRST, SECOND = "first" * 8, "second" * 8
ALPINE, SCOPE = "/v2/library/alpine/manifests/latest", "repository:library/alpine:pull"


class Case(SynchronousTestCase):
    def keys(self, *keys: str, at: str | None = None) -> str:
        """A file with these keys."""
        path = write(at or self.mktemp(), "".join(f"{key}\n" for key in keys))
        os.chmod(path, 0o600)
        return path


class FileTests(Case):
    def test_read(self) -> None:
        """One key a line; comments, blank lines and white space are none."""
        path = self.keys("# signs", f"  {FIRST} \r", "", SECOND)
        self.assertEqual(load(path), (FIRST.encode(), SECOND.encode()))
        os.chmod(path, 0o640)
        self.assertEqual(len(load(path)), 2, "docxy's group may read it")

    def test_refused(self) -> None:
        """What can be guessed, read by others, or is no such file, is refused; no key is in the message."""
        cases: list[tuple[tuple[str, ...], str]] = [
            ((), "holds no key"),
            (("# only this",), "holds no key"),
            ((FIRST, "k" * 31), "less than 32 bytes"),
            ((FIRST, FIRST), "the same key twice"),
            ((FIRST, SECOND, "third" * 8), "holds 3 keys; 2 are the most"),
            ((FIRST * 103,), f"more than {MAX_FILE} bytes"),
        ]
        for keys, said in cases:
            error = self.assertRaises(ConfigError, load, self.keys(*keys))
            self.assertIn(said, str(error))
            self.assertNotIn(FIRST, str(error))
        for mode in (0o604, 0o602, 0o601, 0o620, 0o644):
            path = self.keys(FIRST)
            os.chmod(path, mode)
            self.assertIn(f"its mode is 0{mode:o}", str(self.assertRaises(ConfigError, load, path)))
        self.assertIn("No such file", str(self.assertRaises(ConfigError, load, self.mktemp())))

    def test_purposes(self) -> None:
        """Each purpose has keys of its own; every file with the same line gives the same."""
        one, other = (KeyFile(self.keys(FIRST), Clock()) for _ in range(2))
        self.assertEqual(one.derived("gate"), other.derived("gate"))
        self.assertEqual(one.derived("gate"), (derive(FIRST.encode(), "gate"),))
        self.assertNotEqual(one.derived("gate"), one.derived("offline tokens"))

    def test_reloaded(self) -> None:
        """A change counts within a second; one that cannot be used changes nothing and is logged without a key."""
        clock = Clock()
        path = self.keys(FIRST)
        file = KeyFile(path, clock)
        before = file.derived("gate")
        self.keys("short", at=path)
        clock.advance(CHECK_INTERVAL)
        with logged() as said:
            self.assertEqual(file.derived("gate"), before)
        self.assertEqual(len(said), 1)
        self.assertNotIn(FIRST, said[0])
        self.keys(SECOND, FIRST, at=path)
        self.assertEqual(file.derived("gate"), before, "looked at more often than once a second")
        clock.advance(CHECK_INTERVAL)
        self.assertEqual(file.derived("gate")[1:], before)
        Path(path).unlink()
        self.assertIn("No such file", str(file.reload()))
        self.assertEqual(len(file.derived("gate")), 2)


class NodesTests(Case):
    """Two docxys with a cache each."""

    def setUp(self) -> None:
        self.htpasswd = write(self.mktemp(), lines())

    def node(self, *keys: str, ahead: float = 0.0) -> Door:
        """One with these keys, whose clock is so many seconds ahead."""
        clock = Clock()
        clock.advance(1_700_000_000 + ahead)
        return door({"htpasswd": self.htpasswd, "token_key_file": self.keys(*keys)}, clock=clock)

    def status(self, node: Door, token: str) -> int:
        return node.ask(ALPINE, f"Bearer {token}").status

    def tokens(self, node: Door) -> dict[str, Any]:
        """A token and a refresh token of a node."""
        answer = node.ask(f"/auth/token?offline_token=true&scope={SCOPE}", basic("alice", PASSWORDS["alice"]))
        found: dict[str, Any] = answer.body
        return found

    def refreshed(self, node: Door, said: dict[str, Any]) -> int:
        form = {"grant_type": "refresh_token", "refresh_token": said["refresh_token"], "scope": SCOPE}
        return node.ask("/auth/token", form=form).status

    def test_shared(self) -> None:
        """What one node issued is good at another with the same key, and nothing at one with another key."""
        said = self.tokens(self.node(FIRST))
        for keys, status in (((FIRST,), 200), ((SECOND, FIRST), 200), ((SECOND,), 401)):
            other = self.node(*keys)
            self.assertEqual((self.status(other, said["token"]), self.refreshed(other, said)), (status, status), keys)

    def test_rotated(self) -> None:
        """A key is changed node by node: added behind, put first, the old one taken away; no token ends before that."""
        steps = [(FIRST,), (FIRST, SECOND), (SECOND, FIRST), (SECOND,)]
        for before, after in pairwise(steps):
            for issuer, reader in ((before, after), (after, before)):
                said = self.tokens(self.node(*issuer))
                self.assertEqual(self.status(self.node(*reader), said["token"]), 200, (issuer, reader))

    def test_password_changed(self) -> None:
        """A token is bound to the password whichever of the keys signed it."""
        said = self.tokens(self.node(FIRST))
        reader = self.node(SECOND, FIRST)
        self.assertEqual(self.status(reader, said["token"]), 200)
        write(self.htpasswd, lines({"alice": "new"}))
        reader.clock.advance(1)
        self.assertEqual((self.status(reader, said["token"]), self.refreshed(reader, said)), (401, 401))

    def test_clocks(self) -> None:
        """A token of a node a minute ahead is good at once; a node a minute ahead lets a token live as it says."""
        ahead, behind = self.node(FIRST, ahead=60), self.node(FIRST)
        self.assertEqual(self.status(behind, self.tokens(ahead)["token"]), 200)
        token = self.tokens(behind)["token"]
        ahead.clock.advance(LIFETIME - 1)
        self.assertEqual(self.status(ahead, token), 200, "it ended a minute early")
        ahead.clock.advance(LEEWAY)
        self.assertEqual(self.status(ahead, token), 401)
