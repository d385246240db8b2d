"""A JSON Schema of the configuration file, for editors: `docxy config schema > docxy.schema.json`.

Pure.  The law: it is made from the tables that parse the settings and from those of the reference; a key that one of
them lacks is an error.  What the schema refuses docxy refuses; of what docxy refuses it refuses what can be seen in the
file alone.  Draft 7, which Taplo and Even Better TOML read.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from docxy.settings import access, archive, keep, parsers, policy_tables, reference, upstreams, webhooks
from docxy.settings.cooldown import OnNew
from docxy.settings.model import ANY, AuthMode, FillMode, JournalMode, LogFormat, Redirect, StatusMode
from docxy.settings.option import Option
from docxy.settings.options import OPTIONS

Schema = Mapping[str, Any]

_TEXT: Schema = {"type": "string"}
_SOME_TEXT: Schema = {"type": "string", "minLength": 1}
_TEXTS: Schema = {"type": "array", "items": _SOME_TEXT}
_FLAG: Schema = {"type": "boolean"}
_SECONDS: Schema = {"type": "number", "minimum": 0}
_DURATION: Schema = {"anyOf": [_SECONDS, _SOME_TEXT]}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_DIGEST: Schema = {"type": "string", "pattern": "^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$"}
_URL: Schema = {"type": "string", "pattern": "^https?://[^/?#@]+"}
_ON_NEW: Schema = {"enum": [each.value for each in OnNew]}
_AUTH: Schema = {"enum": [each.value for each in AuthMode]}
_GLOBS: Schema = {"type": "array", "items": {"type": "string", "pattern": "^[a-z0-9._*?-]+(/[a-z0-9._*?-]+)*$"}}
_NAMES: Schema = {
    "type": "array",
    "items": {"type": "string", "pattern": r"^(\*\*|[a-z0-9._*?-]+(:[0-9*?]+)?/[a-z0-9._*?-]+(/[a-z0-9._*?-]+)*)$"},
}

_BY_PARSER: Mapping[Any, Schema] = {
    parsers.switch: _FLAG,
    parsers.count: _COUNT,
    parsers.some: {"type": "integer", "minimum": 1},
    parsers.seconds: _SECONDS,
    parsers.some_seconds: {"type": "number", "exclusiveMinimum": 0},
    parsers.share: {"type": "number", "minimum": 0, "maximum": 1},
    parsers.port: {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 65535}, _SOME_TEXT]},
}
_CHOICES: Mapping[str, Schema] = {
    "auth": _AUTH,
    "status": {"enum": [each.value for each in StatusMode]},
    "journal": {"enum": [each.value for each in JournalMode]},
    "log_format": {"enum": [each.value for each in LogFormat]},
}
_TYPES: Mapping[type, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}

_ACCOUNT: Mapping[str, Schema] = {"username": _SOME_TEXT, "password_file": _SOME_TEXT, "password_env": _SOME_TEXT}
_ONE_PASSWORD: Schema = {
    "dependencies": {
        "username": {"oneOf": [{"required": ["password_file"]}, {"required": ["password_env"]}]},
        "password_file": ["username"],
        "password_env": ["username"],
    }
}
_ONE_ACCOUNT = ("username", "credentials", "credential_helper", "credential_command")
_UPSTREAM: Mapping[str, Schema] = {
    "name": _SOME_TEXT,
    "url": _URL,
    "endpoints": {"type": "array", "items": _URL},
    "library": _FLAG,
    "aliases": _TEXTS,
    "hosts": _TEXTS,
    "realm_hosts": _TEXTS,
    "private": _FLAG,
    "ca_file": _SOME_TEXT,
    "ca_only": _FLAG,
    "client_cert": _SOME_TEXT,
    "client_key": _SOME_TEXT,
    "proxy": _SOME_TEXT,
    "max_connections": _COUNT,
    "auth": _AUTH,
    **_ACCOUNT,
    "credentials": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": _ACCOUNT,
            "additionalProperties": False,
            "required": ["username"],
            **_ONE_PASSWORD,
        },
    },
    "credential_helper": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"},
    "credential_command": {"type": "array", "items": _TEXT, "minItems": 1},
    "credential_or_anonymous": _FLAG,
    "max_rate": _SOME_TEXT,
    "fill": {"enum": [each.value for each in FillMode]},
    "search": {"type": "array", "items": _SOME_TEXT, "uniqueItems": True},
    "tag_ttl": _SECONDS,
    "allow": _GLOBS,
    "deny": _GLOBS,
    "immutable": _TEXTS,
    "min_age": _DURATION,
    "on_new": _ON_NEW,
}
_ANY: Mapping[str, Schema] = {
    **{key: _UPSTREAM[key] for key in upstreams.ANY_KEYS if key in _UPSTREAM},
    "allow": _NAMES,
    "deny": _NAMES,
}
_ACCESS: Mapping[str, Schema] = {
    "htpasswd": _SOME_TEXT,
    "token_key_file": _SOME_TEXT,
    "allow": _TEXTS,
    "deny": _TEXTS,
    "trusted_proxies": _TEXTS,
    "address_header": {"type": "string", "pattern": "^([Xx]-[Ff]orwarded-[Ff]or|[Ff]orwarded)$"},
    "proxy_protocol_from": _TEXTS,
    "groups": {"type": "object", "additionalProperties": _TEXTS},
    "reserve": {"type": "object", "additionalProperties": {"type": "number", "minimum": 0, "maximum": 1}},
    "rules": {},
}
_RULE: Mapping[str, Schema] = {"users": _TEXTS, "groups": _TEXTS, "repositories": _NAMES}
_FREEZE: Mapping[str, Schema] = {"image": _SOME_TEXT, "digest": _DIGEST}
_RECALL: Mapping[str, Schema] = {
    "digest": _DIGEST,
    "image": _SOME_TEXT,
    "reason": {"type": "string", "maxLength": policy_tables.LONGEST_REASON},
}
_KEEP: Mapping[str, Schema] = {
    "images": _TEXTS,
    "hot": {"type": "integer", "minimum": 1, "maximum": keep.MOST_HOT},
    "platforms": _TEXTS,
    "every": _SOME_TEXT,
    "quiet": {"type": "string", "pattern": r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$"},
}
_COOLDOWN: Mapping[str, Schema] = {
    "images": {"type": "array", "items": _SOME_TEXT, "minItems": 1},
    "min_age": _DURATION,
    "on_new": _ON_NEW,
}
_WEBHOOK: Mapping[str, Schema] = {
    "url": _SOME_TEXT,
    "secret_file": _SOME_TEXT,
    "events": {"type": "array", "items": {"enum": list(webhooks.EVENTS)}, "minItems": 1},
    "ca_file": _SOME_TEXT,
}
_ARCHIVE: Mapping[str, Schema] = {
    "url": {"type": "string", "pattern": "^(s3|gs|az)://"},
    "endpoint": _URL,
    "region": _SOME_TEXT,
    "access_key": _SOME_TEXT,
    "secret_file": _SOME_TEXT,
    "secret_env": _SOME_TEXT,
    "ca_file": _SOME_TEXT,
    "rate": _SOME_TEXT,
    "puts": {"type": "integer", "minimum": 1, "maximum": archive.MOST_PUTS},
    "redirect": {"enum": [each.value for each in Redirect]},
    "public_endpoint": _URL,
}


def schema() -> dict[str, Any]:
    """The schema, as JSON has it."""
    options = {option.key: _option(option) for option in OPTIONS if option.types}
    tables = {
        "upstreams": _upstreams(),
        "access": _access(),
        "webhook": _array(
            _table(_WEBHOOK, webhooks.KEYS, reference.WEBHOOK_KEYS, ["url", "secret_file"]), webhooks.MOST
        ),
        "archive": _table(_ARCHIVE, archive.KEYS, reference.ARCHIVE_KEYS, ["url"]),
    }
    policy: dict[str, Any] = {
        "freeze": _array(
            _table(_FREEZE, policy_tables.FREEZE_KEYS, reference.FREEZE_KEYS, ["image", "digest"]), policy_tables.MOST
        ),
        "recall": _array(
            {
                **_table(_RECALL, policy_tables.RECALL_KEYS, reference.RECALL_KEYS, []),
                "oneOf": [{"required": ["digest"]}, {"required": ["image"]}],
            },
            policy_tables.MOST,
        ),
        "keep": _array(
            {
                **_table(_KEEP, keep.KEYS, reference.KEEP_KEYS, []),
                "anyOf": [{"required": ["images"]}, {"required": ["hot"]}],
            },
            policy_tables.MOST_KEEPS,
        ),
        "cooldown": _array(
            _table(_COOLDOWN, policy_tables.COOLDOWN_KEYS, reference.COOLDOWN_KEYS, ["images", "min_age"]),
            policy_tables.MOST,
        ),
        "recall_file": _SOME_TEXT,
    }
    _same(policy, policy_tables.KEYS)
    for key, value in policy.items():
        policy[key] = {"description": reference.POLICY_KEYS[key], **value}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "docxy's configuration file",
        "type": "object",
        "properties": {**options, **tables, **policy},
        "additionalProperties": False,
        # Two ways to say which registries there are.
        "not": {"required": ["upstream", "upstreams"]},
    }


def text() -> str:
    """The file."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def _option(option: Option) -> Schema:
    found = _CHOICES.get(option.key) or _BY_PARSER.get(option.parse)
    if found is None:
        kinds = [_TYPES[kind] for kind in option.types]
        found = {"type": kinds[0] if len(kinds) == 1 else kinds}
    return {"description": option.help, **found}


