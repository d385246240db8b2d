"""The field's names for things: repository, tag, digest, descriptor, media type.

Pure.  The law: a value of one of these types is well-formed, so what is made
from it (a path, a URL, a cache key) needs no further check.  The grammar is the OCI
distribution-spec v1.1's, "Pulling manifests", and the OCI image-spec's for digests.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import field, frozen

from docxy.errors import DigestInvalid, NameInvalid, TagInvalid

if TYPE_CHECKING:
    from hashlib import _Hash

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_DIGEST = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")
_HEX = re.compile(r"[0-9a-f]+")
_PLATFORM = re.compile(r"[a-z0-9._-]{1,32}/[a-z0-9._-]{1,32}(?:/[a-z0-9._-]{1,32})?")

MAX_NAME = 255
"""Host + "/" + name may not be longer (distribution-spec)."""

ALGORITHMS: Mapping[str, int] = {"sha256": 64, "sha512": 128}
"""The digest algorithms that can be verified, each with its length in hex digits."""


def _shown(value: str) -> str:
    """A client's text as it may stand in a message: printable and short."""
    return ascii(value if len(value) <= 80 else value[:77] + "...")


def is_platform(text: str) -> bool:
    """Whether a text is `os/architecture` or `os/architecture/variant`."""
    return _PLATFORM.fullmatch(text) is not None


def is_repository(name: str) -> bool:
    """Whether a name follows the repository grammar."""
    return len(name) <= MAX_NAME and _REPOSITORY.fullmatch(name) is not None


def check_repository(name: str) -> str:
    """The name itself, when it is a well-formed repository; raises NameInvalid."""
    if not is_repository(name):
        raise NameInvalid(f"{_shown(name)} is not a repository name")
    return name


@frozen(order=True, cache_hash=True)
class Digest:
    """`algorithm:hex`, of an algorithm that can be verified."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Raises DigestInvalid for bad syntax and for an algorithm that cannot be verified."""
        if _DIGEST.fullmatch(text) is None:
            raise DigestInvalid(f"{_shown(text)} is not a digest")
        algorithm, _, encoded = text.partition(":")
        length = ALGORITHMS.get(algorithm)
        if length is None:
            raise DigestInvalid(f"digest algorithm {_shown(algorithm)} is not supported (sha256, sha512)")
        if len(encoded) != length or _HEX.fullmatch(encoded) is None:
            raise DigestInvalid(f"{_shown(text)} is not {length} lowercase hex digits after {algorithm}:")
        return cls(algorithm, encoded)

    @classmethod
    def maybe(cls, text: str) -> Digest | None:
        """As `parse`; None where that raises."""
        try:
            return cls.parse(text)
        except DigestInvalid:
            return None

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Digest:
        """The digest of these bytes."""
        return cls(algorithm, hashlib.new(algorithm, data).hexdigest())

    def others(self, data: bytes) -> frozenset[str]:
        """What these bytes, which it is of, are called by the other algorithms."""
        return frozenset(str(Digest.of(data, each)) for each in ALGORITHMS if each != self.algorithm)

    def hasher(self) -> _Hash:
        """A fresh hash object of this digest's algorithm."""
        return hashlib.new(self.algorithm)

    def matches(self, hasher: _Hash) -> bool:
        """Whether what went into the hash object is what this digest names."""
        return hasher.hexdigest() == self.hex

    @property
    def is_of_nothing(self) -> bool:
        """Whether it is the digest of no bytes."""
        return self.matches(self.hasher())

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


@frozen
class Tag:
    """A tag: a name that an upstream may point at another manifest at any time."""

    name: str = field()

    @name.validator
    def _check(self, _: object, value: str) -> None:
        if _TAG.fullmatch(value) is None:
            raise TagInvalid(f"{_shown(value)} is not a tag")

    def __str__(self) -> str:
        return self.name


Reference = Tag | Digest


def parse_reference(text: str) -> Reference:
    """A tag or a digest, narrowed once.  Raises TagInvalid or DigestInvalid."""
    return Digest.parse(text) if ":" in text else Tag(text)


@frozen
class Descriptor:
    """What a manifest says of a blob or of another manifest (OCI image-spec)."""

    media_type: str
    digest: Digest
    size: int
    """Bytes."""


OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"

INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
