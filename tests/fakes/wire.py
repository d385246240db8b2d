"""HTTP/1.1 as the fake upstream speaks it: by hand, because its faults are no server's.

The law: a body goes out as its reader takes it.  At most some 128 KiB of it wait in the
process, so `Received.sent` says what a stalled reader cost the upstream.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from http.client import responses
from typing import Any, Protocol

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.fakes.content import BLOCK, Body, Bytes
from tests.fakes.faults import Fault, Rule


@define(eq=False)
class Received:
    """One request, and what became of it."""

    origin: str
    """registry, auth or cdn: the port it came in by."""
    connection: int
    """The number of its connection, from 1 on."""
    method: str
    path: str
    raw_query: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    """Lower-case names; values of repeated lines joined with a comma."""
    header_lines: list[tuple[str, str]]
    """As they came."""
    body: bytes
    kind: str = "other"
    """ping, manifest, blob, tags, referrers, token, cdn or other."""
    repository: str | None = None
    reference: str | None = None

    status: int | None = None
    """Of the answer, once its headers are sent."""
    sent: int = 0
    """Bytes of body given to the transport."""
    done: bool = False
    """The answer is over, whole or not; or the client has gone."""
    whole: bool = False
    """All of the answer was given to the transport."""


@frozen
class Answer:
    """A response: `length` bytes of the body from `first` on."""

    status: int
    headers: Mapping[str, str]
    body: Body
    first: int
    length: int

    @classmethod
    def of(cls, body: bytes | Body, headers: Mapping[str, str] | None = None, status: int = 200) -> Answer:
        """The whole of a body."""
        source = Bytes(body) if isinstance(body, bytes) else body
        return cls(status, {"Content-Length": str(source.size), **(headers or {})}, source, 0, source.size)


CODES = {401: "UNAUTHORIZED", 403: "DENIED", 404: "NAME_UNKNOWN", 405: "UNSUPPORTED", 429: "TOOMANYREQUESTS"}


def oci_error(
    status: int, code: str | None = None, message: str = "", headers: Mapping[str, str] | None = None
) -> Answer:
    """The distribution-spec's error JSON."""
    code = code or CODES.get(status, "UNAVAILABLE")
    document = {"errors": [{"code": code, "message": message or code.lower(), "detail": None}]}
    return Answer.of(json.dumps(document).encode(), {"Content-Type": "application/json", **(headers or {})}, status)


class Owner(Protocol):
    """Who answers the requests of a channel."""

    def opened(self, channel: Channel) -> int:
        """Returns the connection's number."""

    def closed(self, channel: Channel) -> None: ...

    def answer(self, channel: Channel, request: Received) -> Transmission: ...


class Channel(LineReceiver):
    """One connection of a client; requests come one at a time."""

    MAX_LENGTH = 1 << 16

    def __init__(self, owner: Owner, origin: str, parse: Callable[..., Received]) -> None:
        self.origin = origin
        self.lost: Deferred[None] = Deferred()
        self._owner = owner
        self._parse = parse
        self._number = 0
        self._lines: list[str] = []
        self._body = b""
        self._missing = 0
        self._sending: Transmission | None = None

    def connectionMade(self) -> None:
        self._number = self._owner.opened(self)

    def lineReceived(self, line: bytes) -> None:
        if line:
            self._lines.append(line.decode("latin-1"))
        elif self._lines:
            self._headers_received()

    def _headers_received(self) -> None:
        lengths = [line.partition(":")[2] for line in self._lines if line.lower().startswith("content-length:")]
        self._missing = int(lengths[0]) if lengths else 0
        if self._missing:
            self.setRawMode()
        else:
            self._request_received()

    def rawDataReceived(self, data: bytes) -> None:
        self._body += data[: self._missing]
        rest = data[self._missing :]
        self._missing -= min(len(data), self._missing)
        if not self._missing:
            self._request_received()
            self.setLineMode(rest)

    def _request_received(self) -> None:
        lines, body = self._lines, self._body
        self._lines, self._body = [], b""
        if self._sending is not None and not self._sending.request.done:
            raise RuntimeError("the fake upstream does not understand pipelined requests")
        request = self._parse(self.origin, self._number, lines, body)
        self._sending = self._owner.answer(self, request)
        self._sending.start()

    def connectionLost(self, reason: Failure) -> None:
        if self._sending is not None:
            self._sending.stopProducing()
        self._owner.closed(self)
        self.lost.callback(None)

    def abort(self) -> None:
        """Reset the connection; `lost` fires soon."""
        self.transport.abortConnection()  # type: ignore[union-attr]  # TCP and TLS transports have it


