"""Archives of images, as docxy, docker and others write them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from typing import Any

from docxy.names import OCI_INDEX, OCI_MANIFEST, Digest

CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def path(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"


def described(data: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data)}


def image(*layers: bytes, config: bytes = b"{}") -> tuple[bytes, dict[str, bytes]]:
    """A manifest, and the files of all that it consists of."""
    content = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": described(config, CONFIG),
        "layers": [described(layer, LAYER) for layer in layers],
    }
    body = json.dumps(content).encode()
    return body, {path(Digest.of(data)): data for data in (body, config, *layers)}


def layout(images: Mapping[str, bytes], media_type: str = OCI_MANIFEST) -> dict[str, bytes]:
    """The index of an OCI layout: manifests by name."""
    entries = [
        {**described(body, media_type), "annotations": {"io.containerd.image.name": name}}
        for name, body in images.items()
    ]
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    return {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(index).encode()}


def tar(files: Mapping[str, bytes], links: Mapping[str, str] | None = None, mode: str = "w") -> bytes:
    """These files as a tar; `links`: symbolic ones."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]  # mode is one of tarfile's
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()
