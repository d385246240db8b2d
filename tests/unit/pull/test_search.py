"""Registries that are searched as one: whose image it is, and what never takes another's place."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

from docxy.orders.policies import Policies
from docxy.pull.search import LOOKED
from docxy.settings.image_names import ImageName
from docxy.settings.model import AuthMode, Credential, Upstream
from docxy.settings.policy import Policy, Recall
from tests.fakes import Auth, Fault
from tests.unit.pull.harness import REPOSITORY
from tests.unit.pull.several import Docxy, SeveralCase


class SearchCase(SeveralCase):
    """`corp.test` goes before `open.test`; clients ask `all.test`."""

    async def setUp(self) -> None:
        await super().setUp()
        self.corp, self.open = self.upstream, await self.another()
        self.docxy = self.searching()

    def searching(self, corp: dict[str, Any] | None = None, open: dict[str, Any] | None = None, **more: Any) -> Docxy:
        common: dict[str, Any] = {"private": True, "auth": AuthMode.NONE}
        return self.serve(
            Upstream("all.test", self.corp.url, search=("corp.test", "open.test"), auth=AuthMode.NONE),
            Upstream("corp.test", self.corp.url, **common, **(corp or {})),
            Upstream("open.test", self.open.url, **common, **(open or {})),
            **{"tag_ttl": 0.0, **more},
        )

    async def digest(self, tag: str = "latest", repository: str = REPOSITORY) -> object:
        """What a client gets: a digest, or the status of an error."""
        answer = await self.docxy.manifest(tag, repository=repository)
        return answer.header("Docker-Content-Digest") if answer.status == 200 else answer.status

    def asked(self, registry: Any) -> list[str]:
        """What a registry was asked since the last time."""
        kinds = [request.kind for request in registry.requests]
        registry.requests.clear()
        return kinds


class Order(SearchCase):
    async def test_first(self) -> None:
        """The first registry that has an image serves it, and the next one is not asked."""
        theirs = self.corp.add_image(REPOSITORY, layers=[b"of corp"])
        self.open.add_image(REPOSITORY, layers=[b"of open"])
        self.assertEqual(await self.digest(), str(theirs))
        self.assertEqual(self.asked(self.open), [])

    async def test_next(self) -> None:
        """What the first does not have, or refuses, is the next one's; its layers come from there too."""
        theirs = self.open.add_image(REPOSITORY, layers=[b"of open"])
        layer = self.open.add_blob(REPOSITORY, b"of open")
        for auth in (Auth(), Auth("bearer", accounts={"x": "y"}, private={REPOSITORY}, refuses=403)):
            self.corp.auth = auth
            self.docxy = self.searching()
            self.assertEqual(await self.digest(), str(theirs))
            self.asked(self.corp)
            self.assertEqual((await self.docxy.blob(layer)).body, b"of open")
            self.assertEqual(self.asked(self.corp), [])

    async def test_nobody(self) -> None:
        """What none has is a 404 that says so."""
        self.assertEqual(await self.digest(), 404)
        self.assertEqual((await self.docxy.blob(f"sha256:{'0' * 64}")).status, 404)
        self.assertEqual((await self.docxy.ask(f"/v2/{REPOSITORY}/tags/list")).status, 404)

    async def test_library(self) -> None:
        """A single name is in library/ where that registry has it so."""
        theirs = self.open.add_image("library/alpine")
        self.docxy = self.searching(open={"library": True})
        self.assertEqual(await self.digest(repository="alpine"), str(theirs))

    async def test_by_digest(self) -> None:
        """A digest is the same everywhere: another registry serves it while the first is down."""
        theirs = self.open.add_image(REPOSITORY)
        self.corp.on(None, Fault(status=500), times=None)
        self.assertEqual(await self.digest(str(theirs)), str(theirs))

    async def test_tags(self) -> None:
        """Tags and referrers are those of the registry that has the repository."""
        self.open.add_image(REPOSITORY, tag="1")
        answer = await self.docxy.ask(f"/v2/{REPOSITORY}/tags/list")
        self.assertEqual(answer.json["tags"], ["1"])
        image = self.open.add_image(REPOSITORY, tag="2")
        self.assertEqual((await self.docxy.ask(f"/v2/{REPOSITORY}/referrers/{image}")).status, 200)


