"""The gate with accounts: challenges, tokens, scopes, rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jwt
from twisted.trial.unittest import SynchronousTestCase

from docxy import globs
from docxy.access.scopes import MAX_SCOPES
from docxy.access.signer import LIFETIME, MAX_NAMES, REFRESH_LIFETIME, Signer
from docxy.moments import LEEWAY
from tests.unit.access.harness import (
    KEY,
    PASSWORDS,
    PUBLIC_URL,
    REALM,
    UPSTREAMS,
    Door,
    basic,
    door,
    lines,
    logged,
    write,
)

ALPINE = "/v2/library/alpine/manifests/latest"
SCOPE = "repository:library/alpine:pull"
ALICE = basic("alice", PASSWORDS["alice"])
RULES = {
    "groups": {"devs": ["bob"]},
    "rules": [
        {"users": ["alice"], "groups": ["devs"], "repositories": ["docker.io/library/*"]},
        {"groups": ["devs"], "repositories": ["ghcr.io/team/**"]},
    ],
}
ANONYMOUS = {"rules": [{"groups": ["anonymous"], "repositories": ["docker.io/library/*"]}]}


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = write(self.mktemp(), lines())

    def door(self, **table: Any) -> Door:
        return door({"htpasswd": self.path, **table})


def claims(token: object) -> dict[str, Any]:
    decoded: dict[str, Any] = jwt.decode(str(token), options={"verify_signature": False})
    return decoded


def names(token: object) -> list[str]:
    return [item["name"] for item in claims(token)["access"]]


class ChallengeTests(Case):
    def test_ping(self) -> None:
        """Whoever sends nothing is told where tokens are to be had, which no Host header changes."""
        guarded = self.door()
        self.assertTrue(guarded.gate.asks)
        for uri in ("/v2/", "/v2", "/v2/ghcr.io/", "/ghcr.io/v2/", "/v2/?ns=ghcr.io"):
            with logged() as said:
                answer = guarded.ask(uri, host="evil.example")
            self.assertEqual((answer.status, answer.code), (401, "UNAUTHORIZED"))
            self.assertEqual(answer.challenge, f'Bearer realm="{REALM}",service="mirror.example:8443"')
            self.assertEqual(said, [])

    def test_scope(self) -> None:
        """The scope is the repository's name as the client wrote it, however the upstream was named."""
        guarded = self.door()
        for uri, scope in (
            ("/v2/library/alpine/manifests/latest", "library/alpine"),
            ("/v2/alpine/manifests/latest", "alpine"),
            ("/v2/ghcr.io/team/x/blobs/sha256:0", "ghcr.io/team/x"),
            ("/ghcr.io/v2/team/x/tags/list?n=1", "team/x"),
            ("/v2/team/x/referrers/sha256:0?ns=ghcr.io", "team/x"),
            ("/v2/index.docker.io/library/alpine/manifests/a", "index.docker.io/library/alpine"),
            ("/v2/team/%78/manifests/a", "team/x"),
        ):
            answer = guarded.ask(uri)
            self.assertEqual(answer.status, 401)
            wanted = f'Bearer realm="{REALM}",service="mirror.example:8443",scope="repository:{scope}:pull"'
            self.assertEqual(answer.challenge, wanted)

    def test_unreadable(self) -> None:
        """What is no credential at all is refused as a token that is not good, never with a 500."""
        guarded = self.door()
        for sent in (
            "Bearer x",
            "Bearer",
            "Bearer a.b.c",
            "Basic !!!",
            "Basic YQ==",
            "Digest x",
            "x",
            "Basic",
            "Basic é",
            "é",
        ):
            for uri in ("/v2/", ALPINE):
                answer = guarded.ask(uri, sent)
                self.assertEqual(answer.status, 401, sent)
                self.assertIn('error="invalid_token"', answer.challenge)


