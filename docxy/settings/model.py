"""What an operator chose, as the rest of docxy sees it: one frozen Config.

Pure.  The law: a Config that exists is valid; `docxy.settings.load.load` makes it, and everything
wrong is a ConfigError whose one line names the value and where it came from.
"""

from __future__ import annotations

import enum

from attrs import field, frozen

from docxy.addresses import Perimeter
from docxy.settings.cooldown import Cooldown, TagGlob
from docxy.settings.log_level import LogLevels
from docxy.settings.parsers import DAEMON
from docxy.settings.policy import Policy
from docxy.settings.rules import Rules


class ConfigError(Exception):
    """A setting that cannot be used; the message is one line for the operator."""


class AuthMode(enum.Enum):
    """Who deals with the upstream's token service."""

    TRANSPARENT = "transparent"  # the client, through our /auth/token
    NONE = "none"  # docxy; clients are never asked


class FillMode(enum.Enum):
    """What becomes of a blob of which a client asks for a range."""

    WHOLE = "whole"  # it is fetched to its end, and kept
    TOUCHED = "touched"  # only what clients read is fetched


class StatusMode(enum.Enum):
    """Who sees the status page."""

    PUBLIC = "public"  # everyone; repositories that the viewer could pull
    PRIVATE = "private"  # those with an account of docxy's own
    OFF = "off"  # nobody


class JournalMode(enum.Enum):
    """What is remembered of pulls."""

    CLIENTS = "clients"  # everything
    ANONYMOUS = "anonymous"  # all but who pulled
    OFF = "off"  # nothing


class LogFormat(enum.Enum):
    """How lines of the logs are written."""

    COMBINED = "combined"  # the access log in the Combined Log Format, all else for people
    JSON = "json"  # an object a line


@frozen
class Credential:
    """An account at an upstream."""

    username: str
    password: str = field(repr=False)
    password_file: str | None = None
    """Where it was read from, and is read again."""


@frozen
class CredentialProgram:
    """A program that prints an account at an upstream."""

    name: str
    """For the operator: `docker-credential-ecr-login`."""
    command: tuple[str, ...]
    """The path of the program, and its arguments."""
    server: str
    """What docxy writes to its standard input: the registry as Docker calls it."""
    or_anonymous: bool = False
    """Whether docxy asks without an account while the program fails."""


@frozen
class Upstream:
    """One registry behind us."""

    name: str
    """What clients call it (`docker.io`); part of every cache key."""
    url: str
    """Without a trailing slash: `https://registry-1.docker.io`; for a path see `docxy.upstream.api_url`."""
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
    """CAs to trust besides the system's, PEM."""
    ca_only: bool = False
    """Whether to trust those alone."""
    identity: tuple[bytes, bytes] | None = field(default=None, repr=False)
    """docxy's own certificate with its chain, and its key, PEM, for an upstream that asks for one (mTLS)."""
    proxy: str | None = field(default=None, repr=False)
    """`http://[user:password@]host:port` of the HTTP proxy to go through."""
    max_connections: int = 0
    """Connections to each of its origins at once; 0: no limit."""
    endpoints: tuple[str, ...] = ()
    """Other URLs that serve the same, asked in this order when `url` fails."""
    credentials: tuple[Credential | CredentialProgram, ...] = ()
    """Accounts of docxy's own at this upstream, used in turn; only without transparent auth."""
    auth: AuthMode | None = None
    """None: as for all upstreams."""
    tag_ttl: float | None = None
    """Seconds; None: as for all upstreams."""
    allow: tuple[str, ...] = ()
    """Globs of the repositories that may be pulled; none: all that are not denied."""
    deny: tuple[str, ...] = ()
    """Globs of repositories that may not."""
    immutable: tuple[TagGlob, ...] = ()
    """Tags that never move: docxy asks for them once."""
    cooldown: Cooldown | None = None
    """How old a digest must be; None: it may be new."""
    max_rate: int | None = None
    """Bytes a second that docxy fetches from it at most, in all processes; None: no limit."""
    fill: FillMode = FillMode.WHOLE
    """Whether a blob that clients read by ranges is fetched to its end."""
    search: tuple[str, ...] = ()
    """Names of other upstreams, which are searched in this order as one; none: this is a registry itself."""
    is_named: bool = True
    """Whether the operator named it; else a client did, and `allow` and `deny` begin with a registry."""

    @property
    def label(self) -> str:
        """What it is counted under in metrics: those that clients name are without end."""
        return self.name if self.is_named else ANY


ANY = "*"
"""Among the names of upstreams: all registries that have no other entry."""

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
    upgrade: float = 900.0
    """How long they may go on when another docxy has taken over."""


TAG_TTL = 60.0
HISTORY_SHARE = 0.5
LARGE_BLOB = 4 * 1000**3
LARGE_SHARE = 0.5
HISTORY = 90 * 24 * 3600.0
SCRUB_INTERVAL = 30 * 24 * 3600.0
"""Seconds, unless told otherwise."""


@frozen
class AccessSettings:
    """Who may come in; `docxy.settings.access` reads it."""

    htpasswd: str | None = None
    """Path; None: nobody is asked to log in."""
    token_key_file: str | None = None
    """Path of the keys that tokens are signed with; None: each cache has its own."""
    perimeter: Perimeter = field(factory=Perimeter)
    rules: Rules = field(factory=Rules)


