"""One request to a resource, through Twisted's own HTTP server, over a transport in memory."""

from __future__ import annotations

from time import time
from typing import Any

from attrs import frozen
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.web.resource import IResource

from docxy.access.open_gate import OpenGate
from docxy.addresses import Perimeter
from docxy.observe.access_log import Nowhere
from docxy.observe.metrics import NoMeter
from docxy.web.connections import Connections
from docxy.web.site import LoggedSite


@frozen
class Answer:
    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes


def exchange(
    root: IResource, method: bytes, uri: bytes, host: bytes = b"host.example", body: bytes = b"", accept: bytes = b"*/*"
) -> Answer:
    """What a server with this tree answers to a request line with exactly this URI."""
    site: Any = LoggedSite(root, OpenGate(Perimeter), Nowhere(), NoMeter(), Connections(0, 0, time), time)
    site.reactor = MemoryReactorClock()
    channel, transport = site.buildProtocol(None), StringTransport()
    assert channel is not None
    channel.makeConnection(transport)
    head = method + b" " + uri + b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\nAccept: " + accept + b"\r\n"
    channel.dataReceived(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    lines, _, content = transport.value().partition(b"\r\n\r\n")
    status, *headers = lines.decode("ascii").split("\r\n")
    return Answer(
        int(status.split(" ")[1]),
        {name.lower(): value for name, _, value in (line.partition(": ") for line in headers)},
        content,
    )
