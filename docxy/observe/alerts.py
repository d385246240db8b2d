"""What happened that somebody wants to be told of: tags that moved, a registry that is down, a limit nearly spent, a
certificate that is not renewed.

Pure apart from the clock.  The law: *each happens once*, however many processes saw it: what several tell of one tag is
one event, and a state is an event when it begins and when it ends.  No event holds a credential or names a client.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from attrs import field, frozen
from cachetools import LRUCache

from docxy.observe.exchange import Exchange

LOW = 0.1
"""Share of a pull limit that is low."""
AGAIN = 60.0
"""Seconds within which a recalled image that is pulled again is no new event."""
MOST = 10_000
"""Tags and recalled images that are remembered."""


class EventType(enum.Enum):
    """As the configuration has them."""

    TAG_MOVED = "tag-moved"
    TAG_VANISHED = "tag-vanished"
    RECALLED_PULLED = "recalled-pulled"
    QUOTA_LOW = "quota-low"
    UPSTREAM_DOWN = "upstream-down"
    UPSTREAM_UP = "upstream-up"
    RENEWAL_FAILED = "renewal-failed"
    RENEWED = "renewed"


@frozen
class Event:
    """One of them."""

    type: EventType
    subject: str
    """An image (`docker.io/library/alpine:latest`), an upstream, or the first name of a certificate."""
    at: float
    """In seconds since the epoch."""
    data: Mapping[str, Any] = field(factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        return {"type": self.type.value, "subject": self.subject, "at": self.at, "data": dict(self.data)}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Event:
        return cls(EventType(told["type"]), told["subject"], told["at"], told["data"])


class Alerts:
    """Tells of what all processes of a docxy saw."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._told: list[Callable[[Event], object]] = []
        self._tags: MutableMapping[str, object] = LRUCache(MOST)
        """Where each tag led, when that was told last."""
        self._recalled: MutableMapping[str, float] = LRUCache(MOST)
        self._down: dict[str, float] = {}
        """Since when an upstream is down."""
        self._low: set[str] = set()
        self._not_renewed: float | None = None
        """Since when docxy fails to get its certificate."""

    def subscribe(self, told: Callable[[Event], object]) -> None:
        """Have `told` called with each event."""
        self._told.append(told)

    def happened(self, event: Event) -> None:
        """A process saw this of a tag."""
        digest = event.data.get("digest")
        if event.subject in self._tags and self._tags[event.subject] == digest:
            return
        self._tags[event.subject] = digest
        self._tell(event)

    def answered(self, exchange: Exchange) -> None:
        """A client was answered: of interest where it asked for something recalled."""
        if exchange.cache != "recalled":
            return
        mark = "@" if ":" in exchange.reference else ":"
        subject = f"{exchange.upstream}/{exchange.repository}{mark}{exchange.reference}"
        last = self._recalled.get(subject)
        if last is None or not 0 <= self._seconds() - last < AGAIN:
            self._recalled[subject] = self._seconds()
            self._tell(Event(EventType.RECALLED_PULLED, subject, exchange.at, {"error": exchange.error}))

    def look(self, upstream: Mapping[str, Any], answered: float | None) -> None:
        """How an upstream is; see `ReadModel`.  `answered`: when it last answered any process."""
        name, now = upstream["name"], self._seconds()
        since = self._down.get(name)
        if since is None and upstream["state"] == "backing-off":
            self._down[name] = now
            self._tell(Event(EventType.UPSTREAM_DOWN, name, now, {"error": upstream["error"]}))
        elif since is not None and answered is not None and answered > since and upstream["state"] != "backing-off":
            del self._down[name]
            self._tell(Event(EventType.UPSTREAM_UP, name, now, {"down_seconds": round(now - since)}))
        limit, remaining = upstream["limit"], upstream["remaining"]
        if not limit or remaining is None:
            return
        if remaining >= limit * LOW:
            self._low.discard(name)
        elif name not in self._low:
            self._low.add(name)
            self._tell(Event(EventType.QUOTA_LOW, name, now, {"limit": limit, "remaining": remaining}))

    def certificate(self, standing: Mapping[str, Any] | None) -> None:
        """How docxy gets its own; see `docxy.daemon.issuing.standing`.  None: nobody knows now."""
        if standing is None:
            return
        now, since = self._seconds(), self._not_renewed
        if standing["failures"] and since is None:
            self._not_renewed = now
            data = {key: standing[key] for key in ("names", "source", "error", "next")}
            self._tell(Event(EventType.RENEWAL_FAILED, standing["names"][0], now, data))
        elif not standing["failures"] and standing["renews"] is not None and since is not None:
            self._not_renewed = None
            data = {"names": standing["names"], "source": standing["source"], "failed_seconds": round(now - since)}
            self._tell(Event(EventType.RENEWED, standing["names"][0], now, data))

    def _tell(self, event: Event) -> None:
        for told in self._told:
            told(event)
