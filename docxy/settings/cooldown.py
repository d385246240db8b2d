"""How young an image may be to be pulled.

Pure.  The law: age counts from docxy's own first sight of a digest, never from a date in the image.
"""

from __future__ import annotations

import enum
import re

from attrs import frozen

from docxy import globs

_TAG = re.compile(r"[A-Za-z0-9._*?-]+")


class OnNew(enum.Enum):
    """What is done with what is too young, where there is nothing older in its place."""

    SERVE = "serve"  # it is served
    DENY = "deny"  # it is refused
    OBSERVE = "observe"  # it is served, and the log says that `deny` would have refused it


@frozen
class Cooldown:
    """How old a digest must be, counted from when docxy first saw it."""

    min_age: float
    """Seconds."""
    on_new: OnNew = OnNew.SERVE


def on_new(text: str) -> OnNew:
    """Raises ValueError whose message follows the text in a sentence."""
    try:
        return OnNew(text)
    except ValueError:
        raise ValueError("is not one of serve, deny and observe") from None


@frozen
class TagGlob:
    """Some tags of some repositories of one upstream: `library/python:3.*`; a lone `*` stands for every repository."""

    repository: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> TagGlob:
        """Raises ValueError whose message follows the text in a sentence."""
        repository, colon, tag = text.rpartition(":")
        if not colon or _TAG.fullmatch(tag) is None or "**" in tag:
            raise ValueError("is not a pattern of tags such as *:v*.*.* or library/python:3.*")
        return cls("**" if repository == "*" else globs.pattern(repository), tag)

    def covers(self, repository: str, tag: str) -> bool:
        """Whether it is one of these tags; of Docker Hub's own images `library/` may be left out of the pattern."""
        if not globs.matches(self.tag, tag):
            return False
        return globs.matches(self.repository, repository) or (
            repository.startswith("library/") and globs.matches(self.repository, repository.removeprefix("library/"))
        )
