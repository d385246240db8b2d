"""An upstream that breaks off, changes its mind or sends wrong bytes under a fill."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import random
import secrets

from twisted.internet.defer import Deferred, gatherResults

from docxy.names import Digest
from docxy.pull.blobs import far
from docxy.settings.model import AuthMode, Timeouts
from tests.fakes import Auth, Cdn, Fault, Pattern
from tests.unit.pull.harness import REPOSITORY, Mirror, MirrorCase, drain

MIB = 1 << 20
BLOB = Pattern(2 * MIB + 5)
WHOLE = BLOB.read(0, BLOB.size)


class Resumed(MirrorCase):
    """What clients do not notice."""

    async def right(self, count: int = 2, mirror: Mirror | None = None) -> None:
        answers = await gatherResults(
            [Deferred.fromCoroutine((mirror or self.mirror).blob(BLOB.digest)) for _ in range(count)]
        )
        self.assertEqual({each.body == WHOLE for each in answers}, {True})

    def asked(self, kind: str = "blob") -> list[str | None]:
        return [each.headers.get("range") for each in self.upstream.select(kind)]

    async def test_cut_at_random(self) -> None:
        """Cut at 10 random offsets, the fetch goes on from the last byte each time; no byte comes twice."""
        seed = secrets.randbits(32)
        offsets = sorted(random.Random(seed).sample(range(1, BLOB.size), 10))
        self.upstream.add_blob(REPOSITORY, BLOB)
        for start, cut in zip([0, *offsets], offsets, strict=False):
            self.upstream.on("blob", Fault(cut_after=cut - start))
        try:
            await self.right()
            self.assertEqual(self.asked(), [None, *(f"bytes={each}-" for each in offsets)])
            self.assertEqual(self.upstream.blob_bytes_sent, BLOB.size)
        except BaseException:
            print(f"seed {seed}")  # noqa: T201 (for whoever has to find out why)
            raise
        self.saw(GET_blob=11)

    async def test_dropped(self) -> None:
        """Connections dropped or reset before and after the headers, and a 503 in between, are tried again."""
        self.upstream.add_blob(REPOSITORY, BLOB)
        for fault in (Fault(cut_after=MIB, reset=True), Fault(drop=True), Fault(status=503)):
            self.upstream.on("blob", fault)
        await self.right()
        self.saw(GET_blob=4)

    async def test_silent(self) -> None:
        """An upstream that says nothing any more is left, and asked again."""
        mirror = self.start(timeouts=Timeouts(silence=1.0))
        self.upstream.add_blob(REPOSITORY, BLOB)
        self.upstream.on("blob", Fault(stall_after=MIB))
        await self.right(mirror=mirror)
        self.assertEqual(self.asked(), [None, f"bytes={MIB}-"])

    async def test_fresh_redirect(self) -> None:
        """What a CDN cut is asked for again at the original URL: the old signature has expired."""
        self.upstream.cdn = Cdn(lifetime=300)
        self.upstream.seconds = self.seconds
        self.upstream.add_blob(REPOSITORY, BLOB)
        rule = self.upstream.on("cdn", Fault(stall_after=MIB, cut_after=MIB + 1))
        pulled = Deferred.fromCoroutine(self.right())
        await rule.struck()
        self.seconds.advance(301)
        rule.release()
        await pulled
        self.assertEqual(self.asked("cdn"), [None, f"bytes={MIB + 1}-"])
        queries = [each.raw_query for each in self.upstream.select("cdn")]
        self.assertNotEqual(queries[0], queries[1])
        self.saw(GET_blob=2, GET_cdn=2)

    async def test_fresh_token(self) -> None:
        """In none mode docxy gets itself another token when the first one has ended meanwhile."""
        self.upstream.auth = Auth("bearer")
        self.upstream.add_blob(REPOSITORY, BLOB)
        rule = self.upstream.on("blob", Fault(stall_after=MIB, cut_after=MIB + 1))
        pulled = Deferred.fromCoroutine(self.right())
        await rule.struck()
        self.upstream.auth.revoke()
        rule.release()
        await pulled
        # 401, token, cut; the old token refused, 401, token, the rest.
        self.saw(GET_blob=5, GET_token=2)

    async def test_no_ranges(self) -> None:
        """A server without Range support is read again from the start, compared, and gone on with."""
        self.upstream.ranges = False
        self.upstream.add_blob(REPOSITORY, BLOB)
        self.upstream.on("blob", Fault(cut_after=MIB))
        await self.right()
        self.assertEqual(self.upstream.blob_bytes_sent, MIB + BLOB.size)
        self.saw(GET_blob=2)

    async def test_next_client_resumes(self) -> None:
        """What a fill that was given up has is kept, and the next client's goes on from there."""
        self.upstream.add_blob(REPOSITORY, BLOB)
        rule = self.upstream.on("blob", Fault(stall_after=MIB))
        streamed = await self.mirror.stream(f"/v2/{REPOSITORY}/blobs/{BLOB.digest}")
        await rule.struck()
        await streamed.client.reached(MIB)
        streamed.client.vanish()
        await streamed.client.ended
        await self.mirror.stop()
        self.mirror = self.start()
        await self.right()
        self.assertEqual(self.asked(), [None, f"bytes={MIB}-"])
        self.assertEqual(self.upstream.blob_bytes_sent, BLOB.size)


