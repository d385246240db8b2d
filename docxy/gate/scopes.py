"""The names in tokens' scopes: what a client writes, and which repositories that may be.

Pure.  The law: a scope's name alone does not always say which upstream is meant (`ns` and
Host are not in it), so here it is only found out what it may mean; what a request really
asks for is checked when it comes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import unquote

from docxy.config import Upstream
from docxy.errors import RegistryError
from docxy.routing import Router

Readings = Callable[[str], Iterable[str]]
"""From a name in a scope to every `<upstream>/<repository>` that it may mean; none for a malformed one."""

_NAME = re.compile(r"[A-Za-z0-9._:/-]{1,300}")
MAX_SCOPES = 100
"""Of one token request."""


def readings(router: Router, upstreams: Sequence[Upstream]) -> Readings:
    """How these upstreams may be meant."""

    def read(name: str) -> Iterable[str]:
        found: dict[str, None] = {}
        for upstream in (None, *upstreams):
            try:
                meant, repository = router.scoped(name, upstream)
            except RegistryError:
                continue
            found[f"{meant.name}/{repository}"] = None
        return found

    return read


def written(path: str) -> str | None:
    """The repository's name in a request's path, as the client wrote it: with `ghcr.io/` where it is part of it.

    None where there is none, or none that can be a scope's.
    """
    segments = path.partition("?")[0].removeprefix("/").removesuffix("/").split("/")
    if segments[0] != "v2":
        segments.pop(0)
    name = unquote("/".join(segments[1:-2]))
    return name if _NAME.fullmatch(name) else None


def asked(parameters: Sequence[tuple[str, str]]) -> list[str]:
    """The repositories that a token request wants to pull from, each once, as the client wrote them."""
    names: dict[str, None] = {}
    # One parameter may hold several scopes, separated by spaces (OAuth2).
    scopes = [scope for key, value in parameters if key == "scope" for scope in value.split()]
    for scope in scopes[:MAX_SCOPES]:
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        if kind == "repository" and _NAME.fullmatch(name) and {"pull", "*"} & set(actions.split(",")):
            names[name] = None
    return list(names)
