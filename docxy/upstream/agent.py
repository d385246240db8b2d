"""Connections to upstreams: pooled, limited, certificates checked, IPv6 and IPv4 raced.

The law: this is the only way out of docxy, and each upstream has its own: what one is
allowed (private addresses, a CA, a proxy), no other is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.python.components import proxyForInterface
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from docxy.errors import UpstreamError
from docxy.observe import trail
from docxy.settings.changeable import way
from docxy.settings.model import Timeouts, Upstream
from docxy.settings.proxies import Proxy
from docxy.siblings import ISlots
from docxy.upstream.guard import PublicReactor, PublicResolver
from docxy.upstream.proxy import TunnelEndpoint
from docxy.upstream.response_heads import BoundedPool
from docxy.upstream.tls_stream import Secured
from docxy.upstream.trust import Trust, make_trust

_POOLED = 64
"""Idle connections kept for each origin."""
_IDLE = 60
"""Seconds they are kept."""
_ATTEMPT_DELAY = 0.1
"""Seconds until the next address of a name is tried beside the last (RFC 8305: not less than that).  Twisted learns
only then that the last one has refused, so this is also what a refused connection takes."""
LARGE_READS = 1024 * 1024
SMALL_READS = 256 * 1024
"""Bytes read from a socket at a time, where they go to disk, and where they wait for a client: fewer, larger pieces
cost about half of what Twisted's 64 KiB do, but each client that stands still holds two of them."""


class _Held(proxyForInterface(IResponse)):  # type: ignore[misc]  # a class made on the fly
    """A response that tells when its body is over."""

    def __init__(self, original: IResponse, over: Callable[[], object]) -> None:
        super().__init__(original)
        self._over = over

    def deliverBody(self, protocol: IProtocol) -> None:
        lost = protocol.connectionLost

        def connection_lost(reason: Failure) -> None:
            self._over()
            lost(reason)

        protocol.connectionLost = connection_lost  # type: ignore[method-assign]  # of this one protocol
        self.original.deliverBody(protocol)


@implementer(IAgent)
@frozen
class LimitedAgent:
    """Asks an origin when it has a slot free, which is taken until the body of the answer is over.

    So a connection that comes back to the pool is the next one's to use, and no more are ever open.
    """

    agent: IAgent
    slots: ISlots
    name: str
    """The upstream's: each has slots of its own."""
    seconds: Callable[[], float]
    """By which it is measured how long a request waits for a slot."""

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        return Deferred.fromCoroutine(self._request(method, uri, headers, bodyProducer))

    async def _request(
        self, method: bytes, uri: bytes, headers: Headers | None, body: IBodyProducer | None
    ) -> IResponse:
        parsed = URI.fromBytes(uri)
        key = f"{self.name} {parsed.host.decode('ascii', 'replace')}:{parsed.port}"
        began = self.seconds()
        try:
            await self.slots.acquire(key)
        finally:
            trail.waited("connection", self.seconds() - began)
        try:
            response = await self.agent.request(method, uri, headers, body)
        except BaseException:
            self.slots.release(key)
            raise
        # The connection is back in the pool before the body learns that it is over.
        held: IResponse = _Held(response, partial(self.slots.release, key))
        return held


class Pool(BoundedPool):
    """Idle connections; once they have been closed, none is kept any more."""

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)  # type: ignore[no-untyped-call]  # Twisted's has no types

    # Hosts that redirects lead to come and go; Twisted would remember each of them.

    def getConnection(self, key: Any, endpoint: IStreamClientEndpoint) -> Deferred[Any]:
        found: Deferred[Any] = super().getConnection(key, endpoint)
        self._tidy(key)
        return found

    def _removeConnection(self, key: object, connection: object) -> None:
        super()._removeConnection(key, connection)  # type: ignore[no-untyped-call]  # as above
        self._tidy(key)

    def _tidy(self, key: object) -> None:
        if not self._connections.get(key, True):
            del self._connections[key]

    def closeCachedConnections(self) -> Deferred[None]:
        """Close the idle ones now, and each of the others as it comes back; fires when the idle ones are closed."""
        # One whose answer was just read to its end comes back in a later turn of the reactor.
        self.cachedConnectionTimeout = 0
        closed: Deferred[None] = super().closeCachedConnections()  # type: ignore[no-untyped-call]  # as above
        return closed


@implementer(IStreamClientEndpoint)
@frozen
class _Guarded:
    """Says why, when a name leads nowhere that may be connected to."""

    endpoint: IStreamClientEndpoint
    resolver: PublicResolver

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        return self.endpoint.connect(protocolFactory).addErrback(self._explain)

    def _explain(self, reason: Failure) -> Failure:
        if self.resolver.refused and isinstance(reason.value, DNSLookupError):
            return Failure(
                UpstreamError(
                    f"its address {self.resolver.refused[0]} is not on the public internet; "
                    f"set private = true for this upstream if that is right"
                )
            )
        return reason


