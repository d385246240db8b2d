"""`_catalog`: what is cached, as clients would pull it."""

from __future__ import annotations

from attrs import evolve

from docxy.settings.model import AuthMode, Upstream
from tests.fakes import Auth
from tests.unit.pull.harness import NAME, REPOSITORY, MirrorCase


class Listed(MirrorCase):
    """Two upstreams, the second one known only from the catalog."""

    async def setUp(self) -> None:
        await super().setUp()
        self.other = Upstream("other.test", "http://127.0.0.1:1", private=True)
        self.mirror = self.start(listed=True, others=(self.other,))

    async def names(self, query: str = "", path: str = "/v2/_catalog") -> list[str]:
        answer = await self.mirror.ask(f"{path}{query}")
        self.assertEqual(answer.status, 200)
        return list(answer.json["repositories"])

    def hold(self, *names: str, upstream: str = NAME) -> None:
        digest = self.upstream.add_blob("any", b"blob")
        for name in names:
            self.catalog.upstream(upstream).held.hold_blob(name, digest)

    async def test_pulled(self) -> None:
        """What was pulled is listed, and the upstream is not asked."""
        self.assertEqual(await self.names(), [])
        self.upstream.add_image(REPOSITORY)
        await self.mirror.manifest("latest")
        self.upstream.requests.clear()
        self.assertEqual(await self.names(), [REPOSITORY])
        self.saw()

    async def test_upstreams(self) -> None:
        """Names of another upstream have its prefix; under a prefix or ns only that upstream is listed."""
        self.hold("b/b", "z/z")
        self.hold("a/a", "y/y", upstream="other.test")
        self.assertEqual(await self.names(), ["b/b", "other.test/a/a", "other.test/y/y", "z/z"])
        self.assertEqual(await self.names(path="/v2/other.test/_catalog"), ["a/a", "y/y"])
        self.assertEqual(await self.names("?ns=other.test"), ["a/a", "y/y"])

    async def test_pages(self) -> None:
        """Page by page, every name comes once, in order, by following the Link."""
        self.hold("b/b", "n/n", "z/z")
        self.hold("a/a", "y/y", upstream="other.test")
        path, seen = "/v2/_catalog?n=2", []
        while True:
            answer = await self.mirror.ask(path)
            seen.append(answer.json["repositories"])
            link = answer.header("Link")
            if link is None:
                break
            path = link[1 : link.index(">")]
        self.assertEqual(seen, [["b/b", "n/n"], ["other.test/a/a", "other.test/y/y"], ["z/z"]])
        self.assertEqual(await self.names("?n=0"), [])
        self.assertEqual((await self.mirror.ask("/v2/_catalog?n=x")).status, 400)

    async def test_denied(self) -> None:
        """What the operator denied is not named either."""
        self.other = evolve(self.other, deny=("y/**",))
        self.mirror = self.start(listed=True, others=(self.other,))
        self.hold("a/a", "y/y", upstream="other.test")
        self.assertEqual(await self.names(), ["other.test/a/a"])

    async def test_off(self) -> None:
        """Unless the operator wants it, nothing is listed."""
        self.mirror = self.start()
        self.assertEqual((await self.mirror.ask("/v2/_catalog")).status, 404)


class Private(MirrorCase):
    """Transparent mode."""

    auth = AuthMode.TRANSPARENT

    async def test_only_public(self) -> None:
        """Only what anonymous clients were lately let read is named."""
        self.mirror = self.start(listed=True)
        self.upstream.auth = Auth("bearer", accounts={"alice": "secret"}, private=frozenset({"team/private"}))
        digest = self.upstream.add_blob("team/private", b"blob")
        self.catalog.upstream(NAME).held.hold_blob("team/private", digest)
        self.upstream.add_image(REPOSITORY)
        token = str((await self.mirror.token()).json["token"])
        await self.mirror.manifest("latest", token)
        answer = await self.mirror.ask("/v2/_catalog")
        self.assertEqual(answer.json, {"repositories": [REPOSITORY]})
