"""The tags that are pulled most, as the steward counted them last; `[[keep]]` with `hot` pins the first of them.

The law: the processes that serve go by what the catalog says; a list that cannot be read leaves the one from before.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from attrs import define

from docxy.settings.image_names import ImageName

FACT = "hottest tags"
"""The fact's name in the catalog."""
MOST = 500
"""Tags of the list."""


@define(eq=False)
class Hottest:
    """What one process knows of it."""

    read: Callable[[], Awaitable[str | None]]
    """The fact, as it is now."""
    tags: tuple[ImageName, ...] = ()
    """The most pulled one first; another object only if the list is another one."""

    async def look(self) -> None:
        """Take in what was counted meanwhile."""
        self.take(await self.read())

    def take(self, fact: str | None) -> None:
        """The list is this now; None: nobody counted yet."""
        tags = parsed(fact)
        if tags is not None and tags != self.tags:
            self.tags = tags


def parsed(fact: str | None) -> tuple[ImageName, ...] | None:
    """None for what is no list."""
    try:
        told = json.loads(fact or "")
        return tuple(ImageName(str(upstream), str(repository), str(tag)) for upstream, repository, tag in told[:MOST])
    except (ValueError, TypeError, RecursionError):
        return None


def shown(tags: list[tuple[str, str, str]]) -> str:
    """What `parsed` takes: registries, repositories and tags."""
    return json.dumps(tags[:MOST], separators=(",", ":"))


async def nobody_counts() -> str | None:
    """The fact of where there is no catalog."""
    return None
