"""Images as operators name them: `alpine`, `ghcr.io/o/i:tag`, `alpine@sha256:…`, globs of these.

Pure.  The laws: a name means what it means to `docker pull` (`docxy.settings.image_names`); but here names are searched
by, in what is cached: so a glob may cover registries too, and a digest may stand alone and be shortened to `SHORTEST`
hex digits.  `*` and `?` stay within a component, `**` does not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from attrs import frozen

from docxy.errors import BadRequest
from docxy.globs import matches
from docxy.settings.image_names import HUB, IRegistry

_NAME = re.compile(r"[a-zA-Z0-9._:*?-]+(?:/[a-z0-9._*?-]+)*")
_TAG = re.compile(r"[a-zA-Z0-9_*?][a-zA-Z0-9._*?-]{0,127}")
SHORTEST = 6
_DIGEST = re.compile(rf"(?:sha256:[0-9a-f]{{{SHORTEST},64}}|sha512:[0-9a-f]{{{SHORTEST},128}})")


@frozen
class Wanted:
    """What a name asks for; each part may be a glob."""

    text: str
    """As it was written."""
    name: str
    """Repository, perhaps with its registry; empty: any."""
    tag: str | None
    digest: str | None
    """The beginning of one."""

    @classmethod
    def parse(cls, text: str) -> Wanted:
        """Raises BadRequest."""
        rest, at, digest = text.partition("@")
        if not at and _DIGEST.fullmatch(rest):
            rest, digest = "", rest
        slash, colon = rest.rfind("/"), rest.rfind(":")
        tag: str | None = None
        if colon > slash:
            rest, tag = rest[:colon], rest[colon + 1 :]
        right = (
            (not rest or (_NAME.fullmatch(rest) and "***" not in rest))
            and (tag is None or (_TAG.fullmatch(tag) and "**" not in tag))
            and (not (at or digest) or _DIGEST.fullmatch(digest))
            and (rest or digest)
        )
        if not right or len(text) > 1000:
            raise BadRequest(
                f"{text[:300]!a} names no image: write alpine, alpine:3.20, alpine@sha256:..., or a glob as ghcr.io/**"
            )
        return cls(text, rest, tag, digest or None)

    def covers(self, names: Sequence[str]) -> bool:
        """Whether it is of the repository with these names (`Names.of`)."""
        return not self.name or any(matches(self.name, name) for name in names)

    def takes(self, tag: str | None, digest: str) -> bool:
        """Whether it is this tag, or without one this manifest."""
        if self.digest is not None and not digest.startswith(self.digest):
            return False
        return self.tag is None or (tag is not None and matches(self.tag, tag))


@frozen
class Names:
    """What repositories may be called here."""

    home: str
    """The registry whose repositories need not be named with it."""
    known: Mapping[str, IRegistry]
    """Registries by their name."""

    @classmethod
    def over(cls, upstreams: Sequence[IRegistry], others: Sequence[IRegistry] = ()) -> Names:
        """`upstreams`: of docxy, the default one first; `others`: what it mirrors no longer."""
        names = [each.name for each in upstreams]
        home = HUB if HUB in names or not names else names[0]
        return cls(home, {each.name: each for each in (*others, *upstreams)})

    def of(self, upstream: str, repository: str) -> list[str]:
        """All names of a repository, the shortest last."""
        registry = self.known.get(upstream)
        short = [repository]
        if registry is not None and registry.library and repository.startswith("library/"):
            short.append(repository[len("library/") :])
        aliases = () if registry is None else sorted(registry.aliases)
        found = [f"{each}/{name}" for each in (*aliases, upstream) for name in short]
        return found + short if upstream == self.home else found
