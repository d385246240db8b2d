"""Why a pull was slow or failed: each cause, made to happen, is named by the page and by the JSON.

Real sockets on loopback.  Time passes by a test's word alone, so that a wait of ten seconds takes none.
"""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

from twisted.internet.defer import Deferred

from docxy.access.passwords import Passwords
from docxy.daemon.drain import STOPPED
from docxy.observe import recorder as told
from docxy.observe.exchange import Exchange
from docxy.pull.manifests import ManifestCache
from docxy.settings.access import parse
from docxy.siblings import LocalSlots
from docxy.storage.memory_blob import MemoryReader
from docxy.web import client_stream
from docxy.web.client_stream import note_stalled
from docxy.web.site import RegistrySite
from tests.fakes import Fault
from tests.unit.access.harness import basic, lines
from tests.unit.observe.test_journal import exchange
from tests.unit.pull.harness import NAME, REPOSITORY, drain
from tests.unit.web.explained import BIG, HUGE, ExplainedCase


class FloodTests(ExplainedCase):
    async def test_flood(self) -> None:
        """Of too many hits one only learns how many there were, and what they saved."""
        await self.mirror.blob(self.big)
        await drain(self.mirror, self.big)
        recorder = self.mirror.served.recorder
        self.patch(told, "HITS", 0.0)
        while not recorder.is_flooded:
            recorder.record(exchange(0.0, status=404))
        for method in ("GET", "HEAD"):
            await self.mirror.ask(f"/v2/{REPOSITORY}/blobs/{self.big}", method=method)
        recorder.flush()
        answer = (await self.mirror.ask("/status.json")).json
        hour = answer["traffic"]["hour"]
        self.assertEqual((answer["docxy"]["dropped"], hour["answers"], hour["hits"]), (2, 2, 1))
        self.assertEqual(hour["sent"], 2 * BIG.size)


class AheadTests(ExplainedCase):
    """docxy fetches what a manifest lists before its client asks for it."""

    more = MappingProxyType({"prefetch": True})

    async def hour(self) -> dict[str, int]:
        """What the last hour came to: answers, hits, answers that joined, bytes saved."""
        self.mirror.served.recorder.flush()
        told = (await self.mirror.ask("/status.json")).json["traffic"]["hour"]
        return {name: told[name] for name in ("answers", "hits", "joined", "saved")}

    async def pull(self) -> None:
        """All of the image, as one client does."""
        await self.mirror.manifest("latest")
        await self.upstream.finished("blob", count=2)
        for digest in self.upstream.layers(REPOSITORY, "latest"):
            await drain(self.mirror, digest)
            self.assertEqual((await self.mirror.blob(digest)).cache_status, "docxy; hit")

    async def test_saved(self) -> None:
        """The first pull finds its layers in the cache, and saved nothing: they were fetched for it; the second did."""
        self.upstream.add_image(REPOSITORY, layers=[BIG])
        await self.pull()
        self.assertEqual(await self.hour(), {"answers": 3, "hits": 0, "joined": 2, "saved": 0})
        # Silence ends the pull.
        self.seconds.advance(61)
        await self.pull()
        told = await self.hour()
        self.assertEqual((told["answers"], told["joined"]), (6, 2))
        self.assertGreater(told["saved"], BIG.size)


