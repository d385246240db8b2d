"""The refusal of a client for whom no pull is spent, because the rest of the limit is reserved for others.

Pure.  The law: with a cache and without one the refusal is the same.
"""

from __future__ import annotations

from docxy.errors import TooManyRequests
from docxy.names import Reference
from docxy.pull.cache_status import RESERVED, telling

RESERVED_FOR = 60
"""Seconds after which who has no share in a reserve may ask again."""


def reserved(upstream: str, repository: str, reference: Reference) -> TooManyRequests:
    """The refusal of a manifest that is not cached."""
    return TooManyRequests(
        f"what is left of the pull limit of {upstream} is reserved for others; {repository}/{reference} is not cached",
        headers=(("Retry-After", str(RESERVED_FOR)), *telling(RESERVED)),
    )
