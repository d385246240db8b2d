"""Clients pull from a registry that nobody configured, neither at the client nor at docxy."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from docxy.web.pages.clients import containerd
from tests.live.away import Away
from tests.live.case import LiveTestCase
from tests.live.clients import Containerd, Make
from tests.live.clients_today import Containerd2, Docker2
from tests.live.machine import Machine

NAME = "registry.example"


class AnyTests(LiveTestCase):
    """One file for every registry on the client, and `"*"` at docxy, which goes to the internet by a proxy."""

    def pulls(self, make: Make) -> Deferred[None]:
        """Check one client."""
        return Deferred.fromCoroutine(self._pulls(make))

    async def _pulls(self, make: Make) -> None:
        images = {name: self.bed.images[name] for name in ("team/app", "library/multi")}
        away = Away(self.shared.new_directory("away"), NAME, images)
        with away.running():
            table = f'[[upstreams]]\nname = "*"\nproxy = "{away.proxy}"\nca_file = "{away.authority}"\n'
            docxy = self.shared.new_docxy("none", False, tables=table)
            self.addCleanup(docxy.stop)
            docxy.start()
            machine = self.machine(docxy.target)
            self.configure(machine, docxy.url)
            client = make(machine, self.reactor)
            self.addCleanup(client.stop)
            client.start()
            for image in images.values():
                for reference in ("latest", image.digest):
                    self.assertEqual(await client.pull(image, reference, NAME), set(), (image.repository, reference))
            self.assertEqual({each for each in away.asked if each.startswith("CONNECT")}, {f"CONNECT {NAME}:443"})
            # Where both images have a layer, each worker may ask whether its clients may read it in the other, too.
            for layer in {layer for image in images.values() for layer, _ in image.layers}:
                whole = [each for each in away.asked if each.startswith("GET") and each.endswith(layer)]
                self.assertEqual(len(whole), 1, away.asked)
            self.assertNotIn("Traceback", docxy.daemon.text())

    def configure(self, machine: Machine, url: str) -> None:
        """Write the one file, as docxy prints it, where containerd and where Docker look for it."""
        for place in (machine.hosts_dir, machine.directory / "docker" / "certs.d"):
            (place / "_default").mkdir(parents=True)
            (place / "_default" / "hosts.toml").write_text(containerd(url).text + "\n")

    def test_containerd(self) -> Deferred[None]:
        """Debian's containerd."""
        return self.pulls(Containerd)

    def test_containerd_2(self) -> Deferred[None]:
        """containerd 2."""
        return self.pulls(Containerd2)

    def test_docker_2(self) -> Deferred[None]:
        """dockerd 2 with the containerd image store."""
        return self.pulls(Docker2)
