"""How large a blob is, when an upstream and a manifest may both be wrong.

The law: *the digest decides.*  The descriptor of a manifest that was verified is a better witness
than a header; where the two differ nobody knows the size, and it is shown to no client until the
bytes hashed to the digest.  A manifest speaks for its own repository only.
"""

from __future__ import annotations

from collections.abc import MutableMapping

from attrs import evolve
from cachetools import LRUCache

from docxy.content import Manifest, listed
from docxy.names import Digest
from docxy.ranges import Span
from docxy.upstream.blob_response import BlobResponse

_MANIFESTS, _SIZES = 2_000, 20_000
"""How many are remembered of each."""


class Sizes:
    """What the manifests of one upstream say."""

    def __init__(self) -> None:
        self._learned: MutableMapping[tuple[str, Digest], bool] = LRUCache(_MANIFESTS)
        self._sizes: MutableMapping[tuple[str, Digest], int] = LRUCache(_SIZES)

    def learn(self, repository: str, manifest: Manifest) -> None:
        """Take in what a verified manifest lists."""
        if self._learned.get((repository, manifest.digest)) or manifest.body is None:
            return
        self._learned[repository, manifest.digest] = True
        for descriptor in listed(manifest):
            self._sizes[repository, descriptor.digest] = descriptor.size

    def get(self, repository: str, digest: Digest) -> int | None:
        """Bytes, as a manifest of this repository lists them; None when none is known that does."""
        return self._sizes.get((repository, digest))


def believed(answer: BlobResponse, size: int | None) -> BlobResponse:
    """The answer, its span corrected by the size that a manifest lists; None where nobody knows it."""
    span = answer.span
    if size is None or (span is not None and span.size == size):
        return answer
    if span is None:
        return evolve(answer, span=Span(0, size, size))
    if span.stop - span.first == span.size:
        return evolve(answer, span=None)
    return evolve(answer, span=Span(span.first, span.stop, size)) if span.stop <= size else answer


def believed_size(told: int | None, digest: Digest, size: int | None) -> int | None:
    """The size to answer a HEAD with; None where nobody knows it."""
    if size is not None:
        return size
    return None if told == 0 and not digest.is_of_nothing else told
