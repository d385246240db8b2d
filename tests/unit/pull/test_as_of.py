"""What a tag was at a time, by the paths and hosts that ask for it."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from docxy.names import DOCKER_MANIFEST, Digest
from docxy.settings.cooldown import Cooldown, OnNew
from docxy.settings.model import AuthMode
from tests.fakes import Auth
from tests.unit.pull.harness import ACCEPT, NAME, REPOSITORY, Answer, Mirror, MirrorCase, bearer

DAY = 86400.0
BEGAN = "2027-01-15t08-00z"
"""The time at which every test begins."""


def named(at: float) -> str:
    """A moment as it is written in a path."""
    return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%dt%H-%M-%Sz")


class DatedCase(MirrorCase):
    """A tag that was several things."""

    def move(self, layer: bytes) -> Digest:
        return self.upstream.add_image(REPOSITORY, layers=[layer])

    async def then(
        self,
        at: str,
        reference: object = "latest",
        method: str = "GET",
        token: str | None = None,
        mirror: Mirror | None = None,
        accept: tuple[str, ...] = ACCEPT,
        repository: str = REPOSITORY,
    ) -> Answer:
        headers: dict[str, Any] = {"Accept": list(accept), **bearer(token)}
        path = f"/v2/as-of/{at}/{NAME}/{repository}/manifests/{reference}"
        return await (mirror or self.mirror).ask(path, headers, method)

    def is_of(self, answer: Answer, digest: Digest) -> None:
        self.assertEqual((answer.status, answer.header("Docker-Content-Digest")), (200, str(digest)))
        self.assertTrue((answer.cache_status or "").endswith("; detail=as-of"), answer.cache_status)


class AsOf(DatedCase):
    """Clients that docxy does not ask to log in."""

    async def test_moments(self) -> None:
        """A tag is what it was at each moment, by GET and HEAD; before its first sight it is a 404 that names that."""
        one = self.move(b"one")
        await self.mirror.manifest("latest")
        self.seconds.advance(DAY)
        two = self.move(b"two")
        await self.mirror.manifest("latest")
        self.seconds.advance(DAY)
        for method in ("GET", "HEAD"):
            self.is_of(await self.then(BEGAN, method=method), one)
            self.is_of(await self.then("2027-01-16", method=method), one)
            self.is_of(await self.then("2027-01-17", method=method), two)
        early = await self.then("2027-01-15")
        self.assertEqual((early.status, early.json["errors"][0]["code"]), (404, "MANIFEST_UNKNOWN"))
        message = early.json["errors"][0]["message"]
        self.assertIn("first saw fake.test/team/app:latest at 2027-01-15 08:00:00 UTC", message)
        later = await self.then("2999-01-01")
        self.assertEqual(later.status, 404)
        self.assertIn("nobody knows yet", later.json["errors"][0]["message"])

    async def test_content(self) -> None:
        """Digests and blobs under a moment are what they are without it, in part too; a pull is whole."""
        image = self.move(b"one")
        await self.mirror.manifest("latest")
        self.move(b"two")
        self.seconds.advance(DAY)
        await self.mirror.manifest("latest")
        manifest = (await self.then(BEGAN)).json
        path = f"/v2/as-of/{BEGAN}/{NAME}/{REPOSITORY}/blobs/{manifest['layers'][0]['digest']}"
        self.assertEqual((await self.mirror.ask(path)).body, b"one")
        self.assertEqual((await self.mirror.ask(path, {"Range": "bytes=1-"})).body, b"ne")
        self.assertEqual((await self.then(BEGAN, image)).status, 200)
        listing = await self.mirror.ask(f"/v2/as-of/{BEGAN}/{NAME}/{REPOSITORY}/tags/list")
        self.assertEqual(listing.status, 404)

    async def test_hosts(self) -> None:
        """The same by a host of its own, and before `v2`, where a client cannot be given a prefix."""
        one = self.move(b"one")
        await self.mirror.manifest("latest")
        self.move(b"two")
        self.seconds.advance(DAY)
        await self.mirror.manifest("latest")
        tag = f"v2/{REPOSITORY}/manifests/latest"
        for path, host in ((f"/{tag}", f"as-of-{BEGAN}.mirror.test"), (f"/as-of/{BEGAN}/{tag}", "mirror.test")):
            streamed = await self.mirror.ask(path, {"Host": host, "Accept": list(ACCEPT)})
            self.is_of(streamed, one)

    async def test_gone(self) -> None:
        """A tag that the registry deleted later is what it was; at a time when it was gone, it was gone."""
        one = self.move(b"one")
        await self.mirror.manifest("latest")
        del self.upstream.repositories[REPOSITORY].tags["latest"]
        self.seconds.advance(DAY)
        self.assertEqual((await self.mirror.manifest("latest")).status, 404)
        self.is_of(await self.then(BEGAN), one)
        self.seconds.advance(DAY)
        answer = await self.then(named(self.seconds.now))
        self.assertEqual(answer.status, 404)
        self.assertIn("was gone by", answer.json["errors"][0]["message"])

    async def test_not_to_be_had(self) -> None:
        """What is cached no more is fetched by its digest; what is gone there too is a 404 that says so."""
        one = self.move(b"one")
        await self.mirror.manifest("latest")
        await self.mirror.stop()
        await self.store.delete(one)
        self.mirror = self.start()
        self.move(b"two")
        self.seconds.advance(DAY)
        self.is_of(await self.then(BEGAN), one)
        await self.mirror.stop()
        await self.store.delete(one)
        self.mirror = self.start()
        self.upstream.repositories[REPOSITORY].manifests.pop(str(one))
        answer = await self.then(BEGAN)
        self.assertEqual(answer.status, 404)
        self.assertIn(f"was {one}", answer.json["errors"][0]["message"])

    async def test_never_seen(self) -> None:
        """A tag that docxy never saw has no past here."""
        self.move(b"one")
        answer = await self.then(BEGAN)
        self.assertEqual(answer.status, 404)
        self.assertIn("never seen", answer.json["errors"][0]["message"])

    async def test_narrow_accept(self) -> None:
        """A client that takes less gets what it was given then."""
        old = self.upstream.add_image(REPOSITORY, "docker", docker=True)
        await self.mirror.manifest("docker", accept=(DOCKER_MANIFEST,))
        self.upstream.add_image(REPOSITORY, "docker", layers=[b"two"], docker=True)
        self.seconds.advance(DAY)
        await self.mirror.manifest("docker")
        self.is_of(await self.then(BEGAN, "docker", accept=(DOCKER_MANIFEST,)), old)
        self.assertEqual((await self.then(BEGAN, "docker")).status, 404)

    async def test_no_way_past_the_cooldown(self) -> None:
        """What is too young is, however it is asked for."""
        cooldown = Cooldown(3 * DAY, OnNew.DENY)
        lax, strict = self.mirror, self.start(changed={"cooldown": cooldown})
        self.move(b"one")
        await lax.manifest("latest")
        self.seconds.advance(DAY)
        answer = await self.then(BEGAN, mirror=strict)
        self.assertEqual((answer.status, answer.json["errors"][0]["code"]), (403, "DENIED"))
        self.seconds.advance(2 * DAY)
        self.assertEqual((await self.then(BEGAN, mirror=strict)).status, 200)

    async def test_allow_and_deny(self) -> None:
        """What may not be pulled may not be pulled as it was, by its true name."""
        strict = self.start(deny=("team/*",))
        self.move(b"one")
        await self.mirror.manifest("latest")
        self.assertEqual((await self.then(BEGAN, mirror=strict)).status, 403)

    async def test_without_a_cache(self) -> None:
        """Where nothing is kept, nothing is known of what was."""
        bare = self.start(cached=False)
        self.move(b"one")
        answer = await self.then(BEGAN, mirror=bare)
        self.assertEqual(answer.status, 404)
        self.assertIn("it has no cache", answer.json["errors"][0]["message"])


class Private(DatedCase):
    """Clients log in to the upstream."""

    auth = AuthMode.TRANSPARENT

    async def test_rights(self) -> None:
        """Who may read a repository now may read what it was; nobody else, nor is anybody else told of it."""
        self.upstream.auth = Auth("bearer", private={REPOSITORY}, accounts={"ann": "pw"})
        ann = self.upstream.auth.add_token("ann", frozenset({REPOSITORY}), self.seconds.now * 10)
        one = self.move(b"one")
        await self.mirror.manifest("latest", ann)
        self.move(b"two")
        self.seconds.advance(DAY)
        await self.mirror.manifest("latest", ann)
        self.is_of(await self.then(BEGAN, token=ann), one)
        scope = f"repository:as-of/{BEGAN}/{NAME}/{REPOSITORY}:pull"
        stranger = (await self.mirror.ask(f"/auth/token?scope={scope}")).json["token"]
        for token in (stranger, None):
            for reference in ("latest", one, "none"):
                for at in (BEGAN, "2027-01-01", "2999-01-01"):
                    answer = await self.then(at, reference, token=token)
                    self.assertEqual(answer.status, 401)
                    self.assertNotIn(b"2027-01-15", answer.body)
        layer = self.upstream.layers(REPOSITORY, one)[1]
        path = f"/v2/as-of/{BEGAN}/{NAME}/{REPOSITORY}/blobs/{layer}"
        self.assertEqual((await self.mirror.ask(path, dict(bearer(stranger)))).status, 401)
        self.assertEqual((await self.mirror.ask(path, dict(bearer(ann)))).body, b"one")

    async def test_token(self) -> None:
        """The scope that a client makes of the name it pulls reaches the upstream as the true repository."""
        self.upstream.auth = Auth("bearer")
        self.move(b"one")
        scope = f"repository:as-of/{BEGAN}/{NAME}/{REPOSITORY}:pull"
        token = (await self.mirror.ask(f"/auth/token?scope={scope}")).json["token"]
        self.assertEqual((await self.mirror.manifest("latest", token)).status, 200)
        self.assertEqual((await self.then(BEGAN, token=token)).status, 200)
