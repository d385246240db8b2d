"""What stands in front of the registry: TLS, and the plain port beside it.

The law: a certificate that docxy gets for itself is got by one process and served by all; each of them
looks at the files by itself, should the word that another sends it be lost.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from attrs import frozen
from twisted.application.service import MultiService
from twisted.internet.interfaces import IProtocolFactory, IReactorTime
from twisted.web.resource import IResource

from docxy.addresses import Perimeter
from docxy.daemon.certificates import KeyPair, ReloadingContext
from docxy.daemon.issuing.internal import InternalIssuer
from docxy.daemon.issuing.issuer import IIssuer, IssueError
from docxy.daemon.issuing.renewal import Busy, Renewal, obtain, standing_pair
from docxy.daemon.issuing.standing import CertificateStanding
from docxy.daemon.issuing.state import StateDirectory
from docxy.daemon.reloads import Reload
from docxy.daemon.timers import every
from docxy.settings.model import Config, Issuing
from docxy.siblings import Siblings
from docxy.threads import Threads, in_own_thread
from docxy.web.beside import Authority, Beside
from docxy.web.guarded import Guarded
from docxy.web.health import Health
from docxy.web.redirect import HTTPSRedirect
from docxy.web.tls import TLSFactory

RELOAD_INTERVAL = 60.0
"""Seconds between two looks at the certificate's files."""
OWN_INTERVAL = 1.0
"""The same, where docxy gets it itself: until the first one is seen, nobody is served."""


@frozen
class TLSFront:
    """TLS in one process, and what answers beside it."""

    factory: IProtocolFactory
    """The registry under TLS, where there is TLS."""
    expires: Callable[[], float | None] | None
    """When the certificate ends, in seconds since the epoch; None: plain HTTP."""
    standing: Callable[[], CertificateStanding] | None
    """How getting certificates goes; None: another process does it, or nobody."""
    reloads: list[Reload]
    is_certified: Callable[[], bool]
    """Whether HTTPS is served, or need not be."""
    beside: IResource
    """What the plain port answers."""
    authority: IResource | None
    """What HTTPS answers at `/ca.pem`."""


def make_front(
    config: Config,
    perimeter: Callable[[], Perimeter],
    pair: KeyPair | None,
    registry: IProtocolFactory,
    health: Health,
    siblings: Siblings,
    public_url: str,
    services: MultiService,
    clock: IReactorTime,
    reactor: Any,
) -> TLSFront:
    """Everything, wired into `services`.

    `perimeter`: the one in force; `pair`: None for plain HTTP, or while there is no certificate.
    """
    redirect = Guarded(HTTPSRedirect(public_url), perimeter, local=False)
    if config.cert is None or config.key is None:
        return TLSFront(registry, None, None, [], lambda: True, redirect, None)
    context = ReloadingContext(config.cert, config.key, pair)
    issuing = config.issuing
    interval = RELOAD_INTERVAL if issuing is None else OWN_INTERVAL
    services.addService(every(interval, reactor, context.check, "the look at the certificate's files"))
    reloads: list[Reload] = [context.reload]
    factory = TLSFactory(context, registry, reactor, context.is_ready)
    if issuing is None:
        return TLSFront(factory, context.expires, None, reloads, context.is_ready, redirect, None)
    state = StateDirectory(issuing.state)
    threads = Threads(reactor, 1, "challenges")
    services.addService(threads)
    authority = None
    if issuing.acme is None:
        authority = Guarded(Authority(lambda: threads.in_thread(state.read, state.ca)), perimeter, local=False)
    standing = None
    tell = siblings.broadcast.topic("certificate", context.check)
    if siblings.first:

        def issued() -> None:
            tell()
            context.check()

        renewal = Renewal(
            make_issuer(issuing),
            state,
            issuing.names,
            issued,
            in_own_thread(reactor, "certificate"),
            clock,
            Random().random,
        )
        services.addService(renewal)
        reloads.append(renewal.at_once)
        standing = lambda: renewal.standing  # noqa: E731 (it is read each time)
    beside = Beside(
        lambda token: threads.in_thread(state.challenge, token),
        authority,
        redirect,
        Guarded(health, perimeter, local=True),
        context.is_ready,
    )
    return TLSFront(factory, context.expires, standing, reloads, context.is_ready, beside, authority)


def load_library(config: Config) -> None:
    """Load what ACME needs now: the user that docxy becomes may not be allowed to read it."""
    if config.issuing is not None and config.issuing.acme is not None:
        import docxy.daemon.issuing.acme  # noqa: F401 (it needs an extra)


def make_issuer(issuing: Issuing) -> IIssuer:
    """Who issues."""
    state = StateDirectory(issuing.state)
    if issuing.acme is None:
        return InternalIssuer(state, issuing.names)
    from docxy.daemon.issuing.acme import AcmeIssuer  # it needs an extra

    return AcmeIssuer(issuing.acme, issuing.names, state)


def own_certificate(config: Config, pair: KeyPair | None, now: float) -> KeyPair | None:
    """A certificate of docxy's own authority, before anything is served; else the pair that was given.  Blocks.

    Raises IssueError and OSError where there is none; where there is one, `Renewal` tells what keeps it from a new one.
    """
    issuing = config.issuing
    if issuing is None or issuing.acme is not None:
        return pair
    state = StateDirectory(issuing.state)
    try:
        obtain(make_issuer(issuing), state, issuing.names, now)
    except (Busy, IssueError, OSError) as error:
        found = standing_pair(state)
        if found is None and not isinstance(error, Busy):
            raise
        return found
    return standing_pair(state)
