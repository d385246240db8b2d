"""`ls`, `show`, `du`: what is cached, and how much of it.

The law: they change nothing, not even when something was last used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import asdict

from docxy.catalog.behind import Broken
from docxy.content import parse_object
from docxy.names import Digest
from docxy.orders.standing import Standing
from docxy.steward.inventory import Inventory, Root, Taking
from docxy.steward.lines import Arguments, Failed, Lines, done, item
from docxy.steward.manifests import platform
from docxy.steward.names import Wanted
from docxy.steward.orders import stands
from docxy.steward.steward import Steward

_AT_ONCE = 100
"""Images in one answer."""
_MOST_NAMES = 200
_CONFIG = 1 << 20
"""Bytes of an image's config that is looked at."""
_CHANGES = 50
"""Changes of a tag that are told."""
_PULLS = 200
"""Pulls of a repository that are looked through for those of one image."""


async def ls(steward: Steward, arguments: Arguments) -> Lines:
    """An item for each tag and each manifest without one, by repository; `image`: those that these names cover.

    Sizes in bytes: `size` is all that the image has here, `own` what no other image leads to.
    """
    wanted = [Wanted.parse(text) for text in arguments.texts("image")]
    taking = Taking(steward)
    async for line in taking.lines():
        yield line
    inventory = taking.inventory
    ordered = stands(steward)
    right = inventory.roots if not wanted else await steward.in_thread(covered, inventory, wanted)
    for start in range(0, len(right), _AT_ONCE):
        for told in await _all_told(steward, inventory, right[start : start + _AT_ONCE], ordered):
            yield item(**told)
    size = await steward.in_thread(lambda: inventory.size(inventory.reach(right)))
    yield done(images=len(right), size=size)


def covered(inventory: Inventory, wanted: Sequence[Wanted]) -> list[Root]:
    """The roots that some names stand for, each once."""
    found = []
    for (upstream, repository), roots in inventory.repositories():
        names = inventory.names.of(upstream, repository)
        right = [each for each in wanted if each.covers(names)]
        found += [root for root in roots if any(_is(root, each) for each in right)]
    return found


def _is(root: Root, wanted: Wanted) -> bool:
    return any(wanted.takes(root.tag, str(each)) for each in root.digests)


async def chosen(steward: Steward, inventory: Inventory, texts: Sequence[str]) -> list[Root]:
    """The roots that names stand for, each once.  Raises BadRequest, Failed for a name that is of nothing here."""
    wanted = [Wanted.parse(text) for text in texts]
    for each in wanted:
        if not await steward.in_thread(covered, inventory, [each]):
            raise Failed(await steward.in_thread(_nothing_of, inventory, each))
    return await steward.in_thread(covered, inventory, wanted)


def _nothing_of(inventory: Inventory, wanted: Wanted) -> str:
    """Why a name stands for nothing: a digest may be that of a part of images."""
    found = [] if wanted.digest is None else [each for each in inventory.blobs if str(each).startswith(wanted.digest)]
    leading = [
        root
        for digest in found[:1]
        for root in inventory.roots
        if wanted.covers(inventory.names.of(root.upstream, root.repository)) and digest in inventory.reach([root])
    ]
    if not leading:
        return f"nothing is cached of {wanted.text[:300]}; docxy ls shows what is"
    more = f" and of {len(leading) - 1} more" if len(leading) > 1 else ""
    return f"{wanted.text[:300]} is no image of its own here but a part of {leading[0].image}{more}: name that"


async def _all_told(
    steward: Steward, inventory: Inventory, roots: Sequence[Root], ordered: Standing
) -> list[dict[str, Any]]:
    configs = [led.config for led in (inventory.leads(root.digest) for root in roots) if led.config is not None]
    small = [each for each in configs if each in inventory.blobs and inventory.blobs[each].size <= _CONFIG]
    bodies = await steward.store.survey.read(small)
    return await steward.in_thread(lambda: [_told(inventory, root, bodies, ordered) for root in roots])


def _told(inventory: Inventory, root: Root, configs: Mapping[Digest, bytes], ordered: Standing) -> dict[str, Any]:
    """`configs`: the bytes of images' configs."""
    led = inventory.leads(root.digest)
    if led.manifests:
        platforms = sorted(set(inventory.platforms(root).values()))
    else:
        named = "" if led.config is None else platform(parse_object(configs.get(led.config, b"")))
        platforms = [named] if named else []
    return {
        "image": root.image,
        "upstream": root.upstream,
        "repository": root.repository,
        "tag": root.tag,
        "digest": str(root.digest),
        "checked": root.at,
        "used": inventory.used(root),
        "size": inventory.size(inventory.reach([root])),
        "own": inventory.size(inventory.freed([root])),
        "platforms": platforms,
        "marks": [asdict(mark) for mark in ordered.marks(root.upstream, root.repository, root.tag, [*root.digests])],
    }


