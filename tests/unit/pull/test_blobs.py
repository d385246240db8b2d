"""Blobs: one upstream fetch, any number of clients, ranges at once."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import hashlib

from twisted.internet.defer import Deferred, gatherResults

from docxy.names import Digest
from docxy.pull.blobs import cache, fills
from docxy.pull.blobs.cache import _shown
from docxy.settings.model import AuthMode
from docxy.storage.interfaces import State
from docxy.storage.memory import MemoryStore
from tests.fakes import Auth, Fault, Pattern
from tests.unit.pull.harness import REPOSITORY, MirrorCase, Streamed, drain

MIB = 1 << 20
SMALL = Pattern(3 * MIB + 17)

MISS = "docxy; fwd=miss; stored"
COLLAPSED = "docxy; fwd=miss; collapsed"
HIT = "docxy; hit"


class Shared(MirrorCase):
    """What holds in every mode."""

    async def stream_blob(self, digest: object, paused: bool = False) -> Streamed:
        return await self.mirror.stream(f"/v2/{REPOSITORY}/blobs/{digest}", keep=False, paused=paused)

    async def fan_out(self, **headers: str) -> None:
        """100 clients on one cold blob whose upstream stalls half way: one GET, and nobody waits for the end."""
        digest = self.upstream.add_blob(REPOSITORY, SMALL)
        rule = self.upstream.on(
            "blob", Fault(stall_after=2 * MIB), method="GET", skip=len(self.upstream.select("blob"))
        )
        path = f"/v2/{REPOSITORY}/blobs/{digest}"
        asked = [Deferred.fromCoroutine(self.mirror.stream(path, dict(headers), keep=False)) for _ in range(100)]
        got = await gatherResults(asked)
        await gatherResults([each.client.reached(2 * MIB) for each in got])
        self.assertEqual({each.client.received for each in got}, {2 * MIB})
        rule.release()
        await gatherResults([each.client.ended for each in got])
        self.assertEqual({each.client.digest for each in got}, {str(digest)})
        self.assertTrue(all(each.client.whole and each.length == SMALL.size for each in got))
        self.assertEqual(sorted({each.cache_status for each in got}), sorted({MISS, COLLAPSED}))
        self.assertEqual([each.cache_status for each in got].count(MISS), 1)

    async def test_hundred_clients(self) -> None:
        """100 clients at once on a cold blob, its upstream stalled: all have the first part, one GET serves them."""
        await self.fan_out()
        self.assertEqual(self.upstream.blob_bytes_sent, SMALL.size)
        self.saw(GET_blob=1)

    async def test_late(self) -> None:
        """Who joins late gets what is there at once, then what comes; who comes after the end gets a hit."""
        digest = self.upstream.add_blob(REPOSITORY, SMALL)
        rule = self.upstream.on("blob", Fault(stall_after=MIB))
        first = await self.stream_blob(digest)
        await first.client.reached(MIB)
        late = await self.stream_blob(digest)
        await late.client.reached(MIB)
        self.assertEqual(late.client.received, MIB)
        rule.release()
        await gatherResults([first.client.ended, late.client.ended])
        self.assertEqual([first.client.digest, late.client.digest], [str(digest)] * 2)
        after = await self.mirror.blob(digest)
        self.assertEqual(after.body, SMALL.read(0, SMALL.size))
        self.assertEqual([first.cache_status, late.cache_status, after.cache_status], [MISS, COLLAPSED, HIT])
        self.saw(GET_blob=1)

    async def test_slow(self) -> None:
        """A client that takes nothing does not slow the fill, and gets everything once it reads."""
        blob = Pattern(24 * MIB)
        digest = self.upstream.add_blob(REPOSITORY, blob)
        slow = await self.stream_blob(digest, paused=True)
        await drain(self.mirror, digest)
        self.assertTrue(self.upstream.select("blob")[0].whole)
        self.assertLess(slow.client.received, blob.size)
        slow.client.resume()
        await slow.client.ended
        self.assertEqual(slow.client.digest, str(digest))
        self.saw(GET_blob=1)

    async def test_vanished(self) -> None:
        """When the only client goes away the fill goes on to its end; the next client costs nothing."""
        digest = self.upstream.add_blob(REPOSITORY, SMALL)
        rule = self.upstream.on("blob", Fault(stall_after=MIB))
        gone = await self.stream_blob(digest)
        await gone.client.reached(MIB)
        gone.client.vanish()
        await gone.client.ended
        rule.release()
        await drain(self.mirror, digest)
        self.assertEqual((await self.mirror.blob(digest)).cache_status, HIT)
        self.assertEqual(self.upstream.blob_bytes_sent, SMALL.size)
        self.saw(GET_blob=1)

    async def test_evicted(self) -> None:
        """A blob that the cache let go of is a miss again, and says so."""
        digest = self.upstream.add_blob(REPOSITORY, SMALL)
        await self.mirror.blob(digest)
        await self.store.delete(digest)
        self.assertEqual((await self.mirror.blob(digest)).cache_status, MISS)
        self.saw(GET_blob=2)

    async def test_empty(self) -> None:
        """A blob of no bytes is served and kept like any other."""
        digest = self.upstream.add_blob(REPOSITORY, b"")
        self.assertEqual((await self.mirror.blob(digest)).body, b"")
        await drain(self.mirror, digest)
        self.assertEqual((await self.mirror.blob(digest)).cache_status, HIT)
        self.saw(GET_blob=1)

    async def test_head(self) -> None:
        """HEAD tells the length without a download, cold by one byte, cached for nothing."""
        digest = self.upstream.add_blob(REPOSITORY, SMALL)
        cold = await self.mirror.blob(digest, method="HEAD")
        self.assertEqual((cold.header("Content-Length"), cold.cache_status), (str(SMALL.size), "docxy; fwd=miss"))
        self.assertEqual(self.upstream.blob_bytes_sent, 1)
        await self.mirror.blob(digest)
        self.upstream.requests.clear()
        warm = await self.mirror.blob(digest, method="HEAD")
        self.assertEqual((warm.header("Content-Length"), warm.cache_status), (str(SMALL.size), HIT))
        self.saw()

    async def test_missing(self) -> None:
        """A blob that the upstream does not have is BLOB_UNKNOWN, and there is no fill left of it."""
        self.upstream.add_blob(REPOSITORY, b"another")
        digest = SMALL.digest
        answer = await self.mirror.blob(digest)
        self.assertEqual((answer.status, answer.code), (404, "BLOB_UNKNOWN"))
        self.assertNotIn(digest, self.mirror.fills)
        self.upstream.add_blob(REPOSITORY, SMALL)
        self.assertEqual((await self.mirror.blob(digest)).status, 200)


class Shown(MirrorCase):
    async def test_wrong_before_a_byte(self) -> None:
        """Bytes of which nobody has seen one, and which turn out wrong, are shown to nobody: not as an error either."""
        joined = await self.store.join(Digest.of(b"a layer"))
        assert joined.writer is not None
        waiting = Deferred.fromCoroutine(_shown(joined.reader))
        self.assertNoResult(waiting)
        await joined.writer.reject()
        self.assertIsNone(await waiting)


class Bounds(MirrorCase):
    """Fills, and what leads to them, go on when clients are gone: each has a bound of its own."""

    async def test_fills(self) -> None:
        """Beyond so many fills a blob goes past the cache, whole; when one ends there is room again."""
        self.patch(fills, "MAX_FILLS", 2)
        digests = [self.upstream.add_blob(REPOSITORY, Pattern(MIB, str(number))) for number in range(3)]
        rule = self.upstream.on("blob", Fault(stall_after=1000), times=2)
        for digest in digests[:2]:
            client = await self.mirror.stream(f"/v2/{REPOSITORY}/blobs/{digest}", keep=False)
            await client.client.reached(1)
            client.client.vanish()
            await client.client.ended
        await rule.struck(2)
        for _ in range(2):
            answer = await self.mirror.blob(digests[2])
            self.assertEqual((answer.cache_status, len(answer.body)), ("docxy; fwd=bypass", MIB))
        self.assertEqual(len(self.mirror.fills), 2)
        rule.release()
        for digest in digests[:2]:
            await drain(self.mirror, digest)
        self.assertEqual((await self.mirror.blob(digests[2])).cache_status, MISS)

    async def test_openings(self) -> None:
        """The same for blobs that the upstream has not answered yet."""
        self.patch(cache, "MAX_OPENING", 2)
        digests = [self.upstream.add_blob(REPOSITORY, Pattern(MIB, str(number))) for number in range(3)]
        rule = self.upstream.on("blob", Fault(stall_headers=True), times=2)
        asked = [Deferred.fromCoroutine(self.mirror.blob(digest)) for digest in digests[:2]]
        await rule.struck(2)
        self.assertEqual((await self.mirror.blob(digests[2])).cache_status, "docxy; fwd=bypass")
        rule.release()
        self.assertEqual([answer.cache_status for answer in await gatherResults(asked)], [MISS] * 2)


class StandsStill(MirrorCase):
    async def test_waited_for_once(self) -> None:
        """A fill of another process that stands still without a byte: who waited for it is served past the cache."""
        digest = self.upstream.add_blob(REPOSITORY, SMALL)
        await self.mirror.blob(digest)
        await drain(self.mirror, digest)
        store = self.store
        assert isinstance(store, MemoryStore)
        await store.delete(digest)
        store.renew(digest).update(State.STALLED)
        waited_again: list[Digest] = []
        self.patch(store, "join", waited_again.append)
        answer = await self.mirror.blob(digest)
        self.assertEqual((answer.status, str(Digest.of(answer.body))), (200, str(digest)))
        self.assertEqual(waited_again, [])


class FanOut(Shared):
    async def test_large(self) -> None:
        """100 clients at once on a cold blob of 50 MB, each for another part and two for all of it: one fill.

        Where a far part is fetched first, what its connection's predecessor had under way is lost, and no more.
        """
        blob = Pattern(50_000_000)
        digest = self.upstream.add_blob(REPOSITORY, blob)
        part = blob.size // 98
        parts = [(first, min(first + part, blob.size)) for first in range(0, blob.size, part)]
        path = f"/v2/{REPOSITORY}/blobs/{digest}"
        asked: list[dict[str, str | list[str]]] = [{}, {}]
        asked += [{"Range": f"bytes={first}-{stop - 1}"} for first, stop in parts]
        got = await gatherResults(
            [Deferred.fromCoroutine(self.mirror.stream(path, headers, keep=False)) for headers in asked]
        )
        await gatherResults([each.client.ended for each in got])
        self.assertGreaterEqual(len(got), 100)
        self.assertTrue(all(each.client.whole for each in got))
        self.assertEqual([each.client.digest for each in got[:2]], [str(digest)] * 2)
        for (first, stop), each in zip(parts, got[2:], strict=True):
            expected = hashlib.sha256(blob.read(first, stop - first)).hexdigest()
            self.assertEqual((each.status, each.client.digest), (206, f"sha256:{expected}"))
        self.assertLess(self.upstream.blob_bytes_sent, 1.02 * blob.size)
        self.assertLess(len(self.upstream.requests), 2 * len(parts))


class TransparentFanOut(Shared):
    """The same promises when the client's own token goes up, after a manifest of the repository."""

    auth = AuthMode.TRANSPARENT

    async def setUp(self) -> None:
        await super().setUp()
        self.upstream.add_image(REPOSITORY, "latest")
        await self.mirror.manifest("latest")
        self.upstream.requests.clear()

    async def test_many_tokens(self) -> None:
        """Clients with tokens of their own cost one HEAD each for their verdicts, and one GET in all."""
        self.upstream.auth = Auth("bearer")
        tokens = [str((await self.mirror.token()).json["token"]) for _ in range(5)]
        await self.mirror.manifest("latest", tokens[0])
        digest = self.upstream.add_blob(REPOSITORY, SMALL)
        self.upstream.requests.clear()
        answers = await gatherResults([Deferred.fromCoroutine(self.mirror.blob(digest, each)) for each in tokens])
        self.assertEqual({each.body for each in answers}, {SMALL.read(0, SMALL.size)})
        self.saw(HEAD_manifest=4, GET_blob=1)


