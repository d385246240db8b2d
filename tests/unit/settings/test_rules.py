"""Patterns and rules."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from docxy.settings.rules import Rule, Rules, pattern


def rule(repositories: str, users: str = "", groups: str = "") -> Rule:
    patterns = tuple(pattern(text) for text in repositories.split())
    return Rule(frozenset(users.split()), frozenset(groups.split()), patterns)


class PatternTests(SynchronousTestCase):
    def test_matches(self) -> None:
        """`*` and `?` stay within a component, `**` does not, and nothing else is special."""
        for text, name, wanted in (
            ("docker.io/library/*", "docker.io/library/alpine", True),
            ("docker.io/library/*", "docker.io/library/a/b", False),
            ("docker.io/library/*", "docker.io/library2/alpine", False),
            ("docker.io/library/*", "dockerxio/library/alpine", False),
            ("docker.io/library/*", "x/docker.io/library/alpine", False),
            ("ghcr.io/team/**", "ghcr.io/team/a", True),
            ("ghcr.io/team/**", "ghcr.io/team/a/b/c", True),
            ("ghcr.io/team/**", "ghcr.io/team", False),
            ("ghcr.io/team/**", "ghcr.io/team-evil/a", False),
            ("ghcr.io/**/base", "ghcr.io/a/b/base", True),
            ("ghcr.io/**/base", "ghcr.io/a/b/base2", False),
            ("**", "ghcr.io/a/b", True),
            ("*/library/*", "docker.io/library/alpine", True),
            ("*.pkg.dev/**", "europe-docker.pkg.dev/p/r/i", True),
            ("docker.io/library/alpine", "docker.io/library/alpine", True),
            ("docker.io/library/alpin?", "docker.io/library/alpine", True),
            ("docker.io/library?alpine", "docker.io/library/alpine", False),
            ("docker.io/library/alpine", "docker.io/library/alpine\n", False),
            ("localhost:5000/a-b/*_c", "localhost:5000/a-b/x_c", True),
        ):
            self.assertIs(Rules((rule(text, groups="everyone"),)).may("alice", name), wanted, (text, name))

    def test_unusable(self) -> None:
        """What can match nothing, or means something elsewhere, is refused."""
        for text in (
            "",
            "alpine",
            "docker.io",
            "docker.io/[ab]",
            "Docker.io/x",
            "a/***",
            "a/b c",
            "a/{b,c}",
            "a/",
            "a//b",
            "/a/b",
        ):
            self.assertRaises(ValueError, pattern, text)


class RulesTests(SynchronousTestCase):
    def test_none(self) -> None:
        """Without rules everything is for everyone who has logged in."""
        self.assertTrue(Rules().may("alice", "docker.io/library/alpine"))
        self.assertFalse(Rules().may(None, "docker.io/library/alpine"))
        self.assertFalse(Rules().anonymous)

    def test_users_and_groups(self) -> None:
        """Rules add up; what none names is for nobody."""
        rules = Rules(
            (
                rule("docker.io/library/*", users="alice", groups="devs"),
                rule("ghcr.io/team/**", groups="devs ops"),
            ),
            {"devs": frozenset({"bob"}), "ops": frozenset({"carol"})},
        )
        for user, hub, ghcr in (("alice", True, False), ("bob", True, True), ("carol", False, True)):
            self.assertIs(rules.may(user, "docker.io/library/alpine"), hub)
            self.assertIs(rules.may(user, "ghcr.io/team/x"), ghcr)
            self.assertFalse(rules.may(user, "quay.io/x/y"))
        for nobody in ("devs", "", "eve", None):
            self.assertFalse(rules.may(nobody, "docker.io/library/alpine"))
        self.assertFalse(rules.anonymous)

    def test_built_in_groups(self) -> None:
        """`everyone` has logged in; `anonymous` need not have."""
        rules = Rules((rule("docker.io/library/*", groups="anonymous"), rule("docker.io/team/*", groups="everyone")))
        self.assertTrue(rules.anonymous)
        self.assertTrue(rules.may(None, "docker.io/library/alpine"))
        self.assertTrue(rules.may("alice", "docker.io/library/alpine"))
        self.assertFalse(rules.may(None, "docker.io/team/x"))
        self.assertTrue(rules.may("alice", "docker.io/team/x"))
