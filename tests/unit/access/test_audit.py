"""Audit lines: one for each refusal, and no secret in any."""

from __future__ import annotations

from typing import Any

from docxy.access.signer import LIFETIME
from docxy.moments import LEEWAY
from tests.unit.access.harness import Door, basic, logged
from tests.unit.access.test_htpasswd_gate import ALICE, ALPINE, RULES, Case


class AuditTests(Case):
    def refusals(self, guarded: Door, uri: str, authorization: str | None = None, **more: Any) -> list[str]:
        with logged() as said:
            self.assertGreaterEqual(guarded.ask(uri, authorization, **more).status, 400)
        return said

    def test_lines(self) -> None:
        """One line for each refusal: who, from where, what and why."""
        guarded = self.door(**RULES)
        for uri, authorization, wanted in (
            (
                ALPINE,
                basic("alice", "x"),
                "user 'alice' at 192.0.2.1: pull docker.io/library/alpine: 401 the user name",
            ),
            (ALPINE, basic("eve", "dropper"), "user 'eve' at 192.0.2.1: pull docker.io/library/alpine: 403 "),
            ("/v2/", "Bearer x", "nobody at 192.0.2.1: ping docker.io: 401 the token is not valid"),
            ("/auth/token", None, "nobody at 192.0.2.1: token: 401 authentication is required"),
            ("/auth/token", basic("mallory", "x"), "user 'mallory' at 192.0.2.1: token: 401 the user name"),
            ("/v2/busybox/tags/list", guarded.bearer("alice"), "user 'alice' at 192.0.2.1: pull docker.io/library/bu"),
        ):
            said = self.refusals(guarded, uri, authorization)
            self.assertEqual(len(said), 1, said)
            self.assertTrue(said[0].startswith("refused " + wanted), said)

    def test_throttled(self) -> None:
        """So has the refusal of a user that was wrong too often."""
        guarded = self.door()
        for n in range(5):
            guarded.ask("/v2/", basic("alice", f"guess {n}"))
        said = self.refusals(guarded, "/auth/token", ALICE)
        self.assertEqual(len(said), 1)
        self.assertIn("user 'alice' at 192.0.2.1: token: 429 too many failed logins", said[0])

    def test_escaped_and_secret(self) -> None:
        """A name cannot forge a line, is cut, and no line holds a password or token."""
        guarded = self.door()
        token = str(guarded.login("alice")["token"])
        guarded.clock.advance(LIFETIME + LEEWAY)
        said = [
            *self.refusals(guarded, "/v2/", basic("a\nrefused user 'bob'\x1b[2J" + "x" * 1000, "hunter2")),
            *self.refusals(guarded, "/v2/", basic("{log_source}", "hunter2")),
            *self.refusals(guarded, "/v2/", f"Bearer {token}"),
            *self.refusals(guarded, "/auth/token", form={"grant_type": "refresh_token", "refresh_token": token}),
        ]
        self.assertEqual(len(said), 4)
        for line in said:
            self.assertTrue(line.isprintable(), line)
            self.assertLess(len(line), 300)
            self.assertNotIn("hunter2", line)
            self.assertNotIn(token[-20:], line)
        self.assertIn("{log_source}", said[1])
