"""Images as registries have them, and a day of pulls: what `simulate` feeds to its nodes.

The law: everything follows from a seed.  Popularity is Zipf's; sizes of layers are log-normal; an image shares its
lower layers with its family; a new version of it has new upper layers.  Times are seconds, sizes bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from heapq import heappop, heappush
from random import Random

from attrs import define, field, frozen

DAY = 86_400.0

MEDIAN_LAYER, SPREAD = 6e6, 1.6
"""A layer's median size and its logarithm's deviation: a mean of 21.6 MB; seven of them make an image of 150 MB."""
LOWER, UPPER, RENEWED = 3, 4, 2
"""Layers that a family shares, layers of the image's own, and how many of those a new version has anew."""
FAMILY = 12
"""Images with the same lower layers."""
OFTEN, SELDOM = 1 * DAY, 14 * DAY
"""Time between two versions: of images that a pipeline builds, of the others."""
BUILT = 0.3
"""The share of images that a pipeline builds."""
ROLLOUTS, MACHINES, WITHIN = 0.3, 50, 20.0
"""The share of pulls that come from roll-outs; machines of one; seconds within which all of them pull."""
PEAK = 3.0
"""The busiest hour beside the mean."""

Blob = tuple[int, int, int]
"""Image or, below 0, family; layer; version."""


@frozen(order=True)
class Pull:
    """One machine pulls one image."""

    at: float
    image: int
    version: int


@define
class World:
    """The images, and who pulls them."""

    pulls_a_day: int
    images: int
    seed: int = 1
    exponent: float = 0.9
    """Zipf's."""
    sizes: dict[Blob, int] = field(factory=dict, init=False)
    _layers: dict[int, tuple[int, list[tuple[Blob, int]]]] = field(factory=dict, init=False)
    """Of each image: the version that was pulled last, and its layers."""

    @cached_property
    def weights(self) -> list[float]:
        """Cumulative popularity, by rank."""
        total, result = 0.0, []
        for rank in range(1, self.images + 1):
            total += rank**-self.exponent
            result.append(total)
        return result

    @cached_property
    def every(self) -> list[float]:
        """Time between two versions of each image."""
        random = Random(self.seed)
        return [OFTEN if random.random() < BUILT else SELDOM for _ in range(self.images)]

    def share(self, image: int) -> float:
        """The share of all pulls that are of this image."""
        before = self.weights[image - 1] if image else 0.0
        return (self.weights[image] - before) / self.weights[-1]

    def version(self, image: int, at: float) -> int:
        """The version of an image at a time; images change at different hours."""
        every = self.every[image]
        return int((at + (image * 7919.0) % every) // every)

    def born(self, image: int, version: int) -> float:
        """When a version came out."""
        every = self.every[image]
        return version * every - (image * 7919.0) % every

    def blobs(self, image: int, version: int) -> list[tuple[Blob, int]]:
        """The layers of an image, each with its size."""
        known = self._layers.get(image)
        if known is None or known[0] != version:
            family = -1 - image // FAMILY
            names: list[Blob] = [(family, layer, 0) for layer in range(LOWER)]
            names += [(image, layer, version if layer >= UPPER - RENEWED else 0) for layer in range(UPPER)]
            known = self._layers[image] = version, [self._sized(name) for name in names]
        return known[1]

    def _sized(self, blob: Blob) -> tuple[Blob, int]:
        size = self.sizes.get(blob)
        if size is None:
            drawn = Random(f"{self.seed} {blob}").gauss(0.0, 1.0)
            size = self.sizes[blob] = max(1_000, min(4_000_000_000, int(MEDIAN_LAYER * math.exp(SPREAD * drawn))))
        return blob, size

    def pulls(self, days: float) -> Iterator[Pull]:
        """Pulls in the order of their times, from time 0."""
        random = Random(self.seed)
        mean = self.pulls_a_day / DAY
        # A roll-out counts as one arrival that brings many.
        arrivals = mean * (1.0 - ROLLOUTS + ROLLOUTS / MACHINES)
        rollout = (ROLLOUTS / MACHINES) / (1.0 - ROLLOUTS + ROLLOUTS / MACHINES)
        waiting: list[tuple[float, Pull]] = []
        at = 0.0
        while at < days * DAY:
            at += random.expovariate(arrivals * PEAK)
            while waiting and waiting[0][0] <= at:
                yield heappop(waiting)[1]
            if random.random() > _wave(at) / PEAK:
                continue
            image = random.choices(range(self.images), cum_weights=self.weights)[0]
            version = self.version(image, at)
            if random.random() < rollout:
                for _ in range(MACHINES):
                    when = at + random.random() * WITHIN
                    heappush(waiting, (when, Pull(when, image, version)))
            else:
                yield Pull(at, image, version)


def _wave(at: float) -> float:
    """The rate at a time of day beside the mean of the day, which is 1."""
    # A cosine to the power that gives the peak: its mean over the day is 1 by the factor.
    return PEAK * (0.5 + 0.5 * math.cos(2 * math.pi * (at / DAY - 0.6))) ** POWER


def _power() -> float:
    """The power with which `_wave` has the mean 1."""
    low, high = 0.1, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        mean = sum((0.5 + 0.5 * math.cos(2 * math.pi * hour / 288)) ** middle for hour in range(288)) / 288
        low, high = (middle, high) if mean * PEAK > 1.0 else (low, middle)
    return low


POWER = _power()
