"""Everything that can be set, once.

Pure.  The law: `OPTIONS` is the only list; `--help`, the environment, the keys of the file and
the README's table all follow it.
"""

from __future__ import annotations

from collections.abc import Callable

from docxy.settings import parsers
from docxy.settings.issuing import ISSUING
from docxy.settings.log_level import LEVELS, PARTS, log_levels
from docxy.settings.model import (
    DOCKER_HUB,
    HISTORY_SHARE,
    LARGE_SHARE,
    SCRUB_INTERVAL,
    TAG_TTL,
    AuthMode,
    JournalMode,
    LogFormat,
    StatusMode,
    Timeouts,
)
from docxy.settings.option import Option

auth_mode = parsers.choice(AuthMode, "is not an auth mode: transparent or none")
_status = parsers.choice(StatusMode, "is not one of public, private and off")
_journal = parsers.choice(JournalMode, "is not one of clients, anonymous and off")
_log_format = parsers.choice(LogFormat, "is not a form of the log: combined or json")


def _seconds(name: str, env: str, default: float, help: str, parse: Callable[[str], float]) -> Option:
    return Option(name, env, parse, help, f"{default:.10g}", metavar="SECONDS", types=(int, float))


def _port(name: str, env: str, default: int, help: str) -> Option:
    return Option(name, env, parsers.port, help, str(default), metavar="N", types=(int, str))


_ACME = "/root/.acme.sh/example.com_ecc"
_TIMES = Timeouts()

