"""Passwords: what a check costs, what is remembered, and that nobody escapes the throttle."""

from __future__ import annotations

from typing import Any

import bcrypt
from twisted.trial.unittest import SynchronousTestCase

from docxy.access import passwords
from docxy.access.htpasswd import CHECK_INTERVAL
from docxy.access.passwords import MAX_CHECKS, REMEMBERED, WRONG_FOR
from docxy.access.throttle import ADDRESS_FREE, FREE, TRUSTED
from tests.unit.access.harness import PASSWORDS, Door, Threads, basic, door, hashed, lines, logged, write

ALICE = basic("alice", PASSWORDS["alice"])
MANIFEST = "/v2/library/alpine/manifests/latest"


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = write(self.mktemp(), lines())
        self.checked: list[str] = []
        check = passwords._matches

        def counted(password: str, stored: str | None, cost: int) -> bool:
            self.checked.append(password)
            return check(password, stored, cost)

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
            ("x" * 11_000, "long name", 401),
            ("x", "long password" * 800, 401),
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
        """A right pair is checked once in a while, and so is a wrong one: to try it again is no guess."""
        guarded = self.door()
        for _ in range(5):
            self.assertEqual(guarded.ask(MANIFEST, ALICE).status, 200)
        self.assertEqual(len(self.checked), 1)
        guarded.clock.advance(REMEMBERED)
        self.assertEqual(guarded.ask(MANIFEST, ALICE).status, 200)
        self.assertEqual(len(self.checked), 2)
        for pause in (0.0, 0.0, WRONG_FOR):
            guarded.clock.advance(pause)
            for _ in range(2 * FREE):
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
        """Users of hashes of every cost, and one that does not exist, cost the same work, and are answered the same."""
        costly = {f"cost{cost}": bcrypt.hashpw(b"right", bcrypt.gensalt(cost)).decode() for cost in (4, 5, 7)}
        write(self.path, "".join(f"{user}:{hashed}\n" for user, hashed in costly.items()))
        work: list[int] = []
        check = passwords._hash

        def counted(secret: bytes, hashed: str) -> bool:
            work.append(2 ** int(hashed[4:6]))
            return check(secret, hashed)

        self.patch(passwords, "_hash", counted)
        guarded = self.door()
        answers = []
        for user in (*costly, "mallory"):
            work.clear()
            answers.append(guarded.ask(MANIFEST, basic(user, "wrong")))
            self.assertEqual(sum(work), 2**7, user)
        told = [
            (answer.status, {**answer.headers, "x-request-id": "another for each"}, answer.body) for answer in answers
        ]
        self.assertEqual(told, [told[0]] * 4)

    def test_decoy_matches(self) -> None:
        """A user that does not exist is refused though what was checked instead should match."""
        self.patch(passwords, "_matches", lambda password, stored, cost: True)
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

    def test_known_user_passes(self) -> None:
        """Who logged in from an address lately waits for none of the guesses that queue there."""
        first = self.guarded.send(MANIFEST, ALICE)
        self.threads.run()
        answer = first.answer()
        assert answer is not None
        self.assertEqual(answer.status, 200)
        for n in range(5):
            self.guarded.send(MANIFEST, basic(f"user{n}", "guess"))
        write(self.path, lines({**PASSWORDS, "alice": "new"}))
        self.guarded.clock.advance(CHECK_INTERVAL)
        changed = self.guarded.send(MANIFEST, basic("alice", "new"))
        self.assertEqual(len(self.threads.waiting), 2)
        while self.threads.waiting:
            self.threads.run()
        self.assertEqual(getattr(changed.answer(), "status", None), 200)

    def test_fleet(self) -> None:
        """One account at many addresses at once is one check, and so it is at one address, many more than may wait."""
        sent = [self.guarded.send(MANIFEST, ALICE, at=f"198.51.100.{n % 2 * n + 1}") for n in range(200)]
        self.assertEqual(len(self.threads.waiting), 1)
        self.threads.run()
        self.assertEqual({getattr(one.answer(), "status", None) for one in sent}, {200})

    def test_checks_bounded(self) -> None:
        """Only so many pairs are checked at once, from however many addresses; the next one comes back in a second."""
        for n in range(MAX_CHECKS):
            self.guarded.send(MANIFEST, basic("alice", f"guess {n}"), at=f"198.51.100.{n + 1}")
        self.assertEqual(len(self.threads.waiting), MAX_CHECKS)
        answer = self.guarded.ask(MANIFEST, basic("bob", "builder"))
        self.assertEqual((answer.status, answer.headers["retry-after"]), (429, "1"))
        while self.threads.waiting:
            self.threads.run()
        last = self.guarded.send(MANIFEST, basic("bob", "builder"))
        self.threads.run()
        self.assertEqual(getattr(last.answer(), "status", None), 200)


