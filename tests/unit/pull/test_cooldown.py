"""The cooldown: what is younger than the operator wants is not what a pull gets, by whatever way it asks."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from prometheus_client import CollectorRegistry

from docxy.names import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Digest
from docxy.observe.prometheus import Meter
from docxy.pull.cooldown import MOST_TRIED
from docxy.settings.cooldown import OnNew
from docxy.settings.model import AuthMode
from tests.fakes import Auth, Fault
from tests.unit.pull.cooldown import DAY, THREE_DAYS, CooldownCase, detail_of
from tests.unit.pull.harness import NAME, REPOSITORY


class ByTag(CooldownCase):
    """Tags."""

    async def test_moved(self) -> None:
        """A tag that moved is answered with what it was, by HEAD, GET and Range, until the new one is old enough."""
        old = await self.settled()
        body = (await self.mirror.manifest("latest")).body
        new = self.move(b"new")
        self.seconds.advance(61)
        self.upstream.requests.clear()
        for method in ("HEAD", "GET"):
            self.is_of(await self.mirror.manifest("latest", method=method), old, "cooldown")
        part = await self.mirror.ask(
            f"/v2/{REPOSITORY}/manifests/latest", {"Accept": [OCI_MANIFEST, OCI_INDEX], "Range": "bytes=0-9"}
        )
        self.assertEqual((part.status, part.body), (206, body[:10]))
        self.assertNotIn("GET manifest", self.counts())
        self.seconds.advance(THREE_DAYS - 1)
        self.is_of(await self.mirror.manifest("latest"), old, "cooldown")
        self.seconds.advance(2)
        self.is_of(await self.mirror.manifest("latest"), new)

    async def test_moved_quickly(self) -> None:
        """Of several changes the newest that is old enough is served, whatever came after it."""
        await self.settled()
        first = self.move(b"first")
        self.seconds.advance(100)
        await self.mirror.manifest("latest", method="HEAD")
        for layer in (b"second", b"third"):
            self.seconds.advance(DAY)
            self.move(layer)
            await self.mirror.manifest("latest", method="HEAD")
        self.seconds.advance(DAY)
        self.is_of(await self.mirror.manifest("latest"), first, "cooldown")

    async def test_known_under_another_tag(self) -> None:
        """What was known under another tag for long enough is not new."""
        image = self.move(b"same", "1.2.3")
        await self.mirror.manifest("1.2.3", method="HEAD")
        self.seconds.advance(THREE_DAYS)
        self.move(b"same", "latest")
        self.is_of(await self.mirror.manifest("latest"), image)

    async def test_first(self) -> None:
        """A tag that was never seen before: `deny` refuses it, and says since when and until when; nothing is spent."""
        self.move(b"new")
        for method in ("GET", "HEAD"):
            self.is_denied(answer := await self.mirror.manifest("latest", method=method))
            if method == "GET":
                self.assertEqual(answer.json["errors"][0]["code"], "DENIED")
                message = answer.json["errors"][0]["message"]
                self.assertIn("first seen here 2027-01-15 08:00:00 UTC", message)
                self.assertIn("until 2027-01-18 08:00:00 UTC", message)
        self.assertNotIn("GET manifest", self.counts())
        self.seconds.advance(THREE_DAYS)
        self.assertEqual((await self.mirror.manifest("latest")).status, 200)

    async def test_serve_and_observe(self) -> None:
        """`serve` and `observe` never refuse; the answer says so, by tag and by digest."""
        for on_new, detail in ((OnNew.SERVE, "cooldown-new"), (OnNew.OBSERVE, "cooldown-observed")):
            registry = CollectorRegistry()
            mirror = self.start(on_new=on_new, meter=Meter(registry))
            image = self.move(on_new.value.encode(), on_new.value)
            self.seconds.advance(61)
            for method in ("HEAD", "GET"):
                for reference in (on_new.value, str(image)):
                    self.is_of(await mirror.manifest(reference, method=method), image, detail)
            self.seconds.advance(THREE_DAYS)
            self.is_of(await mirror.manifest(on_new.value), image)
            await mirror.stop()
            labels = {"upstream": NAME, "outcome": "served" if on_new is OnNew.SERVE else "observed"}
            self.assertEqual(registry.get_sample_value("docxy_cooldown_manifests_total", labels), 4)

    async def test_older_is_gone(self) -> None:
        """Where the upstream has the older digest no more and the cache neither, the one before it serves; or none."""
        images = []
        for number in range(MOST_TRIED + 2):
            images.append(self.move(str(number).encode()))
            await self.mirror.manifest("latest", method="HEAD")
            self.seconds.advance(100)
        self.seconds.advance(THREE_DAYS - 150)
        self.is_of(await self.mirror.manifest("latest"), images[-2], "cooldown")
        held = self.upstream.repositories[REPOSITORY].manifests
        for image in images[:-1]:
            await self.store.delete(image)
        await self.mirror.stop()
        self.mirror = self.start()
        del held[str(images[-2])]
        self.is_of(await self.mirror.manifest("latest"), images[-3], "cooldown")
        await self.mirror.stop()
        await self.store.delete(images[-3])
        self.mirror = self.start()
        for image in images[:-1]:
            held.pop(str(image), None)
        self.upstream.requests.clear()
        self.is_denied(await self.mirror.manifest("latest"))
        self.assertLessEqual(len(self.upstream.requests), 2 + MOST_TRIED)

    async def test_narrow_accept(self) -> None:
        """A client that takes less than all gets what it takes, and no new digest by asking for less."""
        old = await self.settled()
        self.move(b"new")
        self.seconds.advance(61)
        self.is_of(await self.mirror.manifest("latest", accept=(OCI_MANIFEST,)), old, "cooldown")
        self.is_denied(await self.mirror.manifest("latest", accept=(DOCKER_MANIFEST, DOCKER_LIST, OCI_INDEX)))

    async def test_gone(self) -> None:
        """A tag that the upstream deleted is gone, whatever it was."""
        await self.settled()
        del self.upstream.repositories[REPOSITORY].tags["latest"]
        self.seconds.advance(61)
        self.assertEqual((await self.mirror.manifest("latest")).status, 404)

    async def test_upstream_down(self) -> None:
        """While the upstream does not answer, what is cached serves, and what is too young does not."""
        old = await self.settled()
        self.move(b"new")
        self.seconds.advance(61)
        self.is_of(await self.mirror.manifest("latest"), old, "cooldown")
        self.upstream.on("manifest", Fault(status=500))
        self.seconds.advance(DAY)
        self.is_of(await self.mirror.manifest("latest"), old, "cooldown")

    async def test_clock_set_back(self) -> None:
        """A clock that is set back makes nothing older."""
        old = await self.settled()
        self.move(b"new")
        self.seconds.advance(61)
        await self.mirror.manifest("latest")
        self.seconds.advance(-30)
        self.is_of(await self.mirror.manifest("latest"), old, "cooldown")


class ByDigest(CooldownCase):
    """Digests, indexes and what they name."""

    async def test_never_seen(self) -> None:
        """A digest that was never seen is young, by GET, HEAD and Range; asking does not make it older."""
        image = self.upstream.add_image(REPOSITORY, None)
        for _ in range(2):
            for method in ("GET", "HEAD"):
                self.is_denied(await self.mirror.manifest(image, method=method))
            part = await self.mirror.ask(f"/v2/{REPOSITORY}/manifests/{image}", {"Range": "bytes=0-9"})
            self.is_denied(part)
        self.assertNotIn("GET manifest", self.counts())
        self.seconds.advance(THREE_DAYS)
        self.is_of(await self.mirror.manifest(image), image)

    async def test_asked_for_too_early(self) -> None:
        """Who asks for a digest before it is published makes it no older."""
        image = Digest.of(b"{}")
        self.assertEqual((await self.mirror.manifest(image)).status, 404)
        self.seconds.advance(THREE_DAYS)
        image = self.upstream.add_image(REPOSITORY, None)
        self.is_denied(await self.mirror.manifest(image))

    async def test_of_a_young_tag(self) -> None:
        """What a tag moved to is refused by its digest too, though it is cached, and after a restart."""
        await self.settled()
        lax = self.start(on_new=OnNew.SERVE)
        new = self.move(b"new", "other")
        self.assertEqual((await lax.manifest("other")).status, 200)
        self.is_denied(await self.mirror.manifest(new))
        await self.mirror.stop()
        self.mirror = self.start()
        self.is_denied(await self.mirror.manifest(new))
        self.is_denied(await self.mirror.manifest("other"))

    async def test_index(self) -> None:
        """Children and blobs of an index that is old enough are, though the index was seen by HEAD alone."""
        index = self.upstream.add_two_platforms(REPOSITORY)
        await self.mirror.manifest("latest", method="HEAD")
        self.seconds.advance(THREE_DAYS)
        answer = await self.mirror.manifest("latest")
        self.is_of(answer, index)
        for entry in answer.json["manifests"]:
            for method in ("HEAD", "GET"):
                child = Digest.parse(entry["digest"])
                self.is_of(await self.mirror.manifest(child, method=method), child)
            for layer in self.upstream.layers(REPOSITORY, child):
                self.assertEqual((await self.mirror.blob(layer)).status, 200)

    async def test_children_of_a_young_index(self) -> None:
        """What a young index names is young, by its digest too; what an older one names already is not."""
        await self.settled()
        old = self.upstream.add_image(REPOSITORY, "known", layers=[b"known"])
        await self.mirror.manifest("known", method="HEAD")
        self.seconds.advance(THREE_DAYS)
        fresh = self.upstream.add_image(REPOSITORY, None, layers=[b"fresh"])
        self.upstream.add_index(REPOSITORY, "latest", {"amd64": fresh, "arm64": old})
        self.seconds.advance(61)
        self.assertEqual(detail_of(await self.mirror.manifest("latest")), "cooldown")
        self.is_denied(await self.mirror.manifest(fresh))
        self.is_of(await self.mirror.manifest(old), old)


class Ways(CooldownCase):
    """Other names of the same image, and other shapes of an answer."""

    async def test_held_back(self) -> None:
        """By every name, as a file and as of a day, by tag and by digest: what is too young comes on no way."""
        old = await self.settled()
        young = self.move(b"young")
        self.seconds.advance(61)
        paths = (f"/v2/{NAME}/{REPOSITORY}", f"/{NAME}/v2/{REPOSITORY}", f"/v2/{REPOSITORY}")
        for path in paths:
            for method in ("GET", "HEAD"):
                for query in ("", f"?ns={NAME}"):
                    answer = await self.mirror.ask(f"{path}/manifests/latest{query}", {"Accept": "*/*"}, method)
                    self.is_of(answer, old, "cooldown")
                    answer = await self.mirror.ask(f"{path}/manifests/{young}{query}", {"Accept": "*/*"}, method)
                    self.is_denied(answer)
        archive = await self.mirror.ask(f"/export?image={NAME}/{REPOSITORY}:latest")
        self.assertIn(old.hex.encode(), archive.body)
        self.assertNotIn(young.hex.encode(), archive.body)
        for image in (f"{NAME}/{REPOSITORY}@{young}", f"{NAME}/{REPOSITORY}:latest@{young}"):
            for method in ("GET", "HEAD"):
                self.assertEqual((await self.mirror.ask(f"/export?image={image}", method=method)).status, 403)
        self.seconds.advance(600)
        then = datetime.fromtimestamp(self.seconds() - 60, timezone.utc).strftime("%Y-%m-%dt%H-%M-%Sz")
        for reference in ("latest", young):
            answer = await self.mirror.ask(f"/v2/as-of/{then}/{NAME}/{REPOSITORY}/manifests/{reference}")
            self.assertNotEqual(answer.header("Docker-Content-Digest"), str(young))
            self.assertEqual(answer.status, 403)
        self.seconds.advance(THREE_DAYS)
        self.is_of(await self.mirror.manifest("latest"), young)


class Processes(CooldownCase):
    """Two processes on one cache."""

    def make_catalog(self) -> Any:
        self.directory = self.mktemp()
        return self.open_catalog(self.directory)

    async def test_worker(self) -> None:
        """What one process learned holds for another: an old index's children, a young tag, after a restart too."""
        other = self.start(catalog=self.open_catalog(self.directory))
        index = self.upstream.add_two_platforms(REPOSITORY)
        await self.mirror.manifest("latest", method="HEAD")
        self.seconds.advance(THREE_DAYS)
        answer = await self.mirror.manifest("latest")
        for entry in answer.json["manifests"]:
            self.assertEqual((await other.manifest(entry["digest"])).status, 200)
        new = self.move(b"new")
        self.seconds.advance(61)
        self.is_of(await self.mirror.manifest("latest", method="HEAD"), index, "cooldown")
        self.is_of(await other.manifest("latest"), index, "cooldown")
        self.is_denied(await other.manifest(new))
        again = self.start(catalog=self.open_catalog(self.directory))
        self.is_of(await again.manifest("latest"), index, "cooldown")
        self.is_denied(await again.manifest(new))


