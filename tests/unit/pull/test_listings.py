"""tags/list and referrers: cached by the rules of tags."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from twisted.internet.defer import Deferred, gatherResults

from docxy.names import OCI_INDEX, Digest
from docxy.settings.model import AuthMode
from tests.fakes import Auth, Fault
from tests.unit.pull.harness import NAME, REPOSITORY, Answer, MirrorCase, bearer

TAGS = f"/v2/{REPOSITORY}/tags/list"


class Listings(MirrorCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.image: Digest = self.upstream.add_image(REPOSITORY, "a")
        self.upstream.add_referrer(REPOSITORY, self.image)
        self.pages = {"tags": TAGS, "referrers": f"/v2/{REPOSITORY}/referrers/{self.image}"}

    def is_stale(self, answer: Answer, why: str) -> None:
        self.assertEqual(answer.cache_status, f"docxy; hit; ttl=-10; detail=stale-{why}")
        self.assertEqual(answer.header("Warning"), '110 docxy "Response is Stale"')

    async def test_fresh(self) -> None:
        """A page is asked for once in its time to live, by however many, and is the same from the cache."""
        for kind, path in self.pages.items():
            answers = await gatherResults([Deferred.fromCoroutine(self.mirror.ask(path)) for _ in range(10)])
            self.assertEqual(len({each.body for each in answers}), 1)
            statuses = [each.cache_status for each in answers]
            self.assertEqual(statuses.count("docxy; fwd=miss; stored"), 1)
            # Who comes when the page is there finds it in the cache.
            late = statuses.count("docxy; hit; ttl=60")
            self.assertEqual(statuses.count("docxy; fwd=miss; stored; collapsed") + late, 9)
            self.seconds.advance(20)
            again = await self.mirror.ask(path)
            self.assertEqual((again.body, again.cache_status), (answers[0].body, "docxy; hit; ttl=40"))
            self.assertEqual(again.header("Content-Type"), answers[0].header("Content-Type"))
            self.saw(**{f"GET_{kind}": 1})
            self.seconds.advance(41)
            self.assertEqual((await self.mirror.ask(path)).cache_status, "docxy; fwd=stale; stored")
            self.saw(**{f"GET_{kind}": 1})
        self.assertEqual((await self.mirror.ask(self.pages["referrers"])).header("Content-Type"), OCI_INDEX)

    async def test_pages(self) -> None:
        """Each page is its own, its Link kept."""
        self.upstream.add_image(REPOSITORY, "b")
        for _ in range(2):
            first = await self.mirror.ask(f"{TAGS}?n=1")
            self.assertEqual((first.json["tags"], first.header("Link")), (["a"], f'<{TAGS}?last=a&n=1>; rel="next"'))
            second = await self.mirror.ask(f"{TAGS}?n=1&last=a")
            self.assertEqual((second.json["tags"], second.header("Link")), (["b"], None))
        self.saw(GET_tags=2)

    async def test_pages_by_any_parameter(self) -> None:
        """The whole query but `ns` is a page's key: two pages are never taken for one."""
        for _ in range(2):
            for query in ("page=1", "page=2", "page=1&n=1", "artifactType=x"):
                self.upstream.on("tags", Fault(body=query.join(('{"name":"', '"}')).encode()))
                self.assertEqual((await self.mirror.ask(f"{TAGS}?{query}&ns={NAME}")).json["name"], query)
        self.assertEqual([each.raw_query for each in self.upstream.select("tags")].count("page=1"), 1)

    async def test_stale(self) -> None:
        """An upstream that fails: stale, marked, and left alone for a while."""
        for kind, path in self.pages.items():
            for fault in (Fault(drop=True), Fault(status=502), Fault.too_many_requests("7")):
                mirror = self.mirror = self.start(catalog=self.make_catalog())
                await mirror.ask(path)
                self.upstream.requests.clear()
                self.seconds.advance(70)
                rule = self.upstream.on(kind, fault, times=None)
                self.is_stale(await mirror.ask(path), "upstream-failed")
                asked = len(self.upstream.requests)
                for _ in range(3):
                    self.is_stale(await mirror.ask(path), "upstream-paused")
                self.assertEqual(len(self.upstream.requests), asked)
                rule.cancel()
                self.seconds.advance(11)
                self.assertEqual((await mirror.ask(path)).cache_status, "docxy; fwd=stale; stored")

    async def test_limited(self) -> None:
        """429 with nothing to serve: instant retries cost one request."""
        self.upstream.on("tags", Fault.too_many_requests("30"))
        for _ in range(5):
            self.assertEqual((await self.mirror.ask(TAGS)).status, 429)
        self.saw(GET_tags=1)

    async def test_gone(self) -> None:
        """A repository that is gone is gone, asked for rarely, and not served stale later."""
        await self.mirror.ask(TAGS)
        self.upstream.repositories.clear()
        self.seconds.advance(70)
        self.upstream.requests.clear()
        for _ in range(3):
            answer = await self.mirror.ask(TAGS)
            self.assertEqual((answer.status, answer.code), (404, "NAME_UNKNOWN"))
        self.saw(GET_tags=1)
        self.seconds.advance(11)
        await self.upstream.stop()
        self.assertEqual((await self.mirror.ask(TAGS)).status, 502)

    async def test_no_referrers(self) -> None:
        """Where there is no referrers API, that is asked once in a while, not with every pull."""
        self.upstream.referrers = False
        for _ in range(3):
            answer = await self.mirror.ask(self.pages["referrers"])
            self.assertEqual((answer.status, answer.json["manifests"]), (200, []))
        self.saw(GET_referrers=1, GET_manifest=1)

    async def test_not_a_listing(self) -> None:
        """A page that is none is an error and is not kept; a captive portal answers for the fallback tag too."""
        for kind, path in self.pages.items():
            rule = self.upstream.on(None, Fault.html_page(), times=None)
            self.assertEqual((await self.mirror.ask(path)).status, 502, kind)
            rule.cancel()
            self.assertEqual((await self.mirror.ask(path)).status, 200, kind)

    async def test_large(self) -> None:
        """A page too large to keep is passed on."""
        body = b'{"name":"x","tags":["' + b"a" * (1 << 20) + b'"]}'
        self.upstream.on("tags", Fault(body=body, headers={"Content-Type": "application/json"}), times=None)
        for _ in range(2):
            answer = await self.mirror.ask(TAGS)
            self.assertEqual((answer.body == body, answer.cache_status), (True, "docxy; fwd=miss"))
        self.saw(GET_tags=2)


