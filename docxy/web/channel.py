"""HTTP/1.1 as docxy speaks it: Twisted's, with limits of our own and a short way for what was just answered.

The law: a request's head is text, and of its body no more than a token request's form is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import ITCPTransport
from twisted.web import server
from twisted.web.http import HTTPChannel
from twisted.web.http_headers import Headers

from docxy.errors import BadRequest
from docxy.gate.addresses import peer
from docxy.web.repeats import alike
from docxy.web.respond import reply_error
from docxy.web.token import MAX_FORM

if TYPE_CHECKING:
    from docxy.web.site import RegistrySite


class _Discarded(BytesIO):
    """The body of a request that is too large for any that is answered."""

    def write(self, data: Any, /) -> int:
        return len(data)


class Request(server.Request):
    """One request."""

    defaultContentType = None
    repeat_for = 0.0
    """Seconds for which everybody who sends the same bytes may be given the same answer."""
    about: tuple[str, str] | None = None
    """The upstream it is about, and what of it is asked for; for the meter."""

    def gotLength(self, length: int | None) -> None:
        # Twisted would spool the body of any POST to disk, whatever its size.
        self.content = BytesIO() if length is not None and length <= MAX_FORM else _Discarded()

    def process(self) -> None:
        if _is_text(self.requestHeaders):
            server.Request.process(self)
        else:
            reply_error(self, BadRequest("the request has a header whose bytes are not UTF-8"))


def _is_text(headers: Headers) -> bool:
    try:
        for _, values in headers.getAllRawHeaders():
            for value in values:
                value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


class Channel(HTTPChannel):
    """HTTP/1.1 and nothing else."""

    site: RegistrySite
    transport: ITCPTransport
    _between = True
    """Whether nothing of a request is here: what comes next is a head's first byte."""
    _head: bytes | None = None
    """What the one request that is being answered is alike in, if all of it came in one piece."""
    _answer: list[bytes] | None = None
    """What was written of an answer that may be repeated."""
    _client = ""

    def dataReceived(self, data: bytes) -> None:
        self._head = None
        if self._between:
            if data.find(b"\r\n\r\n") == len(data) - 4:
                self._head = alike(data)
                repeat = self.site.repeats.get(self._head)
                if repeat is not None:
                    HTTPChannel.resetTimeout(self)
                    self.transport.write(repeat.answer)
                    self.site.lines.write(f"{self._address()}{repeat.line}")
                    self.site.meter.answered(repeat.what, repeat.sent)
                    return
            # podman and skopeo try https first: a TLS hello on a plain port has no line's end, and
            # waiting for one would cost each of their first requests ten seconds.
            if data[:1] == b"\x16" and not self.requests:
                self.transport.abortConnection()
                return
        self._between = False
        HTTPChannel.dataReceived(self, data)

    def _address(self) -> str:
        """The client's, for the log."""
        if not self._client:
            self._client = peer(self.transport.getPeer())
        return self._client

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        lines = [b"%b %b %b\r\n" % (version, code, reason)]
        lines += [b"%b: %b\r\n" % (name, value) for name, values in headers.getAllRawHeaders() for value in values]
        head = b"".join([*lines, b"\r\n"])
        self._answer = [head] if self.requests and self.requests[0].repeat_for > 0 else None
        self.transport.write(head)

    def write(self, data: bytes) -> None:
        if self._answer is not None:
            self._answer.append(data)
        self.transport.write(data)

    def writeSequence(self, data: Sequence[bytes]) -> None:
        self.write(b"".join(data))

    def requestDone(self, request: Request) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and self._head is not None and self.persistent:
            self.site.repeat(self._head, b"".join(answer), request)
        self._between = self._head is not None
        HTTPChannel.requestDone(self, request)