class Wrong(MirrorCase):
    """What no client must take for the blob."""

    async def withheld(self, digest: Digest = BLOB.digest, most: int = BLOB.size - 1) -> None:
        """Two clients are cut off before the last byte, and nothing is kept."""
        path = f"/v2/{REPOSITORY}/blobs/{digest}"
        received = await gatherResults([Deferred.fromCoroutine(self.mirror.cut(path)) for _ in range(2)])
        self.assertTrue(all(each <= most for each in received))
        await drain(self.mirror, digest)
        self.assertIsNone(await self.store.stat(digest))

    async def right_after(self) -> None:
        self.upstream.requests.clear()
        self.assertEqual((await self.mirror.blob(BLOB.digest)).body, WHOLE)
        self.assertNotIn("range", self.upstream.requests[0].headers)
        self.saw(GET_blob=1)

    async def test_flipped(self) -> None:
        """A flipped bit: the last byte is withheld, nothing is kept, the next client fetches anew."""
        self.upstream.add_blob(REPOSITORY, BLOB)
        for at in (0, MIB, BLOB.size - 1):
            self.upstream.on("blob", Fault(flip=at))
            await self.withheld()
        await self.right_after()

    async def test_flipped_range(self) -> None:
        """A long range that holds the end of wrong bytes is cut before its last byte, too."""
        self.patch(far, "MOST", MIB)
        self.upstream.add_blob(REPOSITORY, BLOB)
        self.upstream.on("blob", Fault(flip=7), times=None)
        path = f"/v2/{REPOSITORY}/blobs/{BLOB.digest}"
        self.assertLessEqual(await self.mirror.cut(path, {"Range": f"bytes=-{MIB + 1}"}), MIB)

    async def test_flipped_short_range(self) -> None:
        """A short one goes out as it came, for whoever asked to check; nothing of it is kept."""
        self.upstream.add_blob(REPOSITORY, BLOB)
        self.upstream.on("blob", Fault(flip=BLOB.size - 1), times=2)
        answer = await self.mirror.blob(BLOB.digest, asked="bytes=-100")
        self.assertEqual(answer.body[:99], WHOLE[-100:-1])
        self.assertNotEqual(answer.body[99:], WHOLE[-1:])
        await drain(self.mirror, BLOB.digest)
        self.assertIsNone(await self.store.stat(BLOB.digest))

    async def test_other_bytes(self) -> None:
        """Other bytes at the second try (a server without ranges): withdrawn as soon as they differ."""
        self.upstream.ranges = False
        self.upstream.add_blob(REPOSITORY, BLOB)
        self.upstream.on("blob", Fault(cut_after=MIB))
        self.upstream.on("blob", Fault(flip=10))
        await self.withheld(most=MIB)
        self.assertLess(self.upstream.select("blob")[1].sent, BLOB.size)
        await self.right_after()

    async def test_other_size(self) -> None:
        """Another size at the second try."""
        self.upstream.add_blob(REPOSITORY, BLOB)
        self.upstream.on("blob", Fault(cut_after=MIB))
        self.upstream.on("blob", Fault(headers={"Content-Range": f"bytes {MIB}-{BLOB.size}/{BLOB.size + 1}"}))
        await self.withheld(most=MIB)
        await self.right_after()

    async def test_shrunk(self) -> None:
        """416 at the second try: there is less than was announced."""
        self.upstream.add_blob(REPOSITORY, BLOB)
        self.upstream.on("blob", Fault(cut_after=MIB))
        self.upstream.on("blob", Fault(status=416))
        await self.withheld(most=MIB)
        await self.right_after()

    async def test_too_short(self) -> None:
        """A blob that is shorter than it must be, with a length that agrees."""
        self.upstream.add_blob(REPOSITORY, BLOB)
        self.upstream.on("blob", Fault(body=WHOLE[:-1]))
        await self.withheld(most=BLOB.size - 2)
        await self.right_after()

    async def test_too_long(self) -> None:
        """A blob that is longer than it must be."""
        self.upstream.add_blob(REPOSITORY, BLOB)
        self.upstream.on("blob", Fault(body=WHOLE + b"x"))
        await self.withheld(most=BLOB.size)
        await self.right_after()

    async def test_length_too_small(self) -> None:
        """A length that says less than comes."""
        self.upstream.add_blob(REPOSITORY, BLOB)
        self.upstream.on("blob", Fault(length_delta=-1))
        await self.withheld(most=BLOB.size - 2)
        await self.right_after()

    async def test_length_too_large(self) -> None:
        """A length that says more than comes: the second try shows the difference."""
        self.upstream.add_blob(REPOSITORY, BLOB)
        self.upstream.on("blob", Fault(length_delta=1))
        await self.withheld(most=BLOB.size)
        await self.right_after()

    async def test_gone(self) -> None:
        """404 after the start: clients are cut off, and the blob is BLOB_UNKNOWN from then on."""
        self.upstream.add_blob(REPOSITORY, BLOB)
        self.upstream.on("blob", Fault(cut_after=MIB))
        self.upstream.on("blob", Fault(status=404), times=None)
        await self.withheld(most=MIB)
        self.assertLessEqual(self.upstream.count("blob"), 4)
        self.assertEqual((await self.mirror.blob(BLOB.digest)).code, "BLOB_UNKNOWN")

    async def test_html(self) -> None:
        """A captive portal's page is no blob, for whoever asks while it is there."""
        self.upstream.add_blob(REPOSITORY, BLOB)
        # A page is so short that the first client's fetch may be over before the second one asks.
        portal = self.upstream.on("blob", Fault.html_page(), times=None)
        await self.withheld(most=60)
        portal.cancel()
        await self.right_after()


