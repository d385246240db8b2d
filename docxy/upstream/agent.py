"""Connections to upstreams: pooled, limited, certificates checked, IPv6 and IPv4 raced.

The law: this is the only way out of docxy, and each upstream has its own: what one is
allowed (private addresses, a CA, a proxy), no other is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.python.components import proxyForInterface
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from docxy.config import Timeouts, Upstream
from docxy.errors import UpstreamError
from docxy.shared import ISlots, LocalSlots
from docxy.upstream.guard import PublicReactor, PublicResolver
from docxy.upstream.proxy import Proxy, TunnelEndpoint
from docxy.upstream.tls import Secured

_POOLED = 64
"""Idle connections kept for each origin."""
_IDLE = 60
"""Seconds they are kept."""
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
        await self.slots.acquire(key)
        try:
            response = await self.agent.request(method, uri, headers, body)
        except BaseException:
            self.slots.release(key)
            raise
        # The connection is back in the pool before its body is told that it is over.
        held: IResponse = _Held(response, partial(self.slots.release, key))
        return held


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
            near = HostnameEndpoint(self.reactor, self.proxy.host, self.proxy.port, timeout=self.connect_timeout)
            return TunnelEndpoint(near, self.proxy, host.decode("ascii"), port)
        if not self.public_only:
            return HostnameEndpoint(self.reactor, host, port, timeout=self.connect_timeout)
        guarded = PublicReactor(self.reactor)
        endpoint = HostnameEndpoint(guarded, host, port, timeout=self.connect_timeout)
        return _Guarded(endpoint, guarded.nameResolver)


def make_policy(pem: bytes | None) -> IPolicyForHTTPS:
    """Whom to trust: the system's CAs, or these alone.  Raises ValueError, OpenSSL.SSL.Error."""
    if pem is None:
        return BrowserLikePolicyForHTTPS()
    end = b"-----END CERTIFICATE-----"
    certificates = [Certificate.loadPEM(part + end) for part in pem.split(end)[:-1]]
    if not certificates:
        raise ValueError("holds no PEM certificate")
    return BrowserLikePolicyForHTTPS(trustRootFromCertificates(certificates))


def make_agent(
    reactor: Any,
    timeouts: Timeouts,
    upstream: Upstream,
    slots: Callable[[int], ISlots] = LocalSlots,
    reads: int = SMALL_READS,
) -> tuple[IAgent, HTTPConnectionPool]:
    """An upstream's agent, and its pool, whose idle connections are to be closed in the end.

    `slots`: what it is limited with, where it is; `reads`: bytes read from a socket at a time.
    """
    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = _POOLED
    pool.cachedConnectionTimeout = _IDLE
    factory = EndpointFactory(
        reactor=reactor,
        policy=make_policy(upstream.authorities),
        connect_timeout=timeouts.connect,
        public_only=not upstream.private,
        proxy=None if upstream.proxy is None else Proxy.parse(upstream.proxy),
        reads=reads,
    )
    agent: IAgent = Agent.usingEndpointFactory(reactor, factory, pool)
    if upstream.max_connections:
        agent = LimitedAgent(agent, slots(upstream.max_connections), upstream.name)
    return agent, pool
