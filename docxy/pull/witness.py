"""What a repository is known to have because a manifest of it says so.

The law: *this is for an outage only.*  That a repository has something is the upstream's to say; while it does not
answer, a manifest that it served under the repository is its word.  Layers that lie elsewhere are left out.
"""

from __future__ import annotations

from docxy.catalog.interfaces import IHeld
from docxy.content import Manifest, complete, listed
from docxy.names import Descriptor, Digest
from docxy.storage.memory_cache import MemoryCache

MOST = 50
"""Manifests that are read: those that the upstream served last."""


async def listing(held: IHeld, recent: MemoryCache, repository: str, digest: Digest) -> Descriptor | None:
    """What a cached manifest or index of the repository says of a digest; None when none lists it."""
    for known in await held.manifests(repository, MOST):
        fact = await held.manifest(repository, known)
        body = await recent.load(known)
        if fact is None or body is None:
            continue
        manifest = Manifest(fact.media_type, known, len(body), body)
        for descriptor in complete(manifest) or listed(manifest):
            if descriptor.digest == digest:
                return descriptor
    return None
