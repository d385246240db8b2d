"""How much each part of docxy says: `info`, or `warn,upstream=debug`.

Pure.  The law: see `docxy.settings.parsers`.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

LEVELS = ("debug", "info", "warn", "error")
PARTS = (
    "access",
    "archive",
    "catalog",
    "daemon",
    "observe",
    "orders",
    "pull",
    "steward",
    "storage",
    "upstream",
    "web",
    "twisted",
)
"""docxy's own, by the names of its packages, and Twisted beneath it."""


@frozen
class LogLevels:
    """The least level that goes into the log."""

    usual: str = "info"
    parts: Mapping[str, str] = field(factory=dict)
    """Of parts that have a level of their own."""


def log_levels(text: str) -> LogLevels:
    """A level for all, levels for parts, or both, with commas between them."""
    usual, parts = "", {}
    for item in text.split(","):
        part, named, level = item.strip().rpartition("=")
        if level not in LEVELS or (named and part not in PARTS) or part in parts or (not named and usual):
            raise ValueError(
                f"is not a level ({', '.join(LEVELS)}), nor a list such as warn,upstream=debug; "
                f"parts are {', '.join(PARTS)}"
            )
        if named:
            parts[part] = level
        else:
            usual = level
    return LogLevels(usual or "info", parts)
