"""Passwords: what a check costs, what is remembered, and that nobody escapes the throttle."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from docxy.gate import passwords
from docxy.gate.passwords import REMEMBERED
from docxy.gate.throttle import FREE
from tests.gate.harness import PASSWORDS, Door, Threads, basic, door, hashed, lines, logged, write

ALICE = basic("alice", PASSWORDS["alice"])
MANIFEST = "/v2/library/alpine/manifests/latest"


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = write(self.mktemp(), lines())
        self.checked: list[str] = []
        check = passwords._matches

        def counted(password: str, hashed: str) -> bool:
            self.checked.append(hashed)
            return check(password, hashed)

        self.patch(passwords, "_matches", counted)

    def door(self, **more: Any) -> Door:
        return door({"htpasswd": self.path}, **more)


class BasicTests(Case):
    def test_right_and_wrong(self) -> None:
        """Only a user's own password is right, colons and other letters in it are no harm."""
        write(self.path, lines({**PASSWORDS, "zoë": "pässwörd", "empty": ""}))
        guarded = self.door()
        for user, password, wanted in (
            ("alice", "wonder:land", 200),
            ("zoë", "pässwörd", 200),
            ("empty", "", 200),
            ("alice", "wonder", 401),
            ("alice", "", 401),
            ("bob", "wonder:land", 401),
            ("Alice", "wonder:land", 401),
            ("mallory", "", 401),
            ("", "", 401),
            ("alice", "wonder:land\0", 401),
        ):
            at = f"192.0.2.{len(self.checked) + 1}"
            self.assertEqual(guarded.ask(MANIFEST, basic(user, password), at=at).status, wanted, user)

    def test_long_password(self) -> None:
        """Of a password longer than bcrypt can take what it takes counts, as with htpasswd itself."""
        write(self.path, f"long:{hashed('x' * 72)}\n")
        guarded = self.door()
        self.assertEqual(guarded.ask(MANIFEST, basic("long", "x" * 100)).status, 200)
        self.assertEqual(guarded.ask(MANIFEST, basic("long", "x" * 71)).status, 401)

    def test_remembered(self) -> None:
        """A right pair is checked once in a while, a wrong one each time."""
        guarded = self.door()
        for _ in range(5):
            self.assertEqual(guarded.ask(MANIFEST, ALICE).status, 200)
        self.assertEqual(len(self.checked), 1)
        guarded.clock.advance(REMEMBERED)
        self.assertEqual(guarded.ask(MANIFEST, ALICE).status, 200)
        self.assertEqual(len(self.checked), 2)
        for _ in range(2):
            self.assertEqual(guarded.ask(MANIFEST, basic("alice", "x")).status, 401)
        self.assertEqual(len(self.checked), 4)

    def test_remembered_bounded(self) -> None:
        """Only so many are remembered, and neither password nor user is."""
        self.patch(passwords, "MAX_REMEMBERED", 2)
        guarded = self.door()
        for user in ("alice", "bob", "eve", "eve", "bob", "alice"):
            self.assertEqual(guarded.ask(MANIFEST, basic(user, PASSWORDS[user])).status, 200)
        self.assertEqual(len(self.checked), 4)
        kept = repr(vars(guarded.gate.passwords))  # type: ignore[attr-defined]  # of HtpasswdGate
        for secret in (*PASSWORDS, *PASSWORDS.values()):
            self.assertNotIn(secret, kept)

    def test_password_changed(self) -> None:
        """What is remembered ends when the file changes: for another password, and for a user that is gone."""
        guarded = self.door()
        for authorization in (ALICE, basic("bob", "builder")):
            self.assertEqual(guarded.ask(MANIFEST, authorization).status, 200)
        write(self.path, lines({"alice": "new"}))
        guarded.clock.advance(1)
        self.assertEqual(guarded.ask(MANIFEST, ALICE).status, 401)
        self.assertEqual(guarded.ask(MANIFEST, basic("bob", "builder")).status, 401)
        self.assertEqual(guarded.ask(MANIFEST, basic("alice", "new")).status, 200)

    def test_unknown_users(self) -> None:
        """A user that does not exist costs a bcrypt of the same cost, and is answered the same."""
        guarded = self.door()
        known, unknown = (guarded.ask(MANIFEST, basic(user, "wrong")) for user in ("alice", "mallory"))
        self.assertEqual(known, unknown)
        self.assertEqual([hashed[:7] for hashed in self.checked], ["$2b$04$"] * 2)

    def test_decoy_matches(self) -> None:
        """A user that does not exist is refused though what was checked instead should match."""
        self.patch(passwords, "_matches", lambda password, hashed: True)
        self.assertEqual(self.door().ask(MANIFEST, basic("mallory", "x")).status, 401)


