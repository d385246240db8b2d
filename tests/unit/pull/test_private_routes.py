"""Every way to ask for a private image, by everyone who may not read it, whatever state its registry is in."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import jwt
from twisted.web.http_headers import Headers as ReceivedHeaders

from docxy.names import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from docxy.pull.rights.verdicts import FRESH
from docxy.settings.access import parse
from docxy.settings.model import AuthMode, Timeouts
from tests.fakes import Auth, Fault, Pattern
from tests.unit.access.harness import basic, lines
from tests.unit.pull.harness import ACCEPT, NAME, Mirror, MirrorCase, bearer, drain, reactor

PRIVATE, PUBLIC = "ann/secret", "library/open"
LAYER = Pattern(100_000)
KINDS = ("ping", "manifest", "blob", "tags", "referrers")
EMPTY_INDEX = b'{"schemaVersion":2,"mediaType":"%s","manifests":[]}' % OCI_INDEX.encode()

Headers = dict[str, "str | list[str]"]


class StatesCase(MirrorCase):
    def everywhere(self, fault: Fault) -> None:
        for kind in KINDS:
            self.upstream.on(kind, fault, times=None)


class Routes(StatesCase):
    """Ann's private image is cached; whoever may not read it gets no byte, digest, size or name of it."""

    auth = AuthMode.TRANSPARENT

    async def setUp(self) -> None:
        await super().setUp()
        self.upstream.auth = Auth("bearer", accounts={"ann": "pw", "eve": "pw2"}, private={PRIVATE})
        self.image = self.upstream.add_image(PRIVATE, layers=[LAYER])
        self.upstream.add_referrer(PRIVATE, self.image)
        self.config = self.upstream.layers(PRIVATE, self.image)[0]
        self.upstream.add_image(PUBLIC, layers=[b"open"])
        self.mirror = self.start(listed=True)
        self.ann = self.token("ann", PRIVATE)
        self.assertEqual(await self.owner(), {200})
        self.attackers = await self.tokens()

    def token(self, account: str | None, *repositories: str) -> str:
        return self.upstream.auth.add_token(account, frozenset(repositories), reactor.seconds() + 3000)

    async def tokens(self) -> dict[str, str | None]:
        """Whoever may not read the image, each let in where it may be."""
        relayed = await self.mirror.token(f"{PRIVATE}:pull&scope=repository:{PUBLIC}")
        claims = {"iss": "docxy", "aud": NAME, "exp": self.seconds() + 3000, "repositories": [PRIVATE]}
        tokens = {
            "anonymous": str(relayed.json["token"]),
            "another account": self.token("eve", PUBLIC),
            "made up": "x",
            "a forged offline token": jwt.encode(claims, "k" * 64, "HS256"),
            "none": None,
        }
        for token in tokens.values():
            await self.mirror.manifest("latest", token, PUBLIC)
        return tokens

    async def owner(self) -> set[int]:
        """What Ann gets."""
        answers = [
            await self.mirror.manifest(reference, self.ann, PRIVATE, method)
            for reference in ("latest", self.image)
            for method in ("GET", "HEAD")
        ]
        answers.append(await self.mirror.manifest("latest", self.ann, PRIVATE, accept=(OCI_MANIFEST,)))
        for digest in (self.config, LAYER.digest):
            answers.append(await self.mirror.blob(digest, self.ann, PRIVATE))
            await drain(self.mirror, digest)
        for page in ("tags/list", f"referrers/{self.image}"):
            answers.append(await self.mirror.ask(f"/v2/{PRIVATE}/{page}", bearer(self.ann)))
        return {answer.status for answer in answers}

    def requests(self) -> Iterator[tuple[str, str, Headers]]:
        """Method, path and headers."""
        wide: Headers = {"Accept": list(ACCEPT)}
        for repository in (PRIVATE, PUBLIC):
            references = ("latest", self.image) if repository == PRIVATE else (self.image,)
            for reference in references:
                path = f"/v2/{repository}/manifests/{reference}"
                narrow: list[Headers] = [{"Accept": OCI_MANIFEST}, {"Accept": DOCKER_MANIFEST}, {"Range": "bytes=0-9"}]
                for headers in (wide, *narrow):
                    yield "GET", path, headers
                    yield "HEAD", path, headers
                yield "GET", path, {**wide, "If-None-Match": f'"{self.image}"'}
            for digest in (LAYER.digest, self.config):
                path = f"/v2/{repository}/blobs/{digest}"
                yield "GET", path, {}
                yield "HEAD", path, {}
                yield "GET", path, {"Range": "bytes=0-9"}
                yield "GET", path, {"If-None-Match": f'"{digest}"'}
        for page in ("tags/list", "tags/list?n=1", f"referrers/{self.image}"):
            yield "GET", f"/v2/{PRIVATE}/{page}", {}

    async def nothing_for(self, mirror: Mirror, *whom: str) -> None:
        """That none of these (else nobody) gets anything."""
        for name, token in self.attackers.items():
            if whom and name not in whom:
                continue
            for method, path, headers in self.requests():
                answer = await mirror.ask(path, {**headers, **bearer(token)}, method)
                case = f"{name}: {method} {path} {headers}"
                self.assertGreaterEqual(answer.status, 400, case)
                if LAYER.digest.hex not in path:
                    self.assertNotIn(LAYER.digest.hex.encode(), answer.body, case)
                for told in ("Docker-Content-Digest", "ETag", "Age"):
                    self.assertIsNone(answer.header(told), case)
                self.assertNotIn("hit", answer.cache_status.replace("hit; detail=negative", ""), case)
            listed = await mirror.ask("/v2/_catalog", bearer(token))
            self.assertNotIn(PRIVATE.encode(), listed.body, name)

    async def test_up(self) -> None:
        """The registry answers."""
        await self.nothing_for(self.mirror)
        self.seconds.advance(FRESH + 10)
        await self.nothing_for(self.mirror)
        self.assertEqual(await self.owner(), {200})

    async def test_page(self) -> None:
        """The status page and its JSON name what is public, and nothing of what is not, not even to Ann."""
        self.mirror.served.recorder.flush()
        image = f"/status/image?name={NAME}/{PRIVATE}"
        pages = ["/", "/status/live", "/status.json", "/pulls.json", image]
        pages += [f"/pulls.json?repository={NAME}/{PRIVATE}", f"/status/image?name={NAME}/{PUBLIC}"]
        secrets = [self.image.hex, LAYER.digest.hex, self.config.hex]
        for token in (*self.attackers.values(), self.ann):
            for page in pages:
                answer = await self.mirror.ask(page, bearer(token))
                for secret in secrets if PRIVATE in page else [PRIVATE, *secrets]:
                    self.assertNotIn(secret.encode(), answer.body, page)
                self.assertEqual(answer.status, 404 if page == image else 200)
            self.assertIn(PUBLIC.encode(), (await self.mirror.ask("/status.json", bearer(token))).body)

    async def test_off(self) -> None:
        """The registry and its token service answer nothing; Ann goes on."""
        self.everywhere(Fault(drop=True))
        self.upstream.on("token", Fault(drop=True), times=None)
        self.seconds.advance(FRESH + 10)
        await self.nothing_for(self.mirror)
        self.assertEqual(await self.owner(), {200})

    async def test_unavailable(self) -> None:
        """The registry says 503 while its token service answers."""
        self.everywhere(Fault(status=503))
        self.seconds.advance(FRESH + 10)
        self.assertEqual(await self.owner(), {200})
        self.attackers = await self.tokens()
        await self.nothing_for(self.mirror)

    async def test_limited(self) -> None:
        """The registry says 429."""
        self.everywhere(Fault.too_many_requests("30"))
        self.seconds.advance(FRESH + 10)
        await self.nothing_for(self.mirror)

    async def test_slow(self) -> None:
        """The registry does not answer in time: nobody gets anything while docxy waits, or after."""
        self.everywhere(Fault(stall_headers=True))
        self.mirror = self.start(listed=True, timeouts=Timeouts(headers=0.02))
        self.seconds.advance(FRESH + 10)
        await self.nothing_for(self.mirror, "anonymous", "another account")
        self.assertEqual(await self.owner(), {200})

    async def test_web_page(self) -> None:
        """A proxy before the registry answers everything with 200 and a page to log in: that lets nobody in."""
        page = Fault(body=b"<html>log in</html>", headers={"Content-Type": "text/html", "Docker-Content-Digest": None})
        self.everywhere(page)
        await self.nothing_for(self.mirror)
        self.seconds.advance(FRESH + 10)
        await self.nothing_for(self.mirror)

    async def test_lenient_referrers(self) -> None:
        """A registry that has no referrers for anybody, 200, does not let anybody read anything by that."""
        answer = Fault(body=EMPTY_INDEX, headers={"Content-Type": OCI_INDEX})
        self.upstream.on("referrers", answer, times=None)
        for token in self.attackers.values():
            await self.mirror.ask(f"/v2/{PRIVATE}/referrers/sha256:{'0' * 64}", bearer(token))
            for method, path, headers in self.requests():
                if "referrers" not in path:
                    status = (await self.mirror.ask(path, {**headers, **bearer(token)}, method)).status
                    self.assertGreaterEqual(status, 400, path)


