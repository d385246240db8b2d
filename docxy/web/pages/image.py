"""The rows of an image's page: what is cached of it, where its tags led, who pulled it.

Pure.  The law: a row says what pulls and the cache say; who may see it was decided before.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from docxy.observe.journal import Pull
from docxy.pull.interfaces import CachedImage, CachedTag, TagChange
from docxy.web.pages.words import Words, ago

_MOST_ASKERS = 50


@frozen
class ShownTag:
    """Where a tag led from some time on."""

    name: str
    digest: str
    platforms: str
    first: str
    ago: str


@frozen
class Cached:
    """A tag, as the cache knows it."""

    name: str
    digest: str
    images: Sequence[CachedImage]
    ago: str
    marks: Sequence[str]
    """What is ordered about it, in words."""


@frozen
class Asker:
    """Somebody who pulled."""

    name: str
    pulls: int
    ago: str


def cached(tag: CachedTag, now: float, t: Words) -> Cached:
    """One tag."""
    marks = [getattr(t, f"mark_{mark}") for mark in tag.marks]
    return Cached(tag.name, tag.digest, tag.images, ago(tag.checked, now, t), marks)


def held(tags: Sequence[CachedTag]) -> int:
    """Bytes of all layers and configs that are here, each once."""
    layers = {layer.digest: layer for tag in tags for image in tag.images for layer in image.layers}
    return sum(layer.size for layer in layers.values() if layer.cached)


def askers(pulls: Sequence[Pull], now: float, t: Words) -> list[Asker]:
    """Who pulled, those who did so last first; nobody where the viewer may not see clients."""
    found: dict[str, list[float]] = {}
    for pull in pulls:
        name = " · ".join(text for text in (pull.account, pull.client) if text)
        if name:
            found.setdefault(name, []).append(pull.last)
    rows = sorted(found.items(), key=lambda row: -max(row[1]))[:_MOST_ASKERS]
    return [Asker(name, len(times), ago(max(times), now, t)) for name, times in rows]


def tags(changes: Sequence[TagChange], pulls: Sequence[Pull], now: float, t: Words) -> list[ShownTag]:
    """Where each tag led, the newest change first; what pulls showed of it besides."""
    seen: dict[tuple[str | None, str | None], tuple[float, set[str]]] = {}
    for pull in pulls:
        last, platforms = seen.get((pull.reference, pull.digest), (pull.last, set()))
        seen[(pull.reference, pull.digest)] = max(last, pull.last), platforms
        if pull.platform:
            platforms.add(pull.platform)
    rows = []
    for change in changes:
        known = seen.get((change.name, change.digest))
        platforms, told = (set(), "") if known is None else (known[1], ago(known[0], now, t))
        rows.append(
            ShownTag(change.name, change.digest or t.gone, ", ".join(sorted(platforms)), ago(change.at, now, t), told)
        )
    return rows
