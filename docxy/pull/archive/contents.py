"""What an image consists of, from its manifests alone.

The law: all of it or an error: nothing that a manifest names is left out, and what cannot be carried (foreign
layers, manifests of other kinds) is said before a byte of it is sent.  Manifests have a bound, in number and bytes.
"""

from __future__ import annotations

from attrs import define, field, frozen

from docxy.bodies import IBody
from docxy.content import Manifest, complete, parse_object, platforms
from docxy.errors import BadRequest, ManifestUnknown
from docxy.names import INDEX_TYPES, MANIFEST_TYPES, Descriptor
from docxy.pull.archive.platforms import ALL, USUAL, chosen
from docxy.pull.archive.puller import Puller
from docxy.pull.interfaces import PulledManifest
from docxy.routing import Named

MOST_MANIFESTS = 300
"""Of one request."""
MOST_BYTES = 8 * 1024 * 1024
"""Of all of its manifests, which are in memory while it is answered."""
LARGEST_CONFIG = 1024 * 1024
"""Bytes of a config that is read for its platform."""
_DEEPEST = 3
"""Indexes within indexes."""
IMAGE_CONFIGS = frozenset(
    {"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"}
)


@frozen
class Contents:
    """One image."""

    name: Named
    root: Manifest
    """What its name stands for: an index only where all platforms are meant."""
    manifests: tuple[Manifest, ...]
    """All of them, the root first; each once."""
    blobs: tuple[Descriptor, ...]
    """Configs and layers; each once."""
    config: Descriptor | None
    """Of a single image that programs can run; None: an artifact, or all platforms."""
    layers: tuple[Descriptor, ...]
    """Of that image, in order; a layer may come twice."""
    pulled: PulledManifest
    """How the root was found."""


@define
class Allowance:
    """What is left for one request; the contents of all its images count."""

    manifests: int = MOST_MANIFESTS
    bytes: int = MOST_BYTES

    def spend(self, manifest: Manifest) -> None:
        """Raises BadRequest when it is too much."""
        self.manifests -= 1
        self.bytes -= manifest.size
        if self.manifests < 0 or self.bytes < 0:
            raise BadRequest("this is too much for one request: ask for one platform, or for fewer images")


@define
class _Gathered:
    """What is found on the way down from a root."""

    manifests: dict[object, Manifest] = field(factory=dict)
    blobs: dict[object, Descriptor] = field(factory=dict)


async def contents(puller: Puller, name: Named, platform: str | None, allowance: Allowance) -> Contents:
    """What an image consists of.

    `platform`: None where nobody said.  Raises RegistryError.
    """
    pulled = await puller.manifest(name.reference)
    root = pulled.manifest
    if root.media_type in INDEX_TYPES and platform != ALL:
        root = (await puller.manifest(_child(root, name, platform).digest)).manifest
    found = _Gathered()
    await _gather(puller, root, name, allowance, found, _DEEPEST)
    config, layers = _image(root)
    if platform not in (None, ALL) and config is not None and pulled.manifest is root:
        await _check_platform(puller, name, config, str(platform))
    return Contents(name, root, tuple(found.manifests.values()), tuple(found.blobs.values()), config, layers, pulled)


def _child(index: Manifest, name: Named, platform: str | None) -> Descriptor:
    offered = platforms(index)
    key = chosen(platform, offered)
    listed = {str(descriptor.digest): descriptor for descriptor in complete(index) or ()}
    if key is None or key not in listed:
        there = ", ".join(sorted(set(offered.values()))[:20]) or "none"
        raise ManifestUnknown(f"{name.name} has no {platform or USUAL}; its platforms: {there}")
    return listed[key]


async def _gather(
    puller: Puller, manifest: Manifest, name: Named, allowance: Allowance, found: _Gathered, depth: int
) -> None:
    if manifest.digest in found.manifests:
        return
    allowance.spend(manifest)
    found.manifests[manifest.digest] = manifest
    parts = complete(manifest)
    if parts is None or not depth:
        raise BadRequest(
            f"{name.name} cannot be carried: {manifest.digest} is no image manifest of today, or names layers that "
            "are in another place"
        )
    if manifest.media_type not in INDEX_TYPES:
        found.blobs.update((part.digest, part) for part in parts if part.digest not in found.blobs)
        return
    for part in parts:
        if part.media_type not in INDEX_TYPES | MANIFEST_TYPES:
            raise BadRequest(f"{name.name} cannot be carried: its index names {part.digest}, which is no manifest")
        child = (await puller.manifest(part.digest)).manifest
        await _gather(puller, child, name, allowance, found, depth - 1)


def _image(root: Manifest) -> tuple[Descriptor | None, tuple[Descriptor, ...]]:
    """Config and layers of what programs can run."""
    parsed = parse_object(root.body or b"") or {}
    parts = {str(part.digest): part for part in complete(root) or ()}
    config = parsed.get("config")
    if root.media_type in INDEX_TYPES or not isinstance(config, dict) or config.get("mediaType") not in IMAGE_CONFIGS:
        return None, ()
    layers = parsed.get("layers")
    order = [str(layer["digest"]) for layer in layers] if isinstance(layers, list) else []
    return parts[str(config["digest"])], tuple(parts[digest] for digest in order)


async def _check_platform(puller: Puller, name: Named, config: Descriptor, platform: str) -> None:
    """A manifest without an index says in its config what it is for.  Raises ManifestUnknown."""
    if config.size > LARGEST_CONFIG:
        return
    body = (await puller.blob(config.digest, None)).body
    try:
        told = parse_object(await _all(body, config.size)) or {}
    finally:
        body.close()
    parts = [told.get(key) for key in ("os", "architecture", "variant")]
    said = "/".join(str(part) for part in parts if part)
    if said.count("/") and chosen(platform, {said: said}) is None:
        raise ManifestUnknown(f"{name.name} has no {platform}; it is for {said[:100]} only")


async def _all(body: IBody, most: int) -> bytes:
    pieces: list[bytes] = []
    while (piece := await body.read()) and sum(map(len, pieces)) <= most:
        pieces.append(piece)
    return b"".join(pieces)
