"""What an upstream lets docxy pull is spent with care: limits are obeyed for all clients at once."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from docxy.settings.model import Credential, Upstream
from tests.fakes import Auth, Fault
from tests.unit.pull.harness import REPOSITORY, Answer
from tests.unit.pull.several import Docxy, SeveralCase

ANN, BOB, CAT = (Credential(name, f"of {name}") for name in ("ann", "bob", "cat"))
PASSWORDS = {each.username: each.password for each in (ANN, BOB, CAT)}


def ratelimit(remaining: int) -> Fault:
    """As Docker Hub tells what is left of a hundred pulls in six hours."""
    return Fault(headers={"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": f"{remaining};w=21600"})


def client(docxy: Docxy, reference: str, repository: str) -> Deferred[Answer]:
    """A client that asks at the same time as others."""
    return Deferred.fromCoroutine(docxy.manifest(reference, repository=repository))


class QuotaCase(SeveralCase):
    def hub(self, *credentials: Credential, **changed: Any) -> Docxy:
        upstream = Upstream("hub.test", self.upstream.url, credentials=credentials, private=True)
        return self.serve(upstream, **changed)

    def accounts(self, kind: str) -> list[str | None]:
        """Who asked, in order, by the tokens that were sent."""
        sent = [each.headers.get("authorization", "") for each in self.upstream.select(kind)]
        tokens = [each.removeprefix("Bearer ") for each in sent if each]
        return [self.upstream.auth.tokens[token].account for token in tokens]


class Limited(QuotaCase):
    async def test_all_clients(self) -> None:
        """Five instant retries, and five clients that want something else, cost one request; then docxy asks again."""
        for name in ("one", "two", "three"):
            self.upstream.add_image(REPOSITORY, name)
            self.upstream.add_image("other/app", name)
        docxy = self.hub()
        self.upstream.on("manifest", Fault.too_many_requests("30"), method="GET")
        first = await docxy.manifest("one")
        retries = await gatherResults([client(docxy, "one", REPOSITORY) for _ in range(5)])
        others = await gatherResults([client(docxy, "two", "other/app") for _ in range(5)])
        for answer in (first, *retries, *others):
            self.assertEqual((answer.status, answer.code, answer.header("Retry-After")), (429, "TOOMANYREQUESTS", "30"))
        self.saw(GET_manifest=1)
        self.seconds.advance(20)
        answer = await docxy.manifest("three")
        self.assertEqual((answer.status, answer.header("Retry-After")), (429, "10"))
        self.assertIn("not asked again for 10 s", answer.json["errors"][0]["message"])
        self.saw()
        self.seconds.advance(10)
        self.assertEqual((await docxy.manifest("one")).status, 200)
        self.saw(GET_manifest=1)

    async def test_instantly(self) -> None:
        """Clients that come before the 429 does share its one request."""
        self.upstream.add_image(REPOSITORY)
        docxy = self.hub()
        self.upstream.on("manifest", Fault.too_many_requests("30"), times=None)
        for answer in await gatherResults([client(docxy, "latest", REPOSITORY) for _ in range(5)]):
            self.assertEqual(answer.status, 429)
        self.saw(GET_manifest=1)

    async def test_other_kinds(self) -> None:
        """The limit of manifests is no limit of blobs, nor of the HEADs that cost nothing."""
        for tag in ("latest", "other"):
            self.upstream.add_image(REPOSITORY, tag)
        blob = self.upstream.add_blob(REPOSITORY, b"blob")
        docxy = self.hub()
        self.upstream.on("manifest", Fault.too_many_requests("30"), method="GET", times=None)
        self.assertEqual((await docxy.manifest("latest")).status, 429)
        self.assertEqual((await docxy.blob(blob)).status, 200)
        self.assertEqual((await docxy.manifest("other", method="HEAD")).status, 200)

    async def test_cached(self) -> None:
        """What is cached is served while the upstream is not asked, by tag and by digest."""
        digest = self.upstream.add_image(REPOSITORY)
        self.upstream.add_image(REPOSITORY, "other")
        docxy = self.hub()
        await docxy.manifest("latest")
        self.upstream.on("manifest", Fault.too_many_requests("300"), times=None)
        self.assertEqual((await docxy.manifest("other")).status, 429)
        self.seconds.advance(61)
        self.assertIn("stale-upstream-failed", (await docxy.manifest("latest")).cache_status)
        self.assertEqual((await docxy.manifest(digest)).cache_status, "docxy; hit")

    async def test_abuse(self) -> None:
        """Docker Hub's abuse limit, plain text with bare line feeds, is a 429 like any other."""
        self.upstream.add_image(REPOSITORY)
        docxy = self.hub()
        self.upstream.on("manifest", Fault.abuse(), times=None)
        for _ in range(5):
            answer = await docxy.manifest("latest")
            self.assertEqual((answer.status, answer.code, answer.header("Retry-After")), (429, "TOOMANYREQUESTS", "60"))
        self.saw(GET_manifest=1)

    async def test_odd_retry_after(self) -> None:
        """A Retry-After that is no number is a limit all the same."""
        self.upstream.add_image(REPOSITORY)
        docxy = self.hub()
        for told in ("soon", "\u00b2", "9" * 40):
            self.upstream.on("manifest", Fault.too_many_requests(told))
            self.assertEqual((await docxy.manifest("latest")).status, 429, told)
            self.assertEqual((await docxy.manifest("latest")).status, 429, told)
            self.saw(GET_manifest=1)
            self.seconds.advance(900)


