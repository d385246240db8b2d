"""Settings: command line, then environment, then TOML file, then default -> one Config.

Pure apart from reading the files that settings name, and this machine's name.  The law: everything wrong is a
ConfigError whose one line names the value and where it came from.
"""

from __future__ import annotations

import os.path
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from docxy.settings import access, archive, cgroup, parsers, policy_tables, upstreams, webhooks
from docxy.settings.issuing import issuing
from docxy.settings.model import AccessSettings, AuthMode, Config, ConfigError, Issuing, Timeouts, Upstream
from docxy.settings.option import Option
from docxy.settings.options import OPTIONS
from docxy.settings.policy import Policy
from docxy.settings.tables import unknown_key

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@frozen
class Setting:
    """What an option came to."""

    value: Any
    source: str | None
    """Where from, for the operator; None: the default."""
    text: str | None
    """As it is written there; None: found out at start."""


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
    file, document, found = _found(given, environ)
    tables = document.pop("upstreams", None)
    hooks = webhooks.parse(document.pop("webhook", []), str(file.value))
    gate = access.parse(document.pop("access", {}), str(file.value))
    behind = document.pop("archive", None)

    def value(key: str) -> Any:
        return found[key].value

    cache = value("cache")
    if found["cache"].source is None:
        cache = _default_cache(environ, root)
    own = issuing(found, cache, socket.gethostname())
    cert, key = _certificate(found["cert"], found["key"]) if own is None else _own_certificate(own)
    where = value("interface")
    if where is None:
        where = "::" if ipv6 else ""
    auth = value("auth")
    if auth is None:
        auth = AuthMode.TRANSPARENT if cert and gate.htpasswd is None else AuthMode.NONE
    upstreams, any_registry = _upstreams(found["upstream"], tables, str(file.value), environ, auth)
    if gate.htpasswd is not None and AuthMode.TRANSPARENT in (auth, *(upstream.auth for upstream in upstreams)):
        raise ConfigError(f"{file.value}: with access.htpasswd clients log in to docxy, so auth cannot be transparent")
    registries = upstreams if any_registry is None else (*upstreams, any_registry)
    policy = policy_tables.parse(_policy(document), str(file.value), registries)
    if cache is None and (policy.cooldowns or any(upstream.cooldown for upstream in registries)):
        raise ConfigError(f"{file.value}: min_age needs a cache, which --cache turns off")
    return Config(
        cert=cert,
        key=key,
        https=parsers.endpoint(value("https_port"), where),
        redirect=None if value("http_port") == 0 else parsers.endpoint(value("http_port"), where),
        http=parsers.endpoint(value("port"), where),
        public_url=value("public_url"),
        auth=auth,
        upstreams=upstreams,
        issuing=own,
        any_registry=any_registry,
        file=file.value,
        policy=policy,
        access=gate,
        webhooks=hooks,
        archive=archive.parse(behind, str(file.value), environ, cache),
        timeouts=Timeouts(
            connect=value("connect_timeout"),
            headers=value("header_timeout"),
            silence=value("silence_timeout"),
            client=value("client_timeout"),
            shutdown=value("shutdown_grace"),
            upgrade=value("upgrade_grace"),
        ),
        cache=cache,
        orders=cache,
        cache_named=found["cache"].source is not None,
        cache_size=value("cache_size"),
        tag_ttl=value("tag_ttl"),
        prefetch=value("prefetch"),
        keep_gone=value("keep_gone"),
        history=value("history"),
        history_share=value("history_share"),
        large_blob=value("large_blob"),
        large_share=value("large_share"),
        catalog=value("catalog"),
        scrub_interval=value("scrub_interval"),
        fetch_connections=value("fetch_connections"),
        max_rate=value("max_rate"),
        client_connections=value("client_connections"),
        metrics=None if value("metrics_port") == 0 else parsers.endpoint(value("metrics_port"), parsers.LOOPBACK),
        journal=value("journal"),
        status=value("status"),
        admin_socket=_admin_socket(found["admin_socket"], cache),
        access_log=value("access_log"),
        log_format=value("log_format"),
        log_level=value("log_level"),
        collector=_collector(found["otlp_endpoint"], environ),
        workers=cgroup.workers() if value("workers") is None else value("workers"),
    )


def load_policy(file: str, upstreams: Sequence[Upstream]) -> Policy:
    """The policy of a configuration file as it is now; `upstreams`: as `Config.registries`.  Raises ConfigError."""
    document = _read(file, "the configuration file")
    _must_be_known(document, file)
    return policy_tables.parse(_policy(document), file, upstreams)


def load_access(file: str) -> AccessSettings:
    """The `[access]` of a configuration file as it is now; no other file is read.  Raises ConfigError."""
    document = _read(file, "the configuration file")
    _must_be_known(document, file)
    return access.parse(document.get("access", {}), file)


def _policy(document: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key in policy_tables.KEYS}


def effective(given: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Setting]:
    """What each option came to, by its key, and where from; takes what `load` takes.  Raises ConfigError."""
    return _found(given, environ)[2]


