"""One history of a tag, from what several nodes saw of it.

Pure.  The laws:
- *What this node saw stands.*  A change that another node saw fills a gap: it counts where it is further than `SKEW`
  from every change that this node saw.  Nearer ones could come in another order by the other's clock, and most of them
  are the same change.
- What this node was just told is the end.
- A change that leads where the tag led before it is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from docxy.catalog.interfaces import Change
from docxy.names import Digest

SKEW = 120.0
"""Seconds by which clocks of two nodes may differ."""


def merged(ours: Sequence[Change], theirs: Iterable[Change], told: Change | None, now: float) -> list[Change]:
    """The changes of one tag, the oldest first, as `ours` and `theirs` are.

    `told`: where the upstream just said to this node that it leads; None: it said nothing.
    """
    seen = [*(each.at for each in ours), *(() if told is None else (told.at,))]
    until = now if told is None else told.at
    filling = [each for each in theirs if each.at <= until and all(abs(each.at - at) > SKEW for at in seen)]
    result: list[Change] = []
    for change in [*sorted((*ours, *filling), key=lambda each: each.at), *(() if told is None else (told,))]:
        if change.digest != (result[-1].digest if result else None):
            result.append(change)
    return result


def lasting(changes: Sequence[Change], since: float) -> list[Change]:
    """Those since a time, and the one that says where the tag led then; the oldest first, as `changes` are."""
    old = [each for each in changes if each.at <= since]
    return [*old[-1:], *changes[len(old) :]]


def first_sights(changes: Iterable[Change]) -> dict[Digest, float]:
    """When each digest was first seen."""
    found: dict[Digest, float] = {}
    for each in changes:
        if each.digest is not None:
            found[each.digest] = min(each.first, found.get(each.digest, each.first))
    return found
