"""Registries that only clients name, and images of them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from docxy.cli.images import registries
from docxy.settings.any_registry import elsewhere, registry_name
from docxy.settings.image_names import NotMirrored, parse_exact, parse_image
from docxy.settings.model import ANY, DOCKER_HUB, AuthMode, Upstream

STAR = Upstream(ANY, "https://*", is_named=False, allow=("quay.io/**",), tag_ttl=5.0)


class NameTests(SynchronousTestCase):
    def test_names(self) -> None:
        """What is a full name of the internet is one, in lower case, without the port that it has anyway."""
        for text, name in (("Quay.IO", "quay.io"), ("quay.io:443", "quay.io"), ("x.example:5000", "x.example:5000")):
            self.assertEqual(registry_name(text), name)
        for text in (
            "localhost",
            "quay",
            "1.2.3.4",
            "1.2.3.4:443",
            "[::1]",
            "a.1",
            "a.0x1",
            "x.internal",
            "x.corp",
            "",
        ):
            self.assertRaises(ValueError, registry_name, text)

    def test_elsewhere(self) -> None:
        """It has what is known of its name, what the operator said of all others, and no account."""
        found = elsewhere(STAR, "quay.io", [DOCKER_HUB])
        self.assertEqual((found.name, found.url, found.tag_ttl), ("quay.io", "https://quay.io", 5.0))
        self.assertEqual((found.auth, found.private, found.is_named, found.label), (AuthMode.NONE, False, False, ANY))
        self.assertIs(elsewhere(STAR, "registry-1.docker.io", [DOCKER_HUB]), DOCKER_HUB)
        hub = elsewhere(STAR, "index.docker.io", [Upstream("corp.example", "https://corp.example")])
        self.assertEqual((hub.name, hub.url, hub.library), ("docker.io", DOCKER_HUB.url, True))
        mirrored = Upstream("hub", DOCKER_HUB.url)
        self.assertRaises(ValueError, elsewhere, STAR, "docker.io", [mirrored])


class ImageTests(SynchronousTestCase):
    def test_images(self) -> None:
        """With `*` among the registries, an image may be of any; but `*` itself is no registry."""
        known = [Upstream("ghcr.io", "https://ghcr.io"), STAR]
        self.assertEqual(str(parse_exact("quay.io/team/app:1", known)), "quay.io/team/app:1")
        self.assertEqual(str(parse_image("Quay.io:443/team/**", known)), "quay.io/team/**")
        self.assertEqual(str(parse_image("index.docker.io/alpine:3", known)), "docker.io/library/alpine:3")
        self.assertEqual(str(parse_image("*/app:1", known)), "ghcr.io/*/app:1")
        for text in ("localhost/app:1", "10.0.0.1:5000/app:1"):
            self.assertRaises((NotMirrored, ValueError), parse_image, text, known)
        self.assertRaises(NotMirrored, parse_exact, "quay.io/team/app:1", known[:1])

    def test_told(self) -> None:
        """The command line knows from docxy's snapshot whether there may be others."""
        snapshot = {"docxy": {"any_registry": True}, "upstreams": [{"name": "docker.io"}]}
        self.assertEqual([each.name for each in registries(snapshot)], ["docker.io", ANY])
        snapshot["docxy"] = {"any_registry": False}
        self.assertEqual([each.name for each in registries(snapshot)], ["docker.io"])