def content(given: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """What the configuration file holds, empty where there is none; takes what `load` takes.  Raises ConfigError."""
    return _found(given, environ)[1]


def cache_directory(
    given: Mapping[str, Any], environ: Mapping[str, str], *, root: bool
) -> tuple[str | None, int | None]:
    """The cache's directory, None where it is off, and the bytes that it may take, None where nobody says.

    Takes what `load` takes, and needs neither the certificate nor the passwords that it reads.  Raises ConfigError.
    """
    found = effective(given, environ)
    named = found["cache"].source is not None
    return found["cache"].value if named else _default_cache(environ, root), found["cache_size"].value


def admin_socket(given: Mapping[str, Any], environ: Mapping[str, str], *, root: bool) -> str | None:
    """The path of the admin socket, None where it is off; takes what `load` takes.

    It needs neither the certificate nor the passwords that `load` reads.  Raises ConfigError.
    """
    found = effective(given, environ)
    cache = found["cache"].value if found["cache"].source is not None else _default_cache(environ, root)
    return _admin_socket(found["admin_socket"], cache)


def _found(given: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[Setting, dict[str, Any], dict[str, Setting]]:
    """Which file, its content, and each option by its key."""
    file = _setting(OPTIONS[0], given, environ, {}, "")
    document = {} if file.value is None else _read(file.value, str(file.source))
    _must_be_known(document, str(file.value))
    return (
        file,
        document,
        {option.key: _setting(option, given, environ, document, str(file.value)) for option in OPTIONS},
    )


def _must_be_known(document: Mapping[str, Any], file: str) -> None:
    """Refuse a file with a key that means nothing."""
    misspelt = document.get("upstream")
    if any(isinstance(each, dict) for each in (misspelt if isinstance(misspelt, list) else [misspelt])):
        raise ConfigError(f"{file}: [[upstream]] is unknown; did you mean [[upstreams]]?")
    known = [
        *(option.key for option in OPTIONS if option.types),
        "upstreams",
        "access",
        "webhook",
        "archive",
        *sorted(policy_tables.KEYS),
    ]
    wrong = unknown_key(document, known)
    if wrong is not None:
        raise ConfigError(f"{file}: {wrong}")


def _setting(
    option: Option,
    given: Mapping[str, Any],
    environ: Mapping[str, str],
    document: Mapping[str, Any],
    file: str,
) -> Setting:
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
            raise ConfigError(f"{source}: {parsers.shown(raw)} is {_TOML_TYPES.get(type(raw), 'a date')}, not {wanted}")
        return _parsed(
            option,
            {True: "on", False: "off"}[raw] if isinstance(raw, bool) else str(raw),
            source,
        )
    return Setting(None if option.default is None else option.parse(option.default), None, option.default)


_TOML_TYPES = {
    str: "a string",
    int: "an integer",
    float: "a float",
    bool: "a boolean",
    list: "an array",
    dict: "a table",
}


def _parsed(option: Option, text: str, source: str) -> Setting:
    try:
        return Setting(option.parse(text), source, text)
    except ValueError as error:
        raise ConfigError(f"{source}: {parsers.shown(text)} {error}") from None


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


def _certificate(cert: Setting, key: Setting) -> tuple[str | None, str | None]:
    """The paths to use; both are given, or both are at their default paths, or it is plain HTTP."""
    if cert.source is not None and cert.value is None:
        return None, None
    missing = [setting for setting in (cert, key) if not os.path.exists(setting.value)]
    for setting in missing:
        if setting.source is not None:
            raise ConfigError(f"{setting.source}: {parsers.shown(setting.value)} does not exist")
    if cert.source is not None and key.source is None:
        raise ConfigError(f"{cert.source}: {parsers.shown(cert.value)} is given without its key (--key, KEY_PATH)")
    if key.source is not None and cert.source is None:
        raise ConfigError(
            f"{key.source}: {parsers.shown(key.value)} is given without its certificate (--cert, CERT_PATH)"
        )
    if not missing:
        return cert.value, key.value
    if len(missing) == 2:
        return None, None
    there = cert if key in missing else key
    raise ConfigError(f"{parsers.shown(missing[0].value)} does not exist, but {parsers.shown(there.value)} does")


def _own_certificate(own: Issuing) -> tuple[str, str]:
    """One file, so that a certificate and its key are replaced at once."""
    path = os.path.join(own.state, "certificate.pem")
    return path, path


def _admin_socket(setting: Setting, cache: str | None) -> str | None:
    if setting.source is not None:
        path: str | None = setting.value
        return path
    return None if cache is None else os.path.join(cache, "admin.sock")


def _collector(setting: Setting, environ: Mapping[str, str]) -> str | None:
    """Where traces go, by OpenTelemetry's variables too (its specification, "OTLP Exporter" and "Environment")."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    variable = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    exact = environ.get(variable)
    if exact and not (setting.source or "").startswith("--"):
        try:
            return parsers.public_url(exact)
        except ValueError as error:
            raise ConfigError(f"{variable} in the environment: {parsers.shown(exact)} {error}") from None
    return None if setting.value is None else f"{setting.value}/v1/traces"


def _default_cache(environ: Mapping[str, str], root: bool) -> str:
    if root:
        return "/var/cache/docxy"
    base = environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".cache")
    return os.path.join(base, "docxy")


def _upstreams(
    short: Setting, tables: Any, file: str, environ: Mapping[str, str], auth: AuthMode
) -> tuple[tuple[Upstream, ...], Upstream | None]:
    """The upstreams of the file, or the one of `--upstream`; both at once are refused."""
    if tables is None:
        return (upstreams.from_url(short.value, environ),), None
    if short.source is not None:
        raise ConfigError(f"{short.source}: {short.value} cannot be combined with the [[upstreams]] of {file}")
    return upstreams.from_tables(tables, file, environ, auth)
