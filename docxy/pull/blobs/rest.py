"""The rest of a blob, straight from the upstream, for a client that has had the beginning from the cache.

The law: a whole blob never completes unchecked.  What the client has had is hashed again from the
cache, and the rest is hashed after it; where that cannot be read any more the upstream sends it
once more.  A range cannot be checked by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from docxy.bodies import IBody, SizedBody, VerifiedBody
from docxy.errors import UpstreamError
from docxy.names import Digest
from docxy.pull.blobs.again import Source
from docxy.pull.blobs.resuming import Resuming
from docxy.ranges import Range, Span
from docxy.storage.interfaces import IBlobReader, StorageError

if TYPE_CHECKING:
    from hashlib import _Hash


def is_whole(span: Span | None) -> bool:
    """Whether a span is all of a blob; None is one whose size is not known."""
    return span is None or (span.first == 0 and span.stop == span.size)


async def rest_of(ask: Source, reader: IBlobReader, span: Span | None, position: int, resuming: Resuming) -> IBody:
    """The bytes of `span` from `position` on.  `reader`: what the client has had so far.

    Raises RegistryError.
    """
    digest = reader.digest
    last = None if span is None else span.stop - 1
    if span is not None and not is_whole(span):
        return await range_of(ask, digest, span, position, resuming)
    had = await _hashed(reader, position)
    answer = await ask(None if had is None else Range(position, last))
    source = answer.response.source
    first = 0 if answer.span is None else answer.span.first
    if first not in (0, position) or (first and had is None):
        answer.response.abandon()
        raise UpstreamError(f"{source} cannot send {digest} from byte {position} on")
    # No more of it than was announced: the last byte goes out when they are hashed.
    body: IBody = resuming.body(digest, answer, None if span is None else Span(first, span.stop, span.size), ask)
    body = VerifiedBody(body, digest, source, had if first else None)
    return SizedBody(body, None, position - first, source)


async def range_of(ask: Source, digest: Digest, span: Span, position: int, resuming: Resuming) -> IBody:
    """The bytes of a span from `position` on, which nobody can check.  Raises RegistryError."""
    answer = await ask(Range(position, span.stop - 1))
    there = answer.span
    if there is None or there.first > position or there.stop < span.stop:
        answer.response.abandon()
        raise UpstreamError(f"{answer.response.source} cannot send {span} of {digest}")
    return resuming.body(digest, answer, Span(position, span.stop, span.size), ask)


async def _hashed(reader: IBlobReader, position: int) -> _Hash | None:
    """The hash of what the client has had; None when it has had nothing, or that cannot be read any more."""
    try:
        return await reader.hashed(position) if position else None
    except StorageError:
        return None
