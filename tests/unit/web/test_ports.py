"""How many connections an address may have, and the ports beside the registry's, over a transport in memory."""

from __future__ import annotations

import resource
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from docxy.addresses import Networks, Perimeter
from docxy.observe.exemplars import Exemplars
from docxy.observe.scrape import Metrics
from docxy.web.connections import QUIET, Connections, most_connections
from docxy.web.guarded import Guarded
from docxy.web.redirect import HTTPSRedirect
from tests.harness.built import open_site
from tests.unit.web.test_channel import HEAD, Recorder


class LimitTests(SynchronousTestCase):
    def test_connections_of_an_address(self) -> None:
        """One address has so many connections and no more, others have their own; a closed one makes room."""
        site: Any = open_site(Recorder(), connections=2)
        site.reactor = Clock()

        def connect(host: str) -> tuple[Any, StringTransport]:
            channel, transport = site.buildProtocol(None), StringTransport(peerAddress=IPv4Address("TCP", host, 1))
            channel.makeConnection(transport)
            channel.dataReceived(HEAD + b"\r\n")
            return channel, transport

        first, _ = connect("192.0.2.1")
        transports = [connect(host)[1] for host in ("192.0.2.1", "192.0.2.1", "192.0.2.2")]
        self.assertEqual([bool(each.value()) for each in transports], [True, False, True])
        self.assertEqual([each.disconnected for each in transports], [False, True, False])
        first.connectionLost(Failure(ConnectionDone()))
        self.assertTrue(connect("192.0.2.1")[1].disconnected, "the one that was refused is still closing")

    def test_connections_of_all(self) -> None:
        """So many connections in all, of two ports together; the log says so once a minute; a closed one makes room."""
        clock = Clock()
        connections = Connections(0, 3, clock.seconds)
        with capturedLogs() as logs:
            kept = [connections.opened(f"192.0.2.{number}") for number in range(5)]
            self.assertEqual(kept, [True, True, True, False, False])
            connections.closed("192.0.2.3")
            connections.closed("192.0.2.4")
            self.assertFalse(connections.opened("192.0.2.5"))
            connections.closed("192.0.2.5")
            connections.closed("192.0.2.0")
            self.assertTrue(connections.opened("192.0.2.6"))
            self.assertEqual(len(logs), 1)
            clock.advance(QUIET)
            connections.opened("192.0.2.7")
        self.assertEqual(len(logs), 2)
        self.assertIn("3 connections open", formatEvent(logs[0]) or "")

    def test_most(self) -> None:
        """A quarter of the files that the process may have open is not for connections; no limit is none."""
        for limit, most in ((1024, 768), (65536, 49152), (resource.RLIM_INFINITY, 0)):
            self.patch(resource, "getrlimit", lambda kind, limit=limit: (limit, limit))
            self.assertEqual(most_connections(), most)


class PortTests(SynchronousTestCase):
    """The ports beside the registry's: the redirect's and the metrics'."""

    def ask(self, root: Resource, data: bytes, peer: str, **lists: Any) -> tuple[bytes, StringTransport, Any]:
        perimeter = Perimeter(**{name: Networks.of(texts) for name, texts in lists.items()})
        local = not isinstance(root, HTTPSRedirect)
        site: Any = open_site(Guarded(root, lambda: perimeter, local))
        site.reactor = Clock()
        channel, transport = site.buildProtocol(None), StringTransport(peerAddress=IPv4Address("TCP", peer, 1))
        channel.makeConnection(transport)
        channel.dataReceived(data)
        return transport.value(), transport, channel

    def test_bodies(self) -> None:
        """A large form is neither read nor kept: it is answered at its head, and the connection ends."""
        head = b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 40000000\r\n"
        head += b"Content-Type: application/x-www-form-urlencoded\r\n\r\n"
        for root, status in (
            (HTTPSRedirect("https://x"), b"308"),
            (Metrics(CollectorRegistry(), exemplars=Exemplars()), b"405"),
        ):
            answer, transport, channel = self.ask(root, head, "192.0.2.1")
            self.assertTrue(answer.startswith(b"HTTP/1.1 " + status), answer)
            self.assertIn(b"Connection: close\r\n", answer)
            for _ in range(100):
                channel.dataReceived(b"a=" * 10_000)
            self.assertEqual(transport.value(), answer)

    def test_addresses(self) -> None:
        """The addresses of `[access]` count there too; the machine itself may see its metrics."""
        for lists in ({"deny": ["192.0.2.1", "127.0.0.1"]}, {"allow": ["198.51.100.0/24"]}):
            for root, local in (
                (HTTPSRedirect("https://x"), b"403"),
                (Metrics(CollectorRegistry(), exemplars=Exemplars()), b"200"),
            ):
                for peer, status in (("192.0.2.1", b"403"), ("127.0.0.1", local)):
                    answer, _, _ = self.ask(root, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", peer, **lists)
                    self.assertTrue(answer.startswith(b"HTTP/1.1 " + status), (root, peer, answer[:40]))
