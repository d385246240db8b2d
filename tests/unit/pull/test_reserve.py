"""`[access] reserve`: what is left of a pull limit is kept for a group."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import base64
import html
import os
from typing import Any

import bcrypt
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase

from docxy.settings.model import AccessSettings, Upstream
from docxy.settings.rules import Rules
from tests.unit.pull.harness import ACCEPT, REPOSITORY, Answer
from tests.unit.pull.several import Docxy
from tests.unit.pull.test_quota import QuotaCase, ratelimit

GROUPS = {"prod": frozenset({"deploy"}), "devs": frozenset({"ann"})}


class Floors(SynchronousTestCase):
    """Who leaves how much to others."""

    def test_one(self) -> None:
        """Without a reserve nobody is asked to leave anything; with one, all but its group."""
        self.assertIsNone(Rules((), GROUPS).floor("deploy"))
        rules = Rules((), GROUPS, {"prod": 0.2})
        self.assertEqual([rules.floor(who) for who in ("deploy", "ann", "bob", None)], [0.0, 0.2, 0.2, 0.2])

    def test_several(self) -> None:
        """Each leaves what is kept for larger reserves than his own, so that somebody can always go on."""
        rules = Rules((), GROUPS, {"prod": 0.25, "devs": 0.125})
        self.assertEqual([rules.floor(who) for who in ("deploy", "ann", "bob")], [0.0, 0.25, 0.375])

    def test_same(self) -> None:
        """Groups with equal reserves leave each other nothing."""
        rules = Rules((), GROUPS, {"prod": 0.25, "devs": 0.25})
        self.assertEqual([rules.floor(who) for who in ("deploy", "ann", "bob")], [0.0, 0.0, 0.5])


class Reserved(QuotaCase):
    """A fifth is kept for `prod`."""

    async def setUp(self) -> None:
        await super().setUp()
        self.old = self.upstream.add_image(REPOSITORY)
        self.upstream.add_image(REPOSITORY, "other")
        path = self.mktemp()
        with open(path, "w", encoding="utf-8") as file:
            for user in ("deploy", "ann"):
                file.write(f"{user}:{bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}\n")
        rules = Rules((), GROUPS, {"prod": 0.2})
        self.docxy = self.hub(access=AccessSettings(os.path.abspath(path), rules=rules))

    def hub(self, *credentials: Any, **changed: Any) -> Docxy:
        return self.serve(Upstream("hub.test", self.upstream.url, private=True), **changed)

    async def pull(self, user: str, tag: str = "latest", method: str = "GET") -> Answer:
        login = base64.b64encode(f"{user}:secret".encode()).decode()
        headers: dict[str, str | list[str]] = {"Accept": list(ACCEPT), "Authorization": f"Basic {login}"}
        return await self.docxy.ask(f"/v2/{REPOSITORY}/manifests/{tag}", headers, method)

    def left(self, remaining: int) -> None:
        self.upstream.rules.clear()
        self.upstream.on("manifest", ratelimit(remaining), times=None)

    async def test_refused(self) -> None:
        """Under the mark others get a 429 that says why and when to come again; prod goes on.  HEAD is free."""
        self.left(19)
        self.assertEqual((await self.pull("ann")).status, 200)
        refused = await self.pull("ann", "other")
        self.assertEqual((refused.status, refused.code, refused.header("Retry-After")), (429, "TOOMANYREQUESTS", "60"))
        self.assertIn("reserved for others", refused.json["errors"][0]["message"])
        self.assertEqual((await self.pull("ann", "other", "HEAD")).status, 200)
        self.assertEqual((await self.pull("deploy", "other")).status, 200)
        # What somebody else paid for is there for all.
        self.assertEqual((await self.pull("ann", "other")).status, 200)

    async def test_above(self) -> None:
        """Above the mark nobody is refused."""
        self.left(20)
        for user, tag in (("ann", "latest"), ("ann", "other")):
            self.assertEqual((await self.pull(user, tag)).status, 200)

    async def test_stale(self) -> None:
        """A tag that moved is served as it was to others, and as it is to prod, even where very little is left."""
        self.left(5)
        await self.pull("ann")
        new = self.upstream.add_image(REPOSITORY, layers=[b"another"])
        self.seconds.advance(601)
        answer = await self.pull("ann")
        self.assertEqual(answer.header("Docker-Content-Digest"), str(self.old))
        self.assertIn("detail=stale-saving-quota", answer.cache_status)
        answer = await self.pull("deploy")
        self.assertEqual(answer.header("Docker-Content-Digest"), str(new))

    async def test_at_once(self) -> None:
        """Who may spend does not share the refusal of who may not, although both ask at the same time."""
        self.left(19)
        await self.pull("ann")
        asked = [Deferred.fromCoroutine(self.pull(user, "other")) for user in ("ann", "deploy", "ann")]
        answers = await gatherResults(asked)
        self.assertEqual(answers[1].status, 200)
        self.assertLessEqual({answer.status for answer in answers}, {200, 429})

    async def test_window_over(self) -> None:
        """When the registry's window is over, so is the reserve."""
        self.left(19)
        await self.pull("ann")
        self.assertEqual((await self.pull("ann", "other")).status, 429)
        self.seconds.advance(21600)
        self.assertEqual((await self.pull("ann", "other")).status, 200)

    async def test_explained(self) -> None:
        """JSON and page say that it was the reserve, not the registry; the ledger has the client's group."""
        self.left(19)
        await self.pull("ann")
        await self.pull("deploy", "other")
        self.upstream.add_image(REPOSITORY, "third")
        await self.pull("ann", "third")
        self.docxy.served.recorder.flush()
        snapshot = await self.docxy.served.view.snapshot()
        words = "what is left of the pull limit of hub.test is kept for others"
        self.assertEqual(snapshot["pulls"][0]["verdict"]["words"], words)
        spenders = {(who["account"], who["group"]): who["count"] for who in snapshot["upstreams"][0]["spenders"]}
        self.assertEqual(spenders, {("", "devs"): 1, ("", "prod"): 1})
        login = base64.b64encode(b"ann:secret").decode()
        page = await self.docxy.ask("/status", {"Authorization": f"Basic {login}"})
        self.assertIn(words, html.unescape(page.body.decode()))


