"""`twistd docxy`: options -> the running daemon, one process or several.

The law: a daemon that cannot serve does not start, and says why in one line.
"""

from __future__ import annotations

# Python loads a codec when it is first used: by then we may be a user who may not read it.
import encodings.idna
import encodings.punycode  # noqa: F401 (see above)
import os
import secrets
import socket
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from attrs import evolve
from twisted.application.service import IService, MultiService, Service
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.python import usage

import docxy
from docxy import tls
from docxy.accesslog import Nowhere, open_lines
from docxy.allocator import keep_memory
from docxy.config import Config, ConfigError
from docxy.doors import Door, Doors, Front, IServing, has_ipv6, shown_address, shown_endpoint
from docxy.metrics import IMeter, NoMeter
from docxy.option_table import OPTIONS
from docxy.options import load
from docxy.shared import Shared

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from docxy.workers.supervisor import Supervisor

_log = Logger()


class Options(usage.Options):
    """The command line of `twistd docxy`; once parsed, `config` and `pair` are set."""

    synopsis = "[options]"
    longdesc = (
        "A pull-through mirror of container registries. What is not given on the command line is taken from the "
        "environment, then from the --config file, then it is the default."
    )
    optParameters = [[option.name, None, None, option.describe()] for option in OPTIONS if option.metavar]
    optFlags = [[flag, None, option.describe_flag(flag)] for option in OPTIONS for flag in option.flags]

    config: Config
    pair: tls.KeyPair | None
    """None: plain HTTP."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        usage.Options.__init__(self)
        self._environ = os.environ if environ is None else environ

    def opt_version(self) -> None:
        """Display docxy's version and exit."""
        sys.stdout.write(f"docxy {docxy.__version__}\n")
        sys.exit(0)

    def parseOptions(self, options: list[str] | None = None) -> None:
        """Raises UsageError; as a subcommand of twistd, which would print all of the help first, exits itself."""
        try:
            usage.Options.parseOptions(self, options)
        except usage.UsageError as error:
            if self.parent is None:
                raise
            sys.exit(f"docxy: {error}")

    def parseArgs(self, *arguments: str) -> None:
        if arguments:
            raise usage.UsageError(f"unexpected argument {arguments[0]!r}")

    def postOptions(self) -> None:
        try:
            self.config = load(self, self._environ, root=os.geteuid() == 0, ipv6=has_ipv6())
            # Here, because what comes later may run without the right to read the key.
            self.pair = None
            if self.config.cert is not None and self.config.key is not None:
                self.pair = tls.load(self.config.cert, self.config.key)
            _check_accounts(self.config)
        except ConfigError as error:
            raise usage.UsageError(str(error)) from None


def makeService(options: Options) -> IService:
    """Everything, wired, and not started."""
    from twisted.internet import reactor

    config, pair = options.config, options.pair
    keep_memory()
    _import(config, options.parent is not None and options.parent.get("uid") is not None)
    root = MultiService()
    _log.info("docxy {version}: {form}", version=docxy.__version__, form=form(config))

    def door(description: str) -> Door:
        try:
            return Door(description, serverFromString(reactor, description))
        except Exception as error:  # each kind of endpoint has its own
            why = "no such socket was passed" if isinstance(error, LookupError) else error
            sys.exit(f"docxy: {description!r} is not an endpoint that can be opened: {why}")

    doors = Doors(
        door(config.http if pair is None else config.https),
        None if pair is None or config.redirect is None else door(config.redirect),
    )

    metrics = None if config.metrics is None else door(config.metrics)

    def start() -> IServing:
        public_url = config.public_url or derived_url(pair, doors.front.address(), config, socket.gethostname())
        _announce(config, pair, doors, public_url)
        try:
            alone = None if config.workers == 1 else _why_alone(doors)
            if config.workers > 1 and alone is None:
                workers = _supervised(evolve(config, public_url=public_url), pair, doors, _prints(options), reactor)
                if metrics is not None:
                    _show(metrics, *workers.count())
                workers.start()
                return workers
            if alone is not None:
                _log.warn("one process serves, not {workers}: {why}", workers=config.workers, why=alone)
            context = None
            if pair is not None and config.cert is not None and config.key is not None:
                context = tls.ReloadingContext(config.cert, config.key, pair)
            from docxy.daemon import serve

            return serve(config, public_url, doors, context, Shared(meter=_metered(metrics)), reactor)
        except ConfigError as error:
            # A file that the user that the daemon became may not be allowed to read or to write.
            sys.exit(f"docxy: {error}")

    if config.cache is not None and options.parent is not None and options.parent.get("uid") is not None:
        root.addService(CacheDirectory(config.cache, options.parent["uid"], options.parent["gid"]))
    root.addService(Front(doors.all() + ([] if metrics is None else [metrics]), start, config.timeouts.shutdown))
    return root


