"""Globs for names of repositories: `*` and `?` stay within a component, `**` does not.

Pure.  The law: matching takes at most as many steps as the pattern is long times the name
is long, whatever a client makes up as a name.
"""

from __future__ import annotations

import re
from functools import lru_cache

_PATTERN = re.compile(r"[a-z0-9._*?-]+(?:/[a-z0-9._*?-]+)*")
_TOKEN = re.compile(r"\*\*|[*?]|[^*?]")


def pattern(text: str) -> str:
    """A pattern that can match a name; raises ValueError as the parsers of `docxy.values` do."""
    if _PATTERN.fullmatch(text) is None or "***" in text:
        raise ValueError("is not a pattern such as library/* or team/**")
    return text


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern covers a whole name."""
    tokens = _tokens(pattern)
    # The tokens that may come next, all possibilities at once: nothing is tried twice.
    places = _reached({0}, tokens)
    for character in name:
        places = _reached({place for at in places for place in _after(at, tokens, character)}, tokens)
    return len(tokens) in places


@lru_cache(maxsize=1024)
def _tokens(pattern: str) -> tuple[str, ...]:
    """`**`, `*`, `?` and single characters."""
    return tuple(_TOKEN.findall(pattern))


def _reached(places: set[int], tokens: tuple[str, ...]) -> set[int]:
    """With the places behind any stars that stand for nothing."""
    for place in tuple(places):
        while place < len(tokens) and tokens[place] in ("*", "**"):
            place += 1
            places.add(place)
    return places


def _after(place: int, tokens: tuple[str, ...], character: str) -> tuple[int, ...]:
    """Where one more character of the name leads."""
    if place == len(tokens):
        return ()
    token = tokens[place]
    if token == "**" or (token == "*" and character != "/"):
        return (place,)
    if token == character or (token == "?" and character != "/"):
        return (place + 1,)
    return ()