def _upstreams() -> Schema:
    table = _table(_UPSTREAM, upstreams.KEYS, reference.UPSTREAM_KEYS, ["name"])
    named = {
        **table,
        "properties": {**table["properties"], "name": {**table["properties"]["name"], "not": {"const": ANY}}},
        "dependencies": {
            **_ONE_PASSWORD["dependencies"],
            "client_cert": ["client_key"],
            "client_key": ["client_cert"],
            "on_new": ["min_age"],
            "credential_or_anonymous": {
                "anyOf": [{"required": ["credential_helper"]}, {"required": ["credential_command"]}]
            },
            "search": {"propertyNames": {"enum": sorted(upstreams.SEARCH_KEYS)}},
        },
        "not": {"anyOf": [_pair(one, other) for one in _ONE_ACCOUNT for other in _ONE_ACCOUNT if one < other]},
        **_ca_only(),
    }
    others = {
        **_table(_ANY, upstreams.ANY_KEYS, reference.ANY_KEYS, ["name"]),
        "dependencies": {"on_new": ["min_age"]},
        **_ca_only(),
    }
    others["properties"] = {**others["properties"], "name": {"const": ANY}}
    # An editor shows what is wrong with the table that is meant, not with all that it might be.
    entry = {
        "if": {"type": "object", "properties": {"name": {"const": ANY}}, "required": ["name"]},
        "then": others,
        "else": {"if": {"type": "object"}, "then": named, "else": _SOME_TEXT},
    }
    first = {"if": {"type": "object"}, "then": named, "else": {"type": "string", "minLength": 1, "not": {"const": ANY}}}
    return {
        "description": 'names of registries, as ["docker.io", "*"], or [[upstreams]] tables; the first is the default',
        "type": "array",
        "minItems": 1,
        "items": [first],
        "additionalItems": entry,
    }


