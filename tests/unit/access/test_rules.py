"""The gate with accounts: what the rules of `[access]` open to whom."""

from __future__ import annotations

from tests.unit.access.harness import PASSWORDS, basic
from tests.unit.access.test_htpasswd_gate import ALICE, ALPINE, ANONYMOUS, RULES, SCOPE, Case, names


class RuleTests(Case):
    def setUp(self) -> None:
        super().setUp()
        self.guarded = self.door(**RULES)

    def test_basic(self) -> None:
        """With a password too everyone gets what the rules say, by any way of naming the upstream."""
        for user, uri, wanted in (
            ("alice", ALPINE, 200),
            ("alice", "/v2/alpine/manifests/latest", 200),
            ("alice", "/v2/docker.io/alpine/manifests/latest", 200),
            ("alice", "/v2/bitnami/x/manifests/latest", 403),
            ("alice", "/v2/ghcr.io/team/x/manifests/latest", 403),
            ("alice", "/ghcr.io/v2/library/alpine/manifests/latest", 403),
            ("alice", "/v2/library/alpine/manifests/latest?ns=ghcr.io", 403),
            ("bob", ALPINE, 200),
            ("bob", "/v2/team/x/y/manifests/latest?ns=ghcr.io", 200),
            ("bob", "/v2/team/x/manifests/latest", 403),
            ("eve", ALPINE, 403),
        ):
            answer = self.guarded.ask(uri, basic(user, PASSWORDS[user]))
            self.assertEqual(answer.status, wanted, (user, uri))
            if wanted == 403:
                self.assertEqual((answer.code, answer.challenge), ("DENIED", ""))
        self.assertEqual(self.guarded.ask("/v2/", basic("eve", "dropper")).status, 200)

    def test_listed(self) -> None:
        """Of what is listed a user sees what it may pull, with a password or a token of any scope; strangers log in."""
        known = "known=library/alpine+team/x+other/y"
        for user, ghcr, hub in (
            ("alice", [], ["library/alpine"]),
            ("bob", ["team/x"], ["library/alpine"]),
            ("eve", [], []),
        ):
            for authorization in (basic(user, PASSWORDS[user]), self.guarded.bearer(user)):
                listed = self.guarded.ask(f"/v2/ghcr.io/_catalog?{known}", authorization)
                self.assertEqual(listed.body["names"], ghcr)
                self.assertEqual(self.guarded.ask(f"/v2/_catalog?{known}", authorization).body["names"], hub)
        self.assertEqual(self.guarded.ask(f"/v2/_catalog?{known}").status, 401)

    def test_by_host(self) -> None:
        """Rules are for the upstream that the Host means."""
        for user, wanted in (("bob", 200), ("alice", 403)):
            answer = self.guarded.ask(
                "/v2/team/x/manifests/a", basic(user, PASSWORDS[user]), host="ghcr.mirror.example"
            )
            self.assertEqual(answer.status, wanted)

    def test_reduced_grant(self) -> None:
        """What a user may not pull is left out of the token; asking with it is DENIED, not another challenge."""
        document = self.guarded.login("alice", SCOPE, "repository:ghcr.io/team/x:pull")
        self.assertEqual(names(document["token"]), ["library/alpine"])
        bearer = f"Bearer {document['token']}"
        self.assertEqual(self.guarded.ask(ALPINE, bearer).status, 200)
        self.assertEqual(self.guarded.ask("/v2/ghcr.io/team/x/manifests/a", bearer).status, 403)

    def test_bare_names(self) -> None:
        """A scope that does not say which upstream it means opens only what the rules open there."""
        bearer = self.guarded.bearer("bob", "repository:team/x:pull")
        self.assertEqual(self.guarded.ask("/v2/team/x/manifests/a?ns=ghcr.io", bearer).status, 200)
        self.assertEqual(self.guarded.ask("/ghcr.io/v2/team/x/manifests/a", bearer).status, 200)
        self.assertEqual(self.guarded.ask("/v2/team/x/manifests/a", bearer).status, 403)
        self.assertEqual(names(self.guarded.login("alice", "repository:alpine:pull")["token"]), ["alpine"])

    def test_changed(self) -> None:
        """Other rules are in force for the next request and the next token, for names of registries too."""
        bearer = self.guarded.bearer("alice", SCOPE)
        self.assertEqual(self.guarded.ask(ALPINE, bearer).status, 200)
        rules = [{"users": ["alice"], "repositories": ["quay.example/**"]}]
        self.guarded.change({"htpasswd": self.path, "rules": rules, "deny": ["192.0.2.9"]})
        self.assertEqual(self.guarded.ask(ALPINE, bearer).status, 403)
        self.assertEqual(self.guarded.ask("/v2/", ALICE, at="192.0.2.9").status, 403)
        self.assertEqual(self.guarded.ask("/v2/", ALICE).status, 200)
        token = self.guarded.bearer("alice", SCOPE)
        self.guarded.change({"htpasswd": self.path, **RULES})
        self.assertEqual(self.guarded.ask(ALPINE, token).status, 401)
        self.assertEqual(self.guarded.ask(ALPINE, bearer).status, 200)

    def test_anonymous(self) -> None:
        """What is for everyone needs no login; everything else asks for one, and /v2/ does."""
        guarded = self.door(**ANONYMOUS)
        self.assertEqual(guarded.ask("/v2/").status, 401)
        self.assertEqual(guarded.ask(ALPINE).status, 200)
        self.assertEqual(guarded.ask("/v2/bitnami/x/manifests/a").status, 401)
        document = guarded.ask(f"/auth/token?offline_token=true&scope={SCOPE}&scope=repository:bitnami/x:pull").body
        self.assertEqual(names(document["token"]), ["library/alpine"])
        self.assertNotIn("refresh_token", document)
        bearer = f"Bearer {document['token']}"
        self.assertEqual(guarded.ask("/v2/", bearer).status, 200)
        self.assertEqual(guarded.ask(ALPINE, bearer).status, 200)
        self.assertEqual(guarded.ask("/v2/bitnami/x/manifests/a", bearer).status, 401)
        self.assertEqual(guarded.ask("/v2/bitnami/x/manifests/a", ALICE).status, 403)
        self.assertEqual(guarded.ask(ALPINE, basic("alice", "wrong")).status, 401)
