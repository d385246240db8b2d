"""Connections to upstreams: pooled, certificates checked, IPv6 and IPv4 raced.

The law: this is the only way out of docxy.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.web.client import URI, Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

from docxy.config import Timeouts

_POOLED = 64
"""Idle connections kept for each origin."""
_IDLE = 60
"""Seconds they are kept."""
READ_SIZE = 256 * 1024
"""Bytes read from a socket at a time: fewer, larger pieces cost about half of what Twisted's 64 KiB do."""


@implementer(IStreamClientEndpoint)
@frozen
class _Tuned:
    """Connects without a log line for each connection, and reads large pieces."""

    endpoint: IStreamClientEndpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        protocolFactory.noisy = False  # type: ignore[attr-defined]  # every twisted Factory has it
        return self.endpoint.connect(protocolFactory).addCallback(_read_large_pieces)


def _read_large_pieces(protocol: IProtocol) -> IProtocol:
    transport: Any = getattr(protocol, "transport", None)
    # Over TLS the socket's transport is behind the TLS protocol, which is the transport.
    transport = getattr(transport, "transport", None) or transport
    if hasattr(transport, "bufferSize"):
        transport.bufferSize = READ_SIZE
    return protocol


@implementer(IAgentEndpointFactory)
@frozen
class Endpoints:
    """Makes the endpoint for each origin."""

    reactor: Any
    policy: IPolicyForHTTPS
    connect_timeout: float
    """Seconds."""

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        endpoint: Any = HostnameEndpoint(self.reactor, uri.host, uri.port, timeout=self.connect_timeout)
        if uri.scheme == b"https":
            endpoint = wrapClientTLS(self.policy.creatorForNetloc(uri.host, uri.port), endpoint)
        return _Tuned(endpoint)


def make_agent(reactor: Any, timeouts: Timeouts) -> tuple[IAgent, HTTPConnectionPool]:
    """The agent, and its pool, whose idle connections are to be closed in the end."""
    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = _POOLED
    pool.cachedConnectionTimeout = _IDLE
    endpoints = Endpoints(reactor, BrowserLikePolicyForHTTPS(), timeouts.connect)
    return Agent.usingEndpointFactory(reactor, endpoints, pool), pool
