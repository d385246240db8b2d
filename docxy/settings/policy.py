"""The policy of a configuration file, as a value.

Pure.  The law: there is one `Policy` in force in a process at a time (`docxy.orders.policies`); it never changes,
and another one takes its place as a whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from docxy.names import Digest
from docxy.settings.cooldown import Cooldown

if TYPE_CHECKING:
    from docxy.settings.image_names import ImageName

USUAL_EVERY = 6 * 3600.0
"""Seconds between two refreshes of what is kept."""
_DAY = 24 * 60
"""Minutes."""


@frozen
class Freeze:
    """A tag that stays where it is."""

    image: ImageName
    """Of one tag."""
    digest: Digest


@frozen
class Recall:
    """What is not to be pulled any more."""

    digest: Digest | None
    """Of a manifest, an index, a config or a layer; None: of all that `image` names."""
    image: ImageName | None
    reason: str


@frozen
class Quiet:
    """A part of every day, in the machine's local time."""

    begin: int
    """Minutes after midnight."""
    end: int
    """Before `begin` where the night lies between them."""

    def holds(self, minute: int) -> bool:
        """Whether this minute of a day is in it."""
        return (minute - self.begin) % _DAY < ((self.end - self.begin) % _DAY or _DAY)

    def __str__(self) -> str:
        return f"{self.begin // 60:02}:{self.begin % 60:02}-{self.end // 60:02}:{self.end % 60:02}"


@frozen
class Keep:
    """What one table wants."""

    images: tuple[ImageName, ...] = ()
    """Each of one repository; the tag may be a glob."""
    hot: int = 0
    """How many of the most pulled tags."""
    platforms: tuple[str, ...] = ()
    """None: linux/amd64, or the only one there is."""
    every: float = USUAL_EVERY
    """Seconds between two refreshes."""
    quiet: Quiet | None = None
    """When refreshes may begin; None: at any time."""

    def __str__(self) -> str:
        parts = [*map(str, self.images), *([f"the {self.hot} most pulled"] if self.hot else [])]
        return ", ".join(parts)


@frozen
class CooldownRule:
    """How old some images must be."""

    images: tuple[ImageName, ...]
    cooldown: Cooldown | None
    """None: they may be new."""


@frozen
class Policy:
    """All of a file's policy."""

    freezes: tuple[Freeze, ...] = ()
    recalls: tuple[Recall, ...] = ()
    keeps: tuple[Keep, ...] = ()
    cooldowns: tuple[CooldownRule, ...] = ()

    def cooldown(self, upstream: str, usual: Cooldown | None, repository: str, tag: str | None) -> Cooldown | None:
        """How old a tag's digest must be, or with `tag` None a digest; the first rule that covers it decides.

        `usual`: the upstream's own.  A rule for some tags of a repository goes for its digests too, which may be
        theirs; an exception for some tags does not, for a digest may be another's.
        """
        for rule in self.cooldowns:
            for image in rule.images:
                if image.upstream != upstream or not image.is_of(repository):
                    continue
                is_some = image.tag is None or rule.cooldown is not None
                if is_some if tag is None else image.covers(upstream, repository, tag):
                    return rule.cooldown
        return usual

    def __str__(self) -> str:
        """What there is of it, for the log."""
        counts = (
            ("freeze", len(self.freezes)),
            ("recall", len(self.recalls)),
            ("keep", len(self.keeps)),
            ("cooldown", len(self.cooldowns)),
        )
        said = [f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts if count]
        return ", ".join(said) or "no orders"