class Elsewhere(MirrorCase):
    async def test_untold(self) -> None:
        """A layer that another repository's pull brought gets the same answer as one that nobody pulled."""
        for repository in (PRIVATE, PUBLIC):
            self.upstream.add_image(repository, layers=[LAYER])
        await self.mirror.blob(LAYER.digest, repository=PRIVATE)
        await drain(self.mirror, LAYER.digest)
        for asked, method in ((None, "GET"), ("bytes=0-9", "GET"), (None, "HEAD")):
            headers = []
            for store in (self.store, self.make_store()):
                mirror = self.start(store=store, catalog=self.make_catalog())
                answer = await mirror.blob(LAYER.digest, None, PUBLIC, asked, method)
                await drain(mirror, LAYER.digest)
                headers.append(sorted(_alike(answer.headers)))
            self.assertEqual(headers[0], headers[1])


def _alike(headers: ReceivedHeaders) -> Iterator[tuple[bytes, list[bytes]]]:
    """The headers without what differs between any two answers: times, and the request's own id."""
    for name, values in headers.getAllRawHeaders():
        if name not in (b"Date", b"X-Request-Id"):
            yield name, [re.sub(rb"dur=[\d.]+", b"dur", value) for value in values]


class NoneCase(StatesCase):
    """`none`: what docxy's account can read, everyone can read whom docxy lets in to it."""

    async def statuses(self, repository: str, reference: object, authorization: str | None = None) -> set[int]:
        headers: Headers = {} if authorization is None else {"Authorization": authorization}
        paths = (
            "manifests/latest",
            f"manifests/{reference}",
            f"blobs/{reference}",
            "tags/list",
            f"referrers/{reference}",
        )
        asked = [(f"/v2/{repository}/{path}", headers) for path in paths]
        asked += [(f"/{NAME}/v2/{repository}/{paths[0]}", headers), (f"/v2/{NAME}/{repository}/{paths[1]}", headers)]
        asked += [(f"/v2/{repository}/{paths[1]}?ns={NAME}", headers)]
        asked += [(path, {**headers, "Range": "bytes=0-0"}) for path, _ in asked[1:3]]
        return {
            (await self.mirror.ask(path, each, method)).status for path, each in asked for method in ("GET", "HEAD")
        }

    async def test_account(self) -> None:
        """What docxy's account may not read is not there, and is an error with the registry off."""
        self.upstream.auth = Auth("bearer", private={PRIVATE})
        image = self.upstream.add_image(PRIVATE)
        self.assertEqual(await self.statuses(PRIVATE, image), {404})
        self.everywhere(Fault(drop=True))
        self.seconds.advance(FRESH)
        self.assertEqual(await self.statuses(PRIVATE, image), {502})

    async def test_lists(self) -> None:
        """`deny` of an upstream holds for what is cached, on every route, with the registry off too."""
        image = self.upstream.add_image(PRIVATE)
        self.assertEqual(await self.statuses(PRIVATE, image), {200, 206, 404})
        self.mirror = self.start(deny=("ann/*",), listed=True)
        for _ in range(2):
            self.assertEqual(await self.statuses(PRIVATE, image), {403})
            self.assertNotIn(b"ann", (await self.mirror.ask("/v2/_catalog")).body)
            self.everywhere(Fault(drop=True))

    async def test_rules(self) -> None:
        """A rule of `[access]` holds for what is cached, on every route, whatever a token says, off or on."""
        image = self.upstream.add_image(PRIVATE)
        path = self.mktemp()
        Path(path).write_text(lines({"ann": "pw", "eve": "pw2"}))
        rules = [
            {"users": ["ann"], "repositories": ["**"]},
            {"groups": ["anonymous"], "repositories": [f"{NAME}/{PUBLIC}"]},
        ]
        self.mirror = self.start(access=parse({"htpasswd": path, "rules": rules}, "docxy.toml"), listed=True)
        ann, eve = basic("ann", "pw"), basic("eve", "pw2")
        self.assertEqual(await self.statuses(PRIVATE, image, ann), {200, 206, 404})
        document = await self.mirror.ask(f"/auth/token?scope=repository:{PRIVATE}:pull", {"Authorization": eve})
        token = f"Bearer {document.json['token']}"
        for _ in range(2):
            self.assertEqual(await self.statuses(PRIVATE, image), {401})
            for authorization in (basic("ann", "wrong"), token, "Bearer x"):
                self.assertLessEqual(await self.statuses(PRIVATE, image, authorization), {401, 403})
            self.assertEqual(await self.statuses(PRIVATE, image, eve), {403})
            for authorization in (eve, token):
                listed = await self.mirror.ask("/v2/_catalog", {"Authorization": authorization})
                self.assertNotIn(b"ann", listed.body)
            self.everywhere(Fault(drop=True))