def _pair(one: str, other: str) -> Schema:
    return {"required": [one, other]}


def _ca_only() -> Schema:
    """CAs that are to be trusted alone have to be there."""
    return {
        "if": {"properties": {"ca_only": {"const": True}}, "required": ["ca_only"]},
        "then": {"required": ["ca_file"]},
    }


def _access() -> Schema:
    table = _table(_ACCESS, access.KEYS, reference.ACCESS_KEYS, [])
    rules = _array(_table(_RULE, access.RULE_KEYS, reference.RULE_KEYS, []), None)
    described = {**rules, "description": reference.ACCESS_KEYS["rules"]}
    needs = {key: ["htpasswd"] for key in ("groups", "rules", "reserve")}
    return {**table, "properties": {**table["properties"], "rules": described}, "dependencies": needs}


def _table(
    keys: Mapping[str, Schema], known: Collection[str], meanings: Mapping[str, str], required: list[str]
) -> dict[str, Any]:
    """One table; `known`: what it may hold, `meanings`: what the reference says of that."""
    _same(keys, known)
    properties = {key: {"description": meanings[key], **keys[key]} for key in meanings}
    found: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**found, "required": required} if required else found


def _array(table: Schema, most: int | None) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "array", "items": table}
    return found if most is None else {**found, "maxItems": most}


def _same(keys: Collection[str], known: Collection[str]) -> None:
    if set(keys) != set(known):
        raise LookupError(f"in the schema or in the file, but not both: {sorted(set(keys) ^ set(known))}")