OPTIONS: tuple[Option, ...] = (
    Option(
        "config",
        "DOCXY_CONFIG",
        parsers.path,
        "TOML file with these options as keys, dashes as underscores, and [[upstreams]]",
        default_help="none",
        metavar="FILE",
        types=(),
    ),
    Option(
        "cert",
        "CERT_PATH",
        parsers.path_or_off,
        "PEM certificate and its chain; off: plain HTTP, even if there is a certificate at the default path",
        f"{_ACME}/fullchain.cer",
        metavar="FILE",
    ),
    Option(
        "key",
        "KEY_PATH",
        parsers.path,
        "PEM private key: ECC (SEC1), RSA (PKCS#1) or PKCS#8",
        f"{_ACME}/example.com.key",
        metavar="FILE",
    ),
    *ISSUING,
    _port(
        "https-port",
        "HTTPS_PORT",
        443,
        "where docxy serves HTTPS if there is a certificate: a port or an endpoint",
    ),
    _port(
        "http-port",
        "HTTP_PORT",
        80,
        "with a certificate: where docxy redirects plain HTTP to HTTPS and answers ACME challenges; 0: off",
    ),
    _port(
        "port",
        "PORT",
        8080,
        "where docxy serves plain HTTP if there is no certificate: a port or an endpoint",
    ),
    Option(
        "interface",
        "INTERFACE",
        parsers.interface,
        "address to bind, IPv4 or IPv6",
        default_help="all, IPv6 too",
        metavar="ADDR",
    ),
    Option(
        "public-url",
        "PUBLIC_URL",
        parsers.public_url,
        "the URL by which clients reach docxy; it builds realm, Location and Link from this",
        default_help="from the certificate's name or the bound address",
        metavar="URL",
    ),
    Option(
        "auth",
        "AUTH",
        auth_mode,
        "transparent: clients log in to the upstream through docxy; none: docxy gets the tokens; --no-auth is "
        "short for --auth none",
        default_help="transparent with HTTPS, none with plain HTTP",
        metavar="MODE",
        flags={"no-auth": "none"},
    ),
    Option(
        "upstream",
        "UPSTREAM",
        parsers.registry,
        "the registry that docxy mirrors",
        DOCKER_HUB.url,
        metavar="URL",
    ),
    Option(
        "cache",
        "CACHE_DIR",
        parsers.path_or_off,
        "directory of the cache; off: a pure proxy",
        default_help="/var/cache/docxy for root, else docxy in the user's cache directory",
        metavar="DIR",
    ),
    Option(
        "cache-size",
        "CACHE_SIZE",
        parsers.cache_size,
        "bytes the cache may take on disk, as 20GB or 512MiB",
        default_help="80 % of what is free at start",
        metavar="SIZE",
        types=(int, str),
    ),
    _seconds(
        "tag-ttl",
        "TAG_TTL",
        TAG_TTL,
        "seconds for which docxy serves a cached tag before it asks the registry again",
        parsers.seconds,
    ),
    Option(
        "prefetch",
        "PREFETCH",
        parsers.switch,
        "fetch an image's layers as soon as its manifest is asked for",
        "on",
        flags={"prefetch": "on", "no-prefetch": "off"},
        types=(bool,),
    ),
    Option(
        "fetch-connections",
        "FETCH_CONNECTIONS",
        parsers.some,
        "connections over which one large blob may be fetched, if more than one makes it faster",
        "4",
        metavar="N",
        types=(int,),
    ),
    Option(
        "max-rate",
        "MAX_RATE",
        parsers.rate,
        "most bytes a second that docxy fetches from all registries together, as 50MB/s; off: no limit",
        parsers.OFF,
        metavar="RATE",
    ),
    Option(
        "client-connections",
        "CLIENT_CONNECTIONS",
        parsers.count,
        "connections that one address may have open to each worker; behind a reverse proxy that is the proxy's "
        "address; 0: no limit",
        "0",
        metavar="N",
        types=(int,),
    ),
    Option(
        "keep-gone",
        "KEEP_GONE",
        parsers.switch,
        "go on serving a cached tag that the upstream has deleted",
        "off",
        flags={"keep-gone": "on"},
        types=(bool,),
    ),
    Option(
        "history",
        "HISTORY",
        parsers.duration,
        "how long docxy remembers where tags pointed before they moved, as 90d, 12h or a number of seconds",
        "90d",
        metavar="TIME",
        types=(str, int, float),
    ),
    Option(
        "history-share",
        "HISTORY_SHARE",
        parsers.share,
        "share of --cache-size for images that tags pointed to within --history; docxy evicts these last",
        f"{HISTORY_SHARE:g}",
        metavar="SHARE",
        types=(int, float),
    ),
    Option(
        "large-blob",
        "LARGE_BLOB",
        parsers.size,
        "size from which a blob counts as large, as the layers of AI models do",
        "4GB",
        metavar="SIZE",
        types=(int, str),
    ),
    Option(
        "large-share",
        "LARGE_SHARE",
        parsers.share,
        "share of --cache-size for large blobs; beyond it docxy evicts large blobs first, and no others to make room "
        "for a large one",
        f"{LARGE_SHARE:g}",
        metavar="SHARE",
        types=(int, float),
    ),
    Option(
        "catalog",
        "CATALOG",
        parsers.switch,
        "list the cached repositories at /v2/_catalog; in transparent mode the public ones only",
        "off",
        flags={"catalog": "on"},
        types=(bool,),
    ),
    _seconds(
        "scrub-interval",
        "SCRUB_INTERVAL",
        SCRUB_INTERVAL,
        "seconds within which every cached blob is read and hashed again; 0: never",
        parsers.seconds,
    ),
    Option(
        "workers",
        "WORKERS",
        parsers.some,
        "number of processes that serve",
        default_help="one a core, and no more than one for 512 MiB of memory",
        metavar="N",
        types=(int,),
    ),
    _port(
        "metrics-port",
        "METRICS_PORT",
        0,
        "Prometheus metrics at /metrics, on 127.0.0.1; a port or an endpoint; 0: off",
    ),
    Option(
        "status",
        "STATUS_PAGE",
        _status,
        "the status page at /: public (names only what its viewer could pull), private (asks for an account of "
        "[access], and then names clients too) or off",
        StatusMode.PUBLIC.value,
        metavar="WHO",
    ),
    Option(
        "journal",
        "JOURNAL",
        _journal,
        "what docxy remembers of pulls: clients (who pulled, too), anonymous (no address, account or program) or off",
        JournalMode.CLIENTS.value,
        metavar="WHAT",
    ),
    Option(
        "admin-socket",
        "ADMIN_SOCKET",
        parsers.path_or_off,
        "Unix socket at which the command docxy, and you, read everything as JSON; off: none",
        default_help="admin.sock in the cache's directory",
        metavar="FILE",
    ),
    Option(
        "access-log",
        "ACCESS_LOG",
        parsers.path_or_log,
        "file that gets a line for each request; -: the daemon's log; off: none",
        parsers.DAEMON,
        metavar="FILE",
    ),
    Option(
        "log-format",
        "LOG_FORMAT",
        _log_format,
        "combined: the access log in the Combined Log Format, the daemon's log for people; json: both as one object "
        "a line",
        LogFormat.COMBINED.value,
        metavar="FORM",
    ),
    Option(
        "log-level",
        "LOG_LEVEL",
        log_levels,
        f"the lowest level that goes into the daemon's log: {', '.join(LEVELS)}; or by part, as warn,upstream=debug; "
        f"parts are {', '.join(PARTS)}",
        "info",
        metavar="LEVELS",
    ),
    Option(
        "otlp-endpoint",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        parsers.url_or_off,
        "OpenTelemetry collector that gets traces by OTLP over HTTP, as http://127.0.0.1:4318; needs the extra "
        "docxy[otel]; off: none",
        parsers.OFF,
        metavar="URL",
    ),
    _seconds(
        "connect-timeout",
        "CONNECT_TIMEOUT",
        _TIMES.connect,
        "seconds within which a registry must accept a connection",
        parsers.some_seconds,
    ),
    _seconds(
        "header-timeout",
        "HEADER_TIMEOUT",
        _TIMES.headers,
        "seconds within which a registry must begin its answer",
        parsers.some_seconds,
    ),
    _seconds(
        "silence-timeout",
        "SILENCE_TIMEOUT",
        _TIMES.silence,
        "seconds for which a registry may send nothing in the middle of an answer",
        parsers.some_seconds,
    ),
    _seconds(
        "client-timeout",
        "CLIENT_TIMEOUT",
        _TIMES.client,
        "seconds after which docxy drops a client that takes nothing",
        parsers.some_seconds,
    ),
    _seconds(
        "shutdown-grace",
        "SHUTDOWN_GRACE",
        _TIMES.shutdown,
        "seconds that running transfers may go on after SIGTERM",
        parsers.seconds,
    ),
    _seconds(
        "upgrade-grace",
        "UPGRADE_GRACE",
        _TIMES.upgrade,
        "seconds that running transfers may go on when another docxy has taken over",
        parsers.seconds,
    ),
)
