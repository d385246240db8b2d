"""Everything that can be set, once.

Pure.  The law: `OPTIONS` is the only list; `--help`, the environment, the keys of the file and
the README's table all follow it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import field, frozen

from docxy import values
from docxy.config import DOCKER_HUB, SCRUB_INTERVAL, TAG_TTL, AuthMode, Timeouts


@frozen
class Option:
    """One thing that can be set, in any of the ways."""

    name: str
    """As on the command line, without its dashes."""
    env: str
    parse: Callable[[str], Any]
    """From the text to the value; raises ValueError as the parsers of `docxy.values` do."""
    help: str
    default: str | None = None
    """As it would be written; None: found out at start, as `default_help` says."""
    default_help: str = ""
    metavar: str = ""
    """What stands for the value in help; '': there is no `--name VALUE`, only flags."""
    flags: Mapping[str, str] = field(factory=dict)
    """Flag on the command line -> the text it stands for."""
    types: tuple[type, ...] = (str,)
    """What its value may be in the file."""

    @property
    def key(self) -> str:
        """Its key in the file."""
        return self.name.replace("-", "_")

    def describe(self) -> str:
        """For `--help`: what it is, its default, its environment variable."""
        return f"{self.help} [default: {self.default or self.default_help}; environment: {self.env}]"

    def describe_flag(self, flag: str) -> str:
        """For `--help`: what one of its flags is."""
        if flag == self.name:
            return self.describe()
        return f"short for --{self.name} {self.flags[flag]}" if self.metavar else f"turns --{self.name} off"


def _auth(text: str) -> AuthMode:
    try:
        return AuthMode(text)
    except ValueError:
        raise ValueError("is not an auth mode: transparent or none") from None


def _seconds(name: str, env: str, default: float, help: str, parse: Callable[[str], float]) -> Option:
    return Option(name, env, parse, help, f"{default:.10g}", metavar="SECONDS", types=(int, float))


def _port(name: str, env: str, default: int, help: str) -> Option:
    return Option(name, env, values.port, help, str(default), metavar="N", types=(int, str))


_ACME = "/root/.acme.sh/example.com_ecc"
_TIMES = Timeouts()

OPTIONS: tuple[Option, ...] = (
    Option(
        "config",
        "DOCXY_CONFIG",
        values.path,
        "TOML file with these options as keys, dashes as underscores, and [[upstreams]]",
        default_help="none",
        metavar="FILE",
        types=(),
    ),
    Option(
        "cert",
        "CERT_PATH",
        values.path_or_off,
        "PEM certificate and its chain; off: plain HTTP whatever is at the default path",
        f"{_ACME}/fullchain.cer",
        metavar="FILE",
    ),
    Option(
        "key",
        "KEY_PATH",
        values.path,
        "PEM private key: ECC (SEC1), RSA (PKCS#1) or PKCS#8",
        f"{_ACME}/example.com.key",
        metavar="FILE",
    ),
    _port(
        "https-port",
        "HTTPS_PORT",
        443,
        "HTTPS registry, when there is a certificate; a port or an endpoint",
    ),
    _port(
        "http-port",
        "HTTP_PORT",
        80,
        "with a certificate: redirects to HTTPS and does nothing else; 0: off",
    ),
    _port(
        "port",
        "PORT",
        8080,
        "plain HTTP registry, when there is no certificate; a port or an endpoint",
    ),
    Option(
        "interface",
        "INTERFACE",
        values.interface,
        "address to bind, IPv4 or IPv6",
        default_help="all, IPv6 too",
        metavar="ADDR",
    ),
    Option(
        "public-url",
        "PUBLIC_URL",
        values.public_url,
        "what clients call this server; realm, Location and Link are built from it",
        default_help="from the certificate's name or the bound address",
        metavar="URL",
    ),
    Option(
        "auth",
        "AUTH",
        _auth,
        "transparent: clients log in to the upstream through docxy; none: docxy gets the tokens; --no-auth is "
        "short for --auth none",
        default_help="transparent with HTTPS, none with plain HTTP",
        metavar="MODE",
        flags={"no-auth": "none"},
    ),
    Option(
        "upstream",
        "UPSTREAM",
        values.origin,
        "the registry behind docxy",
        DOCKER_HUB.url,
        metavar="URL",
    ),
    Option(
        "cache",
        "CACHE_DIR",
        values.path_or_off,
        "directory of the cache; off: a pure proxy",
        default_help="/var/cache/docxy for root, else docxy in the user's cache directory",
        metavar="DIR",
    ),
    Option(
        "cache-size",
        "CACHE_SIZE",
        values.size,
        "bytes the cache may take on disk, as 20GB or 512MiB",
        default_help="80 % of what is free at start",
        metavar="SIZE",
        types=(int, str),
    ),
    _seconds(
        "tag-ttl",
        "TAG_TTL",
        TAG_TTL,
        "seconds a tag is believed before the upstream is asked again",
        values.seconds,
    ),
    Option(
        "prefetch",
        "PREFETCH",
        values.switch,
        "fetch an image's layers as soon as its manifest is asked for",
        "on",
        flags={"prefetch": "on", "no-prefetch": "off"},
        types=(bool,),
    ),
    Option(
        "fetch-connections",
        "FETCH_CONNECTIONS",
        values.some,
        "connections over which one large blob may be fetched, if more than one makes it faster",
        "4",
        metavar="N",
        types=(int,),
    ),
    Option(
        "keep-gone",
        "KEEP_GONE",
        values.switch,
        "go on serving a cached tag that the upstream has deleted",
        "off",
        flags={"keep-gone": "on"},
        types=(bool,),
    ),
    Option(
        "catalog",
        "CATALOG",
        values.switch,
        "answer /v2/_catalog with the repositories that are cached; in transparent mode, with public ones",
        "off",
        flags={"catalog": "on"},
        types=(bool,),
    ),
    _seconds(
        "scrub-interval",
        "SCRUB_INTERVAL",
        SCRUB_INTERVAL,
        "seconds within which every cached blob is read and hashed again; 0: never",
        values.seconds,
    ),
    Option(
        "workers",
        "WORKERS",
        values.some,
        "processes that serve",
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
        "access-log",
        "ACCESS_LOG",
        values.path_or_log,
        "file that gets a line for each request; -: the daemon's log; off: none",
        values.DAEMON,
        metavar="FILE",
    ),
    _seconds(
        "connect-timeout",
        "CONNECT_TIMEOUT",
        _TIMES.connect,
        "seconds until an upstream takes the connection",
        values.some_seconds,
    ),
    _seconds(
        "header-timeout",
        "HEADER_TIMEOUT",
        _TIMES.headers,
        "seconds until an upstream's response headers",
        values.some_seconds,
    ),
    _seconds(
        "silence-timeout",
        "SILENCE_TIMEOUT",
        _TIMES.silence,
        "seconds between two pieces of an upstream's body",
        values.some_seconds,
    ),
    _seconds(
        "client-timeout",
        "CLIENT_TIMEOUT",
        _TIMES.client,
        "seconds until a client that takes nothing is dropped",
        values.some_seconds,
    ),
    _seconds(
        "shutdown-grace",
        "SHUTDOWN_GRACE",
        _TIMES.shutdown,
        "seconds that running transfers may go on after SIGTERM",
        values.seconds,
    ),
)