class Week(CooldownCase):
    """A simulated week."""

    on_new = OnNew.SERVE

    async def test_nightly(self) -> None:
        """A tag that moves each night is pulled each morning of a week: no pull fails, none gets less than 3 days."""
        nights = []
        got = []
        for day in range(8):
            nights.append(self.upstream.add_two_platforms(REPOSITORY) if day == 0 else self.night(day))
            self.seconds.advance(DAY / 2)
            answer = await self.mirror.manifest("latest")
            self.assertEqual(answer.status, 200)
            digest = Digest.parse(str(answer.header("Docker-Content-Digest")))
            got.append((nights.index(digest), detail_of(answer)))
            for entry in answer.json["manifests"]:
                child = await self.mirror.manifest(entry["digest"])
                self.assertEqual((child.status, detail_of(child)), (200, None if day >= 3 else "cooldown-new"))
            self.seconds.advance(DAY / 2)
        new = [(day, "cooldown-new") for day in range(3)]
        self.assertEqual(got, [*new, *((day - 3, "cooldown") for day in range(3, 8))])

    def night(self, day: int) -> Digest:
        children = {
            name: self.upstream.add_image(REPOSITORY, None, [f"{name} of day {day}".encode()], architecture=name)
            for name in ("amd64", "arm64")
        }
        return self.upstream.add_index(REPOSITORY, "latest", children)


