"""Several registries behind one docxy, each of another kind, reached in every way clients have to name one."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from contextlib import closing

from twisted.internet.defer import Deferred, gatherResults

from tests.harness.directories import WatchedDirectory
from tests.live.bed import SLOW
from tests.live.case import LiveTestCase, Shared
from tests.live.clients import Client, Containerd, Docker, Make, Podman, Skopeo
from tests.live.daemon import Docxy
from tests.live.fetching import fetch
from tests.live.fronts import Front
from tests.live.images import Image
from tests.live.machine import ALIAS, DOCKER_HUB
from tests.live.registries import BOBS_PASSWORD, CORP, GHCR, LARGE, MCR, NAMES, PRIVATE, SHARED, Registries


def registries(shared: Shared) -> Registries:
    """The other registries of this process, running."""
    return shared.running(Registries(shared.new_directory("registries"), shared.bed.images["library/large"]))


class RoutingTests(LiveTestCase):
    """One docxy, the bed's Docker Hub and three other registries."""

    def setUp(self) -> None:
        """A docxy in front of all."""
        super().setUp()
        self.others = self.shared.once("registries", lambda: registries(self.shared))
        self.docxy = Docxy(
            self.shared.new_directory("docxy"),
            self.bed.url,
            "none",
            self.shared.certificate,
            environ={"GHCR_PASSWORD": BOBS_PASSWORD},
            upstreams=self.others.tables("GHCR_PASSWORD"),
        )
        self.addCleanup(self.docxy.stop)
        self.docxy.start()
        self.host = self.docxy.target.host

    def client(self, make: Make) -> Client:
        """A client that has docxy as its mirror for every registry."""
        machine = self.machine(self.docxy.target)
        for name in NAMES:
            machine.mirror(name)
        client = make(machine, self.reactor)
        self.addCleanup(client.stop)
        client.start()
        return client

    def ways(self, prefixes: Iterable[str], alias: bool, mirrored: Iterable[str]) -> list[tuple[Image, str]]:
        """Images and the hosts to name before them.

        By a path prefix; by docxy's other host name; by the registry's own name, for which docxy is the mirror.
        """
        images = self.others.images
        ways = [(images[name, SHARED], f"{self.host}/{name}") for name in prefixes]
        if alias:
            ways += [(images[GHCR, name], f"{ALIAS}:{self.docxy.port}") for name in (SHARED, PRIVATE)]
        ways += [(images[name, SHARED], name) for name in mirrored]
        return [*ways, (self.bed.images[SHARED], DOCKER_HUB), (self.bed.images[SHARED], f"{self.host}/{DOCKER_HUB}")]

    async def pulls(self, client: Client, ways: Iterable[tuple[Image, str]]) -> list[str]:
        """What went wrong."""
        failed = []
        for image, host in ways:
            wrong = await client.pull(image, "latest", host)
            if wrong:
                failed.append(f"{client.name}, {host}/{image.repository}: {wrong}")
        return failed

    def test_all_at_once(self) -> Deferred[None]:
        """Docker, containerd, podman and skopeo pull `team/app` of every registry at once, and each gets that one's.

        Docker and skopeo by path prefix and by Host, containerd by `?ns=`, podman by path prefix
        and by a mirror whose location has the prefix.
        """

        async def check() -> None:
            plan: list[tuple[Make, list[tuple[Image, str]]]] = [
                (Docker, self.ways(NAMES, True, ())),
                (Containerd, self.ways((), False, NAMES)),
                (Podman, self.ways((MCR,), True, (GHCR, CORP))),
                (Skopeo, self.ways(NAMES, True, NAMES)),
            ]
            working = [Deferred.fromCoroutine(self.pulls(self.client(make), ways)) for make, ways in plan]
            self.assertEqual(await gatherResults(working), [[], [], [], []])
            log = self.docxy.daemon.text()
            for name in NAMES:
                self.assertIn(f"/v2/{name}/{SHARED}/manifests/latest", log)
                # By ns: the path says nothing of the registry, and the manifest is that one's.
                self.assertIn(f"/v2/{SHARED}/manifests/{self.others.images[name, SHARED].digest} HTTP/", log)
            self.assertNotIn(BOBS_PASSWORD, log)

        return Deferred.fromCoroutine(check())

    def test_unconfigured(self) -> None:
        """A registry that is not configured is refused by ns and prefix, not reached by Host, and hears nothing."""
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            listener.setblocking(False)
            name = f"127.0.0.1:{listener.getsockname()[1]}"
            image = self.bed.images[SHARED]
            manifest = f"{SHARED}/manifests/latest"
            for path in (
                f"/v2/{manifest}?ns={name}",
                f"/v2/{name}/{manifest}",
                f"/{name}/v2/{manifest}",
                f"/v2/evil.test/{manifest}",
                f"/v2/{manifest}?ns=evil.test",
                f"/v2/{name}/{SHARED}/blobs/{image.config}",
                f"/v2/{SHARED}/tags/list?ns={name}",
            ):
                status, body = self.ask(path, self.host)
                self.assertEqual((status, json.loads(body)["errors"][0]["code"]), (404, "NAME_UNKNOWN"), path)
            status, body = self.ask(f"/v2/{manifest}", name)
            self.assertEqual((status, body), (200, image.top.body))
            self.assertRaises(BlockingIOError, listener.accept)

    def test_mixing(self) -> None:
        """A digest that one registry has is not found at another, though docxy has its bytes."""
        ghcr = self.others.images[GHCR, SHARED]
        own_layer, _ = ghcr.layers[1]
        self.assertEqual(self.ask(f"/v2/{GHCR}/{SHARED}/manifests/latest", self.host)[0], 200)
        self.assertEqual(self.ask(f"/v2/{GHCR}/{SHARED}/blobs/{own_layer}", self.host)[0], 200)
        for name in (MCR, CORP, DOCKER_HUB):
            for path in (f"manifests/{ghcr.digest}", f"blobs/{own_layer}"):
                self.assertEqual(self.ask(f"/v2/{name}/{SHARED}/{path}", self.host)[0], 404, f"{name} {path}")

    def ask(self, path: str, host: str) -> tuple[int, bytes]:
        """Status and body of one GET with this Host."""
        connection = self.docxy.connect()
        try:
            connection.request("GET", path, headers={"Host": host})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


