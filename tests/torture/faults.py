"""What an upstream can do wrong, and who could heal it without the client's knowing.

Pure.  The law: which fault strikes a request is a function of the seed, the endpoint, what is asked for
and how often it was asked for there, and of nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from random import Random

from attrs import field, frozen


class Heals(Enum):
    """What of docxy's could have spared the client this fault."""

    RETRY = "one more request, to whichever endpoint"
    ELSEWHERE = "one more request to another endpoint"
    NOTHING = "nothing: wrong bytes were on their way before anyone could know"


@frozen
class Kind:
    """One way to be wrong."""

    heals: Heals
    blobs_only: bool = False
    corrupts: bool = False
    """Whether a range may show wrong bytes of a blob that is being filled."""
    lies: bool = False
    """Whether the length it tells is not the right one."""
    harmless: bool = False
    """Whether it is within HTTP, so that no client may notice."""


KINDS: Mapping[str, Kind] = {
    # no answer
    "drop": Kind(Heals.RETRY),
    "reset": Kind(Heals.RETRY),
    "silent": Kind(Heals.ELSEWHERE),
    # another answer
    "500": Kind(Heals.RETRY),
    "502": Kind(Heals.RETRY),
    "503": Kind(Heals.ELSEWHERE),
    "429": Kind(Heals.ELSEWHERE),
    "nowhere": Kind(Heals.ELSEWHERE),
    "portal": Kind(Heals.NOTHING, corrupts=True, lies=True),
    "empty": Kind(Heals.ELSEWHERE, lies=True),
    # bodies
    "cut": Kind(Heals.RETRY),
    "cut-reset": Kind(Heals.RETRY),
    "stall": Kind(Heals.RETRY, blobs_only=True),
    "flip": Kind(Heals.NOTHING, corrupts=True),
    "short": Kind(Heals.NOTHING, corrupts=True, lies=True),
    "long": Kind(Heals.NOTHING, lies=True),
    # ranges
    "wrong-range": Kind(Heals.ELSEWHERE, blobs_only=True),
    "wrong-total": Kind(Heals.ELSEWHERE, blobs_only=True),
    "ignore-range": Kind(Heals.RETRY, blobs_only=True, harmless=True),
    # within HTTP, and rare
    "chunked": Kind(Heals.RETRY, harmless=True),
    "until-close": Kind(Heals.RETRY, blobs_only=True, harmless=True),
    "slow": Kind(Heals.RETRY, harmless=True),
}

TOKEN_KINDS = ("drop", "reset", "500", "503")
"""What the token service does wrong."""


@frozen
class Weather:
    """How the upstream is at the moment."""

    rate: float = 0.0
    """The share of requests that a fault strikes."""
    kinds: tuple[str, ...] = tuple(KINDS)
    off: bool = False
    """Nobody is there: every connection is reset."""
    tokens: float = 0.0
    """Seconds a token lives; 0: none is asked for."""
    redirects: bool = False
    """Whether blobs are on another port."""
    delay: float = 0.0
    """Seconds before each answer."""
    bytes_per_second: int = 0
    """Of each connection; 0: no limit."""
    everything: str | None = field(default=None)
    """A kind of fault that strikes every request for a manifest or blob."""


def draw(seed: str, weather: Weather, endpoint: str, key: str, count: int) -> str | None:
    """The fault that strikes the `count`th request for `key` at an endpoint, or None."""
    if weather.everything is not None:
        return weather.everything
    random = Random(f"{seed} {endpoint} {key} {count}")
    if random.random() >= weather.rate:
        return None
    if key == "token":
        possible = [kind for kind in TOKEN_KINDS if kind in weather.kinds]
    else:
        blob = not key.startswith("manifest ")
        possible = [kind for kind in weather.kinds if blob or not KINDS[kind].blobs_only]
    return random.choice(possible) if possible else None
