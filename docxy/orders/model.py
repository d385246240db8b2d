"""Orders as values: what an operator ordered by a command.

Pure.  The law: an order is known by its kind and by what it is about, so that the same order given again takes the
place of the first.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

from attrs import frozen

MOST = 10_000
"""Orders of each kind."""
MOST_KNOWN = 10_000
"""Recalled things of which it is kept what belongs to them."""
SAME = "="
"""Stands before a digest of `Orders.known` that is of the very same bytes, by another algorithm."""
LONGEST = 1000
"""Characters of each text of an order."""


class Kind(enum.Enum):
    """What an operator may order."""

    FREEZE = "freeze"  # a tag stays at a digest
    RELEASE = "release"  # an image or a digest is excepted from the cooldown
    RECALL = "recall"  # an image or a digest is not to be pulled any more
    PIN = "pin"  # an image or a digest stays cached


class TooMany(Exception):
    """There is no room for another order; the message says of which kind."""


@frozen
class Order:
    """One order."""

    kind: Kind
    image: str
    """As `docxy.settings.image_names` writes it; empty where it is about a digest alone."""
    digest: str
    """Empty where it is about an image; a freeze has both."""
    reason: str
    at: float
    """When it was given, in seconds since the epoch."""
    who: str
    """Who gave it."""

    @property
    def about(self) -> str:
        """The image, or the digest where there is none."""
        return self.image or self.digest

    @property
    def key(self) -> tuple[str, str]:
        """What the order is known by."""
        return self.kind.value, self.about

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        return {
            "kind": self.kind.value,
            "image": self.image,
            "digest": self.digest,
            "reason": self.reason,
            "at": self.at,
            "who": self.who,
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Order:
        """Raises ValueError, KeyError, TypeError for what `to_json` does not make."""
        texts = [told[name] for name in ("image", "digest", "reason", "who")]
        if not all(isinstance(text, str) and len(text) <= LONGEST for text in texts):
            raise ValueError("an order with a text that is too long, or none")
        image, digest, reason, who = texts
        return cls(Kind(told["kind"]), image, digest, reason, float(told["at"]), who)


@frozen
class Orders:
    """All orders, and what belongs to what is recalled."""

    orders: Mapping[tuple[str, str], Order]
    """By their keys, the oldest first."""
    known: Mapping[str, tuple[str, ...]]
    """What is recalled, by its digest -> the digests of what it names, and of what that names, and with `SAME` before
    them its own by other algorithms.

    It is kept because the recalled manifest itself will leave the cache: nobody pulls it any more.
    """

    def of(self, kind: Kind) -> list[Order]:
        """Those of one kind."""
        return [order for order in self.orders.values() if order.kind is kind]


NONE = Orders({}, {})
