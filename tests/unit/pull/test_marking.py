"""Uses of blobs, as the archive learns of them."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from docxy.archive.calm import CalmArchive
from docxy.archive.links import Links
from docxy.names import Digest
from docxy.pull import marking
from docxy.pull.marking import Marking
from tests.fakes import Pattern
from tests.unit.pull.harness import REPOSITORY, drain, reactor
from tests.unit.pull.test_archived import ArchiveCase

DAY = 86400.0


class MarkingTests(ArchiveCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.calm = CalmArchive(self.archive, reactor)
        self.links = Links(self.calm, reactor)
        self.now = float(reactor.seconds()) // DAY * DAY + DAY / 2
        self.marking = Marking(self.calm, self.disk.ledger, self.links, lambda: self.now)

    async def used(self, seed: int) -> Digest:
        """A blob that a client pulled."""
        digest = self.upstream.add_blob(REPOSITORY, Pattern(70_000 + seed))
        await self.mirror.blob(digest)
        await drain(self.mirror, digest)
        return digest

    async def use(self, digest: Digest, ago: float = 0.0) -> None:
        """It is used, and that is written down."""
        await self.disk._indexed(self.disk._index.touch, {digest: reactor.seconds() - ago})

    def told(self) -> list[set[str]]:
        """What each record names, and forgets them; all are of one day."""
        records = {name: data for name, data in self.archive.records.items() if name.startswith("seen/")}
        self.assertLessEqual(len({name.split("/")[1] for name in records}), 1)
        for name in records:
            del self.archive.records[name]
        return [set(data.decode().split()) for data in records.values()]

    async def test_once_a_day(self) -> None:
        """All that was used is in one record; what was told today is not told again, and is tomorrow."""
        self.patch(marking, "LATE", 0.0)
        one, two = await self.used(1), await self.used(2)
        await self.marking.work()
        self.assertEqual(self.told(), [{str(one), str(two)}])
        three = await self.used(3)
        await self.use(one)
        await self.marking.work()
        self.assertEqual(self.told(), [{str(three)}])
        self.now += DAY
        await self.use(one)
        await self.marking.work()
        self.assertEqual(self.told(), [{str(one)}])

    async def test_late(self) -> None:
        """A use that another process wrote down late is told, though a later one was told before."""
        one, two = await self.used(1), await self.used(2)
        await self.marking.work()
        self.told()
        self.now += DAY
        for each in (one, two):
            await self.use(each, ago=-100.0)
        await self.marking.work()
        self.assertEqual(self.told(), [{str(one), str(two)}])
        three = self.upstream.add_blob(REPOSITORY, Pattern(80_000))
        await self.mirror.blob(three)
        await drain(self.mirror, three)
        await self.use(three, ago=-95.0)
        await self.marking.work()
        self.assertEqual(self.told(), [{str(three)}])

    async def test_restart(self) -> None:
        """A new process tells what was used within a day before it."""
        one = await self.used(1)
        await Marking(self.calm, self.disk.ledger, None, reactor.seconds).work()
        self.assertEqual(self.told(), [{str(one)}])

    async def test_sent_there(self) -> None:
        """What clients were sent to the archive for counts, too, whatever they got from memory."""
        digest = self.archived()
        for _ in range(3):
            await self.links.get(digest)
        await self.marking.work()
        self.assertEqual((self.told(), self.links.given(9)), ([{str(digest)}], []))
        await self.marking.work()
        self.assertEqual(self.told(), [])

    async def test_pages(self) -> None:
        """Many are told in several records."""
        self.patch(marking, "PAGE", 2)
        digests = {str(await self.used(seed)) for seed in range(5)}
        await self.marking.work()
        told = self.told()
        self.assertEqual((sorted(map(len, told)), set().union(*told)), ([1, 2, 2], digests))

    async def test_failing(self) -> None:
        """What an archive that fails did not take is told later."""
        digest, away = await self.used(1), self.archived()
        await self.links.get(away)
        self.archive.failing = True
        await self.marking.work()
        self.archive.failing = False
        self.calm.answered()
        await self.marking.work()
        self.assertEqual(self.told(), [{str(away)}, {str(digest)}])

    async def test_bound(self) -> None:
        """No more is remembered than the bound."""
        self.patch(marking, "MOST_TOLD", 3)
        self.patch(marking, "PAGE", 2)
        for seed in range(5):
            await self.used(seed)
        await self.marking.work()
        self.assertLessEqual(len(self.marking._told), 3)
