"""What one process last saw of upstreams, for the read model.

Pure apart from the clock.  The law: it is a note of what happened anyway; nobody is asked for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define
from cachetools import LRUCache

MOST = 1_000
"""Upstreams of which something is known.  What of one goes on though it was forgotten may come back."""
LONGEST = 300
"""Characters of an error that are kept."""


@define
class Note:
    """One upstream."""

    asked: float | None = None
    """When it last answered or failed, in seconds since the epoch."""
    answered: float | None = None
    """When it last answered, with any status."""
    latency: float | None = None
    """Seconds until its last response's headers."""
    error: str | None = None
    """Of its last failure; None: it answered since."""
    limit: int | None = None
    remaining: int | None = None
    """Pulls."""
    received: int = 0
    """Bytes of bodies since the start of this process."""


class Notes:
    """All upstreams."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        """`seconds`: since the epoch."""
        self._seconds = seconds
        self._notes: LRUCache[str, Note] = LRUCache(MOST)

    def note(self, upstream: str) -> Note:
        """What is known of one; of those that clients name, the ones asked last are known."""
        return self._notes.setdefault(upstream, Note())

    def answered(self, upstream: str, status: int, latency: float) -> None:
        """It answered; 5xx and 429 are no failure of the way to it, but a reason all the same."""
        note = self.note(upstream)
        note.asked, note.latency = self._seconds(), latency
        if status < 500:
            note.answered = note.asked
        note.error = f"{upstream} answered {status}" if status >= 500 or status == 429 else None

    def failed(self, upstream: str, error: str) -> None:
        """It did not answer."""
        note = self.note(upstream)
        note.asked, note.error = self._seconds(), error[:LONGEST]

    def received(self, upstream: str, count: int) -> None:
        """It sent bytes of a body."""
        self.note(upstream).received += count

    def allowed(self, upstream: str, limit: int, remaining: int) -> None:
        """It said how many pulls it allows, and how many are left."""
        note = self.note(upstream)
        note.limit, note.remaining = limit, remaining


def told(note: Note, now: float, rests_until: float, limited_until: float) -> dict[str, Any]:
    """An upstream for the read model; see `docxy.observe.model`.

    `rests_until`: when the first of its endpoints is asked again, if all are left alone; `limited_until`: when its
    429 is over.
    """
    state, until = ("unasked" if note.asked is None else "ok"), None
    if rests_until > now:
        state, until = "backing-off", rests_until
    if limited_until > now:
        state, until = "limited", limited_until
    return {
        "state": state,
        "asked": note.asked,
        "answered": note.answered,
        "latency": note.latency,
        "error": None if until is None else note.error or "it asked to be left alone",
        "until": until,
        "limit": note.limit,
        "remaining": note.remaining,
        "received": note.received,
    }
