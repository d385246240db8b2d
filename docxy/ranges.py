"""Byte ranges (RFC 9110 section 14).

Pure.  The law: a Range header that is malformed, of another unit or of several ranges is
ignored, and the whole is served; that is always a correct answer to it.  A range that ends
before it begins gets 416 (section 15.5.17), as OCI's conformance suite wants it.
"""

from __future__ import annotations

import re

from attrs import frozen

from docxy.errors import RangeInvalid

_SINGLE = re.compile(r"\s*bytes\s*=\s*(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))\s*", re.IGNORECASE | re.ASCII)
_CONTENT = re.compile(r"\s*bytes\s+(?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18})\s*", re.IGNORECASE | re.ASCII)


@frozen
class Range:
    """One range as asked for; `last` may lie past the end, or before `first`."""

    first: int | None
    """None: the final `last` bytes."""
    last: int | None
    """Inclusive; None: to the end."""

    def __str__(self) -> str:
        first, last = ("" if bound is None else str(bound) for bound in (self.first, self.last))
        return f"bytes={first}-{last}"

    def within(self, size: int) -> Span:
        """What it means for `size` bytes; raises RangeInvalid when nothing of it is there."""
        if self.first is None:
            assert self.last is not None
            first, stop = max(0, size - self.last), size
        else:
            first, stop = self.first, size if self.last is None else min(self.last + 1, size)
        if first >= stop:
            raise RangeInvalid(
                f"the range {self} is not within the {size} bytes that there are",
                headers=(("Content-Range", f"bytes */{size}"),),
            )
        return Span(first, stop, size)

    def means(self, span: Span) -> bool:
        """Whether this is what it means for the size of `span`."""
        try:
            return span == self.within(span.size)
        except RangeInvalid:
            return False


@frozen
class Span:
    """The bytes from `first` up to but not including `stop`, of `size`."""

    first: int
    stop: int
    size: int

    def __str__(self) -> str:
        return f"bytes {self.first}-{self.stop - 1}/{self.size}"


def parse_range(header: str | None) -> Range | None:
    """The single range that a Range header asks for; None: serve the whole."""
    match = _SINGLE.fullmatch(header) if header is not None else None
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        return Range(None, int(suffix))
    return Range(int(first), int(last) if last else None)


def parse_content_range(header: str | None) -> Span | int | None:
    """What a 206 or 416 says it holds: a span, only the size (`bytes */N`), or None if unreadable."""
    match = _CONTENT.fullmatch(header) if header is not None else None
    if match is None:
        return None
    first, last, size = match.groups()
    if first is None:
        return int(size)
    span = Span(int(first), int(last) + 1, int(size))
    return span if span.first < span.stop <= span.size else None
