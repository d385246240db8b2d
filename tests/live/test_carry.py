"""Images carried by real clients: warmed, exported, cut and resumed, imported elsewhere, loaded and pulled."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.harness.docxy import environment
from tests.harness.processes import CommandFailed, Output, run
from tests.live.case import LiveTestCase
from tests.live.clients import Client, Docker, Podman, Skopeo, every_client, named
from tests.live.daemon import Docxy
from tests.live.images import Image, host_architecture

DOCXY = [sys.executable, "-c", "from docxy.cli.main import main; main()"]
HERE = f"linux/{host_architecture()}"


class CarryCase(LiveTestCase):
    def setUp(self) -> None:
        """A directory for files."""
        super().setUp()
        self.directory = self.shared.new_directory("carry")
        self.images = {name: self.bed.images[f"library/{name}"] for name in ("small", "list", "multi", "large")}

    def started(self, auth: str = "none") -> Docxy:
        """A docxy with an empty cache, until the test ends."""
        docxy = self.shared.new_docxy(auth, False)
        self.addCleanup(docxy.stop)
        docxy.start()
        return docxy

    async def docxy(self, docxy: Docxy, *arguments: str) -> Any:
        """A command, about one docxy; its JSON."""
        environ = environment(DOCXY_CONFIG=str(docxy.directory / "docxy.toml"), CACHE_DIR=str(docxy.cache_directory))
        output = await run(self.reactor, [*DOCXY, *arguments, "--json"], environ)
        return json.loads(output.stdout)

    async def curl(self, *arguments: str, check: bool = True) -> Output:
        return await run(self.reactor, ["curl", "-sS", *arguments], environment(), check=check)

    def running(self, client: Any) -> Any:
        self.addCleanup(client.stop)
        client.start()
        return client

    async def export(self, docxy: Docxy, image: Image, platform: str = HERE) -> Path:
        """The tar of one image, by curl."""
        path = self.directory / f"{image.short}-{platform.replace('/', '-')}.tar"
        url = f"{docxy.url}/export?image={image.short}&platform={platform}"
        await self.curl("--fail", "-o", str(path), url)
        return path


class Warmed(CarryCase):
    async def test_compose(self) -> None:
        """What a compose file and a Kubernetes manifest name is warmed; then clients pull it with the registry off."""
        docxy = self.started()
        compose, pods = self.directory / "compose.yaml", self.directory / "pods.yaml"
        compose.write_text("services:\n  a: {image: small}\n  b: {image: 'docker.io/library/list:${TAG:-latest}'}\n")
        pods.write_text("kind: Pod\nspec:\n  containers: [{name: m, image: multi}]\n")
        told = await self.docxy(
            docxy, "warm", "--from-file", str(compose), "--from-file", str(pods), "--platform", HERE
        )
        self.assertEqual((len(told["images"]), told["failed"]), (3, 0))
        again = await self.docxy(docxy, "warm", "small", "list", "multi", "--platform", HERE)
        self.assertEqual([row["fetched"] for row in again["images"]], [0, 0, 0])
        machine = self.machine(docxy.target)
        client = self.running(Docker(machine, self.reactor))
        with self.bed.off():
            for name in ("small", "list", "multi"):
                image = self.images[name]
                self.assertEqual(await client.pull(image, "latest", machine.target.host), set(), name)


class Exported(CarryCase):
    async def test_clients(self) -> None:
        """docker and podman load the tar and run it; skopeo reads it as both kinds of archive."""
        docxy = self.started()
        machine = self.machine(docxy.target)
        docker: Docker = self.running(Docker(machine, self.reactor))
        podman, skopeo = Podman(machine, self.reactor), Skopeo(machine, self.reactor)
        for name in ("small", "multi", "list"):
            image = self.images[name]
            path = await self.export(docxy, image)
            loaded = await docker.command("load", "-i", str(path))
            self.assertIn(f"{name}:latest", loaded.stdout)
            said = await docker.command("run", "--rm", "--network", "none", f"{name}:latest", "/bin/echo", "hi")
            self.assertEqual(said.stdout, "hi\n")
            inspected = json.loads((await docker.command("image", "inspect", f"{name}:latest")).stdout)[0]
            self.assertIn(inspected["Id"], (image.config, image.local.digest))
            loaded = await podman.command("load", "-i", str(path))
            self.assertIn(f"docker.io/library/{name}:latest", loaded.text)
            # A skopeo of 2022 finds Docker's manifests in an OCI archive only without a tag.
            tag = ":latest" if name == "multi" else ""
            for kind, there in (("oci-archive", f"{path}{tag}"), ("docker-archive", str(path))):
                raw = await skopeo.command("inspect", "--config", f"{kind}:{there}")
                self.assertEqual(json.loads(raw.stdout)["architecture"], host_architecture(), kind)
                copied = self.directory / f"{kind}-{name}"
                await skopeo.command("copy", "--quiet", f"{kind}:{there}", f"dir:{copied}")
        everything = await self.export(docxy, self.images["multi"], "all")
        copied = self.directory / "all"
        await skopeo.command("copy", "--quiet", "--all", f"oci-archive:{everything}:latest", f"dir:{copied}")
        children = {child.digest for child in self.images["multi"].children.values()}
        kept = {f"sha256:{file.name[:64]}" for file in copied.glob("*.manifest.json")}
        self.assertEqual(kept, children)

    async def test_resumed(self) -> None:
        """An export that is cut in the middle, cold, goes on by `curl -C -` and is the same byte for byte."""
        docxy = self.started()
        large = self.images["large"]
        url = f"{docxy.url}/export?image=large"
        path = self.directory / "large.tar"
        self.bed.slow_blobs(True)
        try:
            with self.assertRaises(CommandFailed):
                await self.curl("--max-time", "2", "-o", str(path), url)
        finally:
            self.bed.slow_blobs(False)
        before = path.stat().st_size
        self.assertGreater(before, 0)
        self.assertLess(before, large.layers[1][1])
        await self.curl("--fail", "-C", "-", "-o", str(path), url)
        whole = await self.export(docxy, large)
        self.assertEqual(path.stat().st_size, whole.stat().st_size)
        self.assertTrue(path.read_bytes() == whole.read_bytes())
        docker: Docker = self.running(Docker(self.machine(docxy.target), self.reactor))
        self.assertIn("large:latest", (await docker.command("load", "-i", str(path))).stdout)


class Imported(CarryCase):
    async def test_pulled(self) -> None:
        """export here, import on another docxy without a registry; every client pulls it there, byte for byte."""
        here = self.started()
        path = self.directory / "images.tar"
        names = ("small", "multi")
        await self.docxy(here, "export", *names, "-o", str(path), "--url", here.url, "--platform", "all")
        with self.bed.off():
            there = self.started()
            told = await self.docxy(there, "import", str(path))
            self.assertEqual(told["incomplete"], 0)
            machine = self.machine(there.target)
            clients: list[Client] = every_client(machine, self.reactor)
            for client in clients:
                self.running(client)
                for name in names:
                    image = self.images[name]
                    wrong = await client.pull(image, "latest", machine.target.host)
                    self.assertEqual(wrong, set(), (client.name, name))
            there.stop()
            told = await self.docxy(there, "import", str(path), "--cache", str(there.cache_directory))
            self.assertEqual((told["incomplete"], told["new_blobs"]), (0, 0))

    async def test_docker_save(self) -> None:
        """What docker saves of an image is imported and pulled again, by a docker that does not have it."""
        here = self.started()
        machine = self.machine(here.target)
        docker: Docker = self.running(Docker(machine, self.reactor))
        small = self.images["small"]
        path = self.directory / "saved.tar"
        name = named(small, "latest", machine.target.host)
        await docker.command("pull", "--quiet", name)
        await docker.command("tag", name, "small:saved")
        await docker.command("save", "-o", str(path), "small:saved")
        told = await self.docxy(here, "import", str(path))
        self.assertEqual(told["images"][0]["names"], ["docker.io/library/small:saved"])
        with self.bed.off():
            await docker.command("image", "rm", "--force", name, "small:saved")
            saved = f"{machine.target.host}/library/small:saved"
            await docker.command("pull", "--quiet", saved)
            said = await docker.command("run", "--rm", "--network", "none", saved, "/bin/echo", "hi")
            self.assertEqual(said.stdout, "hi\n")
