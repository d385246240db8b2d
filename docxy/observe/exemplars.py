"""One request to look at for each bucket of a histogram: the last one that fell into it.

Pure.  The laws: an exemplar names a request by the id that docxy gave it, never by one that its client chose; there
are no more of them than buckets.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from attrs import frozen

from docxy.observe.exchange import Exchange, own
from docxy.observe.metrics import (
    FIRST_BUCKETS,
    FIRST_BYTE,
    REQUEST_BUCKETS,
    REQUESTS,
    AnswerLabels,
    outcome,
    unanswered,
)

_INFINITE = float("inf")
_MOST = 1_000
"""Kinds, outcomes and buckets are few; nobody makes more of them."""

Labels = tuple[tuple[str, str], ...]
"""Sorted."""


@frozen
class Exemplar:
    """One request."""

    request_id: str
    seconds: float
    at: float
    """When it ended, in seconds since the epoch."""


class Exemplars:
    """Of the requests that the read model hears of."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, Labels, float], tuple[float, Exchange]] = {}
        self._labels: dict[tuple[str, int, str, str], tuple[Labels, Labels]] = {}

    def note(self, exchange: Exchange) -> None:
        """A request is over."""
        if not own(exchange.request_id):
            return
        ended = "" if exchange.whole else unanswered(exchange.error)
        key = exchange.kind, exchange.status, exchange.cache, ended
        known = self._labels.get(key)
        if known is None:
            came_of_it = outcome(AnswerLabels(exchange.upstream, *key))
            known = (("kind", exchange.kind), ("outcome", came_of_it)), (("outcome", came_of_it),)
            if len(self._labels) < _MOST:
                self._labels[key] = known
        self._keep(REQUESTS, known[0], REQUEST_BUCKETS, exchange.seconds, exchange)
        if exchange.kind == "blobs" and exchange.first_byte is not None:
            self._keep(FIRST_BYTE, known[1], FIRST_BUCKETS, exchange.first_byte, exchange)

    def _keep(self, name: str, labels: Labels, buckets: Sequence[float], seconds: float, exchange: Exchange) -> None:
        place = bisect_left(buckets, seconds)
        key = name, labels, buckets[place] if place < len(buckets) else _INFINITE
        if key in self._kept or len(self._kept) < _MOST:
            self._kept[key] = seconds, exchange

    def of(self, name: str, labels: Mapping[str, str], bound: float) -> Exemplar | None:
        """For the bucket of a histogram up to `bound` seconds; `labels`: without that."""
        kept = self._kept.get((name, tuple(sorted(labels.items())), bound))
        return None if kept is None else Exemplar(kept[1].request_id, kept[0], kept[1].at)
