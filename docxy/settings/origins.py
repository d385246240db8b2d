"""What the tables of the configuration file came to, each key with where its value came from: for the operator.

Pure.  The law: *no secret*.  Of a password, a key or a secret only the place is shown, of a receiver's URL and of a
proxy's only the host, of a program only its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from attrs import field, frozen

from docxy.settings.cooldown import Cooldown, OnNew
from docxy.settings.load import Setting
from docxy.settings.model import (
    ANY,
    ARCHIVE_PUTS,
    Config,
    Credential,
    CredentialProgram,
    Redirect,
    Upstream,
    Webhook,
)
from docxy.settings.policy import Policy

DEFAULT = "default"
ENVIRONMENT = "the environment"
_NO_ACCESS: Mapping[str, Any] = {
    "htpasswd": None,
    "token_key_file": None,
    "allow": [],
    "deny": [],
    "trusted_proxies": [],
    "address_header": "X-Forwarded-For",
    "proxy_protocol_from": [],
    "groups": {},
    "rules": [],
    "reserve": {},
}
_NO_ARCHIVE: Mapping[str, Any] = {"puts": ARCHIVE_PUTS, "redirect": Redirect.NEVER.value}
_NAMED = frozenset({"access_key", "secret_env"})
"""Of an archive, what is a credential or could be one by mistake."""


@frozen
class Value:
    """What one key came to."""

    value: Any
    """As JSON has it; None: nothing."""
    origin: str
    """Where from: `[[upstreams]] 2 in FILE`, `default`, an option's source."""


@frozen
class Table:
    """What one table came to."""

    name: str
    """As `[[upstreams]] 2`, or the registry of `--upstream`."""
    values: Mapping[str, Value] = field(factory=dict)

    def told(self) -> dict[str, dict[str, Any]]:
        """For JSON."""
        return {key: {"value": each.value, "from": each.origin} for key, each in self.values.items()}


@frozen
class Tables:
    """Those of one configuration."""

    upstreams: Sequence[Table]
    access: Table
    policy: Mapping[str, Sequence[Table]]
    """By kind: `freeze`, `recall`, `keep`, `cooldown`."""
    webhooks: Sequence[Table]
    archive: Table | None


def tables(config: Config, document: Mapping[str, Any], options: Mapping[str, Setting]) -> Tables:
    """`document`: the content of the file that `config` was made from, None of which is wrong; `options`: by key."""
    archive = document.get("archive")
    return Tables(
        _upstreams(config, document, options),
        _of("[access]", config, document.get("access", {}), _NO_ACCESS),
        _policy(config.policy, document, config.file),
        [
            _webhook(webhook, raw, f"[[webhook]] {n}", config.file)
            for n, (webhook, raw) in enumerate(zip(config.webhooks, document.get("webhook", ()), strict=True), 1)
        ],
        None
        if archive is None
        else _of("[archive]", config, {**archive, **dict.fromkeys(_NAMED & archive.keys(), "(given)")}, _NO_ARCHIVE),
    )


def _of(name: str, config: Config, raw: Mapping[str, Any], usual: Mapping[str, Any]) -> Table:
    """A table whose keys are shown as they are written."""
    origin = f"{name} in {config.file}"
    given = {key: Value(value, origin) for key, value in raw.items()}
    return Table(name, {**{key: Value(value, DEFAULT) for key, value in usual.items()}, **given})


def _upstreams(config: Config, document: Mapping[str, Any], options: Mapping[str, Setting]) -> list[Table]:
    entries = document.get("upstreams")
    if entries is None:
        source = options["upstream"].source or DEFAULT
        return [
            _upstream(config, each, {"name": source, "url": source}, {}, each.name, options)
            for each in config.upstreams
        ]
    named, found = iter(config.upstreams), []
    for number, entry in enumerate(entries, 1):
        raw: Mapping[str, Any] = {"name": entry} if isinstance(entry, str) else entry
        upstream = config.any_registry if raw["name"] == ANY else next(named)
        assert upstream is not None, "there is a table for it"
        name = f"[[upstreams]] {number}"
        found.append(_upstream(config, upstream, dict.fromkeys(raw, f"{name} in {config.file}"), raw, name, options))
    return found


