"""Images as users name them: `alpine`, `ghcr.io/o/i:tag`, `docker.io/library/python:3.*`, `…@sha256:…`.

Pure.  The law: a name means what it means to `docker pull`, and all names of one image (with an alias, without
`library/`, without a registry) become the one that docxy keeps things by.  `split` is that law, for pulls, orders and
searches alike.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from attrs import frozen

from docxy import globs
from docxy.errors import NameUnknown, RegistryError
from docxy.names import Digest, Tag, check_repository
from docxy.settings.any_registry import registry_name
from docxy.settings.model import ANY
from docxy.settings.parsers import shown
from docxy.settings.presets import preset

HUB = "docker.io"
_TAG = re.compile(r"[A-Za-z0-9_.*?-]{1,128}")
_HOST = re.compile(r"localhost|.*[.:].*")
_WILD = re.compile(r"[*?]")


class IRegistry(Protocol):
    """What a name needs to know of a registry."""

    @property
    def name(self) -> str: ...

    @property
    def aliases(self) -> Collection[str]: ...

    @property
    def library(self) -> bool:
        """Whether a single name is in `library/` there."""


class NotMirrored(NameUnknown):
    """The name is of a registry that docxy does not mirror."""


@frozen
class Split:
    """The parts of a name; none but the registry is checked."""

    upstream: IRegistry
    repository: str
    """With `library/` where it belongs."""
    tag: str | None
    digest: str | None


def split(text: str, upstreams: Sequence[IRegistry]) -> Split:
    """`upstreams`: the configured ones, the default first; one called `ANY` stands for all others.

    Raises NotMirrored.
    """
    rest, at, digest = text.partition("@")
    slash, colon = rest.rfind("/"), rest.rfind(":")
    tag = None
    if colon > slash:
        rest, tag = rest[:colon], rest[colon + 1 :]
    first, separator, name = rest.partition("/")
    names: dict[str, IRegistry] = {
        known.lower(): upstream
        for upstream in upstreams
        for known in (upstream.name, *upstream.aliases)
        if known != ANY
    }
    upstream: IRegistry
    if separator and first.lower() in names:
        upstream = names[first.lower()]
    elif separator and _HOST.fullmatch(first):
        if all(upstream.name != ANY for upstream in upstreams):
            raise NotMirrored(f"no upstream {first[:80]!a} is configured here")
        upstream = _elsewhere(first, names)
    else:
        # A name without a registry is Docker Hub's, or the default's where docxy has no Docker Hub.
        upstream, name = names.get(HUB, upstreams[0]), rest
    if upstream.library and "/" not in name and "**" not in name:
        name = f"library/{name}"
    return Split(upstream, name, tag, digest if at else None)


def _elsewhere(first: str, names: Mapping[str, IRegistry]) -> IRegistry:
    """A registry that only its name is known of.  Raises NotMirrored."""
    try:
        known = preset(registry_name(first.lower()))
    except ValueError as error:
        raise NotMirrored(f"{first[:80]!a} {error}") from None
    return names.get(known.name, known)


@frozen
class ImageName:
    """One image, all images of a repository, or all that a glob covers."""

    upstream: str
    """The name of a configured one."""
    repository: str
    """A glob, with `library/` where it belongs."""
    tag: str | None = None
    """A glob; None: every tag, and all else in the repository."""
    digest: Digest | None = None

    def is_of(self, repository: str) -> bool:
        """Whether it covers something of this repository of its upstream."""
        return globs.matches(self.repository, repository)

    def covers(self, upstream: str, repository: str, tag: str | None) -> bool:
        """Whether this is a name of what has that tag; `tag` None: of all that is in a repository."""
        if upstream != self.upstream or not globs.matches(self.repository, repository):
            return False
        return self.tag is None or (tag is not None and globs.matches(self.tag, tag))

    @property
    def full(self) -> str:
        """The repository with its registry."""
        return f"{self.upstream}/{self.repository}"

    @property
    def is_wild(self) -> bool:
        """Whether it can cover more than one tag of one repository."""
        return self.tag is None or _WILD.search(f"{self.repository}:{self.tag}") is not None

    def __str__(self) -> str:
        tag = "" if self.tag is None else f":{self.tag}"
        digest = "" if self.digest is None else f"@{self.digest}"
        return f"{self.upstream}/{self.repository}{tag}{digest}"


def parse_image(text: str, upstreams: Sequence[IRegistry]) -> ImageName:
    """A name whose parts may be globs; `upstreams`: the configured ones, the default first.

    Raises ValueError whose message follows the text in a sentence.
    """
    try:
        parts = split(text, upstreams)
        if parts.tag is not None and (_TAG.fullmatch(parts.tag) is None or "**" in parts.tag):
            raise ValueError("its tag is none")
        globs.pattern(parts.repository.removeprefix("library/"))
        parsed = None if parts.digest is None else Digest.parse(parts.digest)
    except NotMirrored:
        listed = ", ".join(upstream.name for upstream in upstreams)
        first = text.partition("/")[0]
        raise ValueError(f"is of {shown(first)}, which docxy does not mirror; it mirrors {listed}") from None
    except (ValueError, RegistryError) as error:
        raise ValueError(f"is not an image: {error}") from None
    return ImageName(parts.upstream.name, parts.repository, parts.tag, parsed)


def parse_exact(text: str, upstreams: Sequence[IRegistry]) -> ImageName:
    """A name without wildcards: of one tag or digest, or of a repository.

    Raises NotMirrored, NameInvalid, TagInvalid, DigestInvalid.
    """
    parts = split(text, upstreams)
    check_repository(parts.repository)
    tag = None if parts.tag is None else str(Tag(parts.tag))
    return ImageName(
        parts.upstream.name, parts.repository, tag, None if parts.digest is None else Digest.parse(parts.digest)
    )


def parse_one_tag(text: str, upstreams: Sequence[IRegistry]) -> ImageName:
    """The name of one tag, `latest` where there is none.  Raises ValueError, as `parse_image` does."""
    image = parse_image(text, upstreams)
    tag = "latest" if image.tag is None else image.tag
    if _WILD.search(f"{image.repository}:{tag}"):
        raise ValueError("is not one tag: it has a wildcard")
    try:
        Tag(tag)
    except RegistryError as error:
        raise ValueError(f"is not an image: {error}") from None
    return ImageName(image.upstream, image.repository, tag, image.digest)


def parse_digest(text: str) -> Digest:
    """Raises ValueError whose message follows the text in a sentence."""
    try:
        return Digest.parse(text)
    except RegistryError:
        raise ValueError("is not a digest, as sha256:<64 hex digits>") from None
