"""The `[access]` table of the file -> GateSettings.

Pure.  The law: everything wrong is a ConfigError whose one line names the key and the value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from docxy import values
from docxy.config import ConfigError
from docxy.gate.addresses import UNIX, Networks, Perimeter, network
from docxy.gate.rules import BUILT_IN, Rule, Rules, pattern
from docxy.gate.settings import GateSettings

T = TypeVar("T")

KEYS = frozenset({"htpasswd", "allow", "deny", "trusted_proxies", "groups", "rules"})
"""What the table may hold."""
RULE_KEYS = frozenset({"users", "groups", "repositories"})
"""What each of its rules may hold."""


def parse(table: Mapping[str, Any], source: str) -> GateSettings:
    """The settings of an `[access]` table; `source`: the file it is from.  Raises ConfigError."""
    where = f"[access] in {source}"
    if not isinstance(table, Mapping):
        raise ConfigError(f"{source}: access must be a table, [access]")
    _only(table, KEYS, where)
    htpasswd = None
    if "htpasswd" in table:
        htpasswd = _parsed(table["htpasswd"], values.path, where, "htpasswd")
    elif "rules" in table or "groups" in table:
        raise ConfigError(f"{where}: groups and rules need htpasswd, without which nobody can log in")
    perimeter = Perimeter(*(_networks(table, key, where) for key in ("allow", "deny", "trusted_proxies")))
    members = _members(table.get("groups", {}), source)
    return GateSettings(htpasswd, perimeter, Rules(_rules(table.get("rules", []), members, source), members))


def _networks(table: Mapping[str, Any], key: str, where: str) -> Networks:
    def listed(text: str) -> str:
        if text != UNIX:
            network(text)
        return text

    return Networks.of(_list(table.get(key, []), listed, where, key))


def _members(table: Any, source: str) -> dict[str, frozenset[str]]:
    where = f"[access.groups] in {source}"
    if not isinstance(table, Mapping):
        raise ConfigError(f"{source}: access.groups must be a table, [access.groups]")
    for name in table:
        if name in BUILT_IN:
            raise ConfigError(f"{where}: {values.shown(name)} is a group that docxy has already")
    return {name: frozenset(_list(users, _user, where, values.shown(name))) for name, users in table.items()}


def _rules(tables: Any, members: Mapping[str, object], source: str) -> tuple[Rule, ...]:
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
        raise ConfigError(f"{source}: access.rules must be [[access.rules]] tables")
    return tuple(_rule(table, members, f"[[access.rules]] {n} in {source}") for n, table in enumerate(tables, 1))


def _rule(table: Mapping[str, Any], members: Mapping[str, object], where: str) -> Rule:
    _only(table, RULE_KEYS, where)

    def group(text: str) -> str:
        if text not in members and text not in BUILT_IN:
            raise ValueError("is not in [access.groups]")
        return text

    users = frozenset(_list(table.get("users", []), _user, where, "users"))
    groups = frozenset(_list(table.get("groups", []), group, where, "groups"))
    repositories = tuple(_list(table.get("repositories", []), pattern, where, "repositories"))
    if not users and not groups:
        raise ConfigError(f"{where}: is for nobody: users or groups is missing")
    if not repositories:
        raise ConfigError(f"{where}: repositories is missing")
    return Rule(users, groups, repositories)


def _user(text: str) -> str:
    if not text or ":" in text or not text.isprintable():
        raise ValueError("is not a user name")
    return text


def _only(table: Mapping[str, Any], keys: frozenset[str], where: str) -> None:
    unknown = sorted(table.keys() - keys)
    if unknown:
        raise ConfigError(f"{where}: unknown key {values.shown(unknown[0])}")


def _list(raw: Any, parse: Callable[[str], T], where: str, key: str) -> list[T]:
    if not isinstance(raw, list):
        raise ConfigError(f"{where}: {key}: {values.shown(raw)} is not an array of strings")
    return [_parsed(item, parse, where, key) for item in raw]


def _parsed(raw: Any, parse: Callable[[str], T], where: str, key: str) -> T:
    if not isinstance(raw, str):
        raise ConfigError(f"{where}: {key}: {values.shown(raw)} is not a string")
    try:
        return parse(raw)
    except ValueError as error:
        raise ConfigError(f"{where}: {key}: {values.shown(raw)} {error}") from None
