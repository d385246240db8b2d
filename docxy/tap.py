"""`twistd docxy`: options -> the running daemon, one process or several.

The law: a daemon that cannot serve does not start, and says why in one line.
"""

from __future__ import annotations

import difflib

# Python loads a codec when it is first used: by then we may be a user who may not read it.
import encodings.idna
import encodings.punycode  # noqa: F401 (see above)
import os
import re
import socket
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

from attrs import evolve
from twisted.application.service import IService, MultiService, Service
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.python import usage

import docxy
from docxy.access.htpasswd import load as load_accounts
from docxy.archive.clients import check as check_archive
from docxy.daemon import certificates
from docxy.daemon.allocator import keep_memory
from docxy.daemon.changing import Started
from docxy.daemon.clock import wait_monotonically
from docxy.daemon.issuing.issuer import IssueError
from docxy.daemon.listeners import (
    CannotStart,
    Front,
    IServing,
    Listener,
    Listeners,
    has_ipv6,
    shown_address,
    shown_endpoint,
)
from docxy.daemon.output import Output, RootService
from docxy.daemon.signals import StopSignals
from docxy.daemon.upgrade.adopted import adopt
from docxy.daemon.upgrade.handover import Handover, refusal
from docxy.daemon.upgrade.pidfile import PidFile
from docxy.daemon.upgrade.successor import Command
from docxy.daemon.upgrade.takeover import Takeover
from docxy.front import load_library
from docxy.launch import launch
from docxy.observe.tracing import check as check_tracing
from docxy.settings.load import load
from docxy.settings.model import Config, ConfigError
from docxy.settings.options import OPTIONS

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
    pair: certificates.KeyPair | None
    """None: plain HTTP, or a certificate that docxy is still to get."""

    takeover: Takeover | None = None
    """None: this docxy takes over from no other."""
    pidfile = ""
    """Of the docxy from which this one takes over."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        usage.Options.__init__(self)
        self._environ = os.environ if environ is None else environ
        self.directory = os.getcwd()
        """Where twistd was started."""

    def opt_version(self) -> None:
        """Display docxy's version and exit."""
        sys.stdout.write(f"docxy {docxy.__version__}\n")
        sys.exit(0)

    def parseOptions(self, options: list[str] | None = None) -> None:
        """Raises UsageError; as a subcommand of twistd, which would print all of the help first, exits itself."""
        try:
            self.takeover = Takeover.of(self._environ)
            usage.Options.parseOptions(self, options)
        except (ConfigError, usage.UsageError) as error:
            line = str(error) + self._meant(str(error))
            if self.takeover is not None:
                self.takeover.failed(line)
            if self.parent is None:
                raise usage.UsageError(line) from None
            sys.exit(f"docxy: {line}")

    def _meant(self, line: str) -> str:
        """What to add to a line about an unknown option: the one that was perhaps meant."""
        unknown = re.fullmatch(r"option --(\S+) not recognized", line)
        close = difflib.get_close_matches(unknown[1], [name.rstrip("=") for name in self.longOpt], 1) if unknown else []
        return f"; did you mean --{close[0]}?" if close else ""

    def parseArgs(self, *arguments: str) -> None:
        if arguments:
            raise usage.UsageError(f"unexpected argument {arguments[0]!r}")

    def settings(self) -> Started:
        """What this process was started with, and what it would be started with now."""
        return Started(self.config, self._read)

    def postOptions(self) -> None:
        try:
            if self.parent is not None:
                if self.takeover is not None and self.parent.get("pidfile"):
                    # It has the old docxy's number, over which twistd would not start.
                    self.pidfile, self.parent["pidfile"] = os.path.abspath(self.parent["pidfile"]), ""
                check_twistd(self.parent)
                if self.takeover is not None and self.parent.get("uid") == os.geteuid() != 0:
                    # The old docxy has become this user already.
                    self.parent["uid"] = self.parent["gid"] = None
            # As the user, and on the machine, of the start.
            self._read = partial(load, self, self._environ, root=os.geteuid() == 0, ipv6=has_ipv6())
            self.config = self._read()
            check_tracing(self.config.collector)
            check_archive(self.config.archive, self.config.public_url)
            # Here, because what comes later may run without the right to read the key.
            self.pair = standing_pair(self.config, self.takeover)
            load_library(self.config)
            if self.config.access.htpasswd is not None:
                load_accounts(self.config.access.htpasswd)
        except ConfigError as error:
            raise usage.UsageError(str(error)) from None


def standing_pair(config: Config, takeover: Takeover | None) -> certificates.KeyPair | None:
    """The certificate that stands; the old docxy's where this user may not read its files.  Raises ConfigError."""
    given = None if takeover is None else takeover.given.pem
    cert, key = config.cert, config.key
    if given is None or config.issuing is not None or cert is None or key is None:
        return certificates.standing(config)
    if os.access(cert, os.R_OK) and os.access(key, os.R_OK):
        return certificates.standing(config)
    return certificates.make_pair(cert, key, (given[0].encode("latin-1"), given[1].encode("latin-1")))


def check_twistd(options: Mapping[str, Any]) -> None:
    """Refuse what twistd itself would fail at later, with a traceback; `options`: twistd's.  Raises ConfigError."""
    for option, path in (
        ("--pidfile", options.get("pidfile") and os.path.join(options.get("rundir") or ".", options["pidfile"])),
        ("--logfile", None if options.get("logfile") == "-" else options.get("logfile")),
    ):
        if not path:
            continue
        directory = os.path.dirname(os.path.abspath(path))
        hint = "; --pidfile= writes none" if option == "--pidfile" else "; --logfile=- prints the log"
        if not os.path.isdir(directory):
            raise ConfigError(f"{option}: there is no directory {directory}{hint}")
        if not os.access(path if os.path.exists(path) else directory, os.W_OK):
            raise ConfigError(f"{option}: {os.path.abspath(path)} cannot be written to{hint}")
    uid = options.get("uid")
    if uid is not None and os.geteuid() not in (0, uid):
        raise ConfigError("--uid: only root can become another user")