@implementer(IPushProducer)
@define(eq=False)
class Transmission:
    """Sends one answer, with its fault, as fast as the client takes it."""

    channel: Channel
    request: Received
    answer: Answer
    rule: Rule | None
    clock: IReactorTime
    changed: Callable[[], None]
    """Called after each change of the request's record."""
    _fault: Fault = field(factory=Fault)
    _paused: bool = False
    """The transport has enough for now."""
    _stalled: bool = False
    """The fault holds the answer back."""
    _close: bool = False
    _drip: IDelayedCall | None = None

    @property
    def _transport(self) -> Any:
        return self.channel.transport

    def start(self) -> None:
        if self.rule is not None:
            self._fault = self.rule.fault
            if self._fault.stall_headers and not self.rule.released:
                self.rule.stalled(self._send_headers)
                return
        self._send_headers()

    def _send_headers(self) -> None:
        fault = self._fault
        if self.request.done:
            return
        if fault.drop:
            self._end(whole=False)
            return
        self.answer, headers = self._deformed()
        self.request.status = self.answer.status
        lines = [f"HTTP/1.1 {self.answer.status} {responses.get(self.answer.status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._transport.write((fault.line_end.join(lines) + fault.line_end * 2).encode("latin-1"))
        self._transport.registerProducer(self, True)
        self._pump()

    def _deformed(self) -> tuple[Answer, dict[str, str]]:
        """The answer and its headers as the fault wants them."""
        fault, answer = self._fault, self.answer
        if fault.gzip:
            data = gzip.compress(answer.body.read(answer.first, answer.length))
            headers = {**answer.headers, "Content-Length": str(len(data)), "Content-Encoding": "gzip"}
            answer = Answer(answer.status, headers, Bytes(data), 0, len(data))
        changed: dict[str, str | None] = {**answer.headers, **fault.headers}
        if fault.chunked:
            changed.update({"Content-Length": None, "Transfer-Encoding": "chunked"})
        elif fault.length_delta:
            changed["Content-Length"] = str(answer.length + fault.length_delta)
        headers = {name: value for name, value in changed.items() if value is not None}
        if self.request.method == "HEAD" or answer.status == 304:
            answer = evolve(answer, length=0)
        elif not fault.chunked and headers.get("Content-Length") != str(answer.length):
            self._close = True
            headers["Connection"] = "close"
        return answer, headers

    def _pump(self) -> None:
        """Write until the client has enough for now, or the answer or the fault is at its end."""
        fault = self._fault
        while not (self._paused or self._stalled or self._drip or self.request.done):
            sent, rule = self.request.sent, self.rule
            if sent == fault.stall_after and rule is not None and not rule.released:
                self._stalled = True
                rule.stalled(self._go_on)
                return
            if sent == fault.cut_after:
                self._end(whole=False)
                return
            if sent == self.answer.length:
                self._end(whole=True)
                return
            self._write(sent)

    def _go_on(self) -> None:
        self._stalled = False
        self._pump()

    def _write(self, sent: int) -> None:
        fault = self._fault
        stops = [stop for stop in (fault.stall_after, fault.cut_after, self.answer.length) if stop is not None]
        length = min(BLOCK, min(stop for stop in stops if stop > sent) - sent)
        if fault.bytes_per_second is not None:
            length = min(length, max(1, fault.bytes_per_second // 10))
            self._drip = self.clock.callLater(length / fault.bytes_per_second, self._dripped)
        data = self.answer.body.read(self.answer.first + sent, length)
        if fault.flip is not None and 0 <= fault.flip - self.answer.first - sent < length:
            at = fault.flip - self.answer.first - sent
            data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        self.request.sent += length
        self._transport.write(b"%x\r\n%b\r\n" % (length, data) if fault.chunked else data)
        self.changed()

    def _dripped(self) -> None:
        self._drip = None
        self._pump()

    def _end(self, *, whole: bool) -> None:
        if self.request.status is not None:
            if whole and self._fault.chunked and self.request.method != "HEAD":
                self._transport.write(b"0\r\n\r\n")
            self._transport.unregisterProducer()
        if not whole and self._fault.reset:
            self._transport.abortConnection()
        elif self._close or not whole:
            self._transport.loseConnection()
        self._over(whole)
        if self.rule is not None:
            self.rule.came_to_effect()

    def _over(self, whole: bool) -> None:
        if not self.request.done:
            self.request.done, self.request.whole = True, whole
            self.changed()

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._pump()

    def stopProducing(self) -> None:
        if self._drip is not None:
            self._drip.cancel()
            self._drip = None
        self._over(whole=False)