class TurnTests(Case):
    def setUp(self) -> None:
        super().setUp()
        self.threads = Threads()
        self.guarded = self.door(in_thread=self.threads)

    def test_shared(self) -> None:
        """The same pair many times at once is checked once."""
        sent = [self.guarded.send(MANIFEST, ALICE) for _ in range(6)]
        self.assertEqual([one.answer() for one in sent], [None] * 6)
        self.threads.run()
        self.assertEqual(self.threads.waiting, [])
        self.assertEqual([answer.status for one in sent if (answer := one.answer())], [200] * 6)

    def test_parallel_guesses(self) -> None:
        """Guesses sent all at once are throttled as those sent one after the other."""
        sent = [self.guarded.send(MANIFEST, basic("alice", f"guess {n}")) for n in range(20)]
        while self.threads.waiting:
            self.assertEqual(len(self.threads.waiting), 1)
            self.threads.run()
        statuses = [answer.status for one in sent if (answer := one.answer())]
        self.assertEqual(statuses, [401] * FREE + [429] * (20 - FREE))
        self.assertEqual(len(self.checked), FREE)

    def test_hanging_up(self) -> None:
        """A guess counts though the client did not wait for the answer."""
        with logged():
            for n in range(FREE):
                self.guarded.send(MANIFEST, basic("alice", f"guess {n}")).close()
            for _ in range(FREE):
                self.threads.run()
        self.assertEqual(self.guarded.ask(MANIFEST, ALICE).status, 429)

    def test_other_addresses(self) -> None:
        """Others neither wait behind an address that is busy nor for its pause."""
        first = self.guarded.send(MANIFEST, basic("alice", "wrong"))
        other = self.guarded.send(MANIFEST, ALICE, at="198.51.100.1")
        self.assertEqual(len(self.threads.waiting), 2)
        self.threads.run()
        self.threads.run()
        self.assertEqual([getattr(one.answer(), "status", None) for one in (first, other)], [401, 200])
        self.assertEqual(self.guarded.gate.passwords._locks, {})  # type: ignore[attr-defined]  # of HtpasswdGate

    def test_queue_bounded(self) -> None:
        """Only so many attempts of an address wait; the next is told to come back in a second."""
        self.patch(passwords, "MAX_WAITING", 3)
        for n in range(4):
            self.guarded.send(MANIFEST, basic("alice", f"guess {n}"))
        answer = self.guarded.ask(MANIFEST, basic("alice", "guess 5"))
        self.assertEqual((answer.status, answer.headers["retry-after"]), (429, "1"))
        while self.threads.waiting:
            self.threads.run()


class ThrottledTests(Case):
    def fail_often(self, guarded: Door, **more: Any) -> None:
        for n in range(FREE):
            self.assertEqual(guarded.ask(MANIFEST, basic("alice", f"guess {n}"), **more).status, 401)

    def test_pause(self) -> None:
        """After some failures even the right password has to wait, for as long as Retry-After says."""
        guarded = self.door()
        self.fail_often(guarded)
        self.assertEqual(guarded.ask(MANIFEST, basic("alice", "x")).status, 429)
        answer = guarded.ask(MANIFEST, ALICE)
        self.assertEqual((answer.status, answer.code), (429, "TOOMANYREQUESTS"))
        self.assertEqual(len(self.checked), FREE)
        self.assertEqual(guarded.ask("/auth/token", ALICE).status, 429)
        form = {"grant_type": "password", "username": "alice", "password": "wonder:land"}
        self.assertEqual(guarded.ask("/auth/token", form=form).status, 429)
        guarded.clock.advance(float(answer.headers["retry-after"]))
        self.assertEqual(guarded.ask(MANIFEST, ALICE).status, 200)
        self.fail_often(guarded)

    def test_token_endpoint_counts(self) -> None:
        """Guesses at the token endpoint, refresh tokens too, count as all others."""
        guarded = self.door()
        for form in (
            None,
            {"grant_type": "password", "username": "alice", "password": "x"},
            {"grant_type": "refresh_token", "refresh_token": "x"},
            {"grant_type": "refresh_token", "refresh_token": "y"},
        ):
            self.assertEqual(guarded.ask("/auth/token", basic("alice", "no"), form=form).status, 401)
        self.assertEqual(guarded.ask(MANIFEST, basic("bob", "no")).status, 401)
        self.assertEqual(guarded.ask(MANIFEST, ALICE).status, 429)
        form = {"grant_type": "refresh_token", "refresh_token": "x"}
        self.assertEqual(guarded.ask("/auth/token", form=form).status, 429)

    def test_tokens_go_on(self) -> None:
        """Who has a token goes on while others at its address guess, and so does every other address."""
        guarded = self.door()
        bearer = guarded.bearer("alice", "repository:library/alpine:pull")
        self.fail_often(guarded)
        self.assertEqual(guarded.ask(MANIFEST, bearer).status, 200)
        self.assertEqual(guarded.ask(MANIFEST, basic("bob", "builder"), at="198.51.100.1").status, 200)

    def test_one_network(self) -> None:
        """An IPv6 host has many addresses, and failures of all of them count together."""
        guarded = self.door()
        for n in range(FREE):
            guarded.ask(MANIFEST, basic("alice", "x"), at=f"2001:db8::{n + 1}")
        self.assertEqual(guarded.ask(MANIFEST, ALICE, at="2001:db8::ffff").status, 429)
        self.assertEqual(guarded.ask(MANIFEST, ALICE, at="2001:db8:0:1::1").status, 200)

    def test_success_of_another(self) -> None:
        """An account of one's own does not reset what guesses at another's cost."""
        guarded = self.door()
        statuses = []
        for n in range(FREE + 1):
            statuses.append(guarded.ask(MANIFEST, basic("alice", f"guess {n}")).status)
            guarded.ask(MANIFEST, basic("eve", "dropper"))
        self.assertEqual(statuses, [401] * FREE + [429])
