"""`/v2/<name>/manifests/<reference>`.

The law: bytes and media type go out as the upstream sent them, with their digest as ETag.
"""

from __future__ import annotations

from collections.abc import MutableMapping

from cachetools import LRUCache

from docxy.content import Manifest, platforms
from docxy.names import INDEX_TYPES, Digest, parse_reference
from docxy.web.asked import Asked
from docxy.web.conditions import asked_range, not_modified
from docxy.web.send import Sender

_INDEXES = 1_000
"""How many are remembered."""


class Indexes:
    """The indexes that passed, so that each is read once for what it says of platforms."""

    def __init__(self) -> None:
        self._seen: MutableMapping[Digest, bool] = LRUCache(_INDEXES)

    def learn(self, manifest: Manifest) -> dict[str, str]:
        """See `docxy.content.platforms`; nothing for an index that is known."""
        if manifest.media_type not in INDEX_TYPES or manifest.digest in self._seen or manifest.body is None:
            return {}
        self._seen[manifest.digest] = True
        return platforms(manifest)


async def serve_manifest(asked: Asked, sender: Sender, indexes: Indexes) -> None:
    """A manifest, a range of it, or what a HEAD says of it."""
    target, request = asked.at.target, asked.request
    ask = asked.pull.head_manifest if asked.head else asked.pull.manifest
    reference = parse_reference(target.reference)
    pulled = await ask(target.repository, reference, await asked.caller(asked.accept()))
    manifest, digest = pulled.manifest, str(pulled.manifest.digest)
    request.cache_status = str(pulled.status)
    request.digest, request.size = digest, manifest.size
    request.platforms = indexes.learn(manifest)
    headers = asked.headers(
        ("Content-Type", manifest.media_type),
        ("Docker-Content-Digest", digest),
        ("ETag", f'"{digest}"'),
        ("Cache-Status", request.cache_status),
        request.server_timing(),
        *manifest.passed,
    )
    if pulled.age is not None:
        headers.append(("Age", str(pulled.age)))
    if not_modified(request, manifest.digest):
        request.answer(304, headers, b"")
        return
    headers.append(("Accept-Ranges", "bytes"))
    if asked.head:
        request.start(200, headers, manifest.size)
        request.finish()
        return
    assert manifest.body is not None
    span = asked_range(request, manifest.digest)
    if span is None:
        await sender.answer(request, 200, headers, manifest.body)
    else:
        within = span.within(manifest.size)
        headers.append(("Content-Range", str(within)))
        await sender.answer(request, 206, headers, manifest.body[within.first : within.stop])
