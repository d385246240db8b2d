"""The PROXY protocol, versions 1 and 2: a balancer's header before the first byte says who its client is.

The law: *who may send the header must send it, and it is refused from everybody else.*  If a listed address might
leave it out, the client behind it could write one of its own.  The header comes before TLS, whole within `WITHIN`
seconds, and has at most `MAX_HEADER` bytes; at the first doubt the connection ends without an answer.  A header that
names no address (`UNKNOWN`, a Unix socket) makes a client whose address is unknown, which no list has.  `LOCAL` is
the balancer itself, asking whether docxy lives.  What else the header holds (TLVs) is skipped.

Twisted's own wrapper puts itself between a connection and its protocol for good, has no bound of time or size, and
takes the header of everybody; docxy's answers go straight to the socket.

The specification: https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, cast

from attrs import frozen
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocol, IProtocolFactory, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from docxy.addresses import UNKNOWN, Networks, Perimeter, peer

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
"""What version 2 begins with."""
MAX_LINE = 107
"""Bytes of version 1, its CRLF included."""
MAX_HEADER = 4096
"""Bytes of version 2, its TLVs included: as many as nginx takes."""
WITHIN = 5.0
"""Seconds from the connection to the end of the header; balancers send it with their first packet."""

_LINE = re.compile(rb"PROXY (TCP4|TCP6) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) (\d{1,5}) (\d{1,5})")
_WORD = b"PROXY "
_FIXED = 16
_LENGTHS = {1: 12, 2: 36}
"""Bytes of both addresses and ports, by version 2's address family: IPv4, IPv6."""
_UNTOLD = IPv4Address("TCP", UNKNOWN, 0)


class BadHeader(ValueError):
    """This is no PROXY header; the message says why, for the log."""


@frozen
class Header:
    """What a header says."""

    size: int
    """Its bytes; the connection's own follow."""
    source: IAddress | None
    """The client; None: the balancer itself."""


def parse(received: bytes) -> Header | None:
    """The header that a connection begins with; None: not all of it is there.  Raises BadHeader."""
    if received[: len(_WORD)] == _WORD[: len(received)]:
        return _version_1(received)
    if received[: len(SIGNATURE)] == SIGNATURE[: len(received)]:
        return _version_2(received)
    raise BadHeader("it did not begin with a PROXY header")


def _version_1(received: bytes) -> Header | None:
    end = received.find(b"\r\n", 0, MAX_LINE)
    if end < 0:
        if len(received) >= MAX_LINE:
            raise BadHeader(f"the line of its PROXY header has more than {MAX_LINE} bytes")
        return None
    line = received[:end]
    if line == b"PROXY UNKNOWN" or line.startswith(b"PROXY UNKNOWN "):
        return Header(end + 2, _UNTOLD)
    said = _LINE.fullmatch(line)
    if said is None:
        raise BadHeader("the line of its PROXY header cannot be read")
    family, source, destination, port, other = (each.decode("ascii") for each in said.groups())
    read = ipaddress.IPv4Address if family == "TCP4" else ipaddress.IPv6Address
    try:
        host = str(read(source))
        read(destination)
    except ValueError:
        raise BadHeader(f"the addresses of its PROXY header are not of {family}") from None
    if int(port) > 0xFFFF or int(other) > 0xFFFF:
        raise BadHeader("a port of its PROXY header is none")
    made = IPv4Address if family == "TCP4" else IPv6Address
    return Header(end + 2, made("TCP", host, int(port)))


def _version_2(received: bytes) -> Header | None:
    if len(received) < _FIXED:
        return None
    version, command = divmod(received[12], 16)
    family, transport = divmod(received[13], 16)
    length = int.from_bytes(received[14:16], "big")
    if version != 2 or command > 1 or family > 3 or transport > 2:
        raise BadHeader("its PROXY header is of a version or kind that does not exist")
    if _FIXED + length > MAX_HEADER:
        raise BadHeader(f"its PROXY header has more than {MAX_HEADER} bytes")
    told = _LENGTHS.get(family, 0)
    if command == 1 and length < told:
        raise BadHeader("its PROXY header is too short for its addresses")
    if len(received) < _FIXED + length:
        return None
    size = _FIXED + length
    if command == 0:
        return Header(size, None)
    if not told or transport == 0:
        return Header(size, _UNTOLD)
    host = ipaddress.ip_address(received[_FIXED : _FIXED + (4 if family == 1 else 16)])
    at = _FIXED + told - 4
    made = IPv4Address if family == 1 else IPv6Address
    return Header(size, made("TCP", str(host), int.from_bytes(received[at : at + 2], "big")))


class Proxied(Protocol):
    """A connection of a balancer: its header, and then what the served factory makes of the rest."""

    _log = Logger()

    def __init__(self, factory: ProxyProtocolFactory, address: IAddress) -> None:
        """`address`: the balancer's."""
        self._factory = factory
        self._address = address
        self._received = b""
        self._inner: IProtocol | None = None
        self._timer: IDelayedCall | None = None

    @property
    def socket(self) -> Any:
        """The connection's transport."""
        return self.transport

    def connectionMade(self) -> None:
        self._factory.waiting.add(self)
        self._timer = self._factory.clock.callLater(WITHIN, self._late)

    def dataReceived(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        if self._timer is None:
            return  # refused
        self._received += data
        try:
            header = parse(self._received)
        except BadHeader as error:
            self.refuse(str(error))
            return
        if header is None:
            return
        rest, self._received = self._received[header.size :], b""
        self._waits_no_more()
        source = self._address if header.source is None else header.source
        inner = self._factory.served.buildProtocol(source)
        if inner is None:
            self.socket.abortConnection()
            return
        self._inner = inner
        inner.makeConnection(self.socket)
        if rest:
            inner.dataReceived(rest)

    def _late(self) -> None:
        self._timer = None
        self.refuse(f"its PROXY header did not come within {WITHIN:g} s")

    def refuse(self, why: str) -> None:
        """End the connection."""
        self._waits_no_more()
        self._received = b""
        self._log.info("refused a connection of {address}: {why}", address=peer(self._address), why=why)
        self.socket.abortConnection()

    def _waits_no_more(self) -> None:
        self._factory.waiting.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._waits_no_more()
        if self._inner is not None:
            self._inner.connectionLost(reason)


class ProxyProtocolFactory(Factory[Any]):
    """Takes the header from listed addresses; connections of others are the served factory's, as they come."""

    noisy = False

    def __init__(self, served: IProtocolFactory, listed: Networks, clock: IReactorTime) -> None:
        self.served = served
        self.clock = clock
        self.waiting: set[Proxied] = set()
        """Connections whose header is not whole yet."""
        self._listed = listed

    def startFactory(self) -> None:
        self.served.doStart()

    def stopFactory(self) -> None:
        for connection in list(self.waiting):
            connection.refuse("docxy stops")
        self.served.doStop()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if addr is not None and peer(addr) in self._listed:
            return Proxied(self, addr)
        return self.served.buildProtocol(cast(IAddress, addr))


def behind_balancers(served: IProtocolFactory, perimeter: Perimeter, clock: IReactorTime) -> IProtocolFactory:
    """A factory for the connections of a port, where the perimeter lists balancers and where it does not."""
    listed = perimeter.proxy_protocol_from
    return ProxyProtocolFactory(served, listed, clock) if listed else served
