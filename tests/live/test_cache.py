"""The cache's promises, kept by a real daemon with real registries behind it and real clients before it."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Coroutine
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from docxy.names import INDEX_TYPES, MANIFEST_TYPES
from tests.harness.directories import WatchedDirectory
from tests.harness.processes import until
from tests.live.bed import PASSWORD, SLOW, USER
from tests.live.case import LiveTestCase
from tests.live.clients import Docker, Skopeo
from tests.live.daemon import Docxy
from tests.live.fetching import Fetched, fetch
from tests.live.fronts import Front
from tests.live.images import LARGE

CLIENTS = 100
KILLS = 8
ONE_FETCH = ("--no-prefetch", "--fetch-connections=1")
"""Whole layers over one connection each, when a client asks."""


class CacheTestCase(LiveTestCase):
    """What these tests have in common."""

    def setUp(self) -> None:
        """The large layer."""
        super().setUp()
        self.large = self.bed.images["library/large"]
        self.digest, self.size = self.large.layers[1]
        self.bytes = self.large.blobs[self.digest]
        self.path = f"/v2/library/large/blobs/{self.digest}"

    def started(self, docxy: Docxy) -> Docxy:
        """It runs until the test ends."""
        self.addCleanup(docxy.stop)
        docxy.start()
        return docxy

    def slowly(self) -> None:
        """nginx sends at SLOW until the test ends."""
        self.addCleanup(self.bed.slow_blobs, False)
        self.bed.slow_blobs(True)

    def fetch(self, *docxies: Docxy) -> Deferred[list[Fetched]]:
        """The large layer from each of these at once."""
        urls = [docxy.url + self.path for docxy in docxies]
        return Deferred.fromCoroutine(fetch(self.reactor, urls, self.bytes))

    def ask(
        self, docxy: Docxy, path: str, headers: dict[str, str] | None = None, method: str = "GET"
    ) -> tuple[HTTPResponse, bytes]:
        """One request; its answer and body."""
        connection = docxy.connect()
        try:
            connection.request(method, path, headers=headers or {})
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def watched(self, docxy: Docxy) -> WatchedDirectory:
        """Where its fills grow."""
        assert docxy.cache_directory is not None
        watched = WatchedDirectory(docxy.cache_directory / "incoming", self.reactor)
        self.addCleanup(watched.close)
        return watched

    async def grown(self, docxy: Docxy, least: int) -> None:
        """Return when the fill of the large layer has so many bytes."""
        incoming = self.watched(docxy)
        await incoming.until(lambda: incoming.size(self.digest.replace(":", "-")) >= least)


def checked(test: Coroutine[Any, Any, None]) -> Deferred[None]:
    """A test as trial takes it."""
    return Deferred.fromCoroutine(test)


class FanOutTests(CacheTestCase):
    """One fetch, any number of clients."""

    def test_hundred_clients(self) -> Deferred[None]:
        """100 clients on one cold layer cost one GET of exactly its bytes; none waits for the end of the fill."""

        async def check() -> None:
            docxy = self.started(self.shared.new_docxy("none", False, options=ONE_FETCH))
            self.slowly()
            with self.bed.watch_registry() as registry, self.bed.watch_blobs() as blobs:
                all_of_them = await self.fetch(*[docxy] * CLIENTS)
                asked = [(request.method, request.status) for request in registry.requests(path=self.digest)]
                # A worker that has no token yet is told so by the registry.
                self.assertEqual([each for each in asked if each != ("GET", 401)], [("GET", 307)])
                self.assertLessEqual(len(asked), 2)
                self.assertEqual([(r.method, r.status, r.sent) for r in blobs.requests()], [("GET", 200, self.size)])
            self.assertEqual([fetched for fetched in all_of_them if not fetched.whole], [])
            # The first client's bytes came with the fill, and so did everybody else's.
            fill = self.size / SLOW
            self.assertGreater(max(fetched.total for fetched in all_of_them), 0.8 * fill)
            latest = max(fetched.first_byte for fetched in all_of_them)
            self.assertLess(latest, fill / 2, f"a first byte came after {latest:.1f} s, the fill took {fill:.1f} s")

        return checked(check())

    def test_hundred_clients_over_several_connections(self) -> Deferred[None]:
        """So do parts of it, over connections that the upstream limits each: together they are its bytes."""

        async def check() -> None:
            docxy = self.started(self.shared.new_docxy("none", False, options=("--no-prefetch",)))
            self.slowly()
            with self.bed.watch_blobs() as blobs:
                all_of_them = await self.fetch(*[docxy] * CLIENTS)
                asked = blobs.requests()
            self.assertEqual([fetched for fetched in all_of_them if not fetched.whole], [])
            parts = sorted(
                tuple(map(int, request.range.removeprefix("bytes=").split("-"))) for request in asked if request.range
            )
            self.assertEqual([request.status for request in asked if not request.range], [200])
            self.assertGreater(len(parts), 2)
            # Each begins where the one before it ended, the first where the one connection was given up.
            self.assertEqual([first for first, _ in parts[1:]], [last + 1 for _, last in parts[:-1]])
            self.assertEqual(parts[-1][1] + 1, self.size)
            # What was on its way on the first connection when the others had the rest.
            self.assertLess(sum(request.sent for request in asked), 1.05 * self.size)

        return checked(check())

    def test_two_processes(self) -> Deferred[None]:
        """Two daemons on one directory, asked for one cold layer at once, cost one GET of its bytes."""

        async def check() -> None:
            cache = self.shared.new_directory("cache")
            pair = [
                self.started(self.shared.new_docxy("none", False, cache=cache, options=ONE_FETCH)) for _ in range(2)
            ]
            for docxy in pair:
                self.assertEqual(self.ask(docxy, "/v2/library/large/manifests/latest")[0].status, 200)
            self.slowly()
            with self.bed.watch_blobs() as blobs:
                fetched = await self.fetch(*pair * 2)
                self.assertEqual([(r.method, r.status, r.sent) for r in blobs.requests()], [("GET", 200, self.size)])
            self.assertEqual([each.whole for each in fetched], [True] * 4)

        return checked(check())


class CrashTests(CacheTestCase):
    """`kill -9` at any moment."""

    def test_killed_in_fills(self) -> Deferred[None]:
        """Killed again and again in the middle of a fill, docxy goes on with what it has; no byte is ever wrong."""

        async def check() -> None:
            docxy = self.shared.new_docxy("none", False, options=ONE_FETCH)
            self.addCleanup(docxy.stop)
            self.slowly()
            moments = random.Random("kill")
            with self.bed.watch_blobs() as blobs:
                grown = 0
                for _ in range(KILLS):
                    docxy.start()
                    fetching = self.fetch(docxy)
                    grown += int(moments.uniform(0.1, 1.0) * SLOW)
                    await self.grown(docxy, grown)
                    docxy.daemon.kill()
                    (fetched,) = await fetching
                    self.assertFalse(fetched.wrong, f"wrong bytes after {grown} bytes: {fetched}")
                    self.assertFalse(fetched.whole)
                docxy.start()
                (last,) = await self.fetch(docxy)
                self.assertEqual((last.whole, last.wrong), (True, False))
                sent = blobs.sent()
                resumed = [request for request in blobs.requests(path=self.digest[7:]) if request.range]
            # Without what was kept, all that was sent before the last start would be sent again.
            self.assertLess(sent, self.size + 0.35 * grown)
            self.assertGreaterEqual(len(resumed), KILLS // 2)
            await self.check_nothing_left(docxy)

        return checked(check())

    def test_killed_in_fills_over_several_connections(self) -> Deferred[None]:
        """Nor when what was fetched ahead is lost with it."""

        async def check() -> None:
            docxy = self.shared.new_docxy("none", False, options=("--no-prefetch",))
            self.addCleanup(docxy.stop)
            self.slowly()
            with self.bed.watch_blobs() as blobs:
                # While there is one connection, while there are some.
                for grown in (0.3, 0.9, 2.1):
                    docxy.start()
                    fetching = self.fetch(docxy)
                    await self.grown(docxy, int(grown * SLOW))
                    docxy.daemon.kill()
                    (fetched,) = await fetching
                    self.assertFalse(fetched.wrong, f"{fetched}")
                docxy.start()
                (last,) = await self.fetch(docxy)
                starts = {request.range.removeprefix("bytes=").partition("-")[0] for request in blobs.requests()}
            self.assertEqual((last.whole, last.wrong), (True, False))
            self.assertGreater(len(starts), 4)
            await self.check_nothing_left(docxy)

        return checked(check())

    async def check_nothing_left(self, docxy: Docxy) -> None:
        """Nothing is incoming, the layer is whole, and every blob hashes to its name."""
        cache = docxy.cache_directory
        assert cache is not None
        # The last byte is shown before the file has its final name.
        incoming = self.watched(docxy)
        await incoming.until(lambda: not os.listdir(cache / "incoming"))
        (again,) = await self.fetch(docxy)
        self.assertTrue(again.whole)
        self.assertEqual(_digests_that_lie(cache), [])


def _digests_that_lie(cache: Path) -> list[str]:
    """Committed blobs that do not hash to their name."""
    lying = []
    for blob in (cache / "blobs" / "sha256").glob("*/*"):
        with blob.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != blob.name:
                lying.append(blob.name)
    return lying


class FullDiskTests(CacheTestCase):
    """A cache on a disk that is smaller than what is pulled."""

    def test_small_tmpfs(self) -> Deferred[None]:
        """The disk is too small for the layer; clients get it all the same, and the operator is told."""

        async def check() -> None:
            docxy = self.started(
                self.shared.new_docxy("none", False, options=("--no-prefetch", "--cache-size=10GB"), tmpfs=LARGE // 2)
            )
            everyone = await self.fetch(*[docxy] * 3)
            self.assertEqual([(each.whole, each.wrong) for each in everyone], [(True, False)] * 3)
            self.assertEqual(self.ask(docxy, "/health")[0].status, 200)
            client = Skopeo(self.machine(docxy.target), self.reactor)
            for name in ("library/small", "library/large"):
                self.assertEqual(await client.pull(self.bed.images[name], "latest", docxy.target.host), set())
            self.assertEqual(self.ask(docxy, "/health")[0].status, 200)
            # At the start, and when something is not kept.
            self.assertRegex(docxy.daemon.text(), r"the disk of \S+ has room for .*, less than --cache-size 10 GB")
            self.assertRegex(docxy.daemon.text(), r"sha256:\w+ is not cached: no room for ")

        return checked(check())

    def test_small_budget(self) -> Deferred[None]:
        """What does not fit in the default budget is passed on uncached, and the log says why."""

        async def check() -> None:
            docxy = self.started(self.shared.new_docxy("none", False, options=("--no-prefetch",), tmpfs=LARGE // 2))
            (fetched,) = await self.fetch(docxy)
            self.assertEqual((fetched.whole, fetched.wrong), (True, False))
            self.assertRegex(docxy.daemon.text(), rf"{self.digest} is not cached: .+")
            self.assertEqual(self.ask(docxy, "/health")[0].status, 200)

        return checked(check())


class OfflineTests(CacheTestCase):
    """Registry, token service and blob server are gone."""

    async def check(self, auth: str) -> None:
        """Docker pulls what it pulled once, from a docxy that saw it being pulled, and from one that just started."""
        docxy = self.started(self.shared.new_docxy(auth, True))
        client = Docker(self.machine(docxy.target), self.reactor)
        self.addCleanup(client.stop)
        client.start()
        images = [self.bed.images[name] for name in ("library/small", "library/multi")]
        for image in images:
            self.assertEqual(await client.pull(image, "latest"), set())
        with self.bed.off():
            for start_anew in (False, True):
                if start_anew:
                    docxy.stop()
                    docxy.start()
                    # dockerd keeps manifests of its own.
                    client.stop()
                    client.start()
                for image in images:
                    self.assertEqual(await client.pull(image, "latest"), set())

    def test_none(self) -> Deferred[None]:
        """With docxy's own tokens."""
        return checked(self.check("none"))

    def test_transparent(self) -> Deferred[None]:
        """Where clients bring their own, a stranger gets docxy's."""
        return checked(self.check("transparent"))