class LoginTests(Case):
    def test_docker_login(self) -> None:
        """docker login: a token without scopes opens /v2/, and an identity token comes with it."""
        guarded = self.door()
        uri = "/auth/token?account=alice&client_id=docker&offline_token=true&service=mirror.example%3A8443"
        answer = guarded.ask(uri, ALICE)
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.body["token"], answer.body["access_token"])
        self.assertGreaterEqual(answer.body["expires_in"], 60)
        self.assertEqual(answer.body["issued_at"], "2023-11-14T22:13:20Z")
        self.assertEqual(guarded.ask("/v2/", f"Bearer {answer.body['token']}").status, 200)
        form = {
            "grant_type": "refresh_token",
            "refresh_token": answer.body["refresh_token"],
            "service": "mirror.example:8443",
            "client_id": "docker",
            "scope": SCOPE,
        }
        again = guarded.ask("/auth/token", form=form)
        self.assertEqual(again.status, 200)
        self.assertNotIn("refresh_token", again.body)
        self.assertEqual(guarded.ask(ALPINE, f"Bearer {again.body['access_token']}").status, 200)

    def test_podman_login(self) -> None:
        """podman login: Basic at /v2/ or a token; no refresh token that was not asked for."""
        guarded = self.door()
        self.assertEqual(guarded.ask("/v2/", ALICE).status, 200)
        document = guarded.login("alice")
        self.assertNotIn("refresh_token", document)
        self.assertEqual(guarded.ask("/v2/", f"Bearer {document['token']}").status, 200)

    def test_containerd(self) -> None:
        """containerd: POST with the password and several scopes in one parameter."""
        guarded = self.door()
        form = {
            "grant_type": "password",
            "username": "alice",
            "password": PASSWORDS["alice"],
            "client_id": "containerd-client",
            "access_type": "offline",
            "scope": f"repository:ghcr.io/team/x:pull {SCOPE}",
        }
        answer = guarded.ask("/auth/token", form=form)
        self.assertEqual(names(answer.body["access_token"]), ["ghcr.io/team/x", "library/alpine"])
        self.assertEqual(answer.body["scope"], f"repository:ghcr.io/team/x:pull {SCOPE}")
        self.assertIn("refresh_token", answer.body)
        bearer = f"Bearer {answer.body['access_token']}"
        for uri in (ALPINE, "/v2/ghcr.io/team/x/tags/list", "/v2/team/x/tags/list?ns=ghcr.io"):
            self.assertEqual(guarded.ask(uri, bearer).status, 200, uri)

    def test_wrong(self) -> None:
        """A wrong password is 401, as GET and as POST, and so is none at all."""
        guarded = self.door()
        for sent, form in (
            (basic("alice", "x"), None),
            (None, None),
            ("Bearer x", None),
            (None, {"grant_type": "password", "username": "alice", "password": "x"}),
            # What is posted counts, not what goes with it.
            (ALICE, {"grant_type": "password"}),
        ):
            answer = guarded.ask("/auth/token", sent, form=form)
            self.assertEqual((answer.status, answer.code), (401, "UNAUTHORIZED"))
            self.assertTrue(answer.challenge.startswith("Basic "))

    def test_other_grants(self) -> None:
        """Another grant_type is 400."""
        for form in ({"grant_type": "authorization_code"}, {"a": "b"}):
            self.assertEqual(self.door().ask("/auth/token", ALICE, form=form).status, 400)

    def test_token(self) -> None:
        """A token says who, for whom, until when and what; two are never the same."""
        guarded = self.door()
        said = claims(guarded.login("alice", SCOPE, "repository:team/x:push,pull", SCOPE)["token"])
        self.assertEqual((said["iss"], said["aud"], said["sub"]), (PUBLIC_URL, "mirror.example:8443", "alice"))
        self.assertEqual(said["exp"] - said["iat"], LIFETIME)
        self.assertLessEqual(LIFETIME, 300)
        self.assertEqual(
            said["access"],
            [{"type": "repository", "name": name, "actions": ["pull"]} for name in ("library/alpine", "team/x")],
        )
        self.assertNotEqual(said["jti"], claims(guarded.login("alice", SCOPE)["token"])["jti"])
        self.assertNotIn(PASSWORDS["alice"], json.dumps(said))

    def test_odd_scopes(self) -> None:
        """What is no pull of a repository is left out, and what is too much; none of it is an error."""
        guarded = self.door()
        odd: tuple[str, ...] = (
            "",
            "x",
            "registry:catalog:*",
            "repository:a/b:push",
            "repository:A/B:pull",
            "repository:../x:pull",
        )
        odd += ('repository:a"b:pull', "repository::pull", "repository:a/b", "repository:" + "a" * 300 + ":pull")
        self.assertEqual(names(guarded.login("alice", *odd, SCOPE)["token"]), ["library/alpine"])
        many = [f"repository:a/b{n}:pull" for n in range(90)]
        self.assertEqual(len(names(guarded.login("alice", *many)["token"])), MAX_NAMES)
        self.assertEqual(names(guarded.login("alice", "repository:a/b:*")["token"]), ["a/b"])

    def test_many_scopes(self) -> None:
        """However many scopes a stranger asks for, and however many rules there are: so many comparisons, no more."""
        rules = [{"groups": ["anonymous"], "repositories": [f"docker.io/**a{n}**b"]} for n in range(50)]
        guarded = self.door(rules=rules)
        compared: list[str] = []
        self.patch(globs, "matches", lambda pattern, name: bool(compared.append(name)))
        asked = [f"repository:{'a' * 30}/{n}:pull" for n in range(99)]
        # One parameter each, and all in one, as OAuth2 has it.
        for query in (urlencode([("scope", scope) for scope in asked]), urlencode({"scope": " ".join(asked)})):
            compared.clear()
            answer = guarded.ask(f"/auth/token?{query}")
            self.assertEqual((answer.status, names(answer.body["token"])), (200, []))
            self.assertEqual(len({*compared}), MAX_SCOPES * len(UPSTREAMS))
            self.assertEqual(len(compared), MAX_SCOPES * len(UPSTREAMS) * len(rules))


