"""What is pinned, by command or by the file's `[[keep]]`, for those who remove: it stays."""

from __future__ import annotations

from docxy.names import Digest
from docxy.orders.standing import Standing
from docxy.settings.image_names import ImageName
from docxy.steward.inventory import Inventory, Root
from docxy.steward.orders import stands
from docxy.steward.steward import Steward


class StandingPins:
    """The pins of a cache, at one moment."""

    def __init__(self, steward: Steward) -> None:
        """Raises Failed where they cannot be read."""
        self._stands: Standing = stands(steward)

    def why(self, root: Root) -> str | None:
        """What pins a tag or a manifest, and how to change that; None: nothing."""
        for what, order in self._stands.pins:
            if what in root.digests if isinstance(what, Digest) else _covers(what, root):
                if what in self._stands.kept:
                    return f"[[keep]] in the configuration file names {what}: change it there, and docxy reload"
                return f"docxy unpin {order.about} first"
        if ImageName(root.upstream, root.repository, root.tag) in self._stands.hottest:
            return (
                "it is one of the most pulled tags, which [[keep]] in the configuration file keeps by hot = N: make "
                "that less there, and docxy reload"
            )
        return None

    def blobs(self, inventory: Inventory) -> set[Digest]:
        """Cached blobs that a pinned digest leads to, whatever roots there are."""
        digests = [what for what, _ in self._stands.pins if isinstance(what, Digest)]
        return inventory.reach(Root("", "", None, digest, 0.0) for digest in digests)


def _covers(image: ImageName, root: Root) -> bool:
    return image.covers(root.upstream, root.repository, root.tag)