class CauseTests(ExplainedCase):
    """One test for each cause."""

    async def test_slow_client(self) -> None:
        """A client that takes nothing for ten seconds is why its pull took them."""
        huge = self.upstream.add_blob(REPOSITORY, HUGE)
        streamed = await self.mirror.stream(f"/v2/{REPOSITORY}/blobs/{huge}", keep=False, paused=True)
        await drain(self.mirror, huge)
        self.seconds.advance(10)
        streamed.client.resume()
        await streamed.client.ended
        pull = await self.assert_said("client", "the client took RATE", chinese="客户端接收速度 RATE")
        self.assertGreater(pull["parts"][0]["waits"]["client"], 9)

    async def test_slow_upstream(self) -> None:
        """Bytes that take their time: the upstream's rate, for who began the fetch and who joined it."""
        rule = self.upstream.on("blob", Fault(stall_after=1 << 20))
        following = self.following(2)
        asking = [Deferred.fromCoroutine(self.mirror.blob(self.big)) for _ in range(2)]
        await rule.struck()
        await following
        self.seconds.advance(8)
        rule.release()
        for each in asking:
            self.assertEqual((await each).status, 200)
        pull = await self.assert_said("upstream", f"{NAME} sent RATE", chinese="RATE")
        for part in pull["parts"]:
            self.assertGreaterEqual(part["waits"]["upstream"], 8)
        self.assertEqual(pull["received"], BIG.size)

    async def test_slow_headers(self) -> None:
        """An upstream that is long in answering at all."""
        rule = self.upstream.on("blob", Fault(stall_headers=True))
        await self.blob_while(rule, 12)
        await self.assert_said("headers", f"{NAME} took TIME s to answer", chinese="TIME 秒才响应")

    async def test_limited(self) -> None:
        """A 429: what the registry asked to wait."""
        self.upstream.on("manifest", Fault.too_many_requests("30"), times=None)
        self.assertEqual((await self.mirror.manifest("latest")).status, 429)
        pull = await self.assert_said("limited", f"{NAME} answered 429: its pull limit is used up, wait 30 s")
        self.assertNotIn("charged", pull["parts"][0])

    async def test_resumed(self) -> None:
        """A body that breaks off is resumed; whoever follows it hears of it, who comes later does not."""
        self.upstream.on("blob", Fault(cut_after=1 << 20))
        slow = self.upstream.on("blob", Fault(stall_after=1 << 20))
        asking = [Deferred.fromCoroutine(self.mirror.blob(self.big)) for _ in range(2)]
        await slow.struck()
        self.seconds.advance(8)
        slow.release()
        for each in asking:
            self.assertEqual((await each).status, 200)
        pull = await self.assert_said("upstream", f"{NAME} sent RATE; resumed 2 times", f"{NAME} sent RATE; resumed 2×")
        self.assertEqual([part["resumed"] for part in pull["parts"]], [1, 1])
        await drain(self.mirror, self.big)
        await self.mirror.blob(self.big)
        self.assertNotIn("resumed", (await self.told())["parts"][-1])

    async def test_no_free_connection(self) -> None:
        """With one connection to an upstream the second blob waits for the first."""
        await self.mirror.stop()
        self.mirror = self.timed(max_connections=1)
        rule = self.upstream.on("blob", Fault(stall_after=1 << 20))
        first = Deferred.fromCoroutine(self.mirror.blob(self.big))
        await rule.struck()
        layer = self.upstream.add_blob("team/other", b"small")
        asked: Deferred[list[Deferred[Any]]] = Deferred()
        acquire = LocalSlots.acquire

        def acquired(slots: LocalSlots, key: str) -> Deferred[Any]:
            slot = acquire(slots, key)
            asked.callback([slot])
            return slot

        self.patch(LocalSlots, "acquire", acquired)
        second = Deferred.fromCoroutine(self.mirror.blob(layer, repository="team/other"))
        (waiting,) = await asked
        self.patch(LocalSlots, "acquire", acquire)
        self.assertFalse(waiting.called)
        self.seconds.advance(9)
        rule.release()
        self.assertEqual([(await each).status for each in (first, second)], [200, 200])
        words = f"waited TIME s for a free connection to {NAME}"
        pull = await self.assert_said("connection", words, chinese=f"等待到 {NAME} 的空闲连接 TIME 秒")
        self.assertLess(pull["parts"][0]["waits"].get("headers", 0.0), 2)

    async def test_own_limit(self) -> None:
        """docxy's own limit of the rate is not the upstream's fault, for who began the fetch and who joined it."""
        await self.mirror.stop()
        self.mirror = self.timed(max_rate=100_000_000)
        asked: Deferred[list[Deferred[None]]] = Deferred()
        acquire = LocalSlots.acquire

        def acquired(slots: LocalSlots, key: str) -> Deferred[Any]:
            slot = acquire(slots, key)
            if asked.called:
                return slot
            self.assertEqual(key, f"rate of {NAME}")
            held: Deferred[None] = Deferred()
            asked.callback([held])
            return slot.addCallback(lambda _: held)

        self.patch(LocalSlots, "acquire", acquired)
        fetches: list[Exchange] = []
        self.patch(self.mirror.fills, "_tell", fetches.append)
        following = self.following(2)
        asking = [Deferred.fromCoroutine(self.mirror.blob(self.big)) for _ in range(2)]
        (held,) = await asked
        await following
        self.seconds.advance(9)
        held.callback(None)
        self.assertEqual([(await each).status for each in asking], [200, 200])
        words = f"docxy's own limit (max_rate) let {NAME} send RATE"
        pull = await self.assert_said("rate", words, chinese=f"受 docxy 自身限速（max_rate），{NAME} 发送速度 RATE")
        for part in pull["parts"]:
            self.assertGreaterEqual(part["waits"]["rate"], 9)
            self.assertLess(part["waits"].get("upstream", 0.0), 1)
        # Who joined it in another process learns it, too.
        await drain(self.mirror, self.big)
        self.assertGreaterEqual(fetches[-1].waits["rate"], 9)

    async def test_joined_question(self) -> None:
        """Two ask for one manifest while the only connection is taken: both waited for the connection."""
        await self.mirror.stop()
        self.mirror = self.timed(max_connections=1)
        rule = self.upstream.on("blob", Fault(stall_after=1 << 20))
        first = Deferred.fromCoroutine(self.mirror.blob(self.big))
        await rule.struck()
        both: Deferred[None] = Deferred()
        once, asking = ManifestCache._once, 0

        async def counted(*args: Any) -> Any:
            nonlocal asking
            asking += 1
            waiting = Deferred.fromCoroutine(once(*args))
            if asking == 2:
                both.callback(None)
            return await waiting

        self.patch(ManifestCache, "_once", counted)
        self.upstream.add_image("team/other")
        asked = [Deferred.fromCoroutine(self.mirror.ask("/v2/team/other/manifests/latest")) for _ in range(2)]
        await both
        self.seconds.advance(9)
        rule.release()
        self.assertEqual([(await each).status for each in (first, *asked)], [200, 200, 200])
        self.mirror.served.recorder.flush()
        told = (await self.mirror.ask(f"/pulls.json?repository={NAME}/team/other")).json["pulls"]
        parts = [part for pull in told for part in pull["parts"]]
        self.assertEqual(sorted(part["cache"] for part in parts), ["collapsed", "miss"])
        for part in parts:
            self.assertGreater(part["waits"].get("connection", 0.0), 8, part)
            self.assertLess(part["waits"].get("headers", 0.0), 1, part)

    async def test_joined(self) -> None:
        """Who joins a fetch is told whose: by the id of the request that began it."""
        rule = self.upstream.on("blob", Fault(stall_after=1 << 20))
        path, ids = f"/v2/{REPOSITORY}/blobs/{self.big}", ("1" * 16, "2" * 16)
        first = Deferred.fromCoroutine(self.mirror.ask(path, {"X-Request-Id": ids[0]}))
        await rule.struck()
        second = await self.mirror.stream(path, {"X-Request-Id": ids[1]})
        self.seconds.advance(8)
        rule.release()
        self.assertEqual((await first).status, 200)
        await second.client.ended
        joined = {part["request_id"]: part.get("joined") for part in (await self.told())["parts"]}
        self.assertEqual(joined, {ids[0]: None, ids[1]: ids[0]})

    async def test_stopped(self) -> None:
        """A pull that docxy's own stop cuts off is not said to be the client's doing."""
        rule = self.upstream.on("blob", Fault(stall_after=1 << 20))
        streamed = await self.mirror.stream(f"/v2/{REPOSITORY}/blobs/{self.big}")
        await rule.struck()
        self.mirror.served.registry.abort()
        await streamed.client.ended
        rule.release()
        await drain(self.mirror, self.big)
        words = f"broke off: {STOPPED}"
        self.mirror.served.recorder.flush()
        (pull,) = (await self.mirror.served.view.snapshot())["pulls"]
        self.assertEqual((pull["verdict"]["cause"], pull["verdict"]["words"]), ("failed", words))

    async def test_stalled_client(self) -> None:
        """A client that takes nothing for so long that docxy drops it did not break off by itself."""
        huge = self.upstream.add_blob(REPOSITORY, HUGE)
        await self.mirror.stop()
        self.mirror = self.timed(client=0.1)
        dropped: Deferred[None] = Deferred()

        def noted(request: Any, seconds: float) -> None:
            note_stalled(request, seconds)
            dropped.callback(None)

        self.patch(client_stream, "note_stalled", noted)
        streamed = await self.mirror.stream(f"/v2/{REPOSITORY}/blobs/{huge}", keep=False, paused=True)
        await dropped
        streamed.client.resume()
        await streamed.client.ended
        if (ending := self.mirror.fills.end(huge)) is not None:
            await ending
        await self.assert_said("failed", "broke off: the client took nothing for 0.1 s")

    async def test_charged_late(self) -> None:
        """A client goes away while docxy asks: what the question cost is charged all the same."""
        rule = self.upstream.on("manifest", Fault(stall_headers=True), method="GET")
        gone: Deferred[None] = Deferred()
        lost = RegistrySite.lost

        def noted(site: RegistrySite, request: Any) -> None:
            lost(site, request)
            gone.callback(None)

        self.patch(RegistrySite, "lost", noted)
        asking = Deferred.fromCoroutine(self.mirror.manifest("latest"))
        await rule.struck()
        asking.addErrback(lambda reason: None)
        asking.cancel()
        await gone
        self.patch(RegistrySite, "lost", lost)
        rule.release()
        self.assertEqual((await self.mirror.manifest("latest")).status, 200)
        self.mirror.served.recorder.flush()
        self.assertEqual((await self.mirror.served.view.snapshot())["upstreams"][0]["spent"], 1)

    async def test_cache(self) -> None:
        """What was pulled before comes from the cache, and cost the registry nothing."""
        await self.mirror.blob(self.big)
        await drain(self.mirror, self.big)
        self.seconds.advance(120)
        await self.mirror.blob(self.big)
        pull = await self.told()
        self.assertEqual((pull["verdict"]["cause"], pull["received"]), ("cache", 0))
        self.assertTrue(pull["verdict"]["words"].startswith("from the cache, 4.2 MB in "))

    async def test_slow_disk(self) -> None:
        """A cached layer whose bytes the disk is long in giving."""
        await self.mirror.blob(self.big)
        await drain(self.mirror, self.big)
        self.seconds.advance(120)
        read, asked, slow = MemoryReader.read, Deferred[None](), Deferred[None]()

        async def slowly(reader: MemoryReader, offset: int, length: int) -> bytes:
            if not asked.called:
                asked.callback(None)
                await slow
            return await read(reader, offset, length)

        self.patch(MemoryReader, "read", slowly)
        asking = Deferred.fromCoroutine(self.mirror.blob(self.big))
        await asked
        self.seconds.advance(7)
        slow.callback(None)
        self.assertEqual((await asking).status, 200)
        await self.assert_said("disk", "the cache's disk took TIME s", chinese="缓存磁盘耗时 TIME 秒")

    async def test_slow_password(self) -> None:
        """The time that docxy takes to check a password is not the registry's, whether it is right or wrong."""
        path = self.mktemp()
        Path(path).write_text(lines({"ann": "pw"}))
        await self.mirror.stop()
        self.more = {"access": parse({"htpasswd": path}, "docxy.toml")}
        self.mirror = self.timed()
        verify = Passwords.verify

        async def slowly(*args: Any) -> str | None:
            found = await verify(*args)
            self.seconds.advance(6)
            return found

        self.patch(Passwords, "verify", slowly)
        wrong, right = ({"Authorization": basic("ann", password)} for password in ("wrong", "pw"))
        for headers, status in ((wrong, 401), (right, 200)):
            self.assertEqual((await self.mirror.ask(f"/v2/{REPOSITORY}/manifests/latest", headers)).status, status)
        self.mirror.served.recorder.flush()
        (pull,) = (await self.mirror.served.view.snapshot())["pulls"]
        words = ("login", "the check of the password took 12 s")
        self.assertEqual((pull["verdict"]["cause"], pull["verdict"]["words"]), words)
        for part in pull["parts"]:
            self.assertEqual((part["waits"]["login"], part["waits"].get("headers")), (6.0, None))

    async def test_failed(self) -> None:
        """An upstream that fails: the status, and what the answer said."""
        self.upstream.on("manifest", Fault(status=502), times=None)
        self.assertEqual((await self.mirror.manifest("latest")).status, 502)
        pull = await self.told()
        self.assertEqual(pull["verdict"]["cause"], "failed")
        self.assertRegex(pull["verdict"]["words"], rf"^failed with status 502: {NAME} .* answered 502")
        await self.assert_said("failed", pull["verdict"]["words"])

    async def test_client_left(self) -> None:
        """A client that goes away in the middle is told apart from a registry that breaks off."""
        rule = self.upstream.on("blob", Fault(stall_after=1 << 20))
        streamed = await self.mirror.stream(f"/v2/{REPOSITORY}/blobs/{self.big}")
        await rule.struck()
        transport: Any = streamed.client.transport
        transport.loseConnection()
        await streamed.client.ended
        rule.release()
        await drain(self.mirror, self.big)
        await self.assert_said("failed", "the client broke off", chinese="客户端中途断开")

    async def test_cut_short(self) -> None:
        """Wrong bytes end an answer early; page and JSON say what was wrong."""
        self.upstream.on("blob", Fault(flip=2 << 20), times=None)
        await self.mirror.cut(f"/v2/{REPOSITORY}/blobs/{self.big}")
        pull = await self.told()
        self.assertIn("broke off: the upstream sent bytes that are not sha256:", pull["verdict"]["words"])
        await self.assert_said("failed", pull["verdict"]["words"])