class StaleTests(CacheTestCase):
    """The upstream refuses to say what a tag means."""

    def check(self, status: int) -> None:
        """The expired tag is served and marked, and the upstream is asked once at most for all of them."""
        front = Front(self.shared.new_directory("front"), self.bed.url)
        self.addCleanup(front.stop)
        front.start()
        docxy = self.started(
            self.shared.new_docxy("none", False, url=front.url, options=("--tag-ttl=1", "--no-prefetch"))
        )
        path, image = "/v2/library/small/manifests/latest", self.bed.images["library/small"]
        accept = {"Accept": ", ".join((*INDEX_TYPES, *MANIFEST_TYPES))}
        self.assertEqual(self.ask(docxy, path, accept)[1], image.top.body)
        front.refuse(status)
        until(lambda: "stale" in str(self.ask(docxy, path, accept)[0].getheader("Cache-Status")))
        seen = len(front.requests())
        for _ in range(3):
            response, body = self.ask(docxy, path, accept)
            self.assertEqual((response.status, body), (200, image.top.body))
            self.assertEqual(response.getheader("Docker-Content-Digest"), image.digest)
            self.assertIn("stale", response.getheader("Cache-Status", ""))
            self.assertIn("110", response.getheader("Warning", ""))
            self.assertGreaterEqual(int(response.getheader("Age", "")), 1)
        self.assertLessEqual(len(front.requests()) - seen, 1)

    def test_429(self) -> None:
        """Too many requests."""
        self.check(429)

    def test_503(self) -> None:
        """Out of service."""
        self.check(503)


