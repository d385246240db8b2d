"""The status page under the rules of `[access]`: who sees which repositories, and who sees clients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from attrs import evolve

from docxy.settings.access import parse
from docxy.settings.model import Config, StatusMode
from tests.fakes import Fault
from tests.harness.mirror import NAME, RegistryCase
from tests.unit.access.harness import PASSWORDS, lines, write
from tests.unit.web.login import basic

OPEN = "open/app"
BOBS = "bob/app"
RULES = [
    {"groups": ["anonymous"], "repositories": [f"fake.test/{OPEN}"]},
    {"users": ["alice"], "repositories": ["fake.test/team/*", f"fake.test/{OPEN}"]},
    {"users": ["bob"], "repositories": ["fake.test/bob/*", f"fake.test/{OPEN}"]},
]
SEEN = {"": {OPEN}, "alice": {OPEN, NAME}, "bob": {OPEN, BOBS}}
"""What each may pull; '': who has not logged in."""
PAGES = ("/", "/status", "/status/", "/status/live", "/status?lang=zh", "/status.json", "/pulls.json")


class RulesCase(RegistryCase):
    """A pull of a repository that all may read, one of alice's and one of bob's; failures, fills and a cache."""

    mode = StatusMode.PUBLIC

    def make_config(self) -> Config:
        self.htpasswd = write(str(Path(self.mktemp()).absolute()), lines(PASSWORDS))
        access = parse({"htpasswd": self.htpasswd, "rules": RULES}, "docxy.toml")
        return evolve(super().make_config(), status=self.mode, access=access)

    async def setUp(self) -> None:
        await super().setUp()
        self.secrets: dict[str, set[str]] = {}
        """Of each repository, what shows that it is there."""
        for user, repository in (("", OPEN), ("alice", NAME), ("bob", BOBS)):
            self.upstream.add_image(repository, layers=[repository.encode() * 99])
            await self.pull(repository, user)
        self.told({"fills": [self.row(each, rate=1.0) for each in self.secrets]})
        rows = {part: [self.row(each) for each in self.secrets] for part in ("largest", "next")}
        self.told({"cache": {"used": 1, "budget": 2, "pinned": 0, "pins": 0, **rows}})

    def login(self, user: str) -> dict[str, str]:
        return basic(user, PASSWORDS[user]) if user else {}

    async def pull(self, repository: str, user: str) -> None:
        """An image, a tag that is not there and one that fails, by a client that says who it is."""
        program = f"program-{repository.partition('/')[0]}"
        headers = {**self.login(user), "User-Agent": program, "X-Request-Id": f"id-{program}"}
        pulled = await self.ask(f"/v2/{repository}/manifests/latest", headers)
        self.assertEqual(pulled.status, 200)
        (layer,) = pulled.json["layers"]
        await self.ask(f"/v2/{repository}/blobs/{layer['digest']}", headers)
        await self.ask(f"/v2/{repository}/manifests/none", headers)
        self.upstream.on("manifest", Fault(status=500), times=None, path=f"{repository}/manifests/broken")
        await self.ask(f"/v2/{repository}/manifests/broken", headers)
        self.served.recorder.flush()
        digests = {str(layer["digest"]), str(pulled.header("Docker-Content-Digest"))}
        self.secrets[repository] = {repository, repository.replace("/", "/<wbr>"), program, *digests}

    def row(self, repository: str, **more: Any) -> dict[str, Any]:
        """Of the cache or of what is on the way."""
        (digest, _) = sorted(each for each in self.secrets[repository] if each.startswith("sha256:"))
        named = {"upstream": "fake.test", "repository": repository, "name": f"fake.test/{repository}"}
        counted = {"size": 9, "blobs": 1, "used": 1.0, "offset": 1, "readers": 1, "connections": 1, "started": 1.0}
        return {**named, **counted, "digest": digest, **more}

    def told(self, state: dict[str, Any]) -> None:
        """A worker told the read model how it is."""
        number = len(cast(Any, self.served.view)._model._states) + 10
        cast(Any, self.served.view)._model.sampled(number, state)

    async def event(self, headers: dict[str, str]) -> str:
        """All of the answer of `/events`, up to the end of its first event."""
        connection = await self.raw()
        connection.send(f"GET /events HTTP/1.1\nHost: x\n{''.join(f'{k}: {v}{chr(10)}' for k, v in headers.items())}\n")
        received = (await connection.until(b"}\n")).decode()
        await connection.close()
        return received

    async def shown(self, headers: dict[str, str]) -> dict[str, str]:
        """Everything that a viewer sees, by its address."""
        seen = {"/events": await self.event(headers)}
        for path in PAGES:
            answer = await self.ask(path, headers)
            self.assertEqual(answer.status, 200, path)
            seen[path] = answer.body.decode()
        return seen

    def assert_hidden(self, repository: str, text: str, case: object) -> None:
        for secret in self.secrets[repository]:
            self.assertNotIn(secret, text, case)

    async def check_viewer(self, user: str) -> dict[str, str]:
        """A viewer sees the repositories that he may pull, in every list, and nothing of the others."""
        seen = await self.shown(self.login(user))
        for repository in self.secrets:
            for path, text in seen.items():
                if repository in SEEN[user]:
                    # A page may break a name where its parts end.
                    self.assertIn(repository, text.replace("<wbr>", ""), (user, path))
                else:
                    self.assert_hidden(repository, text, (user, path))
            await self.check_image(user, repository)
        snapshot = json.loads(seen["/status.json"])
        lists = [snapshot[part] for part in ("fills", "pulls", "repositories", "errors")]
        for rows in (*lists, snapshot["cache"]["largest"], snapshot["cache"]["next"]):
            self.assertEqual({row["repository"] for row in rows}, SEEN[user])
        return seen

    async def check_image(self, user: str, repository: str) -> None:
        """The page of an image that a viewer may not pull is that of one that nobody knows; so are its pulls."""
        image, pulls = f"/status/image?name=fake.test/{repository}", f"/pulls.json?repository=fake.test/{repository}"
        answers = [await self.ask(path, self.login(user)) for path in (image, pulls)]
        if repository in SEEN[user]:
            self.assertEqual(answers[0].status, 200)
            self.assertEqual({pull["repository"] for pull in answers[1].json["pulls"]}, {repository})
            return
        self.assertEqual(answers[0].status, 404, (user, repository))
        self.assertEqual(answers[1].json["pulls"], [])
        for secret in self.secrets[repository] - {repository, repository.replace("/", "/<wbr>")}:
            self.assertNotIn(secret, answers[0].body.decode(), (user, repository))


class PublicTests(RulesCase):
    """`--status public`."""

    async def test_viewers(self) -> None:
        """Anybody sees the page; who logs in sees more names; nobody sees who pulled."""
        for user in SEEN:
            for path, text in (await self.check_viewer(user)).items():
                # The registry's address, which has a port, is no client's.
                self.assertNotRegex(text, "127[.]0[.]0[.]1(?!:)", (user, path))
                self.assertNotIn("id-program", text, (user, path))
                self.assertNotIn('"account":"', text.replace('"account":""', ""), (user, path))

    async def test_wrong_password(self) -> None:
        """It is not taken for nobody: 401, with a challenge that a browser can answer."""
        for path in (*PAGES, "/events"):
            answer = await self.ask(path, {"Authorization": "Bearer x"})
            self.assertEqual(answer.status, 401, path)
            self.assertTrue(str(answer.header("WWW-Authenticate")).startswith("Basic "), path)


class PrivateTests(RulesCase):
    """`--status private`."""

    mode = StatusMode.PRIVATE

    async def test_without_login(self) -> None:
        """Whoever has no account sees nothing: not with a wrong password, nor with a token that anybody gets."""
        anonymous = (await self.ask(f"/auth/token?service=x&scope=repository:fake.test/{OPEN}:pull")).json["token"]
        pulled = await self.ask(f"/v2/{OPEN}/manifests/latest", {"Authorization": f"Bearer {anonymous}"})
        self.assertEqual(pulled.status, 200, "the token is good for pulls")
        for viewer in (
            {},
            {"Authorization": ""},
            {"Authorization": "  "},
            {"Authorization": f"Bearer {anonymous}"},
            {"Authorization": "Bearer x"},
            {"Authorization": "Basic x"},
        ):
            await self.check_nothing(viewer, *PAGES, "/events")
        # Few of these: after some wrong passwords the next ones have to wait.
        await self.check_nothing(basic("alice", "wrong"), "/", "/events")
        await self.check_nothing(basic("nobody", "x"), "/status.json", "/pulls.json")

    async def check_nothing(self, viewer: dict[str, str], *paths: str) -> None:
        """401, with a challenge that browsers answer, and no word of any repository."""
        for path in (*paths, f"/status/image?name=fake.test/{NAME}"):
            answer = await self.ask(path, viewer)
            self.assertEqual((answer.status, answer.code), (401, "UNAUTHORIZED"), (path, viewer))
            self.assertTrue(str(answer.header("WWW-Authenticate")).startswith("Basic "), (path, viewer))
            for repository in self.secrets:
                self.assert_hidden(repository, answer.body.decode() + str(answer.headers), (path, viewer))
            self.assertNotIn("fake.test", answer.body.decode(), (path, viewer))

    async def test_viewers(self) -> None:
        """Who logs in sees who pulled what he may pull himself."""
        for user in ("alice", "bob"):
            seen = await self.check_viewer(user)
            pulls = json.loads(seen["/status.json"])["pulls"]
            self.assertEqual(
                {(pull["repository"], pull["account"], pull["client"]) for pull in pulls},
                {(OPEN, None, "127.0.0.1"), *((each, user, "127.0.0.1") for each in SEEN[user] - {OPEN})},
            )
            self.assertIn(f"{user} · 127.0.0.1 · program-", seen["/"])
            other = "bob" if user == "alice" else "alice"
            for path, text in seen.items():
                self.assertNotIn(other, text, (user, path))

    async def test_token(self) -> None:
        """A token of an account opens the page as its password does."""
        token = (await self.ask("/auth/token?service=x", self.login("bob"))).json["token"]
        told = (await self.ask("/status.json", {"Authorization": f"Bearer {token}"})).json
        self.assertEqual({pull["repository"] for pull in told["pulls"]}, SEEN["bob"])

    async def test_files(self) -> None:
        """The style and the script of the page are the same for all docxys, and open."""
        for name in ("style.css", "live.js"):
            self.assertEqual((await self.ask(f"/status/{name}")).status, 200)
