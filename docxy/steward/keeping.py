"""What `[[keep]]` wants is kept: refreshed now and then, one layer at a time, by the one process that has a steward.

The laws: a rule is looked at in its quiet hours only, and not before its time has come again; a quarter of each pull
limit is left for those who pull; what vanished from its registry is said once and stays in the cache.  What was kept,
and when, is in the catalog, so a restart begins nothing anew.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from docxy.content import Manifest, complete
from docxy.errors import RegistryError
from docxy.names import Digest
from docxy.pull.warming import TAGS
from docxy.questions import Unanswered
from docxy.settings.image_names import ImageName
from docxy.settings.policy import Keep
from docxy.steward.hottest import Counting, hottest
from docxy.steward.steward import Steward
from docxy.steward.warm import Warmed, Warming
from docxy.storage.interfaces import StorageError

FACT = "kept images"
"""The fact's name in the catalog."""
LOOK = 20.0
"""Seconds between two looks at what is due."""
RETRY = 600.0
"""Seconds until a rule is done again, when a registry could not be asked."""
FLOOR = 0.25
"""Share of a pull limit that is left alone."""
MOST_TAGS = 200
"""Of one glob."""
MOST_KEPT = 2000
"""Images of all rules that are remembered."""
NOT_FOUND = 404


@define
class KeptRule:
    """What is remembered of one rule."""

    ran: float = 0.0
    """When it was last done; seconds since the epoch."""
    images: dict[str, str] = field(factory=dict)
    """Image -> the digest that it led to."""
    gone: dict[str, float] = field(factory=dict)
    """What vanished from its registry, and when that was seen."""


@frozen
class Round:
    """What one refresh of a rule came to."""

    kept: int = 0
    fetched: int = 0
    """Bytes."""
    failed: int = 0
    is_well: bool = True
    """Whether the registries answered for all of it, be it that an image is gone."""


class Keeper:
    """Keeps; `look` now and then."""

    _log = Logger()

    def __init__(
        self,
        keeps: Callable[[], Sequence[Keep]],
        steward: Callable[[], Steward],
        vanished: Callable[[str, str], object],
        counted: Callable[[int, int], object],
        local: Callable[[float], time.struct_time] = time.localtime,
    ) -> None:
        """`keeps`: the rules in force; `steward`: raises RegistryError where there is no cache.

        `vanished`: hears of each image that its registry has no longer, with the digest that it led to;
        `counted`: how many images are kept, and how many of them are gone; `local`: the machine's time of day.
        """
        self._keeps = keeps
        self._steward = steward
        self._vanished = vanished
        self._counted = counted
        self._local = local
        self._counting = Counting()
        self._running: Deferred[None] | None = None

    def look(self) -> Deferred[None]:
        """Do what is due; at once where it is at work already."""
        if self._running is None:
            self._running = Deferred.fromCoroutine(self._look())
            self._running.addBoth(self._rested)
        return Deferred.fromCoroutine(_nothing())

    def _rested(self, outcome: Any) -> None:
        self._running = None
        if outcome is not None and not outcome.check(CancelledError):
            self._log.failure("keeping images failed", outcome)

    async def stop(self) -> None:
        """End what is under way; it goes on after the next start."""
        if self._running is not None:
            self._running.cancel()

    async def _look(self) -> None:
        keeps = self._keeps()
        if not keeps:
            self._counted(0, 0)
            return
        try:
            steward = self._steward()
        except RegistryError as error:
            self._log.warn("[[keep]] keeps nothing: {why}", why=error.message)
            return
        if any(keep.hot for keep in keeps):
            await self._counting.count(steward)
        known = remembered(steward)
        now = steward.clock.seconds()
        for keep in keeps:
            rule = known.setdefault(str(keep), KeptRule())
            here = self._local(now)
            is_quiet = keep.quiet is None or keep.quiet.holds(here.tm_hour * 60 + here.tm_min)
            # A time that lies ahead is one that was noted before the clock was set back.
            if is_quiet and not 0 <= now - rule.ran < keep.every:
                before = dict(rule.images)
                try:
                    done = await self._refresh(steward, keep, rule)
                except Unanswered:
                    # No process serves yet, or at this moment.
                    rule.images = before
                    break
                rule.ran = now if done.is_well else now - max(0.0, keep.every - RETRY)
                self._log.info(
                    "kept {what}: {count} images, {bytes} bytes fetched, {failed} failed",
                    what=str(keep)[:200],
                    count=done.kept,
                    bytes=done.fetched,
                    failed=done.failed,
                )
                _remember(steward, {str(each): known[str(each)] for each in keeps if str(each) in known})
        self._count([known[str(each)] for each in keeps])

    def _count(self, rules: Sequence[KeptRule]) -> None:
        images = {image for rule in rules for image in rule.images}
        self._counted(len(images), len({image for rule in rules for image in rule.gone} & images))

    async def _refresh(self, steward: Steward, keep: Keep, rule: KeptRule) -> Round:
        """One rule: its images, as far as they can be had."""
        kept = fetched = failed = troubled = 0
        before, rule.images = rule.images, {}
        images, unknown = await self._images(steward, keep)
        # A tag that a glob found once and does not find now vanished, or is not among the newest any more.
        for image in [*images, *(name for name in before if name not in images and _is_named(keep, name))]:
            if image not in images and any(covers(glob, image) for glob in unknown):
                rule.images[image] = before[image]
                continue
            for platform in keep.platforms or (None,):
                outcome = await self._warmed(steward, image, platform)
                fetched += outcome.fetched
                if not outcome.error:
                    kept += 1
                    rule.images[image] = outcome.digest
                    rule.gone.pop(image, None)
                    continue
                failed += 1
                if image in before:
                    rule.images[image] = before[image]
                if outcome.status == NOT_FOUND and image in before:
                    self._gone(steward, rule, image)
                else:
                    troubled += outcome.status != NOT_FOUND
                    self._log.warn("{image} is not kept up to date: {why}", image=image, why=outcome.error)
        await _used(steward, rule.images.values())
        return Round(kept, fetched, failed, not troubled and not unknown)

    async def _warmed(self, steward: Steward, image: str, platform: str | None) -> Warmed:
        warming = Warming(steward, image, platform, FLOOR, at_once=1)
        async for _ in warming.run():
            pass
        if warming.outcome.error and not warming.outcome.status:
            raise Unanswered(warming.outcome.error)
        return warming.outcome

    def _gone(self, steward: Steward, rule: KeptRule, image: str) -> None:
        if image not in rule.gone:
            rule.gone[image] = steward.clock.seconds()
            self._log.warn("{image} is gone from its registry; what is cached of it stays", image=image)
            self._vanished(image, rule.images[image])

    async def _images(self, steward: Steward, keep: Keep) -> tuple[dict[str, None], list[ImageName]]:
        """What a rule names now, and the globs of which that is not known."""
        found: dict[str, None] = {}
        unknown: list[ImageName] = []
        for image in keep.images:
            if not image.is_wild:
                found[str(image)] = None
                continue
            repository = f"{image.upstream}/{image.repository}"
            told = await steward.workers.ask_one(TAGS, repository, image.tag, MOST_TAGS)
            if "error" in told:
                unknown.append(image)
                self._log.warn("the tags of {image} are not known: {why}", image=repository, why=told["error"])
                continue
            if told["more"]:
                self._log.warn(
                    "{image} covers {more} tags more than the {most} newest, which are kept; make it narrower",
                    image=str(image),
                    more=told["more"],
                    most=MOST_TAGS,
                )
            found.update((f"{repository}:{tag}", None) for tag in told["tags"])
        if keep.hot:
            found.update((name, None) for name in hottest(steward, keep.hot))
        return found, unknown