del Shared  # it is no case of its own


class Ranges(MirrorCase):
    async def check(self, digest: object, asked: str, first: int, stop: int) -> str:
        answer = await self.mirror.blob(digest, asked=asked)
        self.assertEqual(answer.status, 206)
        self.assertEqual(answer.header("Content-Range"), f"bytes {first}-{stop - 1}/{SMALL.size}")
        self.assertEqual(answer.body, SMALL.read(first, stop - first))
        return answer.cache_status

    async def test_cached(self) -> None:
        """Ranges of a cached blob: in the middle, open, past the end, a suffix, more than there is."""
        digest = self.upstream.add_blob(REPOSITORY, SMALL)
        await self.mirror.blob(digest)
        size = SMALL.size
        self.assertEqual(await self.check(digest, "bytes=100-70000", 100, 70001), HIT)
        self.assertEqual(await self.check(digest, f"bytes={size - 1}-", size - 1, size), HIT)
        self.assertEqual(await self.check(digest, f"bytes=5-{size}", 5, size), HIT)
        self.assertEqual(await self.check(digest, "bytes=-10", size - 10, size), HIT)
        self.assertEqual(await self.check(digest, f"bytes=-{size * 2}", 0, size), HIT)
        self.saw(GET_blob=1)

    async def test_cold(self) -> None:
        """A range of a cold blob is right at once, and the fill behind it is whole."""
        digest = self.upstream.add_blob(REPOSITORY, SMALL)
        rule = self.upstream.on("blob", Fault(stall_after=MIB))
        near = await self.mirror.blob(digest, asked="bytes=10-99")
        self.assertEqual((near.status, near.body), (206, SMALL.read(10, 90)))
        far = Deferred.fromCoroutine(self.check(digest, "bytes=-5", SMALL.size - 5, SMALL.size))
        middle = await self.mirror.blob(digest, asked=f"bytes=500000-{MIB - 1}")
        self.assertEqual(middle.body, SMALL.read(500000, MIB - 500000))
        self.assertNoResult(far)
        rule.release()
        self.assertEqual(await far, COLLAPSED)
        self.assertEqual((await self.mirror.blob(digest)).cache_status, HIT)
        self.assertNotIn("range", self.upstream.requests[0].headers)
        self.saw(GET_blob=1)

    async def test_chunks(self) -> None:
        """Open-ended, overlapping ranges that the client closes early cost one fill."""
        digest = self.upstream.add_blob(REPOSITORY, SMALL)
        chunk = 500_000
        for first in range(0, SMALL.size, chunk):
            part = await self.mirror.stream(f"/v2/{REPOSITORY}/blobs/{digest}", {"Range": f"bytes={first}-"})
            wanted = min(chunk, SMALL.size - first)
            await part.client.reached(wanted)
            self.assertEqual(part.client.body[:wanted], SMALL.read(first, wanted))
            if not part.client.whole:
                part.client.vanish()
            await part.client.ended
        self.assertEqual(self.upstream.blob_bytes_sent, SMALL.size)
        self.saw(GET_blob=1)

    async def test_several(self) -> None:
        """Several ranges at once are answered with the whole, never with one part."""
        digest = self.upstream.add_blob(REPOSITORY, SMALL)
        answer = await self.mirror.blob(digest, asked="bytes=0-9,20-29")
        self.assertEqual((answer.status, answer.body), (200, SMALL.read(0, SMALL.size)))

    async def test_outside(self) -> None:
        """A range past the end is 416 with the size, cold and cached."""
        digest = self.upstream.add_blob(REPOSITORY, SMALL)
        for _ in range(2):
            answer = await self.mirror.blob(digest, asked=f"bytes={SMALL.size}-")
            self.assertEqual((answer.status, answer.header("Content-Range")), (416, f"bytes */{SMALL.size}"))
            await drain(self.mirror, digest)
        # Cold, that range is asked for first; its refusal does not tell how large the blob is.
        self.saw(GET_blob=2)
