"""What a blob is called by other algorithms, found out by reading all of it."""

from __future__ import annotations

import hashlib

from docxy.bodies import IBody
from docxy.names import ALGORITHMS, Digest


async def others_of(digest: Digest, body: IBody) -> frozenset[str]:
    """The digests of these bytes by every algorithm but this one's; the body is closed then."""
    hashers = {each: hashlib.new(each) for each in ALGORITHMS if each != digest.algorithm}
    try:
        while data := await body.read():
            for hasher in hashers.values():
                hasher.update(data)
    finally:
        body.close()
    return frozenset(f"{each}:{hasher.hexdigest()}" for each, hasher in hashers.items())