class Confusion(SearchCase):
    async def test_other_tag(self) -> None:
        """A tag that is missing in a repository of the first is missing, whoever publishes it elsewhere."""
        self.corp.add_image(REPOSITORY, tag="1")
        self.open.add_image(REPOSITORY, tag="2", layers=[b"an attacker's"])
        self.assertEqual(await self.digest("2"), 404)
        self.assertEqual(self.asked(self.open), [])

    async def test_failures(self) -> None:
        """While the first fails or limits requests, the next one is not asked by tag."""
        self.open.add_image(REPOSITORY, layers=[b"an attacker's"])
        for fault, status in ((Fault(status=500), 502), (Fault(status=503), 503), (Fault(status=429), 429)):
            self.docxy = self.searching()
            self.corp.on(None, fault, times=None)
            self.assertEqual(await self.digest(), status)
            self.corp.rules.clear()
        self.assertEqual(self.asked(self.open), [])

    async def test_unclear(self) -> None:
        """Nor while the first does not say whether the repository is its own."""
        self.open.add_image(REPOSITORY, layers=[b"an attacker's"])
        self.corp.on("tags", Fault(status=500), times=None)
        self.assertEqual(await self.digest(), 502)
        self.assertEqual(self.asked(self.open), [])

    async def test_withdrawn(self) -> None:
        """What the first served once is its own: after a 404 or a refusal there, too, and in a docxy started anew."""
        self.corp.add_image(REPOSITORY)
        await self.docxy.manifest("latest")
        self.open.add_image(REPOSITORY, layers=[b"an attacker's"])
        self.corp.auth = Auth("bearer", accounts={"x": "y"}, private={REPOSITORY}, refuses=403)
        self.docxy = self.searching()
        self.assertIn(await self.digest(), (403, 404))
        self.assertEqual(self.asked(self.open), [])

    async def test_account(self) -> None:
        """An account that the first refuses is a failure of docxy's, not a word about the image."""
        self.corp.auth = Auth("bearer", accounts={"ci": "right"}, private={REPOSITORY}, refuses=401)
        self.open.add_image(REPOSITORY, layers=[b"an attacker's"])
        self.docxy = self.searching(corp={"credentials": (Credential("ci", "wrong"),)})
        self.assertEqual(await self.digest(), 403)
        self.assertEqual(self.asked(self.open), [])

    async def test_comes_later(self) -> None:
        """Once the first has it, it is the first's; what was looked up holds for a minute."""
        theirs = self.open.add_image(REPOSITORY, layers=[b"of open"])
        self.assertEqual(await self.digest(), str(theirs))
        own = self.corp.add_image(REPOSITORY, layers=[b"of corp"])
        self.seconds.advance(LOOKED + 1)
        self.assertEqual(await self.digest(), str(own))

    async def test_lists(self) -> None:
        """The lists of a registry say what it is searched for."""
        self.open.add_image(REPOSITORY)
        self.docxy = self.searching(open={"deny": ("team/**",)})
        self.assertEqual(await self.digest(), 404)
        self.assertEqual(self.asked(self.open), [])

    async def test_orders(self) -> None:
        """What the operator recalled at the first is not looked for at the next; orders of the next hold there."""
        self.corp.add_image(REPOSITORY)
        self.open.add_image(REPOSITORY, layers=[b"another"])
        self.open.add_image("team/other")
        recalls = tuple(
            Recall(None, ImageName(name, repository), "no")
            for name, repository in (("corp.test", REPOSITORY), ("open.test", "team/other"))
        )
        self.docxy = self.searching(policies=Policies(Policy(recalls=recalls)))
        self.assertEqual(await self.digest(), 403)
        self.assertEqual(await self.digest(repository="team/other"), 403)
        self.assertEqual([each for each in self.asked(self.open) if each == "blob"], [])
