"""HTTP/1.1 on a connection: llhttp's parser, in its strict form, beneath Twisted's requests and resources.

The law: *a connection is a sequence of requests whose ends are beyond doubt; at the first doubt it ends.*

- One answer for each request, in their order, one request being answered at a time.  Reading stops while
  another one waits, or while the client does not take what it was sent.
- Lines end in CRLF.  A bare CR or LF, a folded line, NUL or a control byte, a space before a colon, two
  lengths, a length beside Transfer-Encoding, an encoding other than `chunked`: 400, and the end of the
  connection (RFC 9112 sections 2.2, 5, 6).  In HTTP/1.1 there is one Host.  An absolute URI's host goes before it.
- A head has at most `MAX_HEAD` bytes and `MAX_FIELDS` lines (431), a URI `MAX_URI` (414), and all of it comes
  within `HEAD_WITHIN` seconds of its first byte, however often another byte comes.
- A body is read when it says its length and that is at most `MAX_BODY`; it is kept where the site wants a form.
  Any other is left unread: the request is answered at once, and the connection ends with the answer.
- Upgrades are not taken, and CONNECT leads nowhere: such a request is the last one of its connection.
- A TLS hello on a plain port is answered as Go answers it, by which clients know to go on without TLS.
"""

from __future__ import annotations

from collections import deque
from io import BytesIO
from typing import Any, Protocol

from httptools import HttpParserError, HttpParserInvalidMethodError, HttpParserUpgrade, HttpRequestParser
from twisted.internet.interfaces import IAddress, IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure

from docxy.errors import BadRequest, HeadTooLarge, RegistryError, Unsupported, URITooLong
from docxy.web.outlet import Outlet
from docxy.web.request import Request

MAX_URI = 8192
MAX_HEAD = 32 * 1024
"""Bytes."""
MAX_FIELDS = 200
MAX_BODY = 64 * 1024
"""Bytes of a body that is read."""
HEAD_WITHIN = 30.0
IDLE = 60.0
"""Seconds until the next request, and for a body."""
CLOSE_WITHIN = 15.0
"""Seconds a connection that is to be closed may take for what was written to it."""
LINGER = 5.0
"""Seconds for which what a refused client goes on sending is thrown away: if the socket were closed at once,
the reset could overtake the answer."""

_HELLO = b"HTTP/1.0 400 Bad Request\r\nConnection: close\r\n\r\nThis port speaks HTTP, not HTTPS.\n"


class ISite(Protocol):
    """What a connection needs of its site."""

    reactor: IReactorTime
    timeOut: float | None
    """None: connections never time out."""
    resource: Any

    def opened(self, channel: Channel) -> bool:
        """Whether a new connection may stay; `closed` is called for each."""

    def closed(self, channel: Channel) -> None:
        """A connection is gone."""

    def wants_form(self, method: bytes, path: bytes) -> bool:
        """Whether a request's body is of interest."""

    def date(self) -> str:
        """The time, as `Date` has it."""

    def log(self, request: Any) -> None:
        """A request was answered."""

    def lost(self, request: Any) -> None:
        """The connection of a request is gone before it was answered."""


class _Refused(Request):
    """A request that is none."""

    def __init__(self, channel: Channel, error: RegistryError) -> None:
        Request.__init__(self, channel, b"-", b"-", "1.1", {})
        self._error = error

    def process(self) -> None:
        self.refuse(self._error)