def _import(config: Config, becomes_another: bool) -> None:
    """Import what will be needed, and not the rest, which is large.

    A daemon that becomes another user imports all that it may need: that user may not read it.
    """
    modules = []
    if config.workers > 1:
        modules.append("docxy.workers.supervisor")
    if config.workers == 1 or becomes_another:
        modules.append("docxy.daemon")
    if config.metrics is not None:
        modules += ["docxy.prometheus", "docxy.web.site"]
    if becomes_another:
        modules += ["jwt", "docxy.gate.make"]
    for module in modules:
        import_module(module)


def _why_alone(doors: Doors) -> str | None:
    """Why there can be no workers; None when there can."""
    if not all(door.is_shareable for door in doors.all()):
        return "connections to a Unix socket are not shared"
    for path, how in ((sys.executable, os.X_OK), (__file__, os.R_OK), (os.__file__, os.R_OK)):
        if not os.access(path, how):
            return f"the user that docxy became may not use {path}"
    return None


def _metered(door: Door | None) -> IMeter:
    """Count in this process, and show it behind the door, if there is one."""
    if door is None:
        return NoMeter()
    from docxy.prometheus import Meter, own_registry

    registry = own_registry()
    _show(door, registry)
    return Meter(registry)


def _show(door: Door, *registries: CollectorRegistry) -> None:
    """Serve metrics, without a line in the access log for each scrape."""
    from docxy.prometheus import Metrics
    from docxy.web.site import LoggedSite

    door.serve(LoggedSite(Metrics(*registries), lines=Nowhere()))


def _supervised(config: Config, pair: tls.KeyPair | None, doors: Doors, prints: bool, reactor: Any) -> Supervisor:
    """Workers that will serve; raises ConfigError for what would end each of them."""
    from docxy.storage.budget import settled_size
    from docxy.workers.start import DoorStart, Start
    from docxy.workers.supervisor import Supervisor

    open_lines(config.access_log, reactor).close()
    _check_accounts(config)
    shares = [door.share() for door in doors.all()]
    config = evolve(config, cache_size=settled_size(config))
    return Supervisor(
        Start(
            number=0,
            config=config,
            secret=secrets.token_hex(32),
            pem=None if pair is None else pair.pem,
            doors=tuple(
                DoorStart(door.description, family) for door, (_, family) in zip(doors.all(), shares, strict=True)
            ),
            timestamps=prints,
        ),
        [descriptor for descriptor, _ in shares],
        prints,
        reactor,
    )


def _check_accounts(config: Config) -> None:
    """Raises ConfigError when the htpasswd file cannot be used."""
    if config.access.htpasswd is not None:
        # Only here: what it takes to check passwords is large.
        from docxy.gate.htpasswd import load as load_accounts

        load_accounts(config.access.htpasswd)


def _prints(options: Options) -> bool:
    """Whether the daemon's log is what it prints."""
    twistd = options.parent
    return (
        twistd is not None
        and bool(twistd.get("nodaemon"))
        and twistd.get("logfile") in (None, "-")
        and not twistd.get("syslog")
        and twistd.get("logger") is None
    )


def _announce(config: Config, pair: tls.KeyPair | None, doors: Doors, public_url: str) -> None:
    _log.info(
        "bound to {bound}; public URL {url}; auth {auth}; upstream {upstream}; cache {cache}",
        bound=", ".join(shown_address(door.address()) for door in doors.all()),
        url=public_url,
        auth=config.auth.value,
        upstream=", ".join(f"{upstream.name} ({upstream.url})" for upstream in config.upstreams),
        cache=config.cache or "off",
    )
    warning = None if pair is None else tls.expiry_warning(pair)
    if warning:
        _log.warn("{warning}", warning=warning)


def derived_url(pair: tls.KeyPair | None, address: IAddress, config: Config, hostname: str) -> str:
    """What clients call us, as far as we can know: by the certificate's name or the bound address."""
    port = getattr(address, "port", None)
    host = None if pair is None else pair.url_host()
    if host is None:
        host = getattr(address, "host", "")
        host = hostname if host in ("", "0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    scheme, default = ("http", 80) if pair is None else ("https", 443)
    return f"{scheme}://{host}" if port in (None, default) else f"{scheme}://{host}:{port}"


def form(config: Config) -> str:
    """What is about to be served, for the log's first line."""
    if config.cert is None:
        return f"plain HTTP registry on {shown_endpoint(config.http)}, as no certificate is given or found"
    redirects = "" if config.redirect is None else f"; redirects to it on {shown_endpoint(config.redirect)}"
    return f"HTTPS registry on {shown_endpoint(config.https)} with the certificate {config.cert}{redirects}"


class CacheDirectory(Service):
    """Makes the cache's directory for the user that the daemon becomes, who may not."""

    def __init__(self, path: str, uid: int, gid: int | None) -> None:
        self._path = path
        self._uid = uid
        self._gid = -1 if gid is None else gid

    def privilegedStartService(self) -> None:
        if os.path.exists(self._path):
            return
        try:
            os.makedirs(self._path, 0o700)
            os.chown(self._path, self._uid, self._gid)
        except OSError as error:
            _log.warn("{path}: {why}", path=self._path, why=error.strerror)
