"""Settings: command line, then environment, then TOML file, then default -> one Config.

Pure apart from reading the files it is told to read.  The law: everything wrong is a
ConfigError whose one line names the value and where it came from.
"""

from __future__ import annotations

import difflib
import os.path
import sys
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from docxy import machine, upstream_tables, values
from docxy.config import AuthMode, Config, ConfigError, Timeouts, Upstream
from docxy.gate import table
from docxy.option_table import OPTIONS, Option

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@frozen
class _Setting:
    """What an option came to."""

    value: Any
    source: str | None
    """Where from, for the operator; None: the default."""


def load(
    given: Mapping[str, Any],
    environ: Mapping[str, str],
    *,
    root: bool = False,
    ipv6: bool = True,
) -> Config:
    """The Config that command line, environment, file and defaults come to.

    `given`: option or flag -> text or 1 as `usage.Options` has them, None or 0 where it was
    not given.  An empty environment variable is one that is not set.  `root`: whether the
    system's cache directory is ours; `ipv6`: whether there is IPv6 to bind to.  Raises ConfigError.
    """
    file = _setting(OPTIONS[0], given, environ, {}, "")
    document = {} if file.value is None else _read(file.value, str(file.source))
    tables = document.pop("upstreams", None)
    access = table.parse(document.pop("access", {}), str(file.value))
    unknown = sorted(document.keys() - {option.key for option in OPTIONS if option.types})
    if unknown:
        known = [*(option.key for option in OPTIONS[1:]), "upstreams", "access"]
        close = difflib.get_close_matches(unknown[0], known, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"{file.value}: unknown key {values.shown(unknown[0])}{hint}")
    found = {option.key: _setting(option, given, environ, document, str(file.value)) for option in OPTIONS}

    def value(key: str) -> Any:
        return found[key].value

    cert, key = _certificate(found["cert"], found["key"])
    where = value("interface")
    if where is None:
        where = "::" if ipv6 else ""
    auth = value("auth")
    if auth is None:
        auth = AuthMode.TRANSPARENT if cert and access.htpasswd is None else AuthMode.NONE
    upstreams = _upstreams(found["upstream"], tables, str(file.value), environ, auth)
    if access.htpasswd is not None and AuthMode.TRANSPARENT in (auth, *(upstream.auth for upstream in upstreams)):
        raise ConfigError(f"{file.value}: with access.htpasswd clients log in to docxy, so auth cannot be transparent")
    cache = value("cache")
    if found["cache"].source is None:
        cache = _default_cache(environ, root)
    return Config(
        cert=cert,
        key=key,
        https=values.endpoint(value("https_port"), where),
        redirect=None if value("http_port") == 0 else values.endpoint(value("http_port"), where),
        http=values.endpoint(value("port"), where),
        public_url=value("public_url"),
        auth=auth,
        upstreams=upstreams,
        access=access,
        timeouts=Timeouts(
            connect=value("connect_timeout"),
            headers=value("header_timeout"),
            silence=value("silence_timeout"),
            client=value("client_timeout"),
            shutdown=value("shutdown_grace"),
        ),
        cache=cache,
        cache_size=value("cache_size"),
        tag_ttl=value("tag_ttl"),
        prefetch=value("prefetch"),
        keep_gone=value("keep_gone"),
        catalog=value("catalog"),
        scrub_interval=value("scrub_interval"),
        fetch_connections=value("fetch_connections"),
        metrics=None if value("metrics_port") == 0 else values.endpoint(value("metrics_port"), values.LOOPBACK),
        access_log=value("access_log"),
        workers=machine.workers() if value("workers") is None else value("workers"),
    )


def _setting(
    option: Option,
    given: Mapping[str, Any],
    environ: Mapping[str, str],
    document: Mapping[str, Any],
    file: str,
) -> _Setting:
    """The value of one option, from the first place that has it."""
    flags = {f"--{flag}": text for flag, text in option.flags.items() if given.get(flag)}
    if option.metavar and given.get(option.name) is not None:
        flags[f"--{option.name}"] = given[option.name]
    if len(set(flags.values())) > 1:
        raise ConfigError(f"{' and '.join(sorted(flags))} contradict each other")
    for source, text in flags.items():
        return _parsed(option, text, source)
    if environ.get(option.env):
        return _parsed(option, environ[option.env], f"{option.env} in the environment")
    if option.key in document:
        raw = document[option.key]
        source = f"{option.key} in {file}"
        if type(raw) not in option.types:
            wanted = " or ".join(_TOML_TYPES[kind] for kind in option.types)
            raise ConfigError(f"{source}: {values.shown(raw)} is {_TOML_TYPES.get(type(raw), 'a date')}, not {wanted}")
        return _parsed(
            option,
            {True: "on", False: "off"}[raw] if isinstance(raw, bool) else str(raw),
            source,
        )
    return _Setting(None if option.default is None else option.parse(option.default), None)


_TOML_TYPES = {
    str: "a string",
    int: "an integer",
    float: "a float",
    bool: "a boolean",
    list: "an array",
    dict: "a table",
}


def _parsed(option: Option, text: str, source: str) -> _Setting:
    try:
        return _Setting(option.parse(text), source)
    except ValueError as error:
        raise ConfigError(f"{source}: {values.shown(text)} {error}") from None


def _read(path: str, source: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{source}: {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{source}: {path}: not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: {path}: not TOML: {' '.join(str(error).split())}") from None


def _certificate(cert: _Setting, key: _Setting) -> tuple[str | None, str | None]:
    """The paths to use; both are given, or both are at their default paths, or it is plain HTTP."""
    if cert.source is not None and cert.value is None:
        return None, None
    missing = [setting for setting in (cert, key) if not os.path.exists(setting.value)]
    for setting in missing:
        if setting.source is not None:
            raise ConfigError(f"{setting.source}: {values.shown(setting.value)} does not exist")
    if cert.source is not None and key.source is None:
        raise ConfigError(f"{cert.source}: {values.shown(cert.value)} is given without its key (--key, KEY_PATH)")
    if key.source is not None and cert.source is None:
        raise ConfigError(
            f"{key.source}: {values.shown(key.value)} is given without its certificate (--cert, CERT_PATH)"
        )
    if not missing:
        return cert.value, key.value
    if len(missing) == 2:
        return None, None
    there = cert if key in missing else key
    raise ConfigError(f"{values.shown(missing[0].value)} does not exist, but {values.shown(there.value)} does")


def _default_cache(environ: Mapping[str, str], root: bool) -> str:
    if root:
        return "/var/cache/docxy"
    base = environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".cache")
    return os.path.join(base, "docxy")


def _upstreams(
    short: _Setting, tables: Any, file: str, environ: Mapping[str, str], auth: AuthMode
) -> tuple[Upstream, ...]:
    """The upstreams of the file, or the one of `--upstream`; both at once are refused."""
    if tables is None:
        return (upstream_tables.from_url(short.value, environ),)
    if short.source is not None:
        raise ConfigError(f"{short.source}: {short.value} cannot be combined with the [[upstreams]] of {file}")
    return upstream_tables.from_tables(tables, file, environ, auth)
