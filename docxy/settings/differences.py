"""What two configurations differ in, in the operator's words.

Pure.  The law: *names, never values*: passwords and addresses are among these.  What is read again while docxy runs
(the policy, passwords of `password_file`) is no difference.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import evolve, fields

from docxy.settings.model import AccessSettings, Config, Credential, Timeouts, Upstream

_APART = frozenset({"policy", "upstreams", "any_registry", "timeouts", "access", "orders", "cache_named"})
_WORDS = {
    "redirect": "http_port",
    "https": "https_port",
    "http": "port",
    "metrics": "metrics_port",
    "collector": "otlp_endpoint",
    "webhooks": "[[webhook]]",
    "issuing": "tls and acme",
    "file": "config",
}
_TIMES = {
    "connect": "connect_timeout",
    "headers": "header_timeout",
    "silence": "silence_timeout",
    "client": "client_timeout",
    "shutdown": "shutdown_grace",
    "upgrade": "upgrade_grace",
}
_OF_UPSTREAMS = {"authorities": "ca_file", "identity": "client_cert", "credentials": "accounts", "cooldown": "min_age"}
_OF_ACCESS = {"perimeter": "addresses", "rules": "rules, groups"}


def differences(before: Config, after: Config) -> list[str]:
    """What is not the same, by name: `tag_ttl`, `upstreams.ghcr.io (ca_file)`, `upstreams.quay.io (new)`."""
    found = [
        _WORDS.get(each.name, each.name)
        for each in fields(Config)
        if each.name not in _APART and getattr(before, each.name) != getattr(after, each.name)
    ]
    found += [
        _TIMES[each.name]
        for each in fields(Timeouts)
        if getattr(before.timeouts, each.name) != getattr(after.timeouts, each.name)
    ]
    found += [
        f"access ({_OF_ACCESS.get(each.name, each.name)})"
        for each in fields(AccessSettings)
        if getattr(before.access, each.name) != getattr(after.access, each.name)
    ]
    return [*found, *_registries(before, after)]


def _registries(before: Config, after: Config) -> Iterator[str]:
    old = {each.name: _known(each) for each in before.registries}
    new = {each.name: _known(each) for each in after.registries}
    yield from (f"upstreams.{name} (new)" for name in new if name not in old)
    yield from (f"upstreams.{name} (gone)" for name in old if name not in new)
    for name, upstream in new.items():
        if name in old:
            changed = [
                _OF_UPSTREAMS.get(each.name, each.name)
                for each in fields(Upstream)
                if getattr(old[name], each.name) != getattr(upstream, each.name)
            ]
            if changed:
                yield f"upstreams.{name} ({', '.join(changed)})"
    if [name for name in old if name in new] != [name for name in new if name in old]:
        yield "upstreams (their order)"


def _known(upstream: Upstream) -> Upstream:
    """Without the passwords that are read again."""
    accounts = [
        Credential(account.username, "", account.password_file)
        if isinstance(account, Credential) and account.password_file is not None
        else account
        for account in upstream.credentials
    ]
    return evolve(upstream, credentials=tuple(accounts))
