"""What is cached at one moment: blobs, what leads to them, and whose they are.

The laws: an inventory is made in slices, each in a thread; it is as true as its moment, so who removes by it
spares what was used since.  *A root* is what keeps blobs: a tag, or a manifest that no tag of its repository leads to,
which somebody pulled by its digest.  What a removal frees is what no other root leads to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from attrs import define, field, frozen

from docxy.catalog.behind import Broken
from docxy.catalog.survey import ManifestRow, TagRow
from docxy.names import Digest
from docxy.steward.lines import Failed, Lines, progress
from docxy.steward.manifests import NOWHERE, Leads, leads
from docxy.steward.names import Names
from docxy.steward.steward import Steward
from docxy.storage.interfaces import Counted, StorageError

_AT_ONCE = 200
"""Manifests that are read in one go."""


@frozen
class Root:
    """A tag, or a manifest without one."""

    upstream: str
    repository: str
    tag: str | None
    digest: Digest
    at: float
    """When the upstream last said so; seconds since the epoch."""
    variants: tuple[str, ...] = ()
    """What else narrow Accepts selected of the tag: digests."""

    @property
    def image(self) -> str:
        """As users write it."""
        name = f"{self.upstream}/{self.repository}"
        return f"{name}@{self.digest}" if self.tag is None else f"{name}:{self.tag}"

    @property
    def digests(self) -> Iterator[Digest]:
        """All that it leads to at once."""
        yield self.digest
        yield from map(Digest.parse, self.variants)


@define
class Inventory:
    """See above."""

    blobs: dict[Digest, Counted]
    roots: list[Root]
    """By registry, repository and name."""
    names: Names
    _leads: dict[Digest, Leads]
    _by_root: Counter[Digest] = field(factory=Counter)
    """Of each blob: how many roots lead to it."""
    _by_repository: Counter[Digest] = field(factory=Counter)
    """Of each blob: how many repositories."""

    def count(self) -> None:
        """Count who leads to what."""
        for _, roots in self.repositories():
            of_all: set[Digest] = set()
            for root in roots:
                of_one = self.reach([root])
                self._by_root.update(of_one)
                of_all |= of_one
            self._by_repository.update(of_all)

    def repositories(self) -> Iterator[tuple[tuple[str, str], list[Root]]]:
        """Roots by registry and repository."""
        some: list[Root] = []
        for root in self.roots:
            if some and (some[0].upstream, some[0].repository) != (root.upstream, root.repository):
                yield (some[0].upstream, some[0].repository), some
                some = []
            some.append(root)
        if some:
            yield (some[0].upstream, some[0].repository), some

    def leads(self, digest: Digest) -> Leads:
        """Where a manifest leads, as far as it is cached."""
        return self._leads.get(digest, NOWHERE)

    def reach(self, roots: Iterable[Root]) -> set[Digest]:
        """The cached blobs that these lead to, with the manifests."""
        found: set[Digest] = set()
        waiting = [digest for root in roots for digest in root.digests]
        while waiting:
            digest = waiting.pop()
            if digest in found or digest not in self.blobs:
                continue
            found.add(digest)
            led = self._leads.get(digest)
            if led is not None:
                waiting += led.manifests
                waiting += led.layers
                if led.config is not None:
                    waiting.append(led.config)
        return found

    def freed(self, roots: Sequence[Root]) -> set[Digest]:
        """What goes when these go: what no other root leads to."""
        ours: Counter[Digest] = Counter()
        for root in roots:
            ours.update(self.reach([root]))
        return {digest for digest, count in ours.items() if count == self._by_root[digest]}

    def size(self, digests: Iterable[Digest]) -> int:
        """Bytes of cached blobs."""
        return sum(self.blobs[digest].size for digest in digests)

    def taken(self, digests: Iterable[Digest]) -> int:
        """Bytes of the disk of cached blobs."""
        return sum(self.blobs[digest].taken for digest in digests)

    def own(self, digests: Iterable[Digest]) -> int:
        """Bytes of those that one repository alone leads to."""
        return self.size(digest for digest in digests if self.is_own(digest))

    def is_own(self, digest: Digest) -> bool:
        """Whether one repository alone leads to it."""
        return self._by_repository[digest] == 1

    def used(self, root: Root) -> float:
        """When a root was last pulled: its manifest, or one of its index; seconds since the epoch."""
        manifests = [*root.digests, *(child for each in root.digests for child in self.leads(each).manifests)]
        return max((self.blobs[each].last_used for each in manifests if each in self.blobs), default=0.0)

    def platforms(self, root: Root) -> dict[Digest, str]:
        """The manifests of an index that are cached whole, with their platforms; nothing for other manifests."""
        return {
            child: named
            for child, named in self.leads(root.digest).manifests.items()
            if named and child in self.blobs and all(layer in self.blobs for layer in self.leads(child).layers)
        }


class Taking:
    """The making of an inventory: says how far it is, as an act does; then `inventory` is there."""

    inventory: Inventory

    def __init__(self, steward: Steward) -> None:
        self._steward = steward

    async def lines(self) -> Lines:
        """Raises Failed."""
        try:
            async for line in self._lines():
                yield line
        except (StorageError, Broken) as error:
            raise Failed(f"the cache cannot be read: {error}") from None

    async def _lines(self) -> Lines:
        steward = self._steward
        blobs: dict[Digest, Counted] = {}
        async for blob in steward.store.survey.blobs():
            blobs[blob.digest] = blob
        tags = [row async for row in steward.catalog.survey.tags()]
        manifests = [row async for row in steward.catalog.survey.manifests()]
        known: dict[Digest, Leads] = {}
        named = {row.digest for row in tags} | {row.digest for row in manifests}
        waiting = set(map(Digest.parse, named)) & blobs.keys()
        while waiting:
            some = [waiting.pop() for _ in range(min(_AT_ONCE, len(waiting)))]
            found = await steward.store.survey.read(some)
            known.update(dict.fromkeys(some, NOWHERE))
            known.update(await steward.in_thread(_parsed, found))
            # An index that one client pulled leads to children that another one pulled, perhaps elsewhere.
            children = {child for each in some for child in known[each].manifests}
            waiting |= (children & blobs.keys()) - known.keys()
            yield progress(len(known), len(known) + len(waiting), "reading", "manifests")
        names = steward.names(sorted({row.upstream for row in tags} | {row.upstream for row in manifests}))
        roots = await steward.in_thread(_roots, tags, manifests, blobs, known)
        self.inventory = Inventory(blobs, roots, names, known)
        await steward.in_thread(self.inventory.count)


def _parsed(found: Mapping[Digest, bytes]) -> dict[Digest, Leads]:
    return {digest: leads(body) for digest, body in found.items()}


def _roots(
    tags: Sequence[TagRow], manifests: Sequence[ManifestRow], blobs: dict[Digest, Counted], known: dict[Digest, Leads]
) -> list[Root]:
    roots: dict[tuple[str, str, str], list[TagRow]] = {}
    for row in tags:
        roots.setdefault((row.upstream, row.repository, row.name), []).append(row)
    found = []
    led: set[tuple[str, str, Digest]] = set()
    for (upstream, repository, name), rows in roots.items():
        rows.sort(key=lambda row: row.variant)
        first, *others = rows
        digest = Digest.parse(first.digest)
        variants = tuple(sorted({row.digest for row in others} - {first.digest}))
        found.append(Root(upstream, repository, name, digest, first.checked, variants))
        for each in found[-1].digests:
            led.add((upstream, repository, each))
    # An index before its children: what it leads to is no root.
    for held in manifests:
        for child in known.get(Digest.parse(held.digest), NOWHERE).manifests:
            led.add((held.upstream, held.repository, child))
    for held in manifests:
        digest = Digest.parse(held.digest)
        if digest in blobs and (held.upstream, held.repository, digest) not in led:
            found.append(Root(held.upstream, held.repository, None, digest, held.seen))
    return sorted(
        found, key=lambda root: (root.upstream, root.repository, root.tag is None, root.tag or str(root.digest))
    )
