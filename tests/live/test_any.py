"""Clients pull from a registry that nobody configured, neither at the client nor at docxy."""

from __future__ import annotations

from collections.abc import Callable

import yaml
from twisted.internet.defer import Deferred

from docxy.web.pages.clients import clients, containerd, k3s
from tests.live.away import Away
from tests.live.case import LiveTestCase
from tests.live.clients import Containerd, Make, Podman
from tests.live.clients_today import Containerd2, Docker2
from tests.live.machine import Machine

NAME = "registry.example"

Configure = Callable[[Machine, str], None]
"""Writes on a machine what docxy at this URL prints for its client."""


class AnyTests(LiveTestCase):
    """One file for every registry on the client, and `"*"` at docxy, which goes to the internet by a proxy."""

    def pulls(self, make: Make, configure: Configure | None = None) -> Deferred[None]:
        """Check one client."""
        return Deferred.fromCoroutine(self._pulls(make, configure or self.hosts))

    async def _pulls(self, make: Make, configure: Configure) -> None:
        images = {name: self.bed.images[name] for name in ("team/app", "library/multi")}
        away = Away(self.shared.new_directory("away"), NAME, images)
        with away.running():
            table = f'[[upstreams]]\nname = "*"\nproxy = "{away.proxy}"\nca_file = "{away.authority}"\n'
            docxy = self.shared.new_docxy("none", False, tables=table)
            self.addCleanup(docxy.stop)
            docxy.start()
            machine = self.machine(docxy.target)
            configure(machine, docxy.url)
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

    def hosts(self, machine: Machine, url: str) -> None:
        """Write the one file where containerd and where Docker look for it."""
        self.write(machine, containerd(url).text)

    def write(self, machine: Machine, text: str) -> None:
        for place in (machine.hosts_dir, machine.directory / "docker" / "certs.d"):
            (place / "_default").mkdir(parents=True)
            (place / "_default" / "hosts.toml").write_text(text + "\n")

    def k3s(self, machine: Machine, url: str) -> None:
        """Write the `_default/hosts.toml` that k3s makes of `"*"`: its endpoint with `/v2` in place of no path."""
        (endpoint,) = yaml.safe_load(k3s(url).text)["mirrors"]["*"]["endpoint"]
        self.write(machine, f'[host."{endpoint}/v2"]\n  capabilities = ["pull", "resolve"]')

    def registries(self, machine: Machine, url: str) -> None:
        """Write a rule for this registry and one for docker.io, and nothing else."""
        (podman,) = [each for each in clients(url, ["docker.io", NAME]) if each.kind == "podman"]
        (machine.directory / "containers" / "registries.conf").write_text("")
        place = machine.directory / "containers" / "registries.conf.d"
        place.mkdir()
        (place / "docxy.conf").write_text(podman.text + "\n")

    def test_containerd(self) -> Deferred[None]:
        """Debian's containerd."""
        return self.pulls(Containerd)

    def test_containerd_2(self) -> Deferred[None]:
        """containerd 2."""
        return self.pulls(Containerd2)

    def test_docker_2(self) -> Deferred[None]:
        """dockerd 2 with the containerd image store."""
        return self.pulls(Docker2)

    def test_k3s(self) -> Deferred[None]:
        """containerd 2, by the file that k3s and RKE2 make of theirs."""
        return self.pulls(Containerd2, self.k3s)

    def test_podman(self) -> Deferred[None]:
        """Podman, by a rule for each registry."""
        return self.pulls(Podman, self.registries)
