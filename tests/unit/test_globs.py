"""Which names a glob covers, and which repositories an upstream's lists let through."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from docxy.globs import matches, pattern
from docxy.routing import permitted
from docxy.settings.model import DOCKER_HUB, Upstream


class MatchesTests(SynchronousTestCase):
    def test_covered(self) -> None:
        """Stars stand for nothing too; one star ends at a slash, two do not."""
        for glob, name in (
            ("library/alpine", "library/alpine"),
            ("library/*", "library/alpine"),
            ("*", "alpine"),
            ("**", "a/b/c"),
            ("team/**", "team/a/b"),
            ("**/secret", "a/b/secret"),
            ("a*c/d", "ac/d"),
            ("a*c/d", "abbc/d"),
            ("a**d", "a/b/c/d"),
            ("v?", "v1"),
            ("*a*b*", "xaybz"),
            ("**-dev/*", "a/b-dev/c"),
            ("a.b", "a.b"),
        ):
            self.assertTrue(matches(glob, name), (glob, name))

    def test_not_covered(self) -> None:
        """The whole name counts, a question mark is one character, and all else is meant literally."""
        for glob, name in (
            ("library/alpine", "library/alpine2"),
            ("alpine", "library/alpine"),
            ("library/*", "library/a/b"),
            ("library/*", "library"),
            ("*", "a/b"),
            ("team/**", "team"),
            ("team/**", "teams/a"),
            ("v?", "v"),
            ("v?", "v12"),
            ("a?b", "a/b"),
            ("a.b", "a-b"),
            ("*a*b", "ba"),
        ):
            self.assertFalse(matches(glob, name), (glob, name))

    def test_hostile_names(self) -> None:
        """No name makes a pattern with many stars slow (backtracking would need more than the sun has time for)."""
        self.assertFalse(matches("*a" * 40 + "b", "a" * 255))
        self.assertFalse(matches("**a" * 40 + "b", "a" * 255))


class PatternTests(SynchronousTestCase):
    def test_taken(self) -> None:
        """A pattern is what it was written as."""
        for text in ("**", "*", "library/*", "a-b_c.d/e?", "team/**/x"):
            self.assertEqual(pattern(text), text)

    def test_refused(self) -> None:
        """What can match no repository is a mistake."""
        for text in ("", "/a", "a/", "a//b", "A", "a b", "a:b", "***", "[ab]", "a\n", "é"):
            self.assertRaises(ValueError, pattern, text)


class PermittedTests(SynchronousTestCase):
    def upstream(self, allow: tuple[str, ...] = (), deny: tuple[str, ...] = (), library: bool = False) -> Upstream:
        return Upstream("a", "https://a", library, allow=allow, deny=deny)

    def test_no_lists(self) -> None:
        """Without lists everything may be pulled."""
        self.assertTrue(permitted(DOCKER_HUB, "any/thing"))

    def test_allow(self) -> None:
        """With an allow list nothing else may be."""
        upstream = self.upstream(allow=("team/**", "tools"))
        self.assertTrue(permitted(upstream, "team/a/b"))
        self.assertTrue(permitted(upstream, "tools"))
        self.assertFalse(permitted(upstream, "other"))

    def test_deny(self) -> None:
        """With a deny list everything else may be; it wins over the allow list, however exact that is."""
        self.assertTrue(permitted(self.upstream(deny=("team/*",)), "other"))
        self.assertFalse(permitted(self.upstream(deny=("team/*",)), "team/a"))
        self.assertFalse(permitted(self.upstream(allow=("team/a",), deny=("team/*",)), "team/a"))

    def test_library(self) -> None:
        """On Docker Hub, and only there, `alpine` in a list is library/alpine."""
        self.assertTrue(permitted(self.upstream(allow=("alpine",), library=True), "library/alpine"))
        self.assertTrue(permitted(self.upstream(allow=("library/alpine",), library=True), "library/alpine"))
        self.assertFalse(permitted(self.upstream(deny=("alpine",), library=True), "library/alpine"))
        self.assertFalse(permitted(self.upstream(allow=("alpine",)), "library/alpine"))
        self.assertFalse(permitted(self.upstream(allow=("a/b",), library=True), "library/a/b"))