@implementer(IStreamClientEndpoint)
@frozen
class _Tuned:
    """Connects without a log line for each connection, and reads large pieces."""

    endpoint: IStreamClientEndpoint
    reads: int

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        protocolFactory.noisy = False  # type: ignore[attr-defined]  # every twisted Factory has it
        return self.endpoint.connect(protocolFactory).addCallback(self._tune)

    def _tune(self, protocol: IProtocol) -> IProtocol:
        transport: Any = getattr(protocol, "transport", None)
        # Over TLS the socket's transport is behind the TLS protocol, which is the transport.
        transport = getattr(transport, "transport", None) or transport
        if hasattr(transport, "bufferSize"):
            transport.bufferSize = self.reads
        return protocol


@implementer(IAgentEndpointFactory)
@frozen
class EndpointFactory:
    """Makes the endpoint for each origin that requests of one upstream lead to."""

    reactor: Any
    policy: IPolicyForHTTPS
    connect_timeout: float
    """Seconds."""
    public_only: bool
    """Whether only addresses of the public internet are connected to."""
    proxy: Proxy | None
    reads: int
    """Bytes read from a socket at a time."""

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        endpoint: Any = self._tcp(uri.host, uri.port)
        if uri.scheme == b"https":
            endpoint = Secured(self.policy.creatorForNetloc(uri.host, uri.port), endpoint)
        return _Tuned(endpoint, self.reads)

    def _tcp(self, host: bytes, port: int) -> IStreamClientEndpoint:
        if self.proxy is not None:
            # The proxy resolves the name; what it may reach is its operator's to say.
            near = self._named(self.reactor, self.proxy.host, self.proxy.port)
            return TunnelEndpoint(near, self.proxy, host.decode("ascii"), port)
        if not self.public_only:
            return self._named(self.reactor, host, port)
        guarded = PublicReactor(self.reactor)
        return _Guarded(self._named(guarded, host, port), guarded.nameResolver)

    def _named(self, reactor: Any, host: str | bytes, port: int) -> HostnameEndpoint:
        return HostnameEndpoint(reactor, host, port, timeout=self.connect_timeout, attemptDelay=_ATTEMPT_DELAY)


@implementer(IAgent)
class Connections:
    """An upstream's way out, made anew when it changes: no connection of before is used for another request then."""

    def __init__(self, upstream: Upstream, make: Callable[[Upstream], tuple[IAgent, HTTPConnectionPool]]) -> None:
        """`make`: see `make_agent`."""
        self._upstream = upstream
        self._make = make
        self._agent, self._pool = make(upstream)

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        return self._agent.request(method, uri, headers, bodyProducer)

    def reach(self, upstream: Upstream) -> None:
        """Go this way from now on; what is under way ends as it began."""
        if way(upstream) == way(self._upstream):
            return
        pool = self._pool
        self._agent, self._pool = self._make(upstream)
        self._upstream = upstream
        pool.closeCachedConnections()

    def close(self) -> Deferred[None]:
        """Close the idle connections, and the others as they come back."""
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed


def trust_of(upstream: Upstream) -> Trust:
    """Whom docxy believes there.  Raises ValueError as `make_trust`."""
    return make_trust(upstream.authorities, upstream.ca_only, upstream.identity, own_hosts(upstream))


def own_hosts(upstream: Upstream) -> frozenset[str]:
    """The hosts that are the upstream itself: not where its redirects lead."""
    urls = (upstream.url, *upstream.endpoints)
    return upstream.realm_hosts | {(urlsplit(url).hostname or "").removesuffix(".") for url in urls}


def make_agent(
    reactor: Any,
    timeouts: Timeouts,
    upstream: Upstream,
    slots: Callable[[int], ISlots],
    reads: int,
    seconds: Callable[[], float],
) -> tuple[IAgent, HTTPConnectionPool]:
    """An upstream's agent, and its pool, whose idle connections are to be closed in the end.

    `slots`: what it is limited with, where it is; `reads`: bytes read from a socket at a time;
    `seconds`: by which waits are measured.
    """
    pool = Pool(reactor)
    pool.maxPersistentPerHost = _POOLED
    pool.cachedConnectionTimeout = _IDLE
    factory = EndpointFactory(
        reactor=reactor,
        policy=trust_of(upstream),
        connect_timeout=timeouts.connect,
        public_only=not upstream.private,
        proxy=None if upstream.proxy is None else Proxy.parse(upstream.proxy),
        reads=reads,
    )
    agent: IAgent = Agent.usingEndpointFactory(reactor, factory, pool)
    if upstream.max_connections:
        agent = LimitedAgent(agent, slots(upstream.max_connections), upstream.name, seconds)
    return agent, pool