def makeService(options: Options) -> IService:
    """Everything, wired, and not started."""
    if options.takeover is None:
        return _make(options)
    with options.takeover.told():
        return _make(options)


def _make(options: Options) -> IService:
    from twisted.internet import reactor

    config, pair, takeover = options.config, options.pair, options.takeover
    if options.parent is not None:  # a daemon's, which nothing waits in yet
        wait_monotonically(reactor)
    keep_memory()
    _log.info("docxy {version}: {form}", version=docxy.__version__, form=form(config))
    listeners = Listeners(
        _listener(reactor, config.http if config.cert is None else config.https, takeover),
        None if config.cert is None or config.redirect is None else _listener(reactor, config.redirect, takeover),
    )
    metrics = None if config.metrics is None else _listener(reactor, config.metrics, takeover)
    pidfile = PidFile(options.parent, options.pidfile, None if takeover is None else takeover.given.pidfile)

    async def retire() -> None:
        pidfile.leave()
        await front.retire(config.timeouts.upgrade)

    def start() -> IServing:
        settled = config
        if config.public_url is None:
            url = derived_url(pair, listeners.front.address(), config, socket.gethostname())
            settled = evolve(config, public_url=url)
        _announce(settled, pair, listeners)
        refused = refusal(options.parent, pidfile.path, os.environ, os.getpid())
        handover = Handover(
            Command.of_this_process(options.directory), pidfile, takeover, refused, options.settings(), retire
        )
        try:
            return launch(settled, pair, listeners, metrics, Output.of(options.parent), handover, reactor)
        except (ConfigError, IssueError) as error:
            # A file that the user that the daemon became may not be allowed to read or to write.
            raise CannotStart(f"docxy: {error}") from None

    root: MultiService = RootService(config, options.parent, takeover, reactor)
    root.addService(pidfile)
    if config.cache is not None and options.parent is not None and options.parent.get("uid") is not None:
        root.addService(CacheDirectory(config.cache, options.parent["uid"], options.parent["gid"]))
    everything = listeners.all() + ([] if metrics is None else [metrics])
    if config.issuing is not None and options.parent is not None and options.parent.get("uid") is not None:
        root.addService(CacheDirectory(config.issuing.state, options.parent["uid"], options.parent["gid"]))
    front = Front(everything, start, config.timeouts.shutdown)
    root.addService(front)
    root.addService(StopSignals(front.abort, True, reactor))
    return root


def _listener(reactor: Any, description: str, takeover: Takeover | None) -> Listener:
    """Ends the start when there can be no such listener."""
    passed = None if takeover is None else takeover.passed(description)
    if passed is not None:
        return Listener(description, adopt(passed.descriptor, passed.family, reactor))
    try:
        return Listener(description, serverFromString(reactor, description))
    except Exception as error:  # each kind of endpoint has its own
        why = "no such socket was passed" if isinstance(error, LookupError) else error
        sys.exit(f"docxy: {description!r} is not an endpoint that can be opened: {why}")


def _announce(config: Config, pair: certificates.KeyPair | None, listeners: Listeners) -> None:
    _log.info(
        "bound to {bound}; public URL {url}; auth {auth}; upstream {upstream}; cache {cache}",
        bound=", ".join(shown_address(listener.address()) for listener in listeners.all()),
        url=config.public_url,
        auth=config.auth.value,
        upstream=", ".join(f"{upstream.name} ({upstream.url})" for upstream in config.upstreams),
        cache=config.cache or "off",
    )
    # What docxy gets by itself may last days only, and is renewed in time.
    warning = None if pair is None or config.issuing is not None else certificates.expiry_warning(pair)
    if warning:
        _log.warn("{warning}", warning=warning)


def derived_url(pair: certificates.KeyPair | None, address: IAddress, config: Config, hostname: str) -> str:
    """What clients call us, as far as we can know: by the certificate's name or the bound address."""
    port = getattr(address, "port", None)
    host = None if pair is None else pair.url_host()
    if config.issuing is not None:
        first = config.issuing.names[0]
        host = f"[{first}]" if ":" in first else first
    if host is None:
        host = getattr(address, "host", "")
        host = hostname if host in ("", "0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    scheme, default = ("http", 80) if config.cert is None else ("https", 443)
    return f"{scheme}://{host}" if port in (None, default) else f"{scheme}://{host}:{port}"


def form(config: Config) -> str:
    """What is about to be served, for the log's first line."""
    if config.cert is None:
        return f"plain HTTP registry on {shown_endpoint(config.http)}, as no certificate is given or found"
    redirects = "" if config.redirect is None else f"; redirects to it on {shown_endpoint(config.redirect)}"
    certificate = f"the certificate {config.cert}"
    if config.issuing is not None:
        issuer = "docxy's own authority" if config.issuing.acme is None else config.issuing.acme.directory
        certificate = f"a certificate of {issuer} for {', '.join(config.issuing.names)} in {config.issuing.state}"
    return f"HTTPS registry on {shown_endpoint(config.https)} with {certificate}{redirects}"


class CacheDirectory(Service):
    """Makes the cache's directory, or the certificates', for the user that the daemon becomes, who may not."""

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
