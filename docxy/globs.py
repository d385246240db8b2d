"""Globs for names of repositories: `*` and `?` stay within a component, `**` does not.

Pure.  The law: matching takes at most as many steps as the pattern is long times the name
is long, for any name that a client makes up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from attrs import frozen

_PATTERN = re.compile(r"[a-z0-9._*?-]+(?:/[a-z0-9._*?-]+)*")
_TOKEN = re.compile(r"\*\*|[*?]|[^*?]")


def pattern(text: str) -> str:
    """A pattern that can match a name; raises ValueError as the parsers of `docxy.settings.parsers` do."""
    if _PATTERN.fullmatch(text) is None or "***" in text:
        raise ValueError("is not a pattern such as library/* or team/**")
    return text


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern covers a whole name."""
    return _compiled(pattern).covers(name)


@frozen
class _Glob:
    """A pattern as sets of places in it: bit n of a number stands for its token n."""

    start: str
    """The letters before the first wildcard, which most names fail at."""
    literal: Mapping[str, int]
    """By character, the tokens that are this character."""
    one: int
    """The tokens `?`."""
    star: int
    """The tokens `*`."""
    double: int
    """The tokens `**`."""
    end: int
    """The place behind the last token."""

    def covers(self, name: str) -> bool:
        if not name.startswith(self.start):
            return False
        stars = self.star | self.double
        # The tokens that may come next, all possibilities at once: nothing is tried twice.
        places = 1 | (stars & 1) << 1
        for character in name[len(self.start) :]:
            after = (places & self.literal.get(character, 0)) << 1 | places & self.double
            if character != "/":
                after |= (places & self.one) << 1 | places & self.star
            # A star may stand for nothing; no two follow each other.
            places = after | (after & stars) << 1
            if not places:
                return False
        return bool(places & self.end)


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> _Glob:
    start = re.split(r"[*?]", pattern, maxsplit=1)[0]
    tokens = _TOKEN.findall(pattern[len(start) :])
    wild = {"?": 0, "*": 0, "**": 0}
    literal: dict[str, int] = {}
    for place, token in enumerate(tokens):
        of = wild if token in wild else literal
        of[token] = of.get(token, 0) | 1 << place
    return _Glob(start, literal, wild["?"], wild["*"], wild["**"], 1 << len(tokens))