class FailoverTests(LiveTestCase):
    """An upstream with two endpoints."""

    def test_in_the_middle(self) -> Deferred[None]:
        """The first endpoint dies in the middle of the large layer; clients get it from the second, none notices."""

        async def check() -> None:
            others = self.shared.once("registries", lambda: registries(self.shared))
            image = others.images[MCR, LARGE]
            first = Front(self.shared.new_directory("front"), others.mcr.url, rate=SLOW)
            second = Front(self.shared.new_directory("front"), others.mcr.url)
            table = f'[[upstreams]]\nname = "two.test"\nurl = "{first.url}"\nendpoints = ["{second.url}"]\n'
            docxy = self.shared.new_docxy(
                "none", False, tables=table, options=("--no-prefetch", "--fetch-connections=1")
            )
            for part in (first, second, docxy):
                self.addCleanup(part.stop)
                part.start()
            digest, size = image.layers[1]
            url = f"{docxy.url}/v2/two.test/{LARGE}/blobs/{digest}"
            fetching = Deferred.fromCoroutine(fetch(self.reactor, [url] * 3, image.blobs[digest]))
            await self.filled(docxy, digest, size // 4)
            first.daemon.kill()
            self.assertEqual([each.whole for each in await fetching], [True] * 3)
            (rest,) = [request for request in second.requests() if digest in request.path]
            self.assertEqual(rest.status, 206)
            self.assertRegex(rest.range, r"^bytes=\d+-$")
            self.assertEqual(rest.sent, size - int(rest.range[6:-1]))
            self.assertGreaterEqual(int(rest.range[6:-1]), size // 4)

        return Deferred.fromCoroutine(check())

    async def filled(self, docxy: Docxy, digest: str, least: int) -> None:
        """Return when so many bytes of a fill are there."""
        assert docxy.cache_directory is not None
        incoming = WatchedDirectory(docxy.cache_directory / "incoming", self.reactor)
        self.addCleanup(incoming.close)
        await incoming.until(lambda: incoming.size(digest.replace(":", "-")) >= least)
