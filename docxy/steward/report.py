"""Who pulled something, and what leads to it: the report of a recall.

The laws: it says what docxy knows: of pulls those of the last days (`docxy.observe.history`), of tags and indexes those
that are cached.  Pulls are looked for wherever they may be, for what was pulled may have been evicted since; where
only the newest were looked through, it says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from docxy.errors import RegistryError
from docxy.names import Digest
from docxy.settings.image_names import ImageName, NotMirrored, parse_exact
from docxy.steward.inventory import Inventory, Root, Taking
from docxy.steward.lines import Arguments, Lines, done, item
from docxy.steward.names import Names, Wanted
from docxy.steward.orders import known_upstreams, one
from docxy.steward.steward import Steward
from docxy.steward.usage import covered

MOST_PULLS = 5_000
"""Pulls of one repository, or of all together, that are looked through."""
MOST_CHANGES = 100
"""Of a tag that is not cached: how many of the digests that it led to are looked for."""
ERROR = 400
"""Statuses from this on bring nothing."""
_KEPT = ("id", "image", "reference", "digest", "platform", "client", "account", "agent", "started", "seconds", "sent")


async def report(steward: Steward, arguments: Arguments) -> Lines:
    """An item for each tag and index that leads to what `image` names, and for each pull of it."""
    text = one(arguments, "image")
    wanted = Wanted.parse(text)
    taking = Taking(steward)
    async for line in taking.lines():
        yield line
    inventory = taking.inventory
    named = await steward.in_thread(covered, inventory, [wanted]) if wanted.name else []
    digests = {digest for root in named for digest in root.digests}
    if wanted.digest is not None and len(wanted.digest.partition(":")[2]) in (64, 128):
        digests.add(Digest.parse(wanted.digest))
    exact = _exact(steward, wanted)
    if exact is not None and exact.tag is not None and not named:
        history = steward.catalog.upstream(exact.upstream).history
        changes = await history.changes(exact.repository, exact.tag, MOST_CHANGES)
        digests |= {change.digest for change in changes if change.digest is not None}
    roots = await steward.in_thread(_leading, inventory, digests)
    indexes = await steward.in_thread(_naming, inventory, digests)
    for digest in sorted(digests):
        yield item(kind="digest", digest=str(digest), cached=digest in inventory.blobs)
    for root in roots:
        yield item(kind="tag" if root.tag is not None else "manifest", image=root.image, digest=str(root.digest))
    for digest in indexes:
        yield item(kind="index", digest=str(digest))
    everything = {str(digest) for digest in {*digests, *indexes}}
    places: set[tuple[str, str] | None] = {(root.upstream, root.repository) for root in [*roots, *named]}
    # A digest may have been pulled from anywhere, and so may what a glob covers.
    places.add(None if exact is None else (exact.upstream, exact.repository))
    pulls = refused = 0
    whole, seen = True, set()
    for place in sorted(places, key=lambda place: place or ("", "")):
        found = await steward.pulls(MOST_PULLS, place)
        whole = whole and len(found) < MOST_PULLS
        for pull in found:
            if pull["id"] in seen or not (_is_of(pull, everything) or _is_named(pull, wanted, inventory.names)):
                continue
            seen.add(pull["id"])
            is_refused = _was_refused(pull)
            pulls, refused = pulls + (not is_refused), refused + is_refused
            yield item(kind="pull", refused=is_refused, **{key: pull[key] for key in _KEPT})
    yield done(digests=len(digests), tags=len(roots), indexes=len(indexes), pulls=pulls, refused=refused, whole=whole)


def _exact(steward: Steward, wanted: Wanted) -> ImageName | None:
    """The one repository or tag that is wanted; None for a digest, and for a glob."""
    if wanted.digest is not None:
        return None
    try:
        return parse_exact(wanted.text, known_upstreams(steward, wanted.text))
    except (NotMirrored, RegistryError):
        return None


def _leading(inventory: Inventory, digests: set[Digest]) -> list[Root]:
    return [
        root
        for root in inventory.roots
        if not digests.isdisjoint(root.digests) or not digests.isdisjoint(inventory.reach([root]))
    ]


def _naming(inventory: Inventory, digests: set[Digest]) -> list[Digest]:
    """Cached indexes and manifests that name one of these."""
    found = []
    for digest in inventory.blobs:
        led = inventory.leads(digest)
        if digest not in digests and not digests.isdisjoint({*led.manifests, *led.layers, led.config} - {None}):
            found.append(digest)
    return sorted(found)


def _is_of(pull: Mapping[str, Any], digests: set[str]) -> bool:
    """Whether a pull got one of these; a digest counts wherever the pull shows it."""
    if pull["digest"] in digests or pull["reference"] in digests:
        return True
    return any(part.get("digest") in digests or part["reference"] in digests for part in pull["parts"])


def _is_named(pull: Mapping[str, Any], wanted: Wanted, names: Names) -> bool:
    """Whether a pull asked for what is wanted by its name; a digest names nothing."""
    if wanted.digest is not None or not wanted.takes(pull["reference"], ""):
        return False
    return wanted.covers(names.of(pull["upstream"], pull["repository"]))


def _was_refused(pull: Mapping[str, Any]) -> bool:
    """Whether a pull got nothing at all."""
    return bool(pull["parts"]) and all(part["status"] >= ERROR for part in pull["parts"])
