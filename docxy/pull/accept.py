"""Which manifests a client takes: its `Accept` (RFC 9110 section 12.5.1).

Pure.  The law: a header is read once, and only its beginning; clients that want the same in
other words are equal, so that they share what is kept and what the upstream is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from attrs import frozen

from docxy.names import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST

MAX_LENGTH = 4096
"""Characters that are read of all lines together; clients send up to 700."""
MAX_OTHERS = 8
"""Other media types that are passed to the upstream."""

_SHORT: Mapping[str, str] = {
    OCI_INDEX: "oci-index",
    OCI_MANIFEST: "oci-manifest",
    DOCKER_LIST: "docker-list",
    DOCKER_MANIFEST: "docker-manifest",
}
"""The types that tags are kept by."""
_NOTHING = frozenset({"q=0", "q=0.", "q=0.0", "q=0.00", "q=0.000"})


@frozen
class Accept:
    """What a client takes."""

    types: tuple[str, ...]
    """Of indexes and manifests of OCI and Docker those that it takes, in the order of `_SHORT`."""
    others: tuple[str, ...] = ()
    """Other media types and wildcards in its header, sorted; at most MAX_OTHERS."""

    @property
    def takes_all(self) -> bool:
        """Whether its answer is the one that everybody gets.

        To others a registry may give one platform's manifest instead of the index, or 404.
        """
        return len(self.types) == len(_SHORT)

    @property
    def variant(self) -> str | None:
        """Names what this Accept selects of a tag: `""` the usual; None what is not kept."""
        if self.takes_all:
            return ""
        return ",".join(_SHORT[each] for each in self.types) or None

    @property
    def lines(self) -> tuple[str, ...]:
        """The header for the upstream; none: anything."""
        return () if self.takes_all else (", ".join((*self.types, *self.others)),)

    def takes(self, media_type: str) -> bool:
        """Whether a manifest of this type is an answer."""
        if media_type in _SHORT:
            return media_type in self.types
        return self.takes_all or bool({media_type, *_wildcards(media_type)} & set(self.others))


ANYTHING = Accept(tuple(_SHORT))


def read(lines: Sequence[str]) -> Accept:
    """Every `Accept` line of a request; a request without one takes anything."""
    text = ",".join(lines)
    if not text:
        return ANYTHING
    return _kept(text) if len(text) <= MAX_LENGTH // 4 else _read(text)


@lru_cache(maxsize=512)
def _kept(text: str) -> Accept:
    # Clients of one kind send the same bytes.
    return _read(text)


def _read(text: str) -> Accept:
    taken: dict[str, bool] = {}
    whole = text if len(text) <= MAX_LENGTH else text[:MAX_LENGTH].rpartition(",")[0]
    for part in whole.lower().split(","):
        media_type, *parameters = part.replace(" ", "").replace("\t", "").split(";")
        if media_type:
            taken[media_type] = not _NOTHING.intersection(parameters)
    if not taken:
        return ANYTHING
    types = tuple(each for each in _SHORT if _takes(taken, each))
    others = sorted(each for each, wanted in taken.items() if wanted and each not in _SHORT)
    return Accept(types, () if len(types) == len(_SHORT) else tuple(others[:MAX_OTHERS]))


def _takes(taken: Mapping[str, bool], media_type: str) -> bool:
    """The most specific range decides."""
    return next((taken[each] for each in (media_type, *_wildcards(media_type)) if each in taken), False)


def _wildcards(media_type: str) -> Iterable[str]:
    return f"{media_type.partition('/')[0]}/*", "*/*"
