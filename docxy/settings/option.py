"""One option, on the command line, in the environment and in the file.

Pure.  The law: one parser reads its text, wherever it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import field, frozen


@frozen
class Option:
    """One option."""

    name: str
    """As on the command line, without its dashes."""
    env: str
    parse: Callable[[str], Any]
    """From the text to the value; raises ValueError as the parsers of `docxy.settings.parsers` do."""
    help: str
    default: str | None = None
    """As it would be written; None: found out at start, as `default_help` says."""
    default_help: str = ""
    metavar: str = ""
    """What stands for the value in help; '': there is no `--name VALUE`, only flags."""
    flags: Mapping[str, str] = field(factory=dict)
    """Flag on the command line -> the text it stands for."""
    types: tuple[type, ...] = (str,)
    """What its value may be in the file."""

    @property
    def key(self) -> str:
        """Its key in the file."""
        return self.name.replace("-", "_")

    def describe(self) -> str:
        """For `--help`: what it is, its default, its environment variable."""
        return f"{self.help} [default: {self.default or self.default_help}; environment: {self.env}]"

    def describe_flag(self, flag: str) -> str:
        """For `--help`: what one of its flags is."""
        if flag == self.name:
            return self.describe()
        return f"short for --{self.name} {self.flags[flag]}" if self.metavar else f"turns --{self.name} off"
