"""Counting the tags that are pulled most, for `[[keep]]` with `hot`.

The law: what is counted is noted in the catalog, from where every process pins it; while docxy remembers no pulls the
list stays as it was.
"""

from __future__ import annotations

from collections import Counter

from attrs import define, field
from twisted.logger import Logger

from docxy.catalog.interfaces import is_recent
from docxy.orders.hottest import FACT, MOST, parsed, shown
from docxy.settings.image_names import ImageName
from docxy.settings.model import JournalMode
from docxy.steward.steward import Steward

COUNT = 600.0
"""Seconds between two counts."""
PULLS = 500
"""The newest pulls, which are counted."""


@define(eq=False)
class Counting:
    """The one who counts."""

    _log = Logger()

    _at: float = field(default=float("-inf"), init=False)
    """When it was last counted; seconds since the epoch."""
    _complained: bool = field(default=False, init=False)

    async def count(self, steward: Steward) -> None:
        """Count, if it is time again."""
        now = steward.clock.seconds()
        if steward.view is None or is_recent(self._at, now, COUNT):
            return
        self._at = now
        if steward.config is not None and steward.config.journal is JournalMode.OFF and not self._complained:
            self._complained = True
            self._log.warn("[[keep]] with hot keeps nothing: with --journal off docxy does not know what was pulled")
        pulls = await steward.view.pulls(PULLS, None)
        counted = Counter(
            (pull["upstream"], pull["repository"], pull["reference"])
            for pull in pulls
            if pull["reference"] and ":" not in pull["reference"] and pull["digest"]
        )
        if counted:
            steward.catalog.facts.keep(FACT, shown([tag for tag, _ in counted.most_common(MOST)]))


def hottest(steward: Steward, most: int) -> list[str]:
    """The full names of the tags that were pulled most when they were last counted."""
    return [_name(tag) for tag in (parsed(steward.catalog.facts.get(FACT)) or ())[:most]]


def _name(image: ImageName) -> str:
    return f"{image.upstream}/{image.repository}:{image.tag}"
