"""Asking an upstream for the rest of a blob, when it breaks off.

The law: *there is one way to ask for the rest, with a cache and without*: from the byte where it broke off, after
a pause that grows (`docxy.pull.blobs.backoff`), a bounded number of times without a byte of progress.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from docxy.ranges import Range
from docxy.storage.interfaces import IBlobWriter
from docxy.upstream.blob_response import BlobResponse

Source = Callable[[Range | None], Awaitable[BlobResponse]]
"""Asks the original URL anew (fresh redirect, fresh token), in one client's name."""

ATTEMPTS = 8
"""How often in a row the upstream may fail without a byte of progress."""


def resume_from(writer: IBlobWriter) -> Range | None:
    """The range that is still to come; when all is there, its last byte, for there is no empty range."""
    offset = writer.offset if writer.size is None else min(writer.offset, writer.size - 1)
    return Range(offset, None) if offset > 0 else None


def sends_parts(answer: BlobResponse) -> bool:
    """Whether this server takes ranges: it says so (RFC 9110 section 14.3), or just answered one."""
    header = answer.response.header("Accept-Ranges") or ""
    span = answer.span
    return "bytes" in header.lower() or (span is not None and span.stop - span.first < span.size)