async def _nothing() -> None:
    return


def _is_named(keep: Keep, image: str) -> bool:
    """Whether a rule means this image itself, not only because it was pulled most."""
    return any(covers(each, image) for each in keep.images)


def covers(image: ImageName, name: str) -> bool:
    """Whether a rule's image covers what is kept under this full name."""
    repository, _, tag = name.rpartition(":")
    upstream, _, repository = repository.partition("/")
    return image.covers(upstream, repository, tag)


async def _used(steward: Steward, digests: Any) -> None:
    """What is kept counts as used: it is evicted last."""
    todo, seen = [str(digest) for digest in digests if digest], set[str]()
    while todo and len(seen) < 20 * MOST_KEPT:
        text = todo.pop()
        if text in seen:
            continue
        seen.add(text)
        with suppress(StorageError, RegistryError):
            digest = Digest.parse(text)
            steward.store.touch(digest)
            todo += await _below(steward, digest)


async def _below(steward: Steward, digest: Digest) -> list[str]:
    """What a manifest in the store consists of."""
    reader = await steward.store.open(digest)
    if reader is None:
        return []
    try:
        if reader.size is None or reader.size > 1 << 20:
            return []
        body = await reader.read(0, reader.size) if reader.size else b""
    finally:
        reader.close()
    with suppress(ValueError):
        told = json.loads(body)
        kind = str(told.get("mediaType")) if isinstance(told, dict) else ""
        return [str(each.digest) for each in complete(Manifest(kind, digest, len(body), body)) or ()]
    return []


def remembered(steward: Steward) -> dict[str, KeptRule]:
    """What was kept, by rule."""
    try:
        told: Mapping[str, Any] = json.loads(steward.catalog.facts.get(FACT) or "{}")
        return {
            str(name): KeptRule(float(each["ran"]), dict(each["images"]), dict(each["gone"]))
            for name, each in told.items()
        }
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}


def _remember(steward: Steward, rules: Mapping[str, KeptRule]) -> None:
    left = MOST_KEPT
    told = {}
    for name, rule in rules.items():
        images = dict(_first(rule.images, left))
        left -= len(images)
        gone = {image: at for image, at in rule.gone.items() if image in images}
        told[name] = {"ran": rule.ran, "images": images, "gone": gone}
    steward.catalog.facts.keep(FACT, json.dumps(told, separators=(",", ":")))


def _first(images: Mapping[str, str], most: int) -> Iterator[tuple[str, str]]:
    for number, each in enumerate(images.items()):
        if number >= most:
            return
        yield each