class PrivateTests(CacheTestCase):
    """What alice pulled is in the cache, and a stranger who knows every digest asks for it."""

    def setUp(self) -> None:
        """A docxy of transparent mode and the private image."""
        super().setUp()
        self.docxy = self.started(self.shared.new_docxy("transparent", True))
        self.private = self.bed.images["alice/private"]

    def stranger(self, *repositories: str) -> dict[str, str]:
        """An anonymous token for these, as docxy gives it; nothing when it gives none."""
        scopes = "&".join(f"scope=repository:{repository}:pull" for repository in repositories)
        response, body = self.ask(self.docxy, f"/auth/token?service=s&{scopes}")
        return {"Authorization": f"Bearer {json.loads(body)['token']}"} if response.status == 200 else {}

    def refused(self, where: str) -> None:
        """Every way to ask comes to nothing."""
        own_layer, _ = self.private.layers[1]
        paths = [f"manifests/{self.private.digest}", "manifests/latest"]
        paths += [f"blobs/{digest}" for digest in (self.private.config, own_layer)]
        wanted = [("alice/private", path) for path in paths]
        wanted += [("library/small", path) for path in paths if path != "manifests/latest"]
        tokens = {name: self.stranger("library/small", name) for name in ("alice/private", "library/small")}
        for repository, path in wanted:
            for token in ({}, tokens[repository]):
                for method, more in (("GET", {}), ("GET", {"Range": "bytes=0-9"}), ("HEAD", {})):
                    response, body = self.ask(self.docxy, f"/v2/{repository}/{path}", {**token, **more}, method)
                    what = f"{where}: {method} {repository}/{path} {more} with {'a' if token else 'no'} token"
                    self.assertIn(response.status, (401, 403, 404, 502, 503), what)
                    if method == "GET":
                        self.assertTrue(json.loads(body)["errors"], what)

    def test_stranger(self) -> Deferred[None]:
        """Manifests, config and layer are refused under their own name and under a public one, upstream on or off."""

        async def check() -> None:
            client = Skopeo(self.machine(self.docxy.target), self.reactor)
            host = self.docxy.target.host
            await client.login(host, USER, PASSWORD)
            self.assertEqual(await client.pull(self.private, "latest", host), set())
            await client.logout(host)
            self.assertEqual(await client.pull(self.bed.images["library/small"], "latest", host), set())
            self.refused("upstream on")
            with self.bed.off():
                self.refused("upstream off")
            # The stranger's way to what is public is the same that was refused above.
            small = self.bed.images["library/small"]
            path = f"/v2/library/small/blobs/{small.config}"
            self.assertEqual(self.ask(self.docxy, path, self.stranger("library/small"))[0].status, 200)

        return checked(check())