def _upstream(
    config: Config,
    upstream: Upstream,
    given: Mapping[str, str],
    raw: Mapping[str, Any],
    name: str,
    options: Mapping[str, Setting],
) -> Table:
    """`given`: where each key comes from that somebody wrote; `raw`: what is written in the table."""
    values: dict[str, Any] = {
        "name": upstream.name,
        "url": upstream.url,
        **{key: sorted(getattr(upstream, key)) if key in _SETS else list(getattr(upstream, key)) for key in _ORDER},
        "library": upstream.library,
        "private": upstream.private,
        **{key: raw.get(key) for key in ("ca_file", "client_cert", "client_key")},
        "ca_only": upstream.ca_only,
        "proxy": None if upstream.proxy is None else _host(upstream.proxy),
        "auth": (upstream.auth or config.auth).value,
        "accounts": [_account(each) for each in upstream.credentials],
        "tag_ttl": config.tag_ttl if upstream.tag_ttl is None else upstream.tag_ttl,
        "max_connections": upstream.max_connections,
        "max_rate": config.max_rate if upstream.max_rate is None else upstream.max_rate,
        "fill": upstream.fill.value,
        "immutable": [
            f"{'*' if each.repository == '**' else each.repository}:{each.tag}" for each in upstream.immutable
        ],
        **_cooldown(upstream.cooldown),
    }
    accounts = [given[key] for key in raw if key in _ACCOUNTS]

    def origin(key: str) -> str:
        if key == "accounts" and accounts:
            return accounts[0]
        if key in given:
            return given[key]
        if key == "proxy" and upstream.proxy is not None:
            return ENVIRONMENT
        if key in ("auth", "tag_ttl", "max_rate") and getattr(upstream, key) is None:
            return options[key].source or DEFAULT
        return DEFAULT

    return Table(name, {key: Value(value, origin(key)) for key, value in values.items()})


_ORDER = ("endpoints", "aliases", "hosts", "realm_hosts", "search", "allow", "deny")
_SETS = frozenset({"aliases", "hosts", "realm_hosts"})
_ACCOUNTS = frozenset({"username", "credentials", "credential_helper", "credential_command"})


def _account(account: Credential | CredentialProgram) -> str:
    if isinstance(account, CredentialProgram):
        return f"of {account.name}"
    return account.username if account.password_file is None else f"{account.username}, {account.password_file}"


def _cooldown(cooldown: Cooldown | None) -> dict[str, Any]:
    return {
        "min_age": 0.0 if cooldown is None else cooldown.min_age,
        "on_new": (OnNew.SERVE if cooldown is None else cooldown.on_new).value,
    }


def _host(url: str) -> str:
    """Without what may be a secret: an account, a path."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _webhook(webhook: Webhook, raw: Mapping[str, Any], name: str, file: str | None) -> Table:
    values = {
        "url": f"{_host(webhook.url)}/…",
        "secret_file": raw["secret_file"],
        "events": list(webhook.events),
        "ca_file": raw.get("ca_file"),
    }
    return Table(name, _originated(values, raw, f"{name} in {file}"))


def _originated(values: Mapping[str, Any], raw: Mapping[str, Any], origin: str) -> dict[str, Value]:
    return {key: Value(value, origin if key in raw else DEFAULT) for key, value in values.items()}


def _policy(policy: Policy, document: Mapping[str, Any], file: str | None) -> dict[str, list[Table]]:
    def made(kind: str, entries: Sequence[Any], values: Callable[[Any], Mapping[str, Any]]) -> list[Table]:
        tables = document.get(kind, ())
        found = []
        for number, entry in enumerate(entries, 1):
            if number <= len(tables):
                name = f"[[{kind}]] {number}"
                found.append(Table(name, _originated(values(entry), tables[number - 1], f"{name} in {file}")))
            else:  # of a file of its own
                name = f"recall_file {document.get('recall_file')}"
                shown = values(entry)
                found.append(Table(name, _originated(shown, shown, name)))
        return found

    return {
        "freeze": made("freeze", policy.freezes, lambda each: {"image": str(each.image), "digest": str(each.digest)}),
        "recall": made(
            "recall",
            policy.recalls,
            lambda each: {
                **({} if each.digest is None else {"digest": str(each.digest)}),
                **({} if each.image is None else {"image": str(each.image)}),
                "reason": each.reason,
            },
        ),
        "keep": made(
            "keep",
            policy.keeps,
            lambda each: {
                "images": [str(image) for image in each.images],
                "hot": each.hot,
                "platforms": list(each.platforms),
                "every": each.every,
                "quiet": None if each.quiet is None else str(each.quiet),
            },
        ),
        "cooldown": made(
            "cooldown",
            policy.cooldowns,
            lambda each: {"images": [str(image) for image in each.images], **_cooldown(each.cooldown)},
        ),
    }
