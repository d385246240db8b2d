"""What of the settings docxy puts in force while it runs.

Pure.  The law: *what belongs together changes together*.  Rules are taken up only where the file of accounts stays the
same: those for accounts mean something else without them.
"""

from __future__ import annotations

from attrs import evolve

from docxy.settings.model import AccessSettings, Config, Upstream

CONNECTING = ("authorities", "ca_only", "identity", "private", "proxy")
"""What of an upstream says how docxy gets there."""
LISTS = ("allow", "deny")
"""What says which of its repositories may be pulled."""
AGES = ("cooldown", "immutable")
"""What says how old an image must be, and which tags never move."""


def way(upstream: Upstream) -> list[object]:
    """How docxy gets there."""
    return [getattr(upstream, name) for name in CONNECTING]


def taken_up(running: Config, read: Config) -> Config:
    """What is in force, with what of the settings as they are read now can be put in force."""
    known = {each.name: each for each in read.upstreams}
    return evolve(
        running,
        policy=read.policy,
        history=read.history,
        webhooks=read.webhooks,
        access=_access(running.access, read.access),
        upstreams=tuple(
            _with(each, known.get(each.name, each), CONNECTING + LISTS + AGES) for each in running.upstreams
        ),
        any_registry=_any_registry(running.any_registry, read.any_registry),
    )


def with_access(running: Config, read: AccessSettings) -> Config:
    """What is in force, with what of `[access]` can be put in force."""
    return evolve(running, access=_access(running.access, read))


def _access(running: AccessSettings, read: AccessSettings) -> AccessSettings:
    # Whether a port expects PROXY headers is decided when it is opened.
    perimeter = evolve(read.perimeter, proxy_protocol_from=running.perimeter.proxy_protocol_from)
    rules = read.rules if read.htpasswd == running.htpasswd else running.rules
    return evolve(running, perimeter=perimeter, rules=rules)


def _any_registry(running: Upstream | None, read: Upstream | None) -> Upstream | None:
    # How those that were named since the start are reached stays as it is.
    return running if running is None or read is None else _with(running, read, LISTS + AGES)


def _with(running: Upstream, read: Upstream, names: tuple[str, ...]) -> Upstream:
    return evolve(running, **{name: getattr(read, name) for name in names})
