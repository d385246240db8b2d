"""What an operator chose, as the rest of docxy sees it: one frozen Config.

Pure.  The law: a Config that exists is valid; `docxy.options.load` makes it, and everything
wrong is a ConfigError whose one line names the value and where it came from.
"""

from __future__ import annotations

import enum

from attrs import field, frozen

from docxy.gate.settings import GateSettings
from docxy.values import DAEMON


class ConfigError(Exception):
    """A setting that cannot be used; the message is one line for the operator."""


class AuthMode(enum.Enum):
    """Who deals with the upstream's token service."""

    TRANSPARENT = "transparent"  # the client, through our /auth/token
    NONE = "none"  # docxy; clients are never asked


@frozen
class Credential:
    """An account at an upstream."""

    username: str
    password: str = field(repr=False)


@frozen
class Upstream:
    """One registry behind us."""

    name: str
    """What clients call it (`docker.io`); part of every cache key."""
    url: str
    """Scheme, host and port, without a trailing slash: `https://registry-1.docker.io`."""
    library: bool = False
    """Whether single-component names get `library/` in front (a property of Docker Hub)."""
    aliases: frozenset[str] = frozenset()
    """Other names for it in `ns` and prefixes, as `index.docker.io`."""
    hosts: frozenset[str] = frozenset()
    """Host headers (no port) that mean this upstream."""
    realm_hosts: frozenset[str] = frozenset()
    """Hosts its token service may have besides its own host and registrable domain."""
    private: bool = False
    """Whether it may lead to addresses that are not on the public internet."""
    authorities: bytes | None = None
    """The CAs to trust, PEM; None: the system's."""
    proxy: str | None = field(default=None, repr=False)
    """`http://[user:password@]host:port` of the HTTP proxy to go through."""
    max_connections: int = 0
    """Connections to each of its origins at once; 0: no limit."""
    endpoints: tuple[str, ...] = ()
    """Other URLs that serve the same, asked in this order when `url` fails."""
    credentials: tuple[Credential, ...] = ()
    """Accounts of docxy's own at this upstream, used in turn; only without transparent auth."""
    auth: AuthMode | None = None
    """None: as for all upstreams."""
    tag_ttl: float | None = None
    """Seconds; None: as for all upstreams."""
    allow: tuple[str, ...] = ()
    """Globs of the repositories that may be pulled; none: all that are not denied."""
    deny: tuple[str, ...] = ()
    """Globs of repositories that may not."""


DOCKER_HUB = Upstream(
    name="docker.io",
    url="https://registry-1.docker.io",
    library=True,
    aliases=frozenset({"index.docker.io", "registry-1.docker.io"}),
)


@frozen
class Timeouts:
    """Seconds."""

    connect: float = 10.0
    headers: float = 25.0
    """Until an upstream's response headers; below containerd's 30 s."""
    silence: float = 60.0
    """Between two pieces of an upstream's body."""
    client: float = 60.0
    """Within which a client must take something of what waits for it."""
    shutdown: float = 30.0
    """How long running transfers may go on after SIGTERM."""


TAG_TTL = 60.0
SCRUB_INTERVAL = 30 * 24 * 3600.0
"""Seconds, unless told otherwise."""


@frozen
class Config:
    """Everything an operator chose."""

    cert: str | None
    """Path of the PEM certificate chain; None: plain HTTP."""
    key: str | None
    https: str
    """Endpoint description to serve HTTPS on (`tcp6:443:interface=\\:\\:`), when there is a certificate."""
    redirect: str | None
    """Endpoint description of the redirect-only HTTP port, None when off."""
    http: str
    """Endpoint description to serve plain HTTP on, when there is no certificate."""
    public_url: str | None
    """As given, without a trailing slash; None: derived when the ports are known."""
    auth: AuthMode
    upstreams: tuple[Upstream, ...]
    """The first is the default."""
    timeouts: Timeouts = field(factory=Timeouts)
    access: GateSettings = field(factory=GateSettings)
    """Who may come in."""
    cache: str | None = None
    """Directory, or None for a pure proxy."""
    cache_size: int | None = None
    """Bytes; None: 80 % of what is free at start."""
    tag_ttl: float = TAG_TTL
    """Seconds a tag is believed before the upstream is asked again."""
    prefetch: bool = True
    keep_gone: bool = False
    """Whether a tag that the upstream deleted is served on."""
    catalog: bool = False
    """Whether `/v2/_catalog` lists what is cached."""
    scrub_interval: float = SCRUB_INTERVAL
    """Seconds within which every cached blob is hashed again; 0: never."""
    fetch_connections: int = 4
    """Connections over which one blob may be fetched."""
    workers: int = 1
    """Processes that serve."""
    metrics: str | None = None
    """Endpoint description to serve metrics on; None: off."""
    access_log: str | None = DAEMON
    """Path of the file that gets a line for each request; `DAEMON`: the daemon's log; None: off."""
