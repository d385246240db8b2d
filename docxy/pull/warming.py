"""What a process that serves does so that an image is cached before anybody pulls it.

The laws: it pulls as a client without a login would, through the same cache; nothing is spent of a pull limit of which
less than `floor` is left; an answer says what went wrong instead of raising it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Mapping
from typing import Any
from urllib.parse import urlencode

from docxy.content import parse_object
from docxy.errors import RegistryError
from docxy.globs import matches
from docxy.names import Digest
from docxy.pull.archive.contents import Allowance, contents
from docxy.pull.archive.platforms import checked
from docxy.pull.archive.puller import Puller
from docxy.pull.cache_status import BYPASS
from docxy.pull.interfaces import IPull
from docxy.questions import Questions
from docxy.routing import Named, Router, check_permitted

CONTENTS, FILL, TAGS = "contents", "fill", "tags"
"""The questions."""
PAGE = 300
"""Blobs of one answer."""
PAGE_OF_TAGS, MOST_PAGES = 1000, 20
"""Tags that a registry is asked for at a time, and how often."""

Told = dict[str, Any]


class Warmer:
    """Answers the steward."""

    def __init__(self, router: Router, pulls: Mapping[str, IPull]) -> None:
        """`pulls`: by the upstream's name."""
        self._router = router
        self._pulls = pulls

    def listen(self, questions: Questions) -> None:
        """Answer from now on."""
        questions.answer(CONTENTS, self.contents)
        questions.answer(FILL, self.fill)
        questions.answer(TAGS, self.tags)

    async def contents(self, image: str, platform: str | None, floor: float, first: int) -> Told:
        """An image's blobs from number `first` on, with their sizes; its manifests are cached then."""

        async def work() -> Told:
            name, puller = self._puller(image, floor)
            found = await contents(puller, name, None if platform is None else checked(platform), Allowance())
            return {
                "name": name.name,
                "digest": str(found.root.digest),
                "status": str(found.pulled.status),
                "manifests": sum(manifest.size for manifest in found.manifests),
                "total": len(found.blobs),
                "blobs": [[str(blob.digest), blob.size] for blob in found.blobs[first : first + PAGE]],
            }

        return await _told(work())

    async def fill(self, image: str, digest: str, floor: float) -> Told:
        """Have one blob of an image fetched, by whichever process; it goes on when this has been answered."""

        async def work() -> Told:
            _, puller = self._puller(image, floor)
            pulled = await puller.blob(Digest.parse(digest), None)
            pulled.body.close()
            if pulled.status == BYPASS:
                return {"error": "docxy cannot keep it: its cache is off or fails", "status": 503, "retry_after": None}
            return {}

        return await _told(work())

    async def tags(self, repository: str, glob: str, most: int) -> Told:
        """The tags of a repository that a glob covers, the highest versions first; `more`: how many beyond `most`."""

        async def work() -> Told:
            _, puller = self._puller(repository, 0.0)
            found: set[str] = set()
            last = ""
            for _ in range(MOST_PAGES):
                query = urlencode({"n": PAGE_OF_TAGS, **({"last": last} if last else {})})
                listing = (await puller.tags(query)).listing
                tags = (parse_object(listing.body) or {}).get("tags")
                names = [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
                found.update(tag for tag in names if matches(glob, tag))
                if listing.link is None or not names or names[-1] == last:
                    break
                last = names[-1]
            ordered = sorted(found, key=_version, reverse=True)
            return {"tags": ordered[:most], "more": max(0, len(ordered) - most)}

        return await _told(work())

    def _puller(self, image: str, floor: float) -> tuple[Named, Puller]:
        """Raises RegistryError."""
        name = self._router.image(image)
        check_permitted(name.upstream, name.repository)
        return name, Puller(self._pulls[name.upstream.name], name.repository, None, floor)


def _version(tag: str) -> list[tuple[int, str]]:
    """What sorts 3.9 before 3.10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d{1,18})", tag)]


async def _told(work: Awaitable[Told]) -> Told:
    try:
        return await work
    except RegistryError as error:
        return {"error": error.message, "status": error.status, "retry_after": error.retry_after}
