"""Moments as names and sentences have them: `2026-10-01`, `2026-10-01t12-30z`, `2026-10-01 12:30 UTC`.

Pure.  The law: a moment is UTC, and a name of one means the same whenever it is read: a day is its first second.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone

LEEWAY = 60.0
"""Seconds by which the clocks of two nodes may differ: a token is good for this much longer than it says."""

_MOMENT = re.compile(r"(\d{4})-(\d\d)-(\d\d)(?:[tT](\d\d)-(\d\d)(?:-(\d\d))?[zZ])?")


def moment(text: str) -> float | None:
    """Seconds since the epoch of a day or a time in a path, where a colon cannot be; None: it is no such name."""
    match = _MOMENT.fullmatch(text)
    if match is None or not text.isascii():
        return None
    try:
        year, month, day, hour, minute, second = (int(part or 0) for part in match.groups())
        return datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc).timestamp()
    except (ValueError, OverflowError):
        return None


def shown(at: float) -> str:
    """For a sentence."""
    return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
