"""What an operator orders by command, while docker pulls: a recall in the middle, a pin under pressure."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from twisted.internet.defer import Deferred

from tests.harness.processes import CommandFailed, Output, run, which
from tests.live.clients import Docker
from tests.live.daemon import Docxy
from tests.live.images import LARGE, OCI, Builder
from tests.live.test_cache import ONE_FETCH, CacheTestCase, checked

REASON = "CVE-2026-0001: do not run this"


class OrdersTests(CacheTestCase):
    """One docxy of two workers, its command, and docker."""

    def docker(self, docxy: Docxy) -> Docker:
        docker = Docker(self.machine(docxy.target), self.reactor)
        self.addCleanup(docker.stop)
        docker.start()
        return docker

    async def order(self, docxy: Docxy, *arguments: str, check: bool = True) -> Output:
        """`docxy …` on the admin socket of this docxy."""
        code = "from docxy.cli.main import main; main()"
        socket = f"--socket={docxy.cache_directory}/admin.sock"
        argv = [sys.executable, "-c", code, arguments[0], socket, *arguments[1:]]
        return await run(self.reactor, argv, docxy.daemon.environ, check=check)

    def test_recall_during_a_pull(self) -> Deferred[None]:
        """docker's pull breaks off, does not succeed while the recall stands, and does when it is lifted."""

        async def check() -> None:
            docxy = self.started(self.shared.new_docxy("none", False, options=("--workers=2",)))
            docker = self.docker(docxy)
            self.slowly()
            name = f"docker.io/{self.large.repository}:latest"
            pulling = Deferred.fromCoroutine(docker.command("pull", "--quiet", name, check=False))
            await self.grown(docxy, LARGE // 20)
            await self.order(docxy, "recall", self.large.digest, "--reason", REASON)
            broken = await pulling
            self.assertNotEqual(broken.status, 0, broken.text)
            for path in (f"manifests/{self.large.digest}", "manifests/latest", f"blobs/{self.digest}"):
                for method in ("GET", "HEAD"):
                    for _ in range(4):  # of both workers
                        response, body = self.ask(docxy, f"/v2/library/large/{path}", {"Accept": "*/*"}, method)
                        self.assertEqual(response.status, 403, path)
                        if method == "GET":
                            self.assertIn(REASON, json.loads(body)["errors"][0]["message"])
            again = await docker.command("pull", "--quiet", name, check=False)
            self.assertNotEqual(again.status, 0)
            report = json.loads((await self.order(docxy, "recall", "--report", self.large.digest, "--json")).stdout)
            self.assertIn("docker.io/library/large:latest", [each.get("image") for each in report["found"]])
            docxy.stop()
            docxy.start()
            self.assertEqual(self.ask(docxy, "/v2/library/large/manifests/latest")[0].status, 403)
            await self.order(docxy, "recall", "--lift", self.large.digest)
            self.bed.slow_blobs(False)
            self.assertEqual(await docker.pull(self.large, "latest"), set())

        return checked(check())

    def test_pin_under_pressure(self) -> Deferred[None]:
        """A pinned image is pulled by docker from the cache alone, after more went through than the cache holds."""

        async def check() -> None:
            options = ("--workers=2", f"--cache-size={LARGE + LARGE // 4}")
            docxy = self.started(self.shared.new_docxy("none", False, options=options))
            docker = self.docker(docxy)
            small = self.bed.images["library/small"]
            self.assertEqual(await docker.pull(small, "latest"), set())
            name = f"docker.io/{small.repository}:latest"
            await self.order(docxy, "pin", name)
            pins = json.loads((await self.order(docxy, "orders", "--json")).stdout)
            self.assertEqual([(each["kind"], each["image"]) for each in pins], [("pin", name)])
            (fetched,) = await self.fetch(docxy)
            self.assertTrue(fetched.whole)
            try:
                await self.order(docxy, "rm", "--yes", name)
            except CommandFailed as error:
                self.assertIn("is pinned", str(error))
            else:
                self.fail("a pinned image was removed")
            with self.bed.off():
                self.assertEqual(await docker.pull(small, "latest"), set())

        return checked(check())

    def test_freeze_and_remove(self) -> Deferred[None]:
        """docker gets the frozen image while the tag moves, the new one when released; what is removed, anew."""

        async def check() -> None:
            busybox = which("busybox")
            assert busybox is not None
            builder = Builder(self.shared.new_directory("moving"), Path(busybox))
            old, new = builder.single("library/moving", OCI), builder.layered("library/moving", 3)
            self.bed.push(old)
            options = ("--workers=2", "--tag-ttl=0", *ONE_FETCH)
            docxy = self.started(self.shared.new_docxy("none", False, options=options))
            docker, name = self.docker(docxy), "docker.io/library/moving:latest"

            def leads() -> set[tuple[int, str | None]]:
                """Where the tag leads, in answers of both workers."""
                answers = (
                    self.ask(docxy, "/v2/library/moving/manifests/latest", {"Accept": "*/*"}, method)[0]
                    for method in ("GET", "HEAD")
                    for _ in range(4)
                )
                return {(each.status, each.getheader("Docker-Content-Digest")) for each in answers}

            self.assertEqual(await docker.pull(old, "latest"), set())
            await self.order(docxy, "freeze", name)
            self.bed.push(new)
            self.assertEqual(await docker.pull(old, "latest"), set())
            self.assertEqual(await docker.pull(new, new.digest), set())
            docxy.stop()
            docxy.start()
            self.assertEqual(leads(), {(200, old.digest)})
            self.assertEqual(await docker.pull(old, "latest"), set())
            await self.order(docxy, "release", name)
            self.assertEqual(leads(), {(200, new.digest)})
            own = {digest for digest, _ in new.layers} - {digest for digest, _ in old.layers}
            self.assertEqual(len(own), 2)
            for fetched in (set(), own):
                with self.bed.watch_blobs() as blobs:
                    self.assertEqual(await docker.pull(new, "latest"), set())
                    paths = [request.path for request in blobs.requests()]
                self.assertEqual({each for each in own if any(each[7:] in path for path in paths)}, fetched)
                if not fetched:
                    freed = json.loads((await self.order(docxy, "rm", "--yes", "--json", name)).stdout)
                    self.assertGreaterEqual(freed["blobs"], len(own))
                    assert docxy.cache_directory is not None
                    kept = {each.name for each in docxy.cache_directory.rglob("*") if each.is_file()}
                    self.assertFalse({each for each in own if any(each[7:] in path for path in kept)})

        return checked(check())
