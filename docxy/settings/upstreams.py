"""Which registries are behind us: `--upstream URL`, or `upstreams` in the file, by name or as tables.

Pure apart from reading files of CAs and passwords.  The law: no name,
alias or host means two upstreams, and no password or proxy's URL is ever part of an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from ssl import PROTOCOL_TLS_CLIENT, SSLContext, SSLError
from typing import Any, TypeVar
from urllib.parse import urlsplit

from attrs import evolve, fields

from docxy import globs
from docxy.settings import parsers
from docxy.settings.cooldown import Cooldown, TagGlob, on_new
from docxy.settings.credential_programs import credential_program
from docxy.settings.model import (
    ANY,
    DOCKER_HUB,
    AuthMode,
    ConfigError,
    Credential,
    CredentialProgram,
    FillMode,
    Upstream,
)
from docxy.settings.options import auth_mode
from docxy.settings.presets import is_private, preset
from docxy.settings.proxies import Proxy, from_environment
from docxy.settings.rules import pattern
from docxy.settings.tables import TomlTable

T = TypeVar("T")

_ACCOUNT = frozenset({"username", "password_file", "password_env"})
_OR_ANONYMOUS = "credential_or_anonymous"
_PROGRAM = frozenset({"credential_helper", "credential_command"})
_FILES = frozenset({"ca_file", "client_cert", "client_key"})
_COOLDOWN = frozenset({"min_age", "on_new"})
_MADE = frozenset({"authorities", "identity", "cooldown", "is_named"})
_OURS = frozenset(attribute.name for attribute in fields(Upstream)) - _MADE
KEYS = _OURS | _FILES | _ACCOUNT | _COOLDOWN | _PROGRAM | {_OR_ANONYMOUS}
"""What a table may hold: the fields of an Upstream, CAs and certificates as files, and one account in short."""
SEARCH_KEYS = frozenset({"name", "search", "aliases", "hosts", "allow", "deny"})
"""What a table with `search` may hold."""
ANY_KEYS = (
    frozenset({"name", "allow", "deny", "hosts", "tag_ttl", "max_connections", "fill", "proxy", "ca_file", "ca_only"})
    | _COOLDOWN
)
"""What the table of all other registries, `name = "*"`, may hold."""


def from_tables(
    entries: Any, file: str, environ: Mapping[str, str], auth: AuthMode
) -> tuple[tuple[Upstream, ...], Upstream | None]:
    """The upstreams of a file, names or tables, the first of which is the default; and what `"*"` says of all others.

    `environ`: of passwords and proxies; `auth`: where a table says nothing of it.  Raises ConfigError.
    """
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, (str, dict)) for entry in entries):
        raise ConfigError(f'{file}: upstreams must be names, as ["docker.io", "ghcr.io"], or [[upstreams]] tables')
    tables = [
        TomlTable({"name": entry} if isinstance(entry, str) else entry, f"[[upstreams]] {n} in {file}")
        for n, entry in enumerate(entries, 1)
    ]
    stars = [table for table in tables if table.content.get("name") == ANY]
    if len(stars) > 1:
        raise ConfigError(f'{file}: two of the [[upstreams]] have the name "*"')
    if tables[0] in stars:
        raise ConfigError(
            f'{file}: the first of the [[upstreams]] is "*", but it must be the registry for requests that name none, '
            f'as in upstreams = ["docker.io", "*"]'
        )
    upstreams = tuple(_from_table(table, environ, auth) for table in tables if table not in stars)
    for what in ("name", "host"):
        seen: set[str] = set()
        for upstream in upstreams:
            aliases = sorted(upstream.aliases - {upstream.name})
            for name in sorted(upstream.hosts) if what == "host" else [upstream.name, *aliases]:
                if name in seen:
                    raise ConfigError(f"{file}: two of the [[upstreams]] have the {what} {parsers.shown(name)}")
                seen.add(name)
    upstreams = tuple(_searching(upstream, upstreams, auth, file) for upstream in upstreams)
    return upstreams, _any_registry(stars[0], environ) if stars else None


def _any_registry(table: TomlTable, environ: Mapping[str, str]) -> Upstream:
    """What the operator says of registries that clients name."""
    known = Upstream(ANY, "https://*", auth=AuthMode.NONE, is_named=False)
    _no_password(table)
    wrong = sorted(table.content.keys() & KEYS - ANY_KEYS)
    if wrong:
        raise table.error(f'{wrong[0]} is not for "*": give the registry that it is for a table of its own')
    table.only(ANY_KEYS)
    changed: dict[str, Any] = {key: tuple(table.texts(key, pattern)) for key in ("allow", "deny")}
    changed["hosts"] = frozenset(table.texts("hosts", _host_pattern))
    changed |= _numbers(table) | _trusted(table)
    changed["cooldown"] = cooldown(table)
    if "proxy" in table:
        changed["proxy"] = table.secret("proxy", _proxy)
    elif from_environment("https://registry.example", environ) is not None:
        # A proxy resolves names itself: only who runs it knows where it leads.
        raise table.error(
            "HTTPS_PROXY or ALL_PROXY is set, and behind a proxy docxy cannot tell public addresses from private ones; "
            'give name = "*" a table with proxy = "http://…", if the proxy leads to the internet only, or proxy = "off"'
        )
    return evolve(known, **changed)


def _host_pattern(text: str) -> str:
    if "/" in globs.pattern(text):
        raise ValueError("is not a pattern of hosts such as quay.io or *.gcr.io")
    return text


def from_url(url: str, environ: Mapping[str, str]) -> Upstream:
    """The upstream of `--upstream URL`: one that is known, or one that is called what its host is.

    `environ`: of proxies.  Raises ConfigError.
    """
    name = urlsplit(url).netloc
    known = preset(name)
    if name != DOCKER_HUB.name:  # Docker Hub's registry is on another host than its name
        known = evolve(known, url=url)
    return evolve(known, proxy=_proxy_of_environment(known, environ))


def _from_table(table: TomlTable, environ: Mapping[str, str], auth: AuthMode) -> Upstream:
    """One table of the file; what it leaves out comes from what is known of the upstream of that name."""
    _no_password(table)
    table.only(KEYS)
    if "name" not in table:
        raise table.error("name is missing")
    if "search" in table:
        wrong = sorted(table.content.keys() - SEARCH_KEYS)
        if wrong:
            raise table.error(
                f"{wrong[0]} is not for a table with search: it is said of each registry that is searched"
            )
    known = preset(table.text("name", parsers.host))
    changed: dict[str, Any] = {}
    for key, parse in _TEXT.items():
        if key in table:
            changed[key] = table.text(key, parse)
    changed |= _numbers(table) | _trusted(table)
    if {"client_cert", "client_key"} & table.content.keys():
        changed["identity"] = _identity(table)
    for key, parse in _TEXTS.items():
        if key in table:
            changed[key] = type(getattr(known, key))(table.texts(key, parse))
    for key in ("library", "private"):
        if key in table:
            changed[key] = table.flag(key)
    changed["cooldown"] = cooldown(table)
    upstream = evolve(known, **changed)
    upstream = evolve(upstream, credentials=_credentials(table, environ, upstream))
    urls = (upstream.url, *upstream.endpoints)
    if len(set(urls)) < len(urls):
        raise table.error("endpoints: one is there twice, or is the url itself")
    if upstream.credentials and (upstream.auth or auth) is AuthMode.TRANSPARENT:
        raise ConfigError(
            f"{table.where}: credentials are not used with transparent auth, where clients log in themselves; "
            f'auth = "none" gives all clients what docxy may read'
        )
    if "private" not in table:
        upstream = evolve(upstream, private=any(is_private(url) for url in urls))
    if "proxy" in table:
        return evolve(upstream, proxy=table.secret("proxy", _proxy))
    return evolve(upstream, proxy=_proxy_of_environment(upstream, environ))


def cooldown(table: TomlTable) -> Cooldown | None:
    """What a table's `min_age` and `on_new` say; None: there is no cooldown."""
    if "min_age" not in table:
        if "on_new" in table:
            raise table.error("on_new needs min_age, which says what is new")
        return None
    found = Cooldown(table.duration("min_age"))
    if "on_new" in table:
        found = evolve(found, on_new=table.text("on_new", on_new))
    return found if found.min_age else None


