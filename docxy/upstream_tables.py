"""Which registries are behind us: `--upstream URL`, or `upstreams` in the file, by name or as tables.

Pure apart from reading the files of CAs and passwords it is told to read.  The law: no name,
alias or host means two upstreams, and no password or proxy's URL is ever part of an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from attrs import evolve, fields, frozen
from OpenSSL.crypto import Error as OpenSSLError

from docxy import globs, values
from docxy.config import DOCKER_HUB, AuthMode, ConfigError, Credential, Upstream
from docxy.upstream.agent import make_policy
from docxy.upstream.guard import is_public
from docxy.upstream.proxy import Proxy, from_environment

T = TypeVar("T")

_ACCOUNT = frozenset({"username", "password_file", "password_env"})
KEYS = frozenset(attribute.name for attribute in fields(Upstream)) - {"authorities"} | {"ca_file"} | _ACCOUNT
"""What a table may hold: the fields of an Upstream, the CAs as a file, and one account in short."""

_GITLAB = Upstream("registry.gitlab.com", "https://registry.gitlab.com", realm_hosts=frozenset({"gitlab.com"}))
_SPECIAL = {name: known for known in (DOCKER_HUB, _GITLAB) for name in (known.name, *known.aliases)}
"""Registries of which more is to be known than their name.

ghcr.io, quay.io, registry.k8s.io, gcr.io, mcr.microsoft.com, public.ecr.aws, nvcr.io and the
<region>-docker.pkg.dev need nothing here: each is at https://<name>, and so are its tokens.
"""


def preset(name: str) -> Upstream:
    """What is known of a registry by its name or an alias: the least is that it is at `https://<name>`."""
    return _SPECIAL.get(name) or Upstream(name=name, url=f"https://{name}", private=is_private(f"https://{name}"))


def from_tables(entries: Any, file: str, environ: Mapping[str, str], auth: AuthMode) -> tuple[Upstream, ...]:
    """The upstreams of a file, names or tables, the first of which is the default.

    `environ`: of passwords and proxies; `auth`: where a table says nothing of it.  Raises ConfigError.
    """
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, (str, dict)) for entry in entries):
        raise ConfigError(f'{file}: upstreams must be names, as ["docker.io", "ghcr.io"], or [[upstreams]] tables')
    upstreams = tuple(
        _from_table(
            _Table({"name": entry} if isinstance(entry, str) else entry, f"[[upstreams]] {n} in {file}"), environ, auth
        )
        for n, entry in enumerate(entries, 1)
    )
    for what in ("name", "host"):
        seen: set[str] = set()
        for upstream in upstreams:
            aliases = sorted(upstream.aliases - {upstream.name})
            for name in sorted(upstream.hosts) if what == "host" else [upstream.name, *aliases]:
                if name in seen:
                    raise ConfigError(f"{file}: two of the [[upstreams]] have the {what} {values.shown(name)}")
                seen.add(name)
    return upstreams


def from_url(url: str, environ: Mapping[str, str]) -> Upstream:
    """The upstream of `--upstream URL`: one that is known, or one that is called what its host is.

    `environ`: of proxies.  Raises ConfigError.
    """
    name = values.host(url.partition("://")[2])
    known = preset(name)
    if name != DOCKER_HUB.name:  # Docker Hub's registry is on another host than its name
        known = evolve(known, url=url)
    return evolve(known, proxy=_proxy_of_environment(known, environ))


@frozen
class _Table:
    """One table of the file, whose errors name it."""

    content: Mapping[str, Any]
    where: str

    def only(self, keys: frozenset[str]) -> None:
        if "password" in self.content:
            raise ConfigError(
                f"{self.where}: password: use password_file or password_env, this file is no place for it"
            )
        unknown = sorted(self.content.keys() - keys)
        if unknown:
            raise ConfigError(f"{self.where}: unknown key {values.shown(unknown[0])}")

    def text(self, key: str, parse: Callable[[str], T]) -> T:
        return self._parsed(key, self.content[key], parse)

    def texts(self, key: str, parse: Callable[[str], T]) -> list[T]:
        raw = self.content[key]
        if not isinstance(raw, list):
            raise ConfigError(f"{self.where}: {key}: {values.shown(raw)} is not an array of strings")
        return [self._parsed(key, item, parse) for item in raw]

    def flag(self, key: str) -> bool:
        raw = self.content[key]
        if not isinstance(raw, bool):
            raise ConfigError(f"{self.where}: {key}: {values.shown(raw)} is not true or false")
        return raw

    def number(self, key: str, kinds: tuple[type[int] | type[float], ...], parse: Callable[[str], T]) -> T:
        raw = self.content[key]
        if type(raw) not in kinds:  # a boolean is an int
            raise ConfigError(f"{self.where}: {key}: {values.shown(raw)} is not a number")
        return self._parsed(key, str(raw), parse)

    def secret(self, key: str, parse: Callable[[str], T]) -> T:
        """As `text`, without the value in any error."""
        raw = self.content[key]
        if not isinstance(raw, str):
            raise ConfigError(f"{self.where}: {key} is not a string")
        try:
            return parse(raw)
        except ValueError as error:
            raise ConfigError(f"{self.where}: {key} {error}") from None

    def _parsed(self, key: str, raw: Any, parse: Callable[[str], T]) -> T:
        wrong = f"{self.where}: {key}: {values.shown(raw)}"
        if not isinstance(raw, str):
            raise ConfigError(f"{wrong} is not a string")
        try:
            return parse(raw)
        except ValueError as error:
            raise ConfigError(f"{wrong} {error}") from None


def _from_table(table: _Table, environ: Mapping[str, str], auth: AuthMode) -> Upstream:
    """One table of the file; what it leaves out comes from what is known of the upstream of that name."""
    table.only(KEYS)
    if "name" not in table.content:
        raise ConfigError(f"{table.where}: name is missing")
    known = preset(table.text("name", values.host))
    changed: dict[str, Any] = {}
    for key, parse in _TEXT.items():
        if key in table.content:
            changed[key] = table.text(key, parse)
    if "ca_file" in table.content:
        changed["authorities"] = table.text("ca_file", _authorities)
    for key, parse in _TEXTS.items():
        if key in table.content:
            changed[key] = type(getattr(known, key))(table.texts(key, parse))
    for key in ("library", "private"):
        if key in table.content:
            changed[key] = table.flag(key)
    if "max_connections" in table.content:
        changed["max_connections"] = table.number("max_connections", (int,), values.count)
    if "tag_ttl" in table.content:
        changed["tag_ttl"] = table.number("tag_ttl", (int, float), values.seconds)
    upstream = evolve(known, **changed, credentials=_credentials(table, environ))
    urls = (upstream.url, *upstream.endpoints)
    if len(set(urls)) < len(urls):
        raise ConfigError(f"{table.where}: endpoints: one is there twice, or is the url itself")
    if upstream.credentials and (upstream.auth or auth) is AuthMode.TRANSPARENT:
        raise ConfigError(
            f"{table.where}: credentials are not used with transparent auth, where clients log in themselves; "
            f'auth = "none" gives all clients what docxy may read'
        )
    if "private" not in table.content:
        upstream = evolve(upstream, private=any(is_private(url) for url in urls))
    if "proxy" in table.content:
        return evolve(upstream, proxy=table.secret("proxy", _proxy))
    return evolve(upstream, proxy=_proxy_of_environment(upstream, environ))


def _auth(text: str) -> AuthMode:
    try:
        return AuthMode(text)
    except ValueError:
        raise ValueError("is not an auth mode: transparent or none") from None


def _authorities(text: str) -> bytes:
    """What is in the file: whoever the daemon becomes later may not be allowed to read it."""
    try:
        pem = Path(values.path(text)).read_bytes()
        make_policy(pem)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except OpenSSLError:
        raise ValueError("holds a PEM certificate that cannot be read") from None
    return pem


_TEXT: Mapping[str, Callable[[str], Any]] = {"url": values.origin, "auth": _auth}
_TEXTS: Mapping[str, Callable[[str], str]] = {
    "endpoints": values.origin,
    "aliases": values.host,
    "hosts": values.host_name,
    "realm_hosts": values.host_name,
    "allow": globs.pattern,
    "deny": globs.pattern,
}


def _credentials(table: _Table, environ: Mapping[str, str]) -> tuple[Credential, ...]:
    """docxy's own accounts at the upstream: the one of the table itself, or those of `credentials`."""
    short = _ACCOUNT & table.content.keys()
    if "credentials" not in table.content:
        return (_credential(table, environ),) if short else ()
    if short:
        raise ConfigError(f"{table.where}: credentials and {min(short)} cannot be combined: put all into credentials")
    accounts = table.content["credentials"]
    if not isinstance(accounts, list) or not all(isinstance(account, dict) for account in accounts):
        raise ConfigError(f"{table.where}: credentials must be an array of tables with username and password_file")
    found = []
    for n, account in enumerate(accounts, 1):
        inner = _Table(account, f"credentials {n} of {table.where}")
        inner.only(_ACCOUNT)
        found.append(_credential(inner, environ))
    return tuple(found)


