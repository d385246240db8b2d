"""`rm` and `gc`: what goes, and what that frees.

The laws: *what something else leads to stays*: another tag, a manifest that somebody pulled by its digest, or another
repository.  What the catalog says goes first, then the files, then what workers have in memory: a client that asks
meanwhile gets the whole image or has it fetched again, never a part of it that looks whole.  A blob that was used
within `GRACE` is not garbage: it may belong to a pull whose manifest the inventory does not know yet.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from docxy.catalog.behind import Broken
from docxy.names import Digest
from docxy.steward.inventory import Inventory, Root, Taking
from docxy.steward.lines import Arguments, Failed, Line, Lines, done, item, progress
from docxy.steward.pinned import StandingPins
from docxy.steward.steward import Steward
from docxy.steward.usage import chosen
from docxy.storage.interfaces import StorageError

GRACE = 600.0
"""Seconds."""
UNTAGGED = 7 * 24 * 3600.0
"""Seconds for which a manifest that no tag leads to is kept after its last use, unless told otherwise."""
_ABANDONED = 24 * 3600.0
"""Seconds after which nobody is expected to go on with a download that was interrupted."""
_AT_ONCE = 100
"""Files that are removed between two lines."""


async def rm(steward: Steward, arguments: Arguments) -> Lines:
    """Remove the images that `image` names; `dry_run`: only say what would go.  Bytes of the disk."""
    texts = arguments.texts("image")
    if not texts:
        raise Failed("name the images to remove")
    taking = Taking(steward)
    async for line in taking.lines():
        yield line
    inventory = taking.inventory
    roots = await chosen(steward, inventory, texts)
    pins = StandingPins(steward)
    for root in roots:
        if (why := pins.why(root)) is not None:
            raise Failed(f"{root.image} is pinned: {why}")
    gone = await steward.in_thread(inventory.freed, roots)
    for root in roots:
        size = inventory.taken(inventory.reach([root]))
        yield item(image=root.image, digest=str(root.digest), size=size)
    if not arguments.flag("dry_run"):
        await _forget_roots(steward, inventory, roots)
        async for line in _delete(steward, gone, {digest for root in roots for digest in root.digests}):
            yield line
    yield done(images=len(roots), blobs=len(gone), frees=inventory.taken(gone), dry_run=arguments.flag("dry_run"))


async def gc(steward: Steward, arguments: Arguments) -> Lines:
    """Remove what nobody names; an item for each kind of it.  Bytes of the disk.

    `untagged`: seconds since its last use after which a manifest without a tag goes; `unused`: the same for tags,
    which stay unless it is given; `dry_run`: only say what would go.
    """
    untagged, unused = arguments.number("untagged"), arguments.number("unused")
    really = not arguments.flag("dry_run")
    taking = Taking(steward)
    async for line in taking.lines():
        yield line
    inventory, now = taking.inventory, steward.clock.seconds()
    before = now - (UNTAGGED if untagged is None else untagged)
    tags_before = None if unused is None else now - unused
    pins = StandingPins(steward)
    old = [
        root
        for root in inventory.roots
        if pins.why(root) is None
        and (
            (tags_before is not None and inventory.used(root) < tags_before)
            or (root.tag is None and inventory.used(root) < before)
        )
    ]
    kept = await steward.in_thread(lambda: inventory.reach(set(inventory.roots) - set(old)) | pins.blobs(inventory))
    free = {digest for digest in inventory.blobs.keys() - kept if inventory.blobs[digest].last_used < now - GRACE}
    of_old = await steward.in_thread(inventory.reach, old)
    for kind, roots in (("untagged", [r for r in old if r.tag is None]), ("unused", [r for r in old if r.tag])):
        if roots:
            frees = await steward.in_thread(lambda roots: inventory.reach(roots) & free, roots)
            yield item(kind=kind, images=len(roots), blobs=len(frees), frees=inventory.taken(frees))
    loose = free - of_old
    if loose:
        yield item(kind="unnamed", images=0, blobs=len(loose), frees=inventory.taken(loose))
    try:
        fills, taken = await steward.store.survey.drop_fills(now - _ABANDONED, really)
    except StorageError as error:
        raise Failed(str(error)) from None
    if fills:
        yield item(kind="interrupted", images=0, blobs=fills, frees=taken)
    if really:
        await _forget_roots(steward, inventory, old)
        async for line in _delete(steward, free, ()):
            yield line
    yield done(images=len(old), blobs=len(free) + fills, frees=inventory.taken(free) + taken, dry_run=not really)


async def _forget_roots(steward: Steward, inventory: Inventory, roots: Sequence[Root]) -> None:
    """Have the catalog say no longer that repositories have these."""
    going: dict[tuple[str, str], list[Root]] = defaultdict(list)
    for root in roots:
        going[root.upstream, root.repository].append(root)
    survey = steward.catalog.survey
    try:
        for key, of_repository in inventory.repositories():
            gone = going.get(key, [])
            if not gone:
                continue
            left = set(of_repository) - set(gone)
            await survey.forget_tags(*key, [root.tag for root in gone if root.tag is not None])
            if left:
                stay = await steward.in_thread(inventory.reach, left)
                go = await steward.in_thread(inventory.reach, gone)
                await survey.forget_held(*key, [str(digest) for digest in go - stay])
            else:
                await survey.forget_held(*key, sorted(await survey.blobs_of(*key)))
                await survey.forget_listings(*key)
    except Broken as error:
        raise Failed(f"nothing was removed, for the catalog cannot be written: {error}") from None


async def _delete(steward: Steward, digests: Iterable[Digest], more: Iterable[Digest]) -> Lines:
    """Remove files, and from memory them and `more`."""
    rest = sorted(digests)
    for start in range(0, len(rest), _AT_ONCE):
        some = rest[start : start + _AT_ONCE]
        try:
            for digest in some:
                await steward.store.delete(digest)
        except StorageError as error:
            raise Failed(f"{start} of {len(rest)} blobs were removed, then: {error}; run the command again") from None
        finally:
            await steward.forget(some)
        yield _so_far(min(len(rest), start + _AT_ONCE), len(rest))
    await steward.forget(more)


def _so_far(count: int, total: int) -> Line:
    return progress(count, total, "removing", "blobs")
