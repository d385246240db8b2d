"""`[[keep]]`: images that are always cached, and when they are refreshed.

Pure.  The law: a rule that could mean more than the operator sees (a repository's glob, every tag of a repository) is
refused: what is kept takes room and quota.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from docxy.names import is_platform
from docxy.settings.image_names import ImageName, parse_image
from docxy.settings.model import Upstream
from docxy.settings.policy import USUAL_EVERY, Keep, Quiet
from docxy.settings.tables import TomlTable

KEYS = frozenset({"images", "hot", "platforms", "every", "quiet"})
LEAST_EVERY = 600.0
MOST_HOT = 500
_QUIET = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


def read(table: TomlTable, upstreams: Sequence[Upstream]) -> Keep:
    """Raises ConfigError."""
    table.only(KEYS)
    images = tuple(table.texts("images", lambda text: _image(text, upstreams)))
    hot = table.number("hot", (int,), _hot) if "hot" in table else 0
    if not images and not hot:
        raise table.error("give images, or hot")
    return Keep(
        images,
        hot,
        tuple(table.texts("platforms", _platform)),
        table.text("every", _every) if "every" in table else USUAL_EVERY,
        table.text("quiet", _quiet) if "quiet" in table else None,
    )


def _image(text: str, upstreams: Sequence[Upstream]) -> ImageName:
    image = parse_image(text, upstreams)
    if re.search(r"[*?]", image.repository):
        raise ValueError("has a wildcard in its repository: only the tag may have one")
    if image.tag is None and image.digest is None:
        return ImageName(image.upstream, image.repository, "latest")
    return image


def _platform(text: str) -> str:
    if text != "all" and not is_platform(text):
        raise ValueError("is not a platform, as linux/amd64, linux/arm/v7 or all")
    return text


def _hot(text: str) -> int:
    if not 1 <= int(text) <= MOST_HOT:
        raise ValueError(f"is not from 1 to {MOST_HOT}")
    return int(text)


def _every(text: str) -> float:
    found = re.fullmatch(r"(\d{1,6})([smhd]?)", text)
    seconds = 0.0 if found is None else int(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]
    if not LEAST_EVERY <= seconds <= 31 * 86400:
        raise ValueError("is not a time from 10m to 31d, as 6h")
    return float(seconds)


def _quiet(text: str) -> Quiet:
    found = _QUIET.fullmatch(text)
    if found is None:
        raise ValueError("is not a part of the day, as 01:00-05:00")
    begin, end = int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])
    return Quiet(begin, end)
