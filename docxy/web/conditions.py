"""Conditions and ranges of content that is addressed by digest (RFC 9110 sections 13 and 14).

The law: such content has its digest as its ETag, so all of this is answered here, for every upstream alike.
"""

from __future__ import annotations

from docxy.names import Digest
from docxy.ranges import Range, parse_range
from docxy.web.request import Request


def not_modified(request: Request, digest: Digest) -> bool:
    """Whether If-None-Match names this digest (weak comparison)."""
    condition = request.getHeader("If-None-Match")
    if condition is None:
        return False
    tags = {tag.strip().removeprefix("W/") for tag in condition.split(",")}
    return "*" in tags or f'"{digest}"' in tags


def asked_range(request: Request, digest: Digest) -> Range | None:
    """The range asked for, unless If-Range names something else than this digest."""
    asked = request.getHeader("Range")
    if asked is None:
        return None
    condition = request.getHeader("If-Range")
    if condition is not None and condition.strip() != f'"{digest}"':
        return None
    return parse_range(asked)