class Accounts(QuotaCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.upstream.auth = Auth("bearer", accounts=PASSWORDS)
        self.blobs = [self.upstream.add_blob(REPOSITORY, b"%d" % n) for n in range(12)]
        self.docxy = self.hub(ANN, BOB, CAT)

    async def pull(self, count: int) -> list[str | None]:
        """Who asked for the next blobs."""
        self.upstream.requests.clear()
        for _ in range(count):
            self.assertEqual((await self.docxy.blob(self.blobs.pop())).status, 200)
        return self.accounts("blob")

    async def test_in_turn(self) -> None:
        """Accounts are used one after the other, each with a token of its own that is asked for once."""
        asked = await self.pull(9)
        self.assertEqual(sorted(set(asked[:3])), ["ann", "bob", "cat"])
        self.assertEqual(asked[3:], asked[:3] * 2)
        self.assertEqual(self.upstream.count("token"), 3)

    async def test_limited(self) -> None:
        """One that gets a 429 is left out until its Retry-After is over; the client sees nothing of it."""
        first, second, third = await self.pull(3)
        self.upstream.on("blob", Fault.too_many_requests("30"), times=1)
        limited, *asked = await self.pull(4)
        self.assertEqual((limited, asked[0], set(asked)), (first, second, {second, third}))
        self.seconds.advance(31)
        self.assertIn(first, await self.pull(3))

    async def test_all_limited(self) -> None:
        """When all are limited it is 429 until the first of them may ask again, and nobody asks meanwhile."""
        await self.pull(3)
        for seconds in ("50", "30", "40"):
            self.upstream.on("blob", Fault.too_many_requests(seconds), times=1)
        self.upstream.requests.clear()
        for _ in range(5):
            self.assertEqual((await self.docxy.blob(self.blobs[0])).status, 429)
        self.saw(GET_blob=3)
        answer = await self.docxy.blob(self.blobs[1])
        self.assertEqual((answer.status, answer.header("Retry-After")), (429, "30"))
        self.saw()
        self.seconds.advance(31)
        self.assertEqual(len(await self.pull(1)), 1)

    async def test_scarce_last(self) -> None:
        """An account with little left is used when no other can be."""
        self.upstream.on("blob", ratelimit(3), times=1)
        scarce, *others = await self.pull(3)
        self.assertNotIn(scarce, await self.pull(4))
        for _ in others:
            self.upstream.on("blob", Fault.too_many_requests("30"), times=1)
        self.assertEqual((await self.pull(1))[-1], scarce)

    async def test_clients_are_not_asked(self) -> None:
        """What a client sends for a password is not for the upstream."""
        self.upstream.requests.clear()
        await self.docxy.blob(self.blobs[0], "a client's")
        self.assertNotIn("a client's", str([each.headers for each in self.upstream.requests]))

    async def test_basic(self) -> None:
        """A registry that asks for Basic is told an account too, in turn."""
        self.upstream.auth = Auth("basic", accounts=PASSWORDS)
        for _ in range(3):
            self.assertEqual((await self.docxy.blob(self.blobs.pop())).status, 200)
        sent = {each.headers["authorization"] for each in self.upstream.select("blob") if each.status == 200}
        self.assertEqual(len(sent), 3)
        self.assertEqual({each[:6] for each in sent}, {"Basic "})
        self.assertEqual(self.upstream.count("token"), 0)

    async def test_wrong_password(self) -> None:
        """An account that the upstream refuses is no reason to tell anyone its password."""
        for auth in (Auth("basic", accounts={}), Auth("bearer", accounts={})):
            self.upstream.auth = auth
            answer = await self.docxy.blob(self.blobs.pop())
            self.assertEqual((answer.status, answer.code), (403, "DENIED"))
            for credential in (ANN, BOB, CAT):
                self.assertNotIn(credential.password, answer.body.decode())


class Saving(QuotaCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.old = self.upstream.add_image(REPOSITORY)
        self.docxy = self.hub()

    async def test_stretched(self) -> None:
        """With little left a tag is believed ten times as long; with plenty as long as always."""
        self.upstream.on("manifest", ratelimit(3))
        await self.docxy.manifest("latest")
        self.upstream.requests.clear()
        self.seconds.advance(599)
        answer = await self.docxy.manifest("latest")
        self.assertEqual((answer.cache_status, answer.header("Age")), ("docxy; hit; ttl=1", "599"))
        self.saw()
        self.seconds.advance(1)
        self.upstream.on("manifest", ratelimit(80))
        await self.docxy.manifest("latest")
        self.saw(HEAD_manifest=1)
        self.seconds.advance(60)
        await self.docxy.manifest("latest")
        self.saw(HEAD_manifest=1)

    async def test_stale(self) -> None:
        """A tag that moved is served as it was rather than spend a GET on it, and says why."""
        self.upstream.on("manifest", ratelimit(3), times=None)
        await self.docxy.manifest("latest")
        new = self.upstream.add_image(REPOSITORY, layers=[b"another"])
        self.upstream.requests.clear()
        self.seconds.advance(601)
        answer = await self.docxy.manifest("latest")
        self.assertIn("detail=stale-saving-quota", answer.cache_status)
        self.assertEqual(answer.header("Docker-Content-Digest"), str(self.old))
        self.assertEqual(answer.header("Warning"), '110 docxy "Response is Stale"')
        self.saw(HEAD_manifest=1)
        self.upstream.rules.clear()
        self.upstream.on("manifest", ratelimit(100), times=None)
        self.seconds.advance(601)
        answer = await self.docxy.manifest("latest")
        self.assertEqual(answer.header("Docker-Content-Digest"), str(new))

    async def test_first_pull(self) -> None:
        """What is not cached is worth its quota: pulled although little is left."""
        self.upstream.on("manifest", ratelimit(1), times=None)
        self.upstream.add_image(REPOSITORY, "other")
        for tag in ("latest", "other"):
            self.assertEqual((await self.docxy.manifest(tag)).status, 200)
        self.saw(GET_manifest=2)

    async def test_window_over(self) -> None:
        """When the window is over, so is the saving."""
        self.upstream.on("manifest", ratelimit(3))
        await self.docxy.manifest("latest")
        new = self.upstream.add_image(REPOSITORY, layers=[b"another"])
        self.seconds.advance(21600)
        self.assertEqual((await self.docxy.manifest("latest")).header("Docker-Content-Digest"), str(new))
