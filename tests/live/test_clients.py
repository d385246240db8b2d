"""Every client pulls every image through docxy, and gets the right bytes."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from tests.live.case import LiveTestCase
from tests.live.clients import Containerd, Docker, Make, Podman, Skopeo
from tests.live.images import ESTARGZ
from tests.live.machine import DOCKER_HUB

SOME = ("library/small", "library/multi")
"""Enough where only the transport differs."""
SMALL = (*SOME, "library/list", "team/app", ESTARGZ)
LARGE = "library/large"


class PullTestCase(LiveTestCase):
    """How all of them are checked."""

    async def check(self, make: Make, auth: str, *, tls: bool, mirror: bool) -> None:
        """Pull by tag and by digest: as docker.io's through the mirror, or by docxy's own name.

        Over HTTPS every image, but the large one once only: by tag through the mirror, by
        digest otherwise.
        """
        docxy = self.shared.docxy(auth, tls)
        client = make(self.machine(docxy.target), self.reactor)
        self.addCleanup(client.stop)
        client.start()
        # By digest first: dockerd keeps manifests, but always asks what a tag means.
        images = [self.bed.images[name] for name in (SMALL if tls else SOME)]
        wanted = [(image, reference) for image in images for reference in (image.digest, "latest")]
        if tls:
            image = self.bed.images[LARGE]
            wanted.append((image, "latest" if mirror else image.digest))
        for image, reference in wanted:
            seen = len(docxy.daemon.text())
            wrong = await client.pull(image, reference, DOCKER_HUB if mirror else docxy.target.host)
            what = f"{client.name}, {image.repository} {reference}"
            self.assertEqual(wrong, set(), f"wrong bytes: {what}")
            log = docxy.daemon.text()[seen:]
            self.assertIn(f"/v2/{image.repository}/manifests/{reference}", log, f"docxy was not asked: {what}\n{log}")


class EachClient(PullTestCase):
    """One way of serving, checked with each client."""

    auth = "transparent"
    tls = True

    def pulls(self, make: Make, *, mirror: bool) -> Deferred[None]:
        """Check one client."""
        return Deferred.fromCoroutine(self.check(make, self.auth, tls=self.tls, mirror=mirror))

    def test_docker_mirror(self) -> Deferred[None]:
        """Docker pulls docker.io's images, with docxy as its mirror."""
        return self.pulls(Docker, mirror=True)

    def test_docker_direct(self) -> Deferred[None]:
        """Docker pulls by docxy's own name."""
        return self.pulls(Docker, mirror=False)

    def test_containerd_mirror(self) -> Deferred[None]:
        """Containerd pulls docker.io's images, with docxy as its mirror."""
        return self.pulls(Containerd, mirror=True)

    def test_containerd_direct(self) -> Deferred[None]:
        """Containerd pulls by docxy's own name."""
        return self.pulls(Containerd, mirror=False)

    def test_podman_mirror(self) -> Deferred[None]:
        """Podman pulls docker.io's images, with docxy as its mirror."""
        return self.pulls(Podman, mirror=True)

    def test_podman_direct(self) -> Deferred[None]:
        """Podman pulls by docxy's own name."""
        return self.pulls(Podman, mirror=False)

    def test_skopeo_mirror(self) -> Deferred[None]:
        """Skopeo pulls docker.io's images, with docxy as its mirror."""
        return self.pulls(Skopeo, mirror=True)

    def test_skopeo_direct(self) -> Deferred[None]:
        """Skopeo pulls by docxy's own name."""
        return self.pulls(Skopeo, mirror=False)


class HttpsTransparentTests(EachClient):
    """Over HTTPS; the client gets its tokens through docxy."""


class HttpsNoneTests(EachClient):
    """Over HTTPS; docxy gets the tokens."""

    auth = "none"


class HttpTransparentTests(EachClient):
    """Over plain HTTP; the client gets its tokens through docxy."""

    tls = False


class HttpNoneTests(EachClient):
    """Over plain HTTP; docxy gets the tokens."""

    auth, tls = "none", False


del EachClient  # or trial would run it, too
