"""Tools of today against docxy in front of registries of today: cold, warm, and with the upstream off.

containerd 2 pulls from the bed, as the other clients do (test_clients.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from twisted.internet.defer import Deferred

from tests.harness.processes import Reactor
from tests.live.case import LiveTestCase
from tests.live.clients_today import BuildKit, Containerd2, Docker2
from tests.live.daemon import Docxy
from tests.live.gobuild import built
from tests.live.logins import ACCOUNT, account_table
from tests.live.machine import Machine
from tests.live.stores import Store, distribution_store, olareg_store
from tests.live.test_clients import LARGE, PullTestCase
from tests.live.tools import Cosign, Crane, Helm, Notation, Oras, Regctl, Tool

Make = Callable[[Machine, Reactor, tuple[str, str] | None], Tool]


class Containerd2Tests(PullTestCase):
    """containerd 2 pulls the bed's images, each layer in several ranges at once."""

    def pulls(self, auth: str, tls: bool, mirror: bool) -> Deferred[None]:
        """Check it against one docxy."""
        return Deferred.fromCoroutine(self._pulls(auth, tls, mirror))

    async def _pulls(self, auth: str, tls: bool, mirror: bool) -> None:
        docxy = self.shared.docxy(auth, tls)
        seen = len(docxy.daemon.text())
        await self.check(Containerd2, auth, tls=tls, mirror=mirror)
        layer, _ = self.bed.images[LARGE].layers[1]
        ranges = re.findall(rf'"GET /v2/{LARGE}/blobs/{layer}\S* HTTP/1.1" 206 ', docxy.daemon.text()[seen:])
        # Each range is open-ended, and left where the next begins: only the last one ends and is logged.
        self.assertEqual(bool(ranges), tls, ranges)

    def test_transparent_mirror(self) -> Deferred[None]:
        """Through docxy as docker.io's mirror, with tokens of its own."""
        return self.pulls("transparent", True, True)

    def test_transparent_direct(self) -> Deferred[None]:
        """By docxy's own name, with tokens of its own."""
        return self.pulls("transparent", True, False)

    def test_none_mirror(self) -> Deferred[None]:
        """Through docxy as docker.io's mirror, with no token."""
        return self.pulls("none", True, True)

    def test_none_http(self) -> Deferred[None]:
        """By docxy's own name over plain HTTP, with no token."""
        return self.pulls("none", False, False)


class Docker2Tests(PullTestCase):
    """dockerd 2 with the containerd image store pulls the bed's images over plain HTTP."""

    def pulls(self, auth: str, mirror: bool) -> Deferred[None]:
        """Check it against one docxy."""
        return Deferred.fromCoroutine(self.check(Docker2, auth, tls=False, mirror=mirror))

    def test_transparent_mirror(self) -> Deferred[None]:
        """Through docxy as docker.io's mirror, with tokens of its own."""
        return self.pulls("transparent", True)

    def test_none_direct(self) -> Deferred[None]:
        """By docxy's own name, which it tries over TLS first."""
        return self.pulls("none", False)


class BuildKitTests(PullTestCase):
    """BuildKit builds on the bed's images."""

    def builds(self, auth: str, tls: bool, mirror: bool) -> Deferred[None]:
        """Check it against one docxy."""
        return Deferred.fromCoroutine(self.check(BuildKit, auth, tls=tls, mirror=mirror))

    def test_transparent_mirror(self) -> Deferred[None]:
        """Through docxy as docker.io's mirror over HTTPS, with tokens of its own."""
        return self.builds("transparent", True, True)

    def test_none_http(self) -> Deferred[None]:
        """By docxy's own name over plain HTTP, which it tries over TLS first."""
        return self.builds("none", False, False)


class TodayCase(LiveTestCase):
    """How all of them are checked."""

    auth = "none"
    account: tuple[str, str] | None = None
    """Of docxy's own, which it then wants."""
    program = "olareg"

    def setUp(self) -> None:
        """The registry, which outlives the test."""
        super().setUp()
        built("oras", "helm", "cosign", "notation", self.program)
        self.store = self.shared.once(self.program, self._store)

    @property
    def url(self) -> str:
        """Of what docxy has as its upstream."""
        return self.store.url

    def _store(self) -> Store:
        make = olareg_store if self.program == "olareg" else distribution_store
        return self.shared.running(make(self.shared.new_directory(self.program)))

    def check(self, make: Make, name: str) -> Deferred[None]:
        """Let a tool copy everything three times; nothing may be wrong, and nothing be asked twice."""
        built(name, "crane")
        return Deferred.fromCoroutine(self._check(make))

    async def _check(self, make: Make) -> None:
        directory = self.shared.new_directory("docxy")
        tables = "" if self.account is None else account_table(directory)
        docxy = Docxy(directory, self.url, self.auth, self.shared.certificate, upstreams=tables)
        self.addCleanup(docxy.stop)
        docxy.start()
        tool = make(self.machine(docxy.target), self.reactor, self.account)
        for when in ("cold", "warm"):
            self.assertEqual(await tool.check(self.store), [], when)
        with self.store.off():
            self.assertEqual(await tool.check(self.store), [], "with the upstream off")
        self.assertNotIn("Traceback", docxy.daemon.text())


class NoneTests(TodayCase):
    """In `none` mode, in front of olareg."""

    def test_crane(self) -> Deferred[None]:
        """Crane copies images, an index with attestations too, byte for byte."""
        return self.check(Crane, "crane")

    def test_regctl(self) -> Deferred[None]:
        """Regctl copies images with all that refers to them, and blobs named by sha512."""
        return self.check(Regctl, "regctl")

    def test_oras(self) -> Deferred[None]:
        """Oras copies images with all that refers to them, and blobs named by sha512."""
        return self.check(Oras, "oras")

    def test_helm(self) -> Deferred[None]:
        """Helm pulls a chart."""
        return self.check(Helm, "helm")

    def test_cosign(self) -> Deferred[None]:
        """Cosign verifies a signature."""
        return self.check(Cosign, "cosign")

    def test_notation(self) -> Deferred[None]:
        """Notation verifies a signature, which it finds among the referrers."""
        return self.check(Notation, "notation")


class AccessTests(NoneTests):
    """The same for an account of docxy's own."""

    account = ACCOUNT


class TransparentTests(NoneTests):
    """The same in `transparent` mode, in front of distribution 3, which wants a token and has no referrers API."""

    auth = "transparent"
    program = "distribution"


class TokensTests(TodayCase):
    """In `transparent` mode, in front of olareg behind a token service that stays up: blobs named by sha512 too."""

    auth = "transparent"

    @property
    def url(self) -> str:
        """Of what wants a token."""
        return f"http://127.0.0.1:{self.challenging(self.store.port)}"

    def test_regctl(self) -> Deferred[None]:
        """Regctl copies images with all that refers to them."""
        return self.check(Regctl, "regctl")

    def test_oras(self) -> Deferred[None]:
        """Oras copies images with all that refers to them."""
        return self.check(Oras, "oras")
