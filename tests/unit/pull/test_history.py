"""What docxy remembers of where tags pointed, however it learns of it."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from base64 import b64encode
from typing import Any

from docxy.catalog.interfaces import Sighting
from docxy.names import Digest
from docxy.observe.alerts import Event, EventType
from docxy.settings.model import AuthMode
from tests.fakes import Auth
from tests.unit.pull.harness import NAME, REPOSITORY, MirrorCase


class Learnt(MirrorCase):
    """One upstream whose tags move."""

    async def setUp(self) -> None:
        await super().setUp()
        self.history = self.catalog.upstream(NAME).history
        self.began = self.seconds.now

    def move(self, layer: bytes) -> Digest:
        """The tag points at another image from now on."""
        return self.upstream.add_image(REPOSITORY, layers=[layer])

    async def changes(self) -> list[tuple[Digest | None, float]]:
        """The oldest first."""
        found = await self.history.changes(REPOSITORY, "latest", 10)
        return [(each.digest, round(each.at - self.began)) for each in reversed(found)]

    async def test_by_any_request(self) -> None:
        """A cold HEAD, a GET of what moved, a revalidation by HEAD: each change is noted when it is seen, once."""
        one = self.move(b"one")
        await self.mirror.manifest("latest", method="HEAD")
        self.seconds.advance(100)
        await self.mirror.manifest("latest")
        two = self.move(b"two")
        self.seconds.advance(100)
        await self.mirror.manifest("latest")
        three = self.move(b"three")
        self.seconds.advance(100)
        await self.mirror.manifest("latest", method="HEAD")
        self.seconds.advance(100)
        await self.mirror.manifest("latest")
        self.assertEqual(await self.changes(), [(one, 0), (two, 200), (three, 300)])
        self.assertEqual(await self.history.sighting(REPOSITORY, three), Sighting(self.began + 300))

    async def test_gone(self) -> None:
        """That the registry deleted a tag is a change; so is that it came back."""
        one = self.move(b"one")
        await self.mirror.manifest("latest")
        tags = self.upstream.repositories[REPOSITORY].tags
        del tags["latest"]
        self.seconds.advance(100)
        self.assertEqual((await self.mirror.manifest("latest")).status, 404)
        tags["latest"] = str(one)
        self.seconds.advance(100)
        await self.mirror.manifest("latest")
        self.assertEqual(await self.changes(), [(one, 0), (None, 100), (one, 200)])

    async def test_told(self) -> None:
        """That a tag moved or vanished is an event, once; that it is seen for the first time is none."""
        told: list[Event] = []
        model: Any = self.mirror.served.recorder._send
        model.__self__.model.alerts.subscribe(told.append)
        one = self.move(b"one")
        await self.mirror.manifest("latest")
        two = self.move(b"two")
        self.seconds.advance(100)
        for method in ("HEAD", "GET"):
            await self.mirror.manifest("latest", method=method)
        del self.upstream.repositories[REPOSITORY].tags["latest"]
        self.seconds.advance(100)
        for _ in range(2):
            await self.mirror.manifest("latest")
        subject = f"{NAME}/{REPOSITORY}:latest"
        self.assertEqual(
            [(event.type, event.subject, dict(event.data)) for event in told],
            [
                (EventType.TAG_MOVED, subject, {"digest": str(two), "previous": str(one)}),
                (EventType.TAG_VANISHED, subject, {"digest": None, "previous": str(two)}),
            ],
        )

    async def test_kept_though_gone(self) -> None:
        """The same where docxy goes on serving what is gone."""
        self.mirror = self.start(keep_gone=True)
        one = self.move(b"one")
        await self.mirror.manifest("latest")
        tags = self.upstream.repositories[REPOSITORY].tags
        del tags["latest"]
        for _ in range(2):
            self.seconds.advance(100)
            self.assertEqual((await self.mirror.manifest("latest")).status, 200)
        tags["latest"] = str(one)
        self.seconds.advance(100)
        await self.mirror.manifest("latest")
        self.assertEqual(await self.changes(), [(one, 0), (None, 100), (one, 300)])

    async def test_index(self) -> None:
        """What an index names is as old as docxy knows the index, though it is fetched later, by HEAD first."""
        self.upstream.add_two_platforms(REPOSITORY)
        index = self.upstream.repositories[REPOSITORY].manifest("latest")
        assert index is not None
        await self.mirror.manifest("latest", method="HEAD")
        self.seconds.advance(86400)
        await self.mirror.manifest("latest")
        for entry in index.parsed()["manifests"]:
            child = Digest.parse(entry["digest"])
            self.assertEqual(await self.history.sighting(REPOSITORY, child), Sighting(self.began))

    async def test_by_digest(self) -> None:
        """A digest is seen when the registry has it; asking for one that it has not makes none known."""
        one = self.upstream.add_image(REPOSITORY, None)
        other = Digest.of(b"not there yet")
        self.assertEqual((await self.mirror.manifest(other)).status, 404)
        self.assertEqual((await self.mirror.manifest(other, method="HEAD")).status, 404)
        self.assertIsNone(await self.history.sighting(REPOSITORY, other))
        await self.mirror.manifest(one, method="HEAD")
        self.seconds.advance(100)
        await self.mirror.manifest(one)
        self.assertEqual(await self.history.sighting(REPOSITORY, one), Sighting(self.began))


class Private(MirrorCase):
    """Clients log in to the upstream."""

    auth = AuthMode.TRANSPARENT

    async def test_refused(self) -> None:
        """What a registry says to who may not read a repository is no news of its tags."""
        self.upstream.auth = Auth("bearer", private={REPOSITORY}, accounts={"ann": "secret"}, denied_status=404)
        image = self.upstream.add_image(REPOSITORY)
        login = {"Authorization": f"Basic {b64encode(b'ann:secret').decode()}"}
        answer = await self.mirror.ask(f"/auth/token?scope=repository:{REPOSITORY}:pull", dict(login))
        self.assertEqual((await self.mirror.manifest("latest", answer.json["token"])).status, 200)
        self.seconds.advance(200)
        stranger = (await self.mirror.token()).json["token"]
        self.assertEqual((await self.mirror.manifest("latest", stranger)).status, 404)
        found = await self.catalog.upstream(NAME).history.changes(REPOSITORY, "latest", 10)
        self.assertEqual([each.digest for each in found], [image])