async def show(steward: Steward, arguments: Arguments) -> Lines:
    """An item for each image that the names stand for: its manifests, layers, history, and who pulled it."""
    taking = Taking(steward)
    async for line in taking.lines():
        yield line
    inventory = taking.inventory
    ordered = stands(steward)
    roots = await chosen(steward, inventory, arguments.texts("image"))
    for root in roots:
        (told,) = await _all_told(steward, inventory, [root], ordered)
        manifests = await steward.in_thread(_manifests, inventory, root)
        yield item(
            **told,
            variants=list(root.variants),
            manifests=manifests,
            pulls=await _pulls(steward, root),
            history=await _history(steward, root),
        )
    yield done(images=len(roots))


async def _history(steward: Steward, root: Root) -> list[dict[str, Any]]:
    """Where a tag led, the newest change first."""
    if root.tag is None:
        return []
    changes = await steward.catalog.upstream(root.upstream).history.changes(root.repository, root.tag, _CHANGES)
    return [
        {"digest": None if each.digest is None else str(each.digest), "at": each.at, "first": each.first}
        for each in changes
    ]


def _manifests(inventory: Inventory, root: Root) -> list[dict[str, Any]]:
    """Of each platform, cached or not."""
    found = []
    for digest, name in (inventory.leads(root.digest).manifests or {root.digest: ""}).items():
        inner = inventory.leads(digest)
        parts = [each for each in (inner.config, *inner.layers) if each is not None]
        layers = [
            {
                "digest": str(each),
                "size": inventory.blobs[each].size if each in inventory.blobs else None,
                "shared": each in inventory.blobs and not inventory.is_own(each),
                "cached": each in inventory.blobs,
            }
            for each in parts
        ]
        found.append({"digest": str(digest), "platform": name, "cached": digest in inventory.blobs, "layers": layers})
    return found


async def _pulls(steward: Steward, root: Root) -> list[Mapping[str, Any]]:
    pulls = await steward.pulls(_PULLS, (root.upstream, root.repository))
    digests = {str(each) for each in root.digests}
    kept = ("id", "reference", "digest", "platform", "client", "account", "agent", "started", "sent")
    return [
        {key: pull[key] for key in kept}
        for pull in pulls
        if pull["digest"] in digests or pull["reference"] in (root.tag, *digests)
    ]


async def du(steward: Steward, arguments: Arguments) -> Lines:
    """An item for each repository, the largest first; in the end the whole.  Bytes."""
    taking = Taking(steward)
    async for line in taking.lines():
        yield line
    inventory = taking.inventory
    rows, named = await steward.in_thread(_rows, inventory)
    for row in rows:
        yield item(**row)
    loose = inventory.blobs.keys() - named
    yield done(
        used=await steward.store.used(),
        free=await steward.store.free(),
        budget=None if steward.config is None else steward.config.cache_size,
        blobs=len(inventory.blobs),
        size=inventory.size(inventory.blobs),
        unnamed={"blobs": len(loose), "size": inventory.size(loose)},
    )


def _rows(inventory: Inventory) -> tuple[list[dict[str, Any]], set[Digest]]:
    """Of each repository, and all blobs that they lead to."""
    rows = []
    named: set[Digest] = set()
    for (upstream, repository), roots in inventory.repositories():
        blobs = inventory.reach(roots)
        named |= blobs
        rows.append(
            {
                "repository": f"{upstream}/{repository}",
                "images": len(roots),
                "size": inventory.size(blobs),
                "own": inventory.own(blobs),
                "used": max(map(inventory.used, roots)),
            }
        )
    return sorted(rows, key=lambda row: (-row["own"], row["repository"])), named


async def names(steward: Steward, arguments: Arguments) -> Lines:
    """An item for each name that `begins` so, the shortest of each image; for shells, at most `_MOST_NAMES`."""
    begins = arguments.text("begins") or ""
    try:
        rows = [row async for row in steward.catalog.survey.tags()]
    except Broken:
        rows = []
    known = steward.names(sorted({row.upstream for row in rows}))
    found: dict[str, None] = {}
    for row in rows:
        for name in reversed(known.of(row.upstream, row.repository)):
            if f"{name}:{row.name}".startswith(begins):
                found[f"{name}:{row.name}"] = None
                break
    for name in list(found)[:_MOST_NAMES]:
        yield item(name=name)
    yield done()
