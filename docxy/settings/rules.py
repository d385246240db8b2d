"""Who may read which repositories.

Pure.  The law: without rules, everyone who has logged in may read everything; where
there are, only what a rule names.  Rules add to each other; none takes anything away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from attrs import field, frozen

from docxy import globs

ANONYMOUS = "anonymous"
"""The group of everyone, logged in or not."""
EVERYONE = "everyone"
"""The group of everyone who has logged in."""
BUILT_IN = frozenset({ANONYMOUS, EVERYONE})

_UPSTREAM = re.compile(r"[a-z0-9._*?-]+(?::[0-9*?]+)?")


def pattern(text: str) -> str:
    """A glob for `<upstream>/<repository>`; raises ValueError whose message follows the text in a sentence."""
    upstream, _, repository = text.partition("/")
    if text == "**":
        return text
    if _UPSTREAM.fullmatch(upstream) is None:
        raise ValueError("is not a pattern such as docker.io/library/* or ghcr.io/team/**")
    if not repository:
        raise ValueError("matches nothing: a pattern is <upstream>/<repository>, as docker.io/library/*")
    return f"{upstream}/{globs.pattern(repository)}"


@frozen
class Rule:
    """Some people, some repositories."""

    users: frozenset[str]
    groups: frozenset[str]
    repositories: tuple[str, ...]
    """As `pattern` gives them."""


@frozen
class Rules:
    """All that an operator wrote of who may read what."""

    rules: tuple[Rule, ...] = ()
    members: Mapping[str, frozenset[str]] = field(factory=dict)
    """The users of each group."""
    reserve: Mapping[str, float] = field(factory=dict)
    """The share of each upstream's pull limit that is kept for a group."""

    @property
    def anonymous(self) -> bool:
        """Whether there is anything for those who have not logged in."""
        return any(ANONYMOUS in rule.groups for rule in self.rules)

    def may(self, user: str | None, name: str) -> bool:
        """Whether a user, None before login, may read `<upstream>/<repository>`."""
        if not self.rules:
            return user is not None
        return any(
            self._is_for(rule, user) and any(globs.matches(pattern, name) for pattern in rule.repositories)
            for rule in self.rules
        )

    def group(self, user: str | None) -> str:
        """The first group that a user is in; empty: none."""
        return next((name for name, members in self.members.items() if user in members), "")

    def floor(self, user: str | None) -> float | None:
        """The share of a pull limit that this user leaves to others; None where there is no reserve.

        A user leaves alone what is reserved for groups with a larger reserve than that of the user's own groups.
        """
        if not self.reserve:
            return None
        own = max((share for name, share in self.reserve.items() if user in self.members.get(name, ())), default=0.0)
        return sum(share for share in self.reserve.values() if share > own)

    def may_any(self, user: str | None, names: Iterable[str]) -> bool:
        """Whether a user may read one of these at least."""
        return any(self.may(user, name) for name in names)

    def _is_for(self, rule: Rule, user: str | None) -> bool:
        if ANONYMOUS in rule.groups:
            return True
        if user is None:
            return False
        if EVERYONE in rule.groups or user in rule.users:
            return True
        return any(user in self.members.get(group, ()) for group in rule.groups)
