"""`fill = "touched"`: ranges of blobs that nobody wants whole, fetched where clients read and nowhere else."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults

from docxy import assembly
from docxy.names import Digest
from docxy.pull.blobs import touched
from docxy.pull.blobs.touched import Touched, reads_here_and_there
from docxy.ranges import Range
from docxy.settings.model import FillMode
from docxy.storage.filesystem import FilesystemStore
from docxy.storage.interfaces import IScratch, NoSpace
from tests.fakes import Fault, Pattern
from tests.harness.client import Answer
from tests.unit.pull.harness import BUDGET, REPOSITORY, Mirror, MirrorCase
from tests.unit.storage.fixtures import in_thread

reactor: Any = _reactor

KIB, MIB = 1 << 10, 1 << 20
BLOB = Pattern(12 * MIB + 5)
SIZE = BLOB.size
LEAST = 64 * KIB


class TouchedCase(MirrorCase):
    """A large blob in small: a part has 64 KiB at least."""

    async def setUp(self) -> None:
        self.patch(touched, "LEAST", LEAST)
        self.tables: list[Touched] = []

        def made() -> Touched:
            self.tables.append(Touched())
            return self.tables[-1]

        self.patch(assembly, "Touched", made)
        await super().setUp()
        self.digest = self.upstream.add_blob(REPOSITORY, BLOB)
        self.path = f"/v2/{REPOSITORY}/blobs/{self.digest}"

    def start(self, **changed: Any) -> Mirror:
        return super().start(**{"changed": {"fill": FillMode.TOUCHED}, **changed})

    @property
    def table(self) -> Touched:
        return self.tables[-1]

    def asked(self) -> list[str]:
        """What of blobs the upstream was asked for, in its order."""
        return [request.headers.get("range", "all") for request in self.upstream.select("blob")]

    async def range(self, first: int, stop: int, blob: Pattern = BLOB, digest: Digest | None = None) -> Answer:
        answer = await self.mirror.blob(digest or self.digest, asked=f"bytes={first}-{stop - 1}")
        self.assertEqual((answer.status, answer.body == blob.read(first, stop - first)), (206, True))
        return answer

    def told(self, answer: Answer) -> str | None:
        return answer.header("Cache-Status")

    async def nothing_kept(self) -> None:
        self.assertEqual(len(self.mirror.fills), 0)
        self.assertIsNone(await self.store.open(self.digest))


class Lazy(TouchedCase):
    async def test_lazy_reader(self) -> None:
        """Footer, table of contents, chunks anywhere: what a client reads is fetched, and nothing else."""
        footer = await self.mirror.blob(self.digest, asked="bytes=-51")
        self.assertEqual((footer.status, footer.body == BLOB.read(SIZE - 51, 51)), (206, True))
        await self.range(SIZE - 200 * KIB, SIZE - 51)
        for first in (6 * MIB, 2 * MIB, 0):
            await self.range(first, first + 100 * KIB)
        self.assertEqual(
            self.asked(),
            [
                "bytes=-51",
                f"bytes={SIZE - 200 * KIB}-{SIZE - 52}",
                *(f"bytes={first}-{first + 100 * KIB - 1}" for first in (6 * MIB, 2 * MIB, 0)),
            ],
        )
        await self.nothing_kept()

    async def test_again(self) -> None:
        """Who reads the same bytes afterwards, or bytes beside them within the part, has the upstream asked nothing."""
        first = await self.range(6 * MIB, 6 * MIB + 10)
        await self.range(6 * MIB + 500, 6 * MIB + LEAST)
        again = await self.range(6 * MIB, 6 * MIB + 10)
        self.assertEqual(self.asked(), [f"bytes={6 * MIB}-{6 * MIB + LEAST - 1}"])
        self.assertEqual(
            [self.told(each) for each in (first, again)],
            ["docxy; fwd=miss; detail=touched", "docxy; hit; detail=touched"],
        )

    async def test_same_at_once(self) -> None:
        """Many clients of a cold range are one request."""
        rule = self.upstream.on("blob", Fault(stall_headers=True))
        ranges = [Deferred.fromCoroutine(self.range(8 * MIB, 8 * MIB + 60 * KIB)) for _ in range(20)]
        await rule.struck()
        rule.release()
        await gatherResults(ranges)
        self.assertEqual(len(self.asked()), 1)

    async def test_between(self) -> None:
        """A range over parts that are here and bytes that are not has those fetched."""
        await self.range(2 * MIB, 2 * MIB + LEAST)
        await self.range(2 * MIB + 2 * LEAST, 2 * MIB + 3 * LEAST)
        self.upstream.requests.clear()
        await self.range(2 * MIB, 2 * MIB + 3 * LEAST)
        self.assertEqual(self.asked(), [f"bytes={2 * MIB + LEAST}-{2 * MIB + 2 * LEAST - 1}"])

    async def test_long(self) -> None:
        """A range longer than a part is several."""
        self.patch(touched, "MOST", MIB)
        await self.range(5 * MIB, 9 * MIB)
        self.assertEqual(len(self.asked()), 4)
        await self.nothing_kept()

    async def test_manifests(self) -> None:
        """A manifest that lists it is no reason to fetch it ahead."""
        self.mirror = self.start(prefetch=True, store=self.make_store(), catalog=self.make_catalog())
        self.upstream.add_image(REPOSITORY, "1")
        await self.mirror.manifest("1")
        await self.range(6 * MIB, 6 * MIB + 10)
        self.assertEqual(len(self.asked()), 1)


class Whole(TouchedCase):
    async def test_whole(self) -> None:
        """Who wants all of it has it filled and verified, whatever parts are here; ranges then come from the cache."""
        await self.range(6 * MIB, 6 * MIB + 10)
        streamed = await self.mirror.stream(self.path, keep=False)
        await streamed.client.ended
        self.assertEqual(streamed.client.digest, str(self.digest))
        self.assertIsNotNone(await self.store.stat(self.digest))
        self.assertEqual(self.asked()[1:], ["all"])
        self.assertEqual(self.told(await self.range(6 * MIB, 6 * MIB + 10)), "docxy; hit")
        self.assertEqual(self.told(await self.range(3 * MIB, 3 * MIB + 10)), "docxy; hit")

    async def test_wrong_parts(self) -> None:
        """Wrong bytes of a range do not get into a blob."""
        self.upstream.on("blob", Fault(flip=6 * MIB + 3))
        wrong = await self.mirror.blob(self.digest, asked=f"bytes={6 * MIB}-{6 * MIB + 9}")
        self.assertNotEqual(wrong.body, BLOB.read(6 * MIB, 10))
        streamed = await self.mirror.stream(self.path, keep=False)
        await streamed.client.ended
        self.assertEqual((streamed.client.whole, streamed.client.digest), (True, str(self.digest)))

    async def test_while_filling(self) -> None:
        """While somebody has all of it fetched a range belongs to that fill."""
        rule = self.upstream.on("blob", Fault(stall_after=MIB))
        streamed = await self.mirror.stream(self.path, keep=False)
        await streamed.client.reached(MIB)
        self.assertIn("collapsed", str(self.told(await self.range(0, 10))))
        self.assertEqual(len(self.table), 0)
        rule.release()
        await streamed.client.ended
        self.assertEqual(streamed.client.digest, str(self.digest))

    async def test_rest(self) -> None:
        """What goes on with an interrupted pull of a whole blob fills it."""
        answer = await self.mirror.blob(self.digest, asked=f"bytes={MIB}-")
        self.assertEqual((answer.status, len(answer.body)), (206, SIZE - MIB))
        end = self.mirror.fills.end(self.digest)
        if end is not None:
            await end
        self.assertIsNotNone(await self.store.stat(self.digest))

    def test_which(self) -> None:
        """Ranges with both ends and short ones at the end are pieces; all of a blob and long rests are not."""
        for asked, size, piece in (
            (Range(0, 99), None, True),
            (Range(0, 99), 100, False),
            (Range(0, 98), 100, True),
            (Range(0, None), 100, False),
            (Range(5, None), 100, True),
            (Range(5, None), None, False),
            (Range(5, None), 1 << 30, False),
            (Range(None, 51), None, True),
            (Range(None, 1 << 29), 1 << 30, False),
            (Range(9, 5), 100, False),
        ):
            self.assertEqual(reads_here_and_there(asked, size), piece, (asked, size))


class Refused(TouchedCase):
    async def test_without_ranges(self) -> None:
        """An upstream that sends all of it for a range has it filled, and is not tried for parts again."""
        self.upstream.ranges = False
        await self.range(6 * MIB, 6 * MIB + 10)
        await self.range(9 * MIB, 9 * MIB + 10)
        end = self.mirror.fills.end(self.digest)
        if end is not None:
            await end
        self.assertIsNotNone(await self.store.stat(self.digest))
        self.assertEqual(len(self.asked()), 2)
        other = Pattern(12 * MIB, "other")
        await self.range(6 * MIB, 6 * MIB + 10, other, self.upstream.add_blob(REPOSITORY, other))
        self.assertEqual(len(self.asked()), 3)

    async def test_unknown(self) -> None:
        """What the upstream does not have is a 404; what is not within it, a 416."""
        other = self.upstream.add_blob("team/other", Pattern(MIB, "other"))
        self.assertEqual((await self.mirror.blob(other, asked="bytes=5-10")).status, 404)
        self.assertEqual((await self.mirror.blob(self.digest, asked=f"bytes={SIZE}-{SIZE + 9}")).status, 416)
        await self.range(0, 10)
        self.assertEqual((await self.mirror.blob(self.digest, asked=f"bytes={SIZE}-{SIZE + 9}")).status, 416)

    async def test_other_repository(self) -> None:
        """Parts are shown under another repository only after the upstream served the blob there."""
        await self.range(0, 10)
        path = f"/v2/team/other/blobs/{self.digest}"
        self.assertEqual((await self.mirror.ask(path, {"Range": "bytes=0-9"})).status, 404)
        self.upstream.add_blob("team/other", BLOB)
        self.upstream.requests.clear()
        answer = await self.mirror.ask(path, {"Range": "bytes=0-9"})
        self.assertEqual((answer.status, answer.body), (206, BLOB.read(0, 10)))
        self.assertEqual(self.asked(), ["bytes=0-0"])

    async def test_cut(self) -> None:
        """Where the upstream breaks off a part, the client has the rest fetched past it."""
        self.upstream.on("blob", Fault(cut_after=10 * KIB))
        await self.range(6 * MIB, 6 * MIB + 60 * KIB)
        self.assertEqual(self.asked()[1:], [f"bytes={6 * MIB + 10 * KIB}-{6 * MIB + 60 * KIB - 1}"])

    async def test_denied(self) -> None:
        """After a refusal of a part the next client asks in its own name."""
        await self.range(0, 10)
        self.upstream.on("blob", Fault(status=403))
        await self.range(6 * MIB, 6 * MIB + 10)
        await self.range(6 * MIB, 6 * MIB + 10)
        self.assertEqual(len(self.asked()), 1 + 2 + 1)

    async def test_no_room(self) -> None:
        """Where nothing can be kept, clients are served past it."""

        async def full() -> IScratch:
            raise NoSpace("full")

        await self.range(0, 10)
        pieces = self.table.of("fake.test", self.digest)
        self.patch(pieces, "_scratch", full)
        await self.range(6 * MIB, 6 * MIB + 10)
        self.assertEqual(self.asked()[1:], [f"bytes={6 * MIB}-{6 * MIB + 9}"])

    async def test_client_goes(self) -> None:
        """A client that goes away ends nothing: the next one has what it asked for."""
        stalled = self.upstream.on("blob", Fault(stall_after=10 * KIB))
        client = await self.mirror.stream(self.path, {"Range": f"bytes={6 * MIB}-{6 * MIB + 60 * KIB - 1}"})
        await client.client.reached(10 * KIB)
        client.client.vanish()
        await client.client.ended
        stalled.release()
        await self.range(6 * MIB, 6 * MIB + 60 * KIB)
        self.assertEqual(len(self.asked()), 1)

    async def test_forgotten(self) -> None:
        """What the operator removes is not served from here, either."""
        await self.range(6 * MIB, 6 * MIB + 10)
        self.table.forget_all([str(self.digest)])
        self.assertEqual(len(self.table), 0)
        await self.range(6 * MIB, 6 * MIB + 10)
        self.assertEqual(len(self.asked()), 2)

    async def test_stop(self) -> None:
        """At the stop what is under way ends."""
        rule = self.upstream.on("blob", Fault(stall_after=10 * KIB))
        client = await self.mirror.stream(self.path, {"Range": f"bytes={6 * MIB}-{6 * MIB + 60 * KIB}"})
        await client.client.reached(10 * KIB)
        client.client.vanish()
        await client.client.ended
        await self.mirror.stop()
        self.assertEqual((len(self.table), self.table.demands.running, self.table.demands.held), (0, 0, 0))
        rule.release()


class Bounds(TouchedCase):
    async def test_parts(self) -> None:
        """So many parts are kept; the one that was read longest ago goes first."""
        self.patch(touched, "PARTS", 3)
        for at in (1, 2, 3, 1, 4):
            await self.range(at * MIB, at * MIB + 10)
        self.assertEqual(len(self.table), 3)
        self.upstream.requests.clear()
        for at in (1, 3, 4, 2):
            await self.range(at * MIB, at * MIB + 10)
        self.assertEqual(self.asked(), [f"bytes={2 * MIB}-{2 * MIB + LEAST - 1}"])

    async def test_bytes(self) -> None:
        """So many bytes are kept."""
        self.patch(touched, "BYTES", 3 * LEAST)
        for at in range(1, 9):
            await self.range(at * MIB, at * MIB + 10)
        self.assertLessEqual(self.table.bytes, 3 * LEAST)

    async def test_at_once(self) -> None:
        """So many are under way at once; who gets none is served past them, and nothing of it is kept."""
        self.patch(touched, "AT_ONCE", 2)
        stalled = self.upstream.on("blob", Fault(stall_headers=True), times=2)
        blobs = [Pattern(MIB, seed) for seed in "abc"]
        digests = [self.upstream.add_blob(REPOSITORY, blob) for blob in blobs]
        ranges = [
            Deferred.fromCoroutine(self.range(5, 9, blob, digest))
            for blob, digest in zip(blobs[:2], digests[:2], strict=True)
        ]
        await stalled.struck(2)
        await self.range(5, 9, blobs[2], digests[2])
        self.assertEqual((self.asked()[2:], len(self.table)), (["bytes=5-8"], 0))
        stalled.release()
        await gatherResults(ranges)

    async def test_blobs(self) -> None:
        """So many blobs are remembered."""
        self.patch(self.table, "_blobs", touched._Blobs(2))
        for seed in "abc":
            blob = Pattern(MIB, seed)
            await self.range(5, 9, blob, self.upstream.add_blob(REPOSITORY, blob))
        self.assertEqual(len(self.table), 2)


class ToDisk(Lazy):
    """The same with files."""

    def make_store(self) -> FilesystemStore:
        store = FilesystemStore(self.mktemp(), BUDGET, reactor, in_thread())
        store.start()
        self.addCleanup(store.stop)
        return store