def _numbers(table: TomlTable) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "max_connections" in table:
        found["max_connections"] = table.number("max_connections", (int,), parsers.count)
    if "tag_ttl" in table:
        found["tag_ttl"] = table.number("tag_ttl", (int, float), parsers.seconds)
    if "fill" in table:
        found["fill"] = table.text("fill", _fill)
    return found


def _trusted(table: TomlTable) -> dict[str, Any]:
    """The CAs of a table."""
    found: dict[str, Any] = {}
    if "ca_file" in table:
        found["authorities"] = table.text("ca_file", authorities)
    if "ca_only" in table:
        found["ca_only"] = table.flag("ca_only")
    if found.get("ca_only") and "authorities" not in found:
        raise table.error("ca_only needs ca_file, which names the CAs to trust alone")
    return found


def _searching(upstream: Upstream, upstreams: tuple[Upstream, ...], auth: AuthMode, file: str) -> Upstream:
    """With `search` resolved, where there is any."""
    if not upstream.search:
        return upstream
    known = {name: each for each in upstreams for name in (each.name, *each.aliases)}
    what = f"{file}: search of {upstream.name}"
    for name in upstream.search:
        if name not in known:
            raise ConfigError(f"{what}: {parsers.shown(name)} is none of the [[upstreams]]")
        if known[name].search:
            raise ConfigError(f"{what}: {parsers.shown(name)} is searched itself; name the registries")
        if (known[name].auth or auth) is not AuthMode.NONE:
            raise ConfigError(
                f"{what}: {parsers.shown(name)} has transparent auth, but a client cannot log in to several registries "
                f'at once; give it auth = "none"'
            )
    members = tuple(known[name].name for name in upstream.search)
    if len(set(members)) < len(members):
        raise ConfigError(f"{what}: one registry is there twice")
    return evolve(upstream, search=members, url=known[members[0]].url, auth=AuthMode.NONE)