class TransparentListings(MirrorCase):
    auth = AuthMode.TRANSPARENT

    async def test_verdict(self) -> None:
        """Another client's token is asked about once, then shown the page that is kept."""
        self.upstream.auth = Auth("bearer")
        self.upstream.add_image(REPOSITORY)
        first, second = [str((await self.mirror.token()).json["token"]) for _ in range(2)]
        await self.mirror.ask(TAGS, bearer(first))
        await self.mirror.manifest("latest", first)
        self.upstream.requests.clear()
        for _ in range(2):
            self.assertEqual((await self.mirror.ask(TAGS, bearer(second))).cache_status, "docxy; hit; ttl=60")
        self.saw(HEAD_manifest=1)
        self.assertEqual((await self.mirror.ask(TAGS)).status, 401)

    async def test_unknown_repository(self) -> None:
        """Where no manifest is known to ask about, the page itself is asked for."""
        self.upstream.auth = Auth("bearer")
        self.upstream.add_image(REPOSITORY)
        first, second = [str((await self.mirror.token()).json["token"]) for _ in range(2)]
        for token in (first, second, "forged"):
            answer = await self.mirror.ask(TAGS, bearer(token))
            self.assertEqual(answer.status, 401 if token == "forged" else 200)
        # The challenge that tells where tokens are had, two tokens, three questions.
        self.saw(GET_ping=1, GET_token=2, GET_tags=3)