class Channel(Outlet):
    """One connection."""

    site: ISite
    transport: Any
    peer: IAddress
    """Who is at the other end, or whom a balancer names there (`docxy.web.proxy_protocol`)."""
    persistent: bool = True
    request: Request | None = None
    """The one that is being answered."""

    def __init__(self, address: IAddress | None) -> None:
        """`address`: the client's; None: the transport's peer."""
        Outlet.__init__(self)
        self._address = address
        self._parser: Any = None
        self._waiting: deque[Request] = deque()
        """Requests that are complete, but not begun."""
        self._fresh = True
        """Whether nothing came yet."""
        self._deaf = False
        """Whether no more requests are taken."""
        self._unread = False
        """Whether the last request's body is left unread."""
        self._in_head = False
        self._head_size = 0
        self._dripped = 0
        self._paused = False
        self._starting = False
        self._deadline = 0.0
        self._timer: IDelayedCall | None = None
        self._uri = b""
        self._fields: dict[bytes, list[bytes]] = {}
        self._count = 0
        self._incoming: Request | None = None

    # The connection.

    def connectionMade(self) -> None:
        transport = self.transport
        self.peer = transport.getPeer() if self._address is None else self._address
        self._parser = HttpRequestParser(self)
        if not self.site.opened(self):
            self._deaf = True
            transport.abortConnection()
            return
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
        self.open_outlet()
        self._expect(IDLE)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # The parser holds this and this the parser.
        self._parser = None
        self.lose_outlet()
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        request, self.request = self.request, None
        if request is not None:
            request.connectionLost(reason)
        self.site.closed(self)

    def date(self) -> str:
        return self.site.date()

    def _expect(self, seconds: float) -> None:
        """The next bytes have to come within this many seconds."""
        self._deadline = self.site.reactor.seconds() + seconds
        if self._timer is not None:
            self._timer.reset(seconds)
        elif self._parser is not None and self.site.timeOut is not None:
            self._timer = self.site.reactor.callLater(seconds, self._check)

    def _check(self) -> None:
        self._timer = None
        left = self._deadline - self.site.reactor.seconds()
        if left <= 0 and (self._closing or (self._blocked and self.request is None)):
            self.transport.abortConnection()
        elif left <= 0 and self.request is None:
            self.loseConnection()
        else:
            self._timer = self.site.reactor.callLater(left if left > 0 else IDLE, self._check)

    def loseConnection(self) -> None:
        """Close once all that was written is out, or after `CLOSE_WITHIN`."""
        self._end(CLOSE_WITHIN)
        self.transport.loseConnection()

    def _linger(self) -> None:
        """Close, and throw away what still comes."""
        self._end(LINGER)
        if isinstance(self.transport, Connection):
            self.transport.loseWriteConnection()
        else:
            self.transport.loseConnection()

    def _end(self, within: float) -> None:
        self._deaf = True
        self.persistent = False
        self._expect(within)
        self.close_outlet()

    # What comes.

    def dataReceived(self, data: bytes) -> None:
        if self._deaf:
            return
        if self._fresh:
            self._fresh = False
            if data[:1] == b"\x16":
                self.transport.write(_HELLO)
                self.loseConnection()
                return
        in_head = self._in_head
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._deaf = True
        except HttpParserInvalidMethodError:
            self._fail(Unsupported.method("this method"))
        except HttpParserError:
            self._fail(BadRequest("this is no HTTP/1.1 request that docxy can read"))
        if self._in_head and not self._deaf:
            if not in_head:
                self._dripped = 0
                self._expect(HEAD_WITHIN)
            else:
                self._dripped += len(data)
                if self._dripped > MAX_HEAD:
                    self._fail(_too_large())
        self._next()

    def _fail(self, error: RegistryError) -> None:
        """What came is no request: answer so, in its turn, and listen no more."""
        if not self._deaf:
            self._deaf = self._unread = True
            self._waiting.append(_Refused(self, error))

    def on_message_begin(self) -> None:
        """llhttp found the first byte of a request."""
        self._in_head = True
        self._head_size = self._count = 0
        self._uri = b""
        self._fields = {}

    def on_url(self, piece: bytes) -> None:
        self._uri += piece
        if len(self._uri) > MAX_URI:
            self._fail(URITooLong(f"the URI has more than {MAX_URI} bytes"))

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer
        self._count += 1
        self._head_size += len(name) + len(value) + 4
        if self._head_size > MAX_HEAD or self._count > MAX_FIELDS:
            self._fail(_too_large())
            return
        name = name.lower()
        known = self._fields.get(name)
        if known is None:
            self._fields[name] = [value.strip()]
        else:
            known.append(value.strip())

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._deaf:
            return
        parser, fields = self._parser, self._fields
        version = parser.get_http_version()
        if version != "1.1" and version != "1.0":
            self._fail(BadRequest("docxy speaks HTTP/1.1"))
            return
        uri = self._uri
        if uri[:1] != b"/":
            uri = self._origin_form(uri)
        hosts = fields.get(b"host")
        if hosts is None:
            if version == "1.1":
                self._fail(BadRequest("the request has no Host"))
                return
        elif len(hosts) != 1:
            self._fail(BadRequest("the request has more than one Host"))
            return
        request = Request(self, parser.get_method(), uri, version, fields)
        self._incoming = request
        encoding = fields.get(b"transfer-encoding")
        chunked = encoding is not None
        if encoding is not None and (len(encoding) != 1 or encoding[0].lower() != b"chunked"):
            self._fail(BadRequest("docxy reads no Transfer-Encoding but chunked"))
            return
        if chunked and version == "1.0":
            self._fail(BadRequest("Transfer-Encoding came in HTTP/1.0"))
        elif chunked or b"content-length" in fields:
            self._expect_body(request, None if chunked else int(fields[b"content-length"][0]))
        request.last = not parser.should_keep_alive() or self._unread or parser.should_upgrade()

    def _origin_form(self, uri: bytes) -> bytes:
        """A request line's URI as the origin's server has it (RFC 9112 section 3.2.2)."""
        scheme, found, rest = uri.partition(b"://")
        if not found or scheme.lower() not in (b"http", b"https"):
            return uri
        cut = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
        self._fields[b"host"] = [rest[:cut].rpartition(b"@")[2]]
        path = rest[cut:]
        return path if path[:1] == b"/" else b"/" + path

    def _expect_body(self, request: Request, length: int | None) -> None:
        if length is None or length > MAX_BODY:
            request.content = BytesIO()
            self._unread = self._deaf = True
            request.last = True
            self._incoming = None
            self._waiting.append(request)
            return
        if length and self.site.wants_form(request.method, request.path):
            request.content = BytesIO()
        expect = request.fields.get(b"expect")
        if length and expect is not None and expect[-1].lower() == b"100-continue" and not self._busy():
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._expect(IDLE)

    def _busy(self) -> bool:
        return self.request is not None or bool(self._waiting)

    def on_body(self, data: bytes) -> None:
        if not self._deaf and self._incoming is not None and self._incoming.content is not None:
            self._incoming.content.write(data)

    def on_message_complete(self) -> None:
        request, self._incoming = self._incoming, None
        if request is None or self._deaf:
            return
        if request.last:
            self._deaf = True
        if request.content is not None:
            request.content.seek(0)
        self._waiting.append(request)

    # What is answered.

    def _next(self) -> None:
        """Answer what waits, as far as the client takes it."""
        if self._starting:
            return
        self._starting = True
        while self._waiting and self.request is None and not self._blocked and self._parser is not None:
            request = self.request = self._waiting.popleft()
            request.started = self.site.reactor.seconds()
            if self._deaf and not self._waiting:
                self.persistent = False
            request.process()
        self._starting = False
        if self._parser is not None:
            self._pace()

    def _pace(self) -> None:
        """Read only what can be answered."""
        pause = bool(self._waiting) or (self._blocked and self.request is None)
        if pause is not self._paused and IPushProducer.providedBy(self.transport):
            self._paused = pause
            if pause:
                self.transport.pauseProducing()
            elif not self._closing:
                self.transport.resumeProducing()

    def stuck(self) -> None:
        if not self._starting:
            self._pace()

    def taken(self) -> None:
        self._next()

    def requestDone(self, request: Request) -> None:
        """The request is answered."""
        self.request = None
        if self.persistent:
            self._deadline = self.site.reactor.seconds() + (HEAD_WITHIN if self._in_head else IDLE)
            self._next()
        elif self._unread:
            self._linger()
        else:
            self.loseConnection()


def _too_large() -> HeadTooLarge:
    return HeadTooLarge(f"the request has more than {MAX_HEAD} bytes of headers, or more than {MAX_FIELDS} of them")