class ThrottledTests(Case):
    def fail_often(self, guarded: Door, **more: Any) -> None:
        for n in range(FREE):
            self.assertEqual(guarded.ask(MANIFEST, basic("alice", f"guess {n}"), **more).status, 401)

    def test_pause(self) -> None:
        """After some failures a password that was never right here has to wait, for as long as Retry-After says."""
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
        """Guesses at the token endpoint count as all others; refresh tokens too, but for none that is good."""
        guarded = self.door()
        good = guarded.ask("/auth/token?offline_token=true", ALICE).body["refresh_token"]
        for n in range(FREE):
            form = {"grant_type": "password", "username": "bob", "password": f"guess {n}"}
            query = basic("bob", f"other guess {n}")
            answer = guarded.ask("/auth/token", form=form) if n % 2 else guarded.ask("/auth/token", query)
            self.assertEqual(answer.status, 401)
        self.assertEqual(guarded.ask(MANIFEST, basic("bob", "builder")).status, 429)
        statuses = []
        for n in range(FREE + 1):
            form = {"grant_type": "refresh_token", "refresh_token": f"guess {n}"}
            statuses.append(guarded.ask("/auth/token", form=form).status)
        self.assertEqual(statuses, [401] * FREE + [429])
        form = {"grant_type": "refresh_token", "refresh_token": good}
        self.assertEqual(guarded.ask("/auth/token", form=form).status, 200)

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
            guarded.ask(MANIFEST, basic("alice", f"guess {n}"), at=f"2001:db8::{n + 1}")
        self.assertEqual(guarded.ask(MANIFEST, ALICE, at="2001:db8::ffff").status, 429)
        self.assertEqual(guarded.ask(MANIFEST, ALICE, at="2001:db8:0:1::1").status, 200)

    def test_known_is_not_locked_out(self) -> None:
        """A password that was right at an address lately stays right there, whatever somebody else tries from it."""
        guarded = self.door()
        self.assertEqual(guarded.ask(MANIFEST, ALICE).status, 200)
        for n in range(TRUSTED - 1):
            self.assertIn(guarded.ask(MANIFEST, basic("alice", f"guess {n}")).status, (401, 429))
        for n in range(ADDRESS_FREE):
            guarded.ask(MANIFEST, basic(f"user{n}", "guess"))
        self.assertEqual(guarded.ask(MANIFEST, ALICE).status, 200)
        # Elsewhere it was never right: there it is a guess like others.
        for n in range(FREE):
            guarded.ask(MANIFEST, basic("alice", f"new guess {n}"), at="198.51.100.1")
        self.assertEqual(guarded.ask(MANIFEST, ALICE, at="198.51.100.1").status, 429)
        # Nor is it an oracle: who tries on and on, is answered nothing.
        self.assertEqual(guarded.ask(MANIFEST, basic("alice", "one more")).status, 429)
        self.assertEqual(guarded.ask(MANIFEST, ALICE).status, 429)

    def test_sprayed(self) -> None:
        """An address that fails under many names makes new names wait, and none that logged in from it lately."""
        guarded = self.door()
        self.assertEqual(guarded.ask(MANIFEST, ALICE).status, 200)
        statuses = [guarded.ask(MANIFEST, basic(f"user{n}", "guess")).status for n in range(ADDRESS_FREE + 1)]
        self.assertEqual(statuses, [401] * ADDRESS_FREE + [429])
        self.assertEqual(guarded.ask(MANIFEST, basic("bob", "builder")).status, 429)
        write(self.path, lines({**PASSWORDS, "alice": "new"}))
        guarded.clock.advance(CHECK_INTERVAL)
        self.assertEqual(guarded.ask(MANIFEST, basic("alice", "new")).status, 200)

    def test_success_of_another(self) -> None:
        """An account of one's own does not reset what guesses at another's cost."""
        guarded = self.door()
        statuses = []
        for n in range(FREE + 1):
            statuses.append(guarded.ask(MANIFEST, basic("alice", f"guess {n}")).status)
            guarded.ask(MANIFEST, basic("eve", "dropper"))
        self.assertEqual(statuses, [401] * FREE + [429])
