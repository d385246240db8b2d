"""`twistd docxy`: options -> the running daemon.

The law: this is the only place where collaborators are made and put together, and the only
one that imports the reactor.
"""

from __future__ import annotations

# Python loads a codec when it is first used: by then we may be a user who may not read it.
import encodings.idna
import encodings.punycode  # noqa: F401 (see above)
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any

from twisted.application.service import IService, MultiService, Service
from twisted.internet import task
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.python import usage
from twisted.web.iweb import IAgent
from twisted.web.server import Site

import docxy
from docxy import tls
from docxy.accesslog import Lines, open_lines
from docxy.allocator import give_back, keep_memory
from docxy.assembly import build_site
from docxy.caching import open_cache
from docxy.config import Config, ConfigError, Upstream
from docxy.gate.open import OpenGate
from docxy.gate.threads import PasswordThreads
from docxy.option_table import OPTIONS
from docxy.options import load
from docxy.serving import Door, Front, Watched, has_ipv6, shown_address, shown_endpoint
from docxy.upstream.agent import make_agent
from docxy.web.redirect import Redirect
from docxy.web.site import LoggedSite

RELOAD_INTERVAL = 60.0
"""Seconds between two looks at the certificate's files."""

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
            if self.config.access.htpasswd is not None:
                # Only here: what it takes to check passwords is large.
                from docxy.gate.htpasswd import load as load_accounts

                load_accounts(self.config.access.htpasswd)
        except ConfigError as error:
            raise usage.UsageError(str(error)) from None


def makeService(options: Options) -> IService:
    """Everything, wired, and not started."""
    from twisted.internet import reactor

    config, pair = options.config, options.pair
    keep_memory()
    root = MultiService()
    _log.info("docxy {version}: {form}", version=docxy.__version__, form=form(config))

    def door(description: str) -> Door:
        try:
            return Door(description, serverFromString(reactor, description))
        except Exception as error:  # each kind of endpoint has its own
            why = "no such socket was passed" if isinstance(error, LookupError) else error
            sys.exit(f"docxy: {description!r} is not an endpoint that can be opened: {why}")

    front_door = door(config.http if pair is None else config.https)
    side_door = None if pair is None or config.redirect is None else door(config.redirect)
    context = None
    if pair is not None and config.cert is not None and config.key is not None:
        context = tls.ReloadingContext(config.cert, config.key, pair)
        root.addService(CertificateWatch(context, reactor))

    def serve() -> tuple[list[Watched], IService]:
        public_url = config.public_url or derived_url(pair, front_door.address(), config, socket.gethostname())
        _log.info(
            "bound to {bound}; public URL {url}; auth {auth}; upstream {upstream}; cache {cache}",
            bound=", ".join(shown_address(door.address()) for door in doors),
            url=public_url,
            auth=config.auth.value,
            upstream=", ".join(f"{upstream.name} ({upstream.url})" for upstream in config.upstreams),
            cache=config.cache or "off",
        )
        warning = None if pair is None else tls.expiry_warning(pair)
        if warning:
            _log.warn("{warning}", warning=warning)
        try:
            lines = open_lines(config.access_log, reactor)
            site, depends = registry(config, public_url, reactor, lines)
        except ConfigError as error:
            # A file that the user that the daemon became may not be allowed to read or to write.
            sys.exit(f"docxy: {error}")
        depends.startService()
        watched = Watched(site, reactor)
        front_door.serve(watched if context is None else tls.TLSFactory(context, watched, reactor))
        if side_door is not None:
            side_door.serve(LoggedSite(Redirect(public_url), OpenGate(config.access.perimeter), lines))
        reactor.callWhenRunning(give_back)
        return [watched], depends

    if config.cache is not None and options.parent is not None and options.parent.get("uid") is not None:
        root.addService(CacheDirectory(config.cache, options.parent["uid"], options.parent["gid"]))
    doors = [front_door] if side_door is None else [front_door, side_door]
    root.addService(Front(doors, serve, config.timeouts.shutdown))
    return root


def registry(config: Config, public_url: str, reactor: Any, lines: Lines) -> tuple[Site, IService]:
    """The registry's site and the service it depends on, which closes the access log too.

    Called with the privileges the daemon runs with.  The service is started before the site
    serves and stopped when its last request has ended.
    """
    depends = MultiService()
    depends.addService(Closing(lines.close))

    def agent(upstream: Upstream) -> IAgent:
        agent, pool = make_agent(reactor, config.timeouts, upstream)
        depends.addService(Closing(pool.closeCachedConnections))
        return agent

    caching = open_cache(config, reactor)
    if caching is not None:
        depends.addService(caching)
    cache = None if caching is None else caching.cache
    passwords = PasswordThreads(reactor)
    depends.addService(passwords)
    return build_site(config, public_url, agent, reactor, cache, passwords.in_thread, lines), depends


class Closing(Service):
    """Calls something at the stop, and waits for it."""

    def __init__(self, close: Callable[[], object]) -> None:
        self._close = close

    def stopService(self) -> Deferred[Any]:
        Service.stopService(self)
        return maybeDeferred(self._close)


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


class CertificateWatch(Service):
    """Loads a renewed certificate: on SIGHUP at once, else when its files change."""

    def __init__(self, context: tls.ReloadingContext, reactor: Any) -> None:
        self._context = context
        self._reactor = reactor
        self._watch = task.LoopingCall(context.check)
        self._watch.clock = reactor
        self._before: Any = None

    def startService(self) -> None:
        Service.startService(self)
        self._watch.start(RELOAD_INTERVAL, now=False).addErrback(lambda why: _log.failure("certificate watch", why))
        self._reactor.callWhenRunning(self._listen)

    def _listen(self) -> None:
        if self.running:
            self._before = signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self._context.reload))

    def stopService(self) -> None:
        Service.stopService(self)
        if self._before is not None:
            signal.signal(signal.SIGHUP, self._before)
        if self._watch.running:
            self._watch.stop()
