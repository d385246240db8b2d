"""A table of the TOML file, read key by key.

Pure.  The law: everything wrong is a ConfigError whose one line names the file, the table, the key and the
value; the value of a secret is left out.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from attrs import frozen

from docxy.settings.model import ConfigError
from docxy.settings.parsers import duration, shown

T = TypeVar("T")
_BARE = re.compile(r"[A-Za-z0-9_-]{1,64}")


def unknown_key(keys: Iterable[str], known: Iterable[str]) -> str | None:
    """What to say of the first of these keys that is not known, with one that may be meant; None: all are known."""
    known = list(known)
    unknown = sorted(set(keys) - set(known))
    if not unknown:
        return None
    close = difflib.get_close_matches(unknown[0], known, 1)
    return f"unknown key {shown(unknown[0])}" + (f"; did you mean {close[0]}?" if close else "")


def named(key: str) -> str:
    """A key as TOML has it: in quotes, where it is not a bare one."""
    return key if _BARE.fullmatch(key) else shown(key)


@frozen
class TomlTable:
    """One table of the file, whose errors name it."""

    content: Mapping[str, Any]
    where: str

    def __contains__(self, key: str) -> bool:
        return key in self.content

    def error(self, what: str) -> ConfigError:
        """An error that names the file and the table."""
        return ConfigError(f"{self.where}: {what}")

    def only(self, keys: Iterable[str]) -> None:
        """Refuse all other keys."""
        wrong = unknown_key(self.content, keys)
        if wrong is not None:
            raise self.error(wrong)

    def text(self, key: str, parse: Callable[[str], T]) -> T:
        """A string, which must be there.  This and the rest raise ConfigError."""
        return self._parsed(key, self.content[key], parse)

    def texts(self, key: str, parse: Callable[[str], T]) -> list[T]:
        """An array of strings; empty where the key is missing."""
        raw = self.content.get(key, [])
        if not isinstance(raw, list):
            raise self.error(f"{named(key)}: {shown(raw)} is not an array of strings")
        return [self._parsed(key, item, parse) for item in raw]

    def flag(self, key: str) -> bool:
        """`true` or `false`, which must be there."""
        raw = self.content[key]
        if not isinstance(raw, bool):
            raise self.error(f"{named(key)}: {shown(raw)} is not true or false")
        return raw

    def number(self, key: str, kinds: tuple[type[int] | type[float], ...], parse: Callable[[str], T]) -> T:
        raw = self.content[key]
        if type(raw) not in kinds:  # a boolean is an int
            raise self.error(f"{named(key)}: {shown(raw)} is not a number")
        return self._parsed(key, str(raw), parse)

    def duration(self, key: str) -> float:
        """A time, in seconds."""
        raw = self.content[key]
        return self._parsed(key, raw if isinstance(raw, str) else str(raw), duration)

    def secret(self, key: str, parse: Callable[[str], T]) -> T:
        """As `text`, without the value in any error."""
        raw = self.content[key]
        if not isinstance(raw, str):
            raise self.error(f"{named(key)} is not a string")
        try:
            return parse(raw)
        except ValueError as error:
            raise self.error(f"{named(key)} {error}") from None

    def _parsed(self, key: str, raw: Any, parse: Callable[[str], T]) -> T:
        if not isinstance(raw, str):
            raise self.error(f"{named(key)}: {shown(raw)} is not a string")
        try:
            return parse(raw)
        except ValueError as error:
            raise self.error(f"{named(key)}: {shown(raw)} {error}") from None
