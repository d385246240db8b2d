"""How long a cached tag is served unasked, and what a client is spared or refused while quota is short.

Pure.  The law: an operator's choice is stretched while quota is saved, never shortened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import frozen

from docxy.names import Tag
from docxy.pull.caller import Caller
from docxy.settings.cooldown import TagGlob

STRETCH = 10
"""Times as long as usual, while quota is saved."""
NEVER = 10 * 365 * 86400.0
"""Seconds, for a tag that never moves."""


@frozen
class TagRules:
    """How tags age."""

    usual_ttl: float
    """Seconds for which a tag is served before the upstream is asked again, as the operator chose."""
    keep_gone: bool = False
    """Whether a tag that the upstream deleted is served on."""
    immutable: Callable[[], Iterable[TagGlob]] = tuple
    """Tags that never move, as the operator wants it now."""
    saving: Callable[[], bool] = lambda: False
    """Whether the upstream's quota is nearly spent, so that what is cached has to do."""
    pinned: Callable[[str, str], bool] = lambda repository, tag: False
    """Whether the operator wants a repository's tag kept, though the upstream deleted it."""
    left: Callable[[], float] = lambda: 1.0
    """The share that is left of the upstream's quota."""

    def spares(self, caller: Caller) -> bool:
        """Whether a tag that moved is served to this client as it was, rather than spend quota on it."""
        return self.saving() if caller.floor is None else self.left() < caller.floor

    def refuses(self, caller: Caller) -> bool:
        """Whether nothing is spent for this client, because others have a reserve."""
        return caller.floor is not None and self.left() < caller.floor

    @property
    def ttl(self) -> float:
        """The same, at this moment."""
        return self.usual_ttl * STRETCH if self.saving() else self.usual_ttl

    def ttl_of(self, repository: str, tag: Tag) -> float:
        """The same for one tag."""
        return NEVER if self.is_immutable(repository, tag) else self.ttl

    def is_immutable(self, repository: str, tag: Tag) -> bool:
        """Whether a tag is not asked for again once it is known."""
        return any(each.covers(repository, tag.name) for each in self.immutable())