class Private(CooldownCase):
    """Clients log in to the upstream."""

    auth = AuthMode.TRANSPARENT

    async def test_strangers_learn_nothing(self) -> None:
        """Who may not read a repository is refused as the upstream refuses, and told nothing of what is in it."""
        self.upstream.auth = Auth("bearer", private={REPOSITORY}, accounts={"ann": "pw"})
        ann = self.upstream.auth.add_token("ann", frozenset({REPOSITORY}), self.seconds.now * 10)
        old, new = self.move(b"old"), None
        await self.mirror.manifest("latest", ann)
        self.seconds.advance(THREE_DAYS)
        self.is_of(await self.mirror.manifest("latest", ann), old)
        new = self.move(b"new")
        self.seconds.advance(61)
        self.is_of(await self.mirror.manifest("latest", ann), old, "cooldown")
        self.is_denied(await self.mirror.manifest(new, ann))
        stranger = (await self.mirror.token()).json["token"]
        for reference in ("latest", new, old):
            for method in ("GET", "HEAD"):
                answer = await self.mirror.manifest(reference, stranger, method=method)
                self.assertEqual(answer.status, 401)
                self.assertNotIn(b"first seen", answer.body)


class Failing(CooldownCase):
    """A cache that cannot be used."""

    async def test_no_cache(self) -> None:
        """Nobody knows how old anything is: `deny` refuses, the others serve."""
        self.move(b"new")
        for on_new, status in ((OnNew.DENY, 503), (OnNew.SERVE, 200), (OnNew.OBSERVE, 200)):
            mirror = self.start(on_new=on_new, cached=False)
            for method in ("GET", "HEAD"):
                self.assertEqual((await mirror.manifest("latest", method=method)).status, status)

    async def test_forgotten(self) -> None:
        """A catalog that forgot everything makes what is cached new, and nothing older than it is."""
        await self.settled()
        await self.mirror.stop()
        self.mirror = self.start(catalog=self.make_catalog())
        self.is_denied(await self.mirror.manifest("latest"))