class WithoutCache(Reserved):
    """`--cache off`: the same reserve, and nothing that could be served instead."""

    def serve(self, *upstreams: Upstream, **changed: Any) -> Docxy:
        return super().serve(*upstreams, cached=False, **changed)

    async def test_refused(self) -> None:
        """Under the mark others get a 429 for each manifest; prod goes on, HEAD and layers are free."""
        self.left(19)
        layer = self.upstream.add_blob(REPOSITORY, b"bytes")
        self.assertEqual((await self.pull("ann")).status, 200)
        for tag in ("latest", "other"):
            refused = await self.pull("ann", tag)
            self.assertEqual((refused.status, refused.code), (429, "TOOMANYREQUESTS"))
            self.assertEqual(refused.header("Retry-After"), "60")
            self.assertIn("detail=reserved", refused.cache_status)
            self.assertEqual((await self.pull("ann", tag, "HEAD")).status, 200)
            self.assertEqual((await self.pull("deploy", tag)).status, 200)
        login = base64.b64encode(b"ann:secret").decode()
        answer = await self.docxy.ask(f"/v2/{REPOSITORY}/blobs/{layer}", {"Authorization": f"Basic {login}"})
        self.assertEqual(answer.status, 200)

    async def test_stale(self) -> None:
        """There is nothing to serve instead."""
        self.left(5)
        await self.pull("ann")
        self.assertEqual((await self.pull("ann")).status, 429)

    async def test_at_once(self) -> None:
        """Each asks for himself."""
        self.left(19)
        await self.pull("ann")
        asked = [Deferred.fromCoroutine(self.pull(user, "other")) for user in ("ann", "deploy", "ann")]
        self.assertEqual([answer.status for answer in await gatherResults(asked)], [429, 200, 429])
