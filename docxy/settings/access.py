"""The `[access]` table of the file -> AccessSettings.

Pure.  The law: everything wrong is a ConfigError whose one line names the key and the value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from docxy.addresses import UNIX, AddressHeader, Networks, Perimeter, network
from docxy.settings import parsers
from docxy.settings.model import AccessSettings, ConfigError
from docxy.settings.rules import BUILT_IN, Rule, Rules, pattern
from docxy.settings.tables import TomlTable

KEYS = frozenset(
    {
        "htpasswd",
        "token_key_file",
        "allow",
        "deny",
        "trusted_proxies",
        "address_header",
        "proxy_protocol_from",
        "groups",
        "rules",
        "reserve",
    }
)
"""What the table may hold."""
_LISTS = ("allow", "deny", "trusted_proxies", "proxy_protocol_from")
RULE_KEYS = frozenset({"users", "groups", "repositories"})
"""What each of its rules may hold."""


def parse(content: Mapping[str, Any], source: str) -> AccessSettings:
    """The settings of an `[access]` table; `source`: the file it is from.  Raises ConfigError."""
    if not isinstance(content, Mapping):
        raise ConfigError(f"{source}: access must be a table, [access]")
    table = TomlTable(content, f"[access] in {source}")
    table.only(KEYS)
    htpasswd = None
    if "htpasswd" in table:
        htpasswd = table.text("htpasswd", parsers.path)
    elif KEYS & {"rules", "groups", "reserve"} & set(content):
        raise table.error("groups, rules and reserve need htpasswd, without which nobody can log in")
    lists = {key: Networks.of(table.texts(key, _network)) for key in _LISTS}
    header = (
        table.text("address_header", _address_header) if "address_header" in table else AddressHeader.X_FORWARDED_FOR
    )
    perimeter = Perimeter(**lists, address_header=header)
    members = _members(content.get("groups", {}), source)
    rules = Rules(
        _rules(content.get("rules", []), members, source),
        members,
        _reserve(content.get("reserve", {}), members, source),
    )
    keys = table.text("token_key_file", parsers.path) if "token_key_file" in table else None
    return AccessSettings(htpasswd, keys, perimeter, rules)


def _address_header(text: str) -> AddressHeader:
    for header in AddressHeader:
        if text.lower() == header.value.lower():
            return header
    raise ValueError("is neither X-Forwarded-For nor Forwarded")


def _network(text: str) -> str:
    if text != UNIX:
        network(text)
    return text


def _members(content: Any, source: str) -> dict[str, frozenset[str]]:
    if not isinstance(content, Mapping):
        raise ConfigError(f"{source}: access.groups must be a table, [access.groups]")
    table = TomlTable(content, f"[access.groups] in {source}")
    for name in content:
        if name in BUILT_IN:
            raise table.error(f"{parsers.shown(name)} is a group that docxy has already")
    return {name: frozenset(table.texts(name, parsers.username)) for name in content}


def _reserve(content: Any, members: Mapping[str, object], source: str) -> dict[str, float]:
    if not isinstance(content, Mapping):
        raise ConfigError(f"{source}: access.reserve must be a table, as reserve = {{ prod = 0.2 }}")
    table = TomlTable(content, f"access.reserve in {source}")
    table.only(members)
    reserve = {name: table.number(name, (int, float), parsers.share) for name in content}
    if sum(reserve.values()) > 1:
        raise table.error("the shares are more than 1 together")
    return reserve


def _rules(tables: Any, members: Mapping[str, object], source: str) -> tuple[Rule, ...]:
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
        raise ConfigError(f"{source}: access.rules must be [[access.rules]] tables")
    return tuple(
        _rule(TomlTable(each, f"[[access.rules]] {n} in {source}"), members) for n, each in enumerate(tables, 1)
    )


def _rule(table: TomlTable, members: Mapping[str, object]) -> Rule:
    table.only(RULE_KEYS)

    def group(text: str) -> str:
        if text not in members and text not in BUILT_IN:
            raise ValueError("is not in [access.groups]")
        return text

    users = frozenset(table.texts("users", parsers.username))
    groups = frozenset(table.texts("groups", group))
    repositories = tuple(table.texts("repositories", pattern))
    if not users and not groups:
        raise table.error("is for nobody: users or groups is missing")
    if not repositories:
        raise table.error("repositories is missing")
    return Rule(users, groups, repositories)
