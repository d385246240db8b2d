"""Which registries are behind us: `--upstream URL`, or the `[[upstreams]]` tables of the file.

Pure.  The law: no name, alias or host means two upstreams.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from attrs import evolve, fields

from docxy import values
from docxy.config import DOCKER_HUB, ConfigError, Upstream
from docxy.upstream.guard import is_public


def from_tables(tables: Any, file: str) -> tuple[Upstream, ...]:
    """The upstreams of a file, the first of which is the default.  Raises ConfigError."""
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"{file}: upstreams must be [[upstreams]] tables, each with a name")
    upstreams = tuple(_from_table(table, f"[[upstreams]] {n} in {file}") for n, table in enumerate(tables, 1))
    for what in ("name", "host"):
        seen: set[str] = set()
        for upstream in upstreams:
            for name in upstream.hosts if what == "host" else {upstream.name} | upstream.aliases:
                if name in seen:
                    raise ConfigError(f"{file}: two of the [[upstreams]] have the {what} {values.shown(name)}")
                seen.add(name)
    return upstreams


def from_url(url: str) -> Upstream:
    """The upstream of `--upstream URL`: Docker Hub, or one that is called what its host is."""
    name = values.host(url.partition("://")[2])
    if name == DOCKER_HUB.name:
        return DOCKER_HUB
    if name in DOCKER_HUB.aliases:
        return evolve(DOCKER_HUB, url=url)
    return Upstream(name=name, url=url, private=is_private(url))


def _from_table(table: Mapping[str, Any], source: str) -> Upstream:
    """One table of the file; what it leaves out comes from what is known of the upstream of that name."""
    unknown = sorted(table.keys() - {attribute.name for attribute in fields(Upstream)})
    if unknown:
        raise ConfigError(f"{source}: unknown key {values.shown(unknown[0])}")

    def parsed(key: str, raw: Any, parse: Callable[[str], str]) -> str:
        if not isinstance(raw, str):
            raise ConfigError(f"{source}: {key}: {values.shown(raw)} is not a string")
        try:
            return parse(raw)
        except ValueError as error:
            raise ConfigError(f"{source}: {key}: {values.shown(raw)} {error}") from None

    if "name" not in table:
        raise ConfigError(f"{source}: name is missing")
    name = parsed("name", table["name"], values.host)
    known = DOCKER_HUB if name == DOCKER_HUB.name else Upstream(name=name, url=f"https://{name}")
    changed: dict[str, Any] = {}
    if "url" in table:
        changed["url"] = parsed("url", table["url"], values.origin)
        changed["private"] = is_private(changed["url"])
    if "library" in table:
        if not isinstance(table["library"], bool):
            raise ConfigError(f"{source}: library: {values.shown(table['library'])} is not true or false")
        changed["library"] = table["library"]
    for key, parse in (("aliases", values.host), ("hosts", values.host_name), ("realm_hosts", values.host_name)):
        if key in table:
            if not isinstance(table[key], list):
                raise ConfigError(f"{source}: {key}: {values.shown(table[key])} is not an array of strings")
            changed[key] = frozenset(parsed(key, raw, parse) for raw in table[key])
    return evolve(known, **changed)


def is_private(url: str) -> bool:
    """Whether a URL itself says that it is not of the public internet, by its address or the kind of its name."""
    host = (urlsplit(url).hostname or "").rstrip(".").lower()
    try:
        ip_address(host)
    except ValueError:
        return "." not in host or host.endswith(_PRIVATE_NAMES)
    return not is_public(host)


_PRIVATE_NAMES = (".local", ".localhost", ".internal", ".lan", ".home.arpa", ".test", ".svc")
