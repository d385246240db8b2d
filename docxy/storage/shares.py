"""The shares of a cache's budget, as an open cache needs them: they say what is evicted first.

Pure.  The law: every docxy and every command that opens a cache gets them from its settings in this way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from docxy.settings.model import HISTORY_SHARE, Config
from docxy.storage.large import Large


@frozen
class Shares:
    """Of one cache."""

    history: float
    """What the history of tags names may hold."""
    large: Large
    """What large blobs may."""

    @classmethod
    def of(cls, config: Config) -> Shares:
        """Those that are configured."""
        return cls(config.history_share, Large(config.large_blob, config.large_share))

    def told(self) -> dict[str, Any]:
        """What `heard` takes."""
        return {"history": self.history, "large": self.large.share, "large_blob": self.large.size}

    @classmethod
    def heard(cls, told: Mapping[str, Any]) -> Shares:
        """Those of a docxy that runs."""
        return cls(float(told["history"]), Large(int(told["large_blob"]), float(told["large"])))


USUAL = Shares(HISTORY_SHARE, Large())
"""Where nobody says."""
