"""What the upstream holds, made from the seed: the one truth that every answer is compared with.

Pure.  The law: two processes that build a library from the same seed and shape have the same bytes,
so that nothing has to be told to the client about what is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from attrs import field, frozen

from tests.fakes.content import Blob, Content, Pattern

SMALL = (1, 700, 65_535, 65_536, 65_537, 200_000)
MIXED = (*SMALL, 1 << 20, 3 << 20)
LARGE = (2 << 20, 4 << 20, 6 << 20)


@frozen
class Shape:
    """How much there is."""

    images: int = 12
    layers: int = 4
    sizes: Sequence[int] = MIXED
    """Bytes of a layer, one of these give or take a little."""
    versions: int = 1
    """How many manifests a tag can move between."""


@frozen
class Thing:
    """A manifest or a blob: where it is asked for, and what must come."""

    kind: str
    """`manifests` or `blobs`."""
    repository: str
    digest: str
    size: int
    media_type: str | None
    body: Blob | bytes = field(repr=False)

    def read(self, first: int, length: int) -> bytes:
        """At most `length` of its bytes at `first`."""
        if isinstance(self.body, bytes):
            return self.body[first : first + length]
        return self.body.read(first, length)


@frozen
class Image:
    """A tag, the manifests it may point to, and their blobs."""

    repository: str
    tag: str
    versions: Sequence[Thing]
    """Manifests; the tag points to the first one at the beginning."""
    blobs: Sequence[Sequence[Thing]]
    """Config and layers of each version."""


@frozen
class Library:
    """Everything."""

    content: Content
    images: Sequence[Image]

    @property
    def bytes(self) -> int:
        """Of all blobs, each counted once."""
        sizes = {each.digest: each.size for image in self.images for blobs in image.blobs for each in blobs}
        return sum(sizes.values())


def build(seed: int, shape: Shape) -> Library:
    """The library of a seed."""
    random = Random(f"library {seed}")
    content = Content()
    shared = [_layer(random, shape, f"{seed} shared {n}") for n in range(max(1, shape.images // 3))]
    images = []
    for number in range(shape.images):
        repository, tag = f"team/app{number}", "latest"
        versions, blobs = [], []
        for version in range(shape.versions):
            layers = [_layer(random, shape, f"{seed} {number} {version} {n}") for n in range(shape.layers - 1)]
            layers.append(random.choice(shared))
            digest = content.add_image(repository, tag if not version else None, layers)
            versions.append(_manifest(content, repository, str(digest)))
            blobs.append([_blob(content, repository, str(each)) for each in content.layers(repository, digest)])
        images.append(Image(repository, tag, versions, blobs))
    return Library(content, images)


def _layer(random: Random, shape: Shape, name: str) -> Pattern:
    size = random.choice(shape.sizes)
    return Pattern(size + (random.randrange(1000) if size > 1000 else 0), name)


def _manifest(content: Content, repository: str, digest: str) -> Thing:
    held = content.repositories[repository].manifests[digest]
    return Thing("manifests", repository, digest, len(held.body), held.media_type, held.body)


def _blob(content: Content, repository: str, digest: str) -> Thing:
    held = content.repositories[repository].blobs[digest]
    return Thing("blobs", repository, digest, held.size, None, held)