def _no_password(table: TomlTable) -> None:
    if "password" in table:
        raise table.error("password: use password_file or password_env, this file is no place for it")


_fill = parsers.choice(FillMode, "is not a way to fill: whole or touched")


def authorities(text: str) -> bytes:
    """What is in the file, read now: the user that the daemon becomes later may not be allowed to."""
    pem = _pem(text)
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        raise ValueError("holds no PEM certificate")
    try:
        SSLContext(PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.decode("ascii", "replace"))
    except SSLError:
        raise ValueError("holds a PEM certificate that cannot be read") from None
    return pem


def _pem(text: str) -> bytes:
    try:
        return Path(parsers.path(text)).read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None


def _identity(table: TomlTable) -> tuple[bytes, bytes]:
    """docxy's own certificate and key."""
    if not {"client_cert", "client_key"} <= table.content.keys():
        raise table.error("client_cert and client_key belong together")
    key = table.text("client_key", _pem)

    def pair(text: str) -> tuple[bytes, bytes]:
        pem = _pem(text)
        try:
            # Without a question at the terminal for a key's passphrase.
            SSLContext(PROTOCOL_TLS_CLIENT).load_cert_chain(text, table.content["client_key"], password="")
        except SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise ValueError("does not belong to client_key") from None
            raise ValueError("and client_key are not a PEM certificate and its PEM key without a passphrase") from None
        return pem, key

    return table.text("client_cert", pair)


_TEXT: Mapping[str, Callable[[str], Any]] = {"url": parsers.registry, "auth": auth_mode, "max_rate": parsers.rate}
_TEXTS: Mapping[str, Callable[[str], Any]] = {
    "endpoints": parsers.registry,
    "aliases": parsers.host,
    "hosts": parsers.host_name,
    "realm_hosts": parsers.host_name,
    "search": parsers.host,
    "allow": globs.pattern,
    "deny": globs.pattern,
    "immutable": TagGlob.parse,
}


def _credentials(
    table: TomlTable, environ: Mapping[str, str], upstream: Upstream
) -> tuple[Credential | CredentialProgram, ...]:
    """docxy's own accounts at the upstream: what a program prints, the one of the table itself, or `credentials`."""
    short = _ACCOUNT & table.content.keys()
    programs = _PROGRAM & table.content.keys()
    if _OR_ANONYMOUS in table and not programs:
        raise table.error(f"{_OR_ANONYMOUS} needs credential_helper or credential_command, which may fail")
    if programs:
        others = sorted(short | programs | ({"credentials"} & table.content.keys()))
        if len(others) > 1:
            raise table.error(f"{others[0]} and {others[1]} cannot be combined: docxy has one way to its account")
        return (credential_program(table, upstream, environ),)
    if "credentials" not in table:
        return (_credential(table, environ),) if short else ()
    if short:
        raise table.error(f"credentials and {min(short)} cannot be combined: put all into credentials")
    accounts = table.content["credentials"]
    if not isinstance(accounts, list) or not all(isinstance(account, dict) for account in accounts):
        raise table.error("credentials must be an array of tables with username and password_file")
    found = []
    for n, account in enumerate(accounts, 1):
        inner = TomlTable(account, f"credentials {n} of {table.where}")
        _no_password(inner)
        inner.only(_ACCOUNT)
        found.append(_credential(inner, environ))
    return tuple(found)


def _credential(table: TomlTable, environ: Mapping[str, str]) -> Credential:
    if "username" not in table:
        raise table.error("username is missing")
    username = table.text("username", parsers.username)
    places = _ACCOUNT & table.content.keys() - {"username"}
    if len(places) != 1:
        raise table.error("username needs one of password_file and password_env")

    def in_environment(name: str) -> str:
        # Not repeated in the error: it may be the password itself, put in the wrong place.
        return parsers.password(environ.get(name, ""), "names a variable that is not set")

    if "password_env" in places:
        return Credential(username, table.secret("password_env", in_environment))
    path = table.text("password_file", parsers.path)
    return Credential(username, table.text("password_file", parsers.password_in_file), path)


def _proxy(text: str) -> str | None:
    if text == parsers.OFF:
        return None
    Proxy.parse(text)
    return text


def _proxy_of_environment(upstream: Upstream, environ: Mapping[str, str]) -> str | None:
    proxy = from_environment(upstream.url, environ)
    if proxy is not None:
        try:
            Proxy.parse(proxy)
        except ValueError as error:
            raise ConfigError(
                f"HTTPS_PROXY, HTTP_PROXY or ALL_PROXY in the environment, for {upstream.name}: {error}"
            ) from None
    return proxy