class TokenTests(Case):
    def test_expires(self) -> None:
        """A token ends a minute after it says so, in which clocks may differ, and the challenge says why."""
        guarded = self.door()
        bearer = guarded.bearer("alice", SCOPE)
        guarded.clock.advance(LIFETIME + LEEWAY - 1)
        self.assertEqual(guarded.ask(ALPINE, bearer).status, 200)
        guarded.clock.advance(1)
        answer = guarded.ask(ALPINE, bearer)
        self.assertEqual(answer.status, 401)
        self.assertIn(f'scope="{SCOPE}",error="invalid_token"', answer.challenge)

    def test_reaches(self) -> None:
        """A token opens what it names and nothing else; /v2/ always."""
        guarded = self.door()
        bearer = guarded.bearer("alice", SCOPE)
        self.assertEqual(guarded.ask("/v2/", bearer).status, 200)
        for uri, wanted in (
            (ALPINE, 200),
            ("/v2/library/alpine/blobs/sha256:0", 200),
            ("/v2/library/busybox/manifests/latest", 401),
            ("/v2/ghcr.io/team/x/manifests/latest", 401),
        ):
            answer = guarded.ask(uri, bearer)
            self.assertEqual(answer.status, wanted, uri)
            self.assertEqual('error="insufficient_scope"' in answer.challenge, wanted == 401)
        full = guarded.bearer("alice", "repository:docker.io/library/alpine:pull")
        self.assertEqual(guarded.ask(ALPINE, full).status, 200)

    def test_forged(self) -> None:
        """Another key, issuer, audience or algorithm, or a missing claim, is no token."""
        guarded = self.door()
        token = str(guarded.login("alice", SCOPE)["token"])
        said = claims(token)
        self.assertEqual(guarded.ask(ALPINE, "Bearer " + jwt.encode(said, KEY, "HS256")).status, 200)
        forged = [
            jwt.encode(said, b"x" * 32, "HS256"),
            jwt.encode(said, KEY, "HS512"),
            jwt.encode(said, "", "none"),
            token[:-2],
            token.rpartition(".")[0] + ".",
        ]
        changes: list[dict[str, object]] = [
            {"iss": "https://evil.example"},
            {"aud": REALM},
            {"aud": "other.example"},
            {"exp": "soon"},
            {"bound": ""},
            {"sub": "bob"},
            {"sub": "nobody"},
            {"access": "x"},
            {"access": None},
        ]
        forged += [jwt.encode({**said, **change}, KEY, "HS256") for change in changes]
        for key in ("iss", "aud", "exp", "sub", "bound", "access"):
            forged.append(jwt.encode({k: v for k, v in said.items() if k != key}, KEY, "HS256"))
        for one in forged:
            self.assertEqual(guarded.ask(ALPINE, f"Bearer {one}").status, 401, one)

    def test_kinds(self) -> None:
        """A refresh token opens nothing by itself, and a token for pulling refreshes nothing."""
        guarded = self.door()
        document = guarded.ask(f"/auth/token?offline_token=true&scope={SCOPE}", ALICE).body
        self.assertEqual(guarded.ask("/v2/", f"Bearer {document['refresh_token']}").status, 401)
        form = {"grant_type": "refresh_token", "refresh_token": document["token"]}
        self.assertEqual(guarded.ask("/auth/token", form=form).status, 401)

    def test_refresh_ends(self) -> None:
        """A refresh token ends after its time, and is not renewed by being used."""
        guarded = self.door()
        document = guarded.ask("/auth/token?offline_token=true", ALICE).body
        form = {"grant_type": "refresh_token", "refresh_token": document["refresh_token"], "access_type": "offline"}
        guarded.clock.advance(REFRESH_LIFETIME + LEEWAY - 1)
        answer = guarded.ask("/auth/token", form=form)
        self.assertEqual(answer.status, 200)
        self.assertNotIn("refresh_token", answer.body)
        guarded.clock.advance(1)
        self.assertEqual(guarded.ask("/auth/token", form=form).status, 401)

    def test_password_changed(self) -> None:
        """Another password, or no such user any more, ends all tokens of that user and of no other."""
        for change in ({"alice": "new"}, {}):
            guarded = self.door()
            document = guarded.ask(f"/auth/token?offline_token=true&scope={SCOPE}", ALICE).body
            bob = guarded.bearer("bob", SCOPE)
            bobs = next(line for line in Path(self.path).read_text().splitlines() if line.startswith("bob:"))
            write(self.path, f"{bobs}\n{lines(change)}")
            guarded.clock.advance(1)
            self.assertEqual(guarded.ask(ALPINE, f"Bearer {document['token']}").status, 401)
            form = {"grant_type": "refresh_token", "refresh_token": document["refresh_token"]}
            self.assertEqual(guarded.ask("/auth/token", form=form).status, 401)
            self.assertEqual(guarded.ask(ALPINE, bob).status, 200)
            write(self.path, lines())

    def test_key(self) -> None:
        """A key that could be guessed is refused, and none is shown."""
        self.assertRaises(ValueError, Signer, PUBLIC_URL, "s", REALM, lambda: (KEY, b"short"))
        self.assertNotIn("kkk", repr(Signer(PUBLIC_URL, "s", REALM, lambda: (KEY,))))
