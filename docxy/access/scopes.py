"""The names in tokens' scopes: what a client writes, and which repositories that may be.

Pure.  The law: a scope does not always say which upstream it means (it has neither `ns` nor
Host), so this module finds every repository that it may mean.  The gate checks the request
itself when it comes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import unquote

from docxy.errors import RegistryError
from docxy.routing import AS_OF, Router
from docxy.settings.model import Upstream
from docxy.settings.rules import Rules

Readings = Callable[[str], Iterable[str]]
"""From a name in a scope to every `<upstream>/<repository>` that it may mean; none for a malformed one."""

_NAME = re.compile(r"[A-Za-z0-9._:/-]{1,300}")
MAX_SCOPES = 20
"""Of one token request; clients ask for one or two, and each is compared with every rule."""


def readings(router: Router, rules: Callable[[], Rules]) -> Readings:
    """Finds what a name may mean among the upstreams, and the registries that only rules name.

    `rules`: those in force.
    """
    known: list[tuple[Rules, dict[Upstream, None]]] = []

    def upstreams() -> dict[Upstream, None]:
        if not known or known[0][0] is not rules():
            known[:] = [(rules(), _upstreams(router, rules()))]
        return known[0][1]

    def read(name: str) -> Iterable[str]:
        found: dict[str, None] = {}
        for upstream in (None, *upstreams()):
            try:
                meant, repository = router.scoped(name, upstream)
            except RegistryError:
                continue
            found[f"{meant.name}/{repository}"] = None
        return found

    return read


def _upstreams(router: Router, rules: Rules) -> dict[Upstream, None]:
    patterns = [pattern.partition("/")[0] for rule in rules.rules for pattern in rule.repositories]
    named = [router.registry(name) for name in dict.fromkeys(patterns)]
    return dict.fromkeys([*router.upstreams, *(upstream for upstream in named if upstream is not None)])


def written(path: str) -> str | None:
    """The repository's name in a request's path, as the client wrote it: with `ghcr.io/` where it is part of it.

    None where there is none, or none that can be a scope's.
    """
    segments = path.partition("?")[0].removeprefix("/").removesuffix("/").split("/")
    if segments[0] == AS_OF:  # of a path; what stands behind `v2` is part of the name
        del segments[:2]
    if segments and segments[0] != "v2":
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
