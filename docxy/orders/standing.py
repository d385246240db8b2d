"""What stands: the file's policy and the orders of commands together, made so that a request can ask it quickly.

Pure.  The law: *a recall stands, from the file or a command*; if both freeze a tag, the file goes first, for
the file is what the operator reads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from attrs import field, frozen

from docxy.names import Digest
from docxy.orders.model import SAME, Kind, Order, Orders
from docxy.settings.image_names import ImageName, parse_image
from docxy.settings.model import Upstream
from docxy.settings.policy import Policy


@frozen
class Mark:
    """Something that is ordered about an image, for people."""

    what: str
    """`recalled`, `frozen`, `pinned` or `kept`."""
    more: str = ""
    """Why it is recalled, where it is frozen."""


@frozen
class Standing:
    """Everything that is ordered, at one moment."""

    recalled: Mapping[str, str] = field(factory=dict)
    """Digest -> reason."""
    recalled_images: Sequence[tuple[ImageName, str]] = ()
    """With the reason of each."""
    belonging: Mapping[str, str] = field(factory=dict)
    """Digest of what belongs to something recalled -> the digest of that."""
    unlearned: frozenset[str] = frozenset()
    """Algorithms by which something is recalled of which it is not known what other algorithms call it."""
    frozen_tags: Mapping[tuple[str, str, str], Digest] = field(factory=dict)
    """By upstream, repository and tag."""
    pins: Sequence[tuple[ImageName | Digest, Order]] = ()
    """The oldest first."""
    kept: frozenset[ImageName | Digest] = frozenset()
    """Those pins that the file's `[[keep]]` gives."""
    hottest: Mapping[ImageName, None] = field(factory=dict)
    """The most pulled tags, which are pinned because the file's `[[keep]]` says `hot`; the most pulled one first."""
    released: Sequence[ImageName | Digest] = ()
    """What is excepted from the cooldown."""

    @property
    def recalls(self) -> bool:
        """Whether anything is recalled."""
        return bool(self.recalled or self.recalled_images)

    def why(self, upstream: str, repository: str, tag: str | None) -> str | None:
        """Why an image is recalled by its name; `tag` None: all of the repository; None: it is not."""
        for image, reason in self.recalled_images:
            if image.covers(upstream, repository, tag):
                return reason
        return None

    def is_pinned(self, upstream: str, repository: str, tag: str) -> bool:
        """Whether a tag is pinned by its name."""
        return ImageName(upstream, repository, tag) in self.hottest or any(
            isinstance(what, ImageName) and what.covers(upstream, repository, tag) for what, _ in self.pins
        )

    def marks(self, upstream: str, repository: str, tag: str | None, digests: Collection[Digest]) -> list[Mark]:
        """What is ordered about a tag, or with `tag` None about a manifest; `digests`: where it leads."""
        by_digest = (self.recalled.get(str(self.belonging.get(str(each), each))) for each in digests)
        reason = next((each for each in by_digest if each is not None), self.why(upstream, repository, tag))
        frozen_at = self.frozen_tags.get((upstream, repository, tag or ""))
        pins = [
            what
            for what, _ in self.pins
            if (what in digests if isinstance(what, Digest) else what.covers(upstream, repository, tag))
        ]
        is_hot = ImageName(upstream, repository, tag) in self.hottest
        return [
            *([] if reason is None else [Mark("recalled", reason)]),
            *([] if frozen_at is None else [Mark("frozen", str(frozen_at))]),
            *([Mark("pinned")] if any(what not in self.kept for what in pins) else []),
            *([Mark("kept")] if is_hot or any(what in self.kept for what in pins) else []),
        ]

    def is_released(self, upstream: str, repository: str, tag: str | None, digest: Digest | None) -> bool:
        """Whether something is excepted from the cooldown, by its name or its digest."""
        return any(
            what.covers(upstream, repository, tag) if isinstance(what, ImageName) else what == digest
            for what in self.released
        )

    def is_frozen_at(self, upstream: str, repository: str, digest: Digest) -> bool:
        """Whether some tag of a repository is to stay at this digest."""
        return any(at == digest and key[:2] == (upstream, repository) for key, at in self.frozen_tags.items())


NOTHING = Standing()


def standing(
    policy: Policy, orders: Orders, upstreams: Sequence[Upstream], hottest: Sequence[ImageName] = ()
) -> Standing:
    """Both together; an order about an upstream that is not configured now waits for it.

    `hottest`: the most pulled tags, as many as anybody counted.
    """
    recalled: dict[str, str] = {}
    images: list[tuple[ImageName, str]] = []
    for recall in policy.recalls:
        if recall.digest is not None:
            recalled.setdefault(str(recall.digest), recall.reason)
        elif recall.image is not None:
            images.append((recall.image, recall.reason))
    for order in orders.of(Kind.RECALL):
        if order.digest:
            recalled[order.digest] = order.reason
        images += [(image, order.reason) for image in _images(order, upstreams)]
    for image, reason in images:
        # The digests that a recalled tag was known to lead to are what was recalled.
        for digest in orders.known.get(str(image), ()):
            recalled.setdefault(digest, reason)
    unlearned = set()
    for digest, reason in [*recalled.items()]:
        same = [each.removeprefix(SAME) for each in orders.known.get(digest, ()) if each.startswith(SAME)]
        recalled.update((each, reason) for each in same if each not in recalled)
        if not same:
            unlearned.add(digest.partition(":")[0])
    belonging = {
        digest: root
        for root in recalled
        for digest in orders.known.get(root, ())
        if digest not in recalled and not digest.startswith(SAME)
    }
    frozen_tags: dict[tuple[str, str, str], Digest] = {}
    for order in orders.of(Kind.FREEZE):
        for image in _images(order, upstreams):
            frozen_tags[image.upstream, image.repository, str(image.tag)] = Digest.parse(order.digest)
    for freeze in policy.freezes:
        frozen_tags[freeze.image.upstream, freeze.image.repository, str(freeze.image.tag)] = freeze.digest
    kept = _kept(policy)
    return Standing(
        recalled,
        images,
        belonging,
        frozenset(unlearned),
        frozen_tags,
        [*_pinned(orders, upstreams), *kept],
        frozenset(what for what, _ in kept),
        dict.fromkeys(hottest[: max((keep.hot for keep in policy.keeps), default=0)]),
        [what for order in orders.of(Kind.RELEASE) for what in _about(order, upstreams)],
    )


def _pinned(orders: Orders, upstreams: Sequence[Upstream]) -> list[tuple[ImageName | Digest, Order]]:
    return [(what, order) for order in orders.of(Kind.PIN) for what in _about(order, upstreams)]


def _kept(policy: Policy) -> list[tuple[ImageName | Digest, Order]]:
    """What `[[keep]]` names is pinned."""
    return [
        (image.digest or image, Order(Kind.PIN, str(image), "", "[[keep]] in the configuration file", 0.0, "the file"))
        for keep in policy.keeps
        for image in keep.images
    ]


def _about(order: Order, upstreams: Sequence[Upstream]) -> Iterable[ImageName | Digest]:
    return _images(order, upstreams) if order.image else [Digest.parse(order.digest)]


def _images(order: Order, upstreams: Sequence[Upstream]) -> list[ImageName]:
    try:
        return [parse_image(order.image, upstreams)] if order.image else []
    except ValueError:
        return []
