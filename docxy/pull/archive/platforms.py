"""Which manifest of an index a platform means.

Pure.  The law: a platform with a variant means that variant alone; without one it means the one that machines of
that architecture run most.
"""

from __future__ import annotations

from collections.abc import Mapping

from docxy.errors import BadRequest
from docxy.names import is_platform

ALL = "all"
"""Every platform of an index."""
USUAL = "linux/amd64"
"""The default: the same on every docxy, on any kind of machine."""

_VARIANTS = {"arm64": ("v8",), "arm": ("v7", "v6", "v5"), "amd64": ("v1",)}


def checked(platform: str) -> str:
    """A platform as a user writes it; raises BadRequest."""
    if platform != ALL and not is_platform(platform):
        raise BadRequest(f"{platform[:80]!a} is not a platform: write linux/amd64, linux/arm/v7, or all")
    return platform


def chosen(platform: str | None, offered: Mapping[str, str]) -> str | None:
    """The key of the platform that is meant; None: it is not there.

    `platform`: None where nobody said; `offered`: key -> `os/architecture[/variant]`.
    """
    if platform is None and len(offered) == 1:
        return next(iter(offered))
    wanted = platform or USUAL
    for name in _names(wanted):
        for key, offer in offered.items():
            if offer == name:
                return key
    if wanted.count("/") == 1:
        return next((key for key, offer in offered.items() if offer.startswith(f"{wanted}/")), None)
    return None


def _names(wanted: str) -> list[str]:
    """What is as good as what was asked for, the best first."""
    os, architecture, *variant = wanted.split("/")
    usual = _VARIANTS.get(architecture, ())
    bare = f"{os}/{architecture}"
    if not variant:
        return [bare, *(f"{bare}/{name}" for name in usual)]
    # arm64 is arm64/v8 by another name, and amd64 is amd64/v1.
    return [wanted, bare] if usual[:1] == tuple(variant) and architecture != "arm" else [wanted]