@frozen
class Webhook:
    """A receiver of events."""

    url: str = field(repr=False)
    secret: bytes = field(repr=False)
    events: tuple[str, ...]
    """Their types, as `docxy.settings.webhooks` has them."""
    authorities: bytes | None = field(default=None, repr=False)
    """CAs to trust besides the system's, PEM."""


ARCHIVE_PUTS = 2
"""Blobs that are put at once, unless told otherwise."""


class Redirect(enum.Enum):
    """Which clients are sent to the archive for a blob."""

    NEVER = "never"
    COLD = "cold"
    """Those who ask for what is not in the cache."""
    ALWAYS = "always"


@frozen
class ArchiveSettings:
    """The object store behind the cache; `docxy.settings.archive` reads it."""

    url: str
    """`s3://bucket/prefix`, `gs://bucket/prefix` or `az://account/container/prefix`."""
    endpoint: str | None = None
    """URL, without a trailing slash; None: the provider's."""
    region: str | None = None
    access_key: str | None = None
    """The name of an S3 key; None: credentials are looked for in the environment."""
    secret: bytes | None = field(default=None, repr=False)
    """An S3 secret key, an Azure account's key, or the JSON of a Google service account."""
    authorities: bytes | None = field(default=None, repr=False)
    """CAs to trust besides the system's, PEM."""
    rate: int | None = None
    """Bytes a second that are put, in all; None: any number."""
    puts: int = ARCHIVE_PUTS
    """Blobs that are put at once."""
    redirect: Redirect = Redirect.NEVER
    public_endpoint: str | None = None
    """URL by which clients reach the store, without a trailing slash; None: the provider's."""


@frozen
class Binding:
    """An account's key that an ACME server's operator gave out (RFC 8555, section 7.3.4)."""

    key_id: str
    key: str = field(repr=False)
    """base64url."""


@frozen
class Acme:
    """An ACME server, and what docxy asks it for."""

    directory: str
    email: str | None = None
    ca_file: str | None = None
    """PEM file with the CAs to trust, in place of the usual ones."""
    profile: str | None = None
    binding: Binding | None = None


@frozen
class Issuing:
    """How docxy gets its own certificate."""

    names: tuple[str, ...]
    """Host names and IP addresses, in the operator's order."""
    state: str
    """Directory of certificates and keys."""
    acme: Acme | None
    """None: docxy's own authority issues it."""


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
    issuing: Issuing | None = None
    """How docxy gets the certificate; `cert` and `key` are then one file, which may be missing.  None: it is given."""
    any_registry: Upstream | None = None
    """What holds for registries that only clients name, called `ANY`; None: there are none."""
    file: str | None = None
    """The configuration file; None: there is none."""
    policy: Policy = field(factory=Policy)
    """What the file says about images; `docxy.orders.policies` has what is in force."""
    timeouts: Timeouts = field(factory=Timeouts)
    access: AccessSettings = field(factory=AccessSettings)
    """Who may come in."""
    webhooks: tuple[Webhook, ...] = ()
    """Receivers of events."""
    archive: ArchiveSettings | None = None
    """What is behind the cache; None: nothing."""
    cache: str | None = None
    """Directory, or None for a pure proxy."""
    orders: str | None = None
    """The directory of the orders: the cache's, even while that cannot be used; None: there are none."""
    cache_named: bool = False
    """Whether the operator named it: then a cache that cannot be used ends the start."""
    cache_failure: str | None = None
    """Why there is no cache although there should be one; found when docxy starts."""
    cache_size: int | None = None
    """Bytes; None: 80 % of what is free at start."""
    tag_ttl: float = TAG_TTL
    """Seconds a tag is believed before the upstream is asked again."""
    prefetch: bool = True
    keep_gone: bool = False
    """Whether a tag that the upstream deleted is served on."""
    history: float = HISTORY
    """Seconds for which is kept where a tag pointed before it moved."""
    history_share: float = HISTORY_SHARE
    """Of the cache's size, for what tags led to within that time."""
    large_blob: int = LARGE_BLOB
    """Bytes from which a blob is large."""
    large_share: float = LARGE_SHARE
    """Of the cache's size, for what is large."""
    catalog: bool = False
    """Whether `/v2/_catalog` lists what is cached."""
    scrub_interval: float = SCRUB_INTERVAL
    """Seconds within which every cached blob is hashed again; 0: never."""
    fetch_connections: int = 4
    """Connections over which one blob may be fetched."""
    max_rate: int | None = None
    """Bytes a second that docxy fetches at most from all upstreams together; None: no limit."""
    client_connections: int = 0
    """Connections that one address may have open to each process; 0: any number."""
    workers: int = 1
    """Processes that serve."""
    metrics: str | None = None
    """Endpoint description to serve metrics on; None: off."""
    journal: JournalMode = JournalMode.CLIENTS
    """What is remembered of pulls."""
    status: StatusMode = StatusMode.PUBLIC
    """Who sees the status page."""
    admin_socket: str | None = None
    """Path of the Unix socket on which the operator's tools ask; None: off."""
    collector: str | None = None
    """URL to which traces are sent; None: nothing is traced."""
    access_log: str | None = DAEMON
    """Path of the file that gets a line for each request; `DAEMON`: the daemon's log; None: off."""
    log_format: LogFormat = LogFormat.COMBINED
    log_level: LogLevels = field(factory=LogLevels)
    """What goes into the daemon's log."""

    @property
    def registries(self) -> tuple[Upstream, ...]:
        """The upstreams, and at the end `any_registry`, where an image may be of any."""
        return self.upstreams if self.any_registry is None else (*self.upstreams, self.any_registry)
