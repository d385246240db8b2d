"""The clients of this process that follow a fill, of this process or of another one.

The law: *a client counts as long as it follows bytes that still arrive*: from when it has its answer's head until it
leaves, or the blob is whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Protocol

from docxy.names import Digest


class IsFollower(Protocol):
    """One client's way through a blob."""

    @property
    def digest(self) -> Digest: ...

    @property
    def still_arrives(self) -> bool:
        """Whether the blob it follows is not whole yet; once it is, it stays so."""


class Followers:
    """Those of all upstreams."""

    def __init__(self) -> None:
        self._followers: set[IsFollower] = set()

    def add(self, follower: IsFollower) -> None:
        """It begins; a follower of what is whole is none."""
        if follower.still_arrives:
            self._followers.add(follower)

    def remove(self, follower: IsFollower) -> None:
        """It has ended; may be called again, and of one that was never added."""
        self._followers.discard(follower)

    def counted(self) -> Mapping[Digest, int]:
        """How many follow each blob that still arrives."""
        self._followers = {each for each in self._followers if each.still_arrives}
        return Counter(each.digest for each in self._followers)
