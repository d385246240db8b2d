"""What operators may call an image."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from docxy.errors import BadRequest
from docxy.settings.model import Upstream
from docxy.settings.upstreams import preset
from docxy.steward.names import Names, Wanted

D = "sha256:" + "ab" * 32
NAMES = Names.over([preset("docker.io"), preset("ghcr.io")])


def means(text: str, upstream: str, repository: str, tag: str | None = "1", digest: str = D) -> bool:
    wanted = Wanted.parse(text)
    return wanted.covers(NAMES.of(upstream, repository)) and wanted.takes(tag, digest)


class WantedTests(SynchronousTestCase):
    def test_docker_hub(self) -> None:
        """Without a registry a name is Docker Hub's, where a single one is in library/."""
        for text in (
            "alpine",
            "library/alpine",
            "docker.io/alpine",
            "docker.io/library/alpine",
            "index.docker.io/alpine",
        ):
            self.assertTrue(means(text, "docker.io", "library/alpine"), text)
            self.assertFalse(means(text, "ghcr.io", "library/alpine"), text)
            self.assertFalse(means(text, "docker.io", "o/alpine"), text)
        self.assertTrue(means("o/i", "docker.io", "o/i"))
        self.assertFalse(means("o/i", "ghcr.io", "o/i"))
        self.assertTrue(means("ghcr.io/o/i", "ghcr.io", "o/i"))

    def test_other_library(self) -> None:
        """A registry with a library other than docker.io, with an alias, and a default that is no Docker Hub."""
        corp = Upstream("hub.corp", "https://hub.corp", library=True, aliases=frozenset({"corp"}))
        names = Names.over([corp, preset("ghcr.io")], [preset("docker.io")])
        self.assertTrue(Wanted.parse("alpine").covers(names.of("hub.corp", "library/alpine")))
        self.assertTrue(Wanted.parse("hub.corp/alpine").covers(names.of("hub.corp", "library/alpine")))
        self.assertTrue(Wanted.parse("corp/alpine").covers(names.of("hub.corp", "library/alpine")))
        self.assertFalse(Wanted.parse("alpine").covers(names.of("docker.io", "library/alpine")))
        self.assertFalse(Wanted.parse("alpine").covers(names.of("ghcr.io", "library/alpine")))

    def test_tags_and_digests(self) -> None:
        """A tag, a digest, the beginning of a digest, a digest of any repository."""
        self.assertTrue(means("alpine:1", "docker.io", "library/alpine"))
        self.assertFalse(means("alpine:2", "docker.io", "library/alpine"))
        self.assertFalse(means("alpine:1", "docker.io", "library/alpine", tag=None))
        for digest in (D, "sha256:ababab"):
            self.assertTrue(means(f"alpine@{digest}", "docker.io", "library/alpine", tag=None))
            self.assertTrue(means(digest, "ghcr.io", "o/i"))
        self.assertFalse(means("alpine@sha256:cdcdcd", "docker.io", "library/alpine"))
        self.assertTrue(means("localhost:5000/o/i:1", "localhost:5000", "o/i"))

    def test_globs(self) -> None:
        """A star stays within a component, two do not; tags may be globs, too."""
        self.assertTrue(means("ghcr.io/**", "ghcr.io", "o/i"))
        self.assertFalse(means("ghcr.io/*", "ghcr.io", "o/i"))
        self.assertTrue(means("**", "ghcr.io", "o/i"))
        self.assertTrue(means("py*:3.*", "docker.io", "library/python", "3.12"))
        self.assertFalse(means("py*:3.*", "docker.io", "library/python", "2.7"))

    def test_wrong(self) -> None:
        """What can be no name is refused, whatever it is."""
        for text in (
            "",
            ":",
            "@",
            "a b",
            "alpine@",
            "alpine@sha256:ab",
            "***",
            "x\x1b[2J",
            "a" * 2000,
        ):
            self.assertRaises(BadRequest, Wanted.parse, text)