def _credential(table: _Table, environ: Mapping[str, str]) -> Credential:
    if "username" not in table.content:
        raise ConfigError(f"{table.where}: username is missing")
    username = table.text("username", values.username)
    places = _ACCOUNT & table.content.keys() - {"username"}
    if len(places) != 1:
        raise ConfigError(f"{table.where}: username needs one of password_file and password_env")

    def in_environment(name: str) -> str:
        # Not repeated in the error: it may be the password itself, put in the wrong place.
        return _password(environ.get(name, ""), "names a variable that is not set")

    if "password_env" in places:
        return Credential(username, table.secret("password_env", in_environment))
    return Credential(username, table.text("password_file", _password_in_file))


def _password_in_file(text: str) -> str:
    try:
        with open(values.path(text), encoding="utf-8") as file:
            content = file.read()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    return _password(content, "is empty")


def _password(text: str, when_empty: str) -> str:
    """A password without the end of its line."""
    password = text.rstrip("\r\n")
    if not password:
        raise ValueError(when_empty)
    if not password.isprintable():
        raise ValueError("leads to more than one line, or to characters that cannot be in a password")
    return password


def _proxy(text: str) -> str | None:
    if text == values.OFF:
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


def is_private(url: str) -> bool:
    """Whether a URL itself says that it is not of the public internet, by its address or the kind of its name."""
    host = (urlsplit(url).hostname or "").rstrip(".").lower()
    try:
        ip_address(host)
    except ValueError:
        return "." not in host or host.endswith(_PRIVATE_NAMES)
    return not is_public(host)


_PRIVATE_NAMES = (".local", ".localhost", ".internal", ".lan", ".home.arpa", ".test", ".svc")