class TakenOver(MirrorCase):
    auth = AuthMode.TRANSPARENT

    async def test_another_client_s_right(self) -> None:
        """When the token of the client that started a fill is refused on resume, a joined client's serves."""
        self.upstream.auth = Auth("bearer")
        self.upstream.add_image(REPOSITORY)
        self.upstream.add_blob(REPOSITORY, BLOB)
        first, second = [str((await self.mirror.token()).json["token"]) for _ in range(2)]
        for token in (first, second):
            await self.mirror.manifest("latest", token)
        rule = self.upstream.on("blob", Fault(stall_after=MIB, cut_after=MIB + 1))
        path = f"/v2/{REPOSITORY}/blobs/{BLOB.digest}"
        pulls = [await self.mirror.stream(path, {"Authorization": f"Bearer {token}"}) for token in (first, second)]
        await rule.struck()
        pulls.append(await self.mirror.stream(path, {"Authorization": f"Bearer {first}"}))
        await gatherResults([pull.client.reached(MIB) for pull in pulls])
        del self.upstream.auth.tokens[first]
        rule.release()
        await gatherResults([pull.client.ended for pull in pulls])
        self.assertEqual({pull.client.body == WHOLE for pull in pulls}, {True})
        sent = [each.headers["authorization"] for each in self.upstream.select("blob")]
        # The one that joined last is asked with first.
        self.assertEqual(sent, [f"Bearer {first}", f"Bearer {first}", f"Bearer {second}"])
