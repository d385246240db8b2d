"""One request and its answer, on Twisted's `Request` and without most of what that one does for each.

The law: *an answer's head is written once, with a length or with what ends the body without one, and no
control byte in any header.*  What few requests need (`requestHeaders`, `responseHeaders`, cookies, forms) is
made when it is asked for, or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property, lru_cache
from http import HTTPStatus
from random import Random
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, AnyStr, Protocol

from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.error import UnsupportedMethod
from twisted.web.http_headers import Headers
from zope.interface import implementer

from docxy.errors import BadRequest, Internal, RegistryError, Unsupported
from docxy.observe.metrics import cache_word
from docxy.observe.tracing import NO_SPAN, ISpan
from docxy.observe.trail import Fetched, ITrail
from docxy.routing import Target

if TYPE_CHECKING:
    from io import BytesIO

Pairs = Iterable[tuple[str, str]]

LONGEST_ERROR = 300
"""Characters of an error that are kept for those who look at what docxy did."""

API_VERSION = ("Docker-Distribution-Api-Version", "registry/2.0")

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,128}")
_RANDOM = Random()
_FROM_CACHE = {word: ("Server-Timing", f"cache;desc={word}") for word in ("hit", "negative")}
_NO_BODY = (204, 304)
_STATUS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


class IChannel(Protocol):
    """What a request needs of its connection."""

    site: Any
    transport: Any
    persistent: bool
    """Whether the connection goes on after the answer."""
    peer: IAddress

    def getHost(self) -> IAddress:
        """The address it came to."""

    def requestDone(self, request: Request) -> None:
        """The request is answered."""

    def date(self) -> str:
        """The time, as `Date` has it."""

    def write(self, data: bytes) -> None:
        """Send."""

    def write_head(self, data: bytes) -> None:
        """Send what the socket's next bytes follow at once."""


@implementer(ITrail)
class Request(server.Request):
    """One request, and the trail of what is done for it."""

    _log = Logger()
    defaultContentType = None
    site: Any
    channel: IChannel | None  # type: ignore[assignment]  # Twisted's own is but one of these
    """None once the request is answered, or its client gone."""
    about: tuple[str, str] | None = None
    """The upstream it is about, and what of it is asked for; for the meter."""
    is_endless = False
    """Whether the answer has no end of its own: a stop does not wait for it."""
    last = False
    """Whether the connection ends with its answer."""
    started = 0.0
    """When its head was complete; seconds of the reactor's clock."""
    checked: float | None = 0.0
    """Seconds that it took to know who asks and whether that one may; None: that is not known yet."""
    headed: float | None = None
    """When the answer's head was known; seconds of the reactor's clock."""
    target: Target | None = None
    """What it asks for, once that is clear."""
    digest: str | None = None
    """What its reference led to."""
    size: int | None = None
    """Bytes of the whole content that it asks for, or for a part of."""
    platforms: Mapping[str, str] = MappingProxyType({})
    """Of the index that it got, if this process had not seen that before; see `Exchange`."""
    retry_after: float | None = None
    """Seconds that an error named."""
    limit = ""
    """Whose limit an error told of; see `Exchange`."""
    error = ""
    """What an error said."""
    cache_status = ""
    """The answer's `Cache-Status`, for the access log and the meter."""
    account: str | None = None
    """The account whose credentials it sent, where docxy has accounts and they are right."""
    group = ""
    """Of this account, as `[access.groups]` has it."""
    floor: float | None = None
    """See `docxy.pull.caller.Caller`."""
    token: str | None = None
    """A keyed digest of the credentials that it sent, where they are for the upstream."""
    charges: Mapping[str | None, int] = MappingProxyType({})
    """Counted requests to the upstream, by the account that paid; None: the client's own."""
    failovers = 0
    """Endpoints of the upstream that failed."""
    fetched: Fetched | None = None
    """How the blob that it asks for is fetched."""
    span: ISpan = NO_SPAN
    """What is traced of it."""
    length: int | None = None
    """Bytes of the answer's body; None while that is not known, or at all."""
    _said: Pairs = ()

    def __init__(self, channel: IChannel, method: bytes, uri: bytes, version: str, fields: dict[bytes, list[bytes]]):
        """`uri`: in origin form; `version`: `1.0` or `1.1`; `fields`: the headers, names in lower case."""
        # Not Twisted's own: that one makes four objects that hardly a request of a registry needs.
        self.channel = channel
        self.site = channel.site
        self.method = method
        self.uri = uri
        self.path = uri.partition(b"?")[0]
        self.clientproto = b"HTTP/" + version.encode()
        self.fields: Mapping[bytes, list[bytes]] = fields
        self.notifications = []
        self.content: BytesIO | None = None
        self.waits: dict[str, float] = {}

    @cached_property
    def requestHeaders(self) -> Headers:  # type: ignore[override]  # made when asked for
        return Headers(dict(self.fields))

    @cached_property
    def responseHeaders(self) -> Headers:  # type: ignore[override]  # made when asked for
        return Headers()

    @cached_property
    def request_id(self) -> str:
        """What the client calls this request, if that is fit for a log; else a name made here."""
        given = self.fields.get(b"x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given[-1]):
            return given[-1].decode("ascii")
        return f"{_RANDOM.getrandbits(64):016x}"

    @cached_property
    def client(self) -> IAddress:
        assert self.channel is not None
        return self.channel.peer

    @cached_property
    def host(self) -> IAddress:
        assert self.channel is not None
        return self.channel.getHost()

    def getHeader(self, key: AnyStr) -> AnyStr | None:
        """The last value of a header."""
        if isinstance(key, bytes):
            values = self.fields.get(key.lower())
            return None if values is None else values[-1]
        values = self.fields.get(_field(key))
        return None if values is None else values[-1].decode("utf-8")

    def process(self) -> None:
        """Have the site's resource answer."""
        site = self.site
        try:
            for values in self.fields.values():
                for value in values:
                    if not value.isascii():
                        value.decode("utf-8")
            resource = site.resource
            if not resource.isLeaf:
                self.prepath = []
                self.postpath = self.path[1:].split(b"/")
                resource = site.getResourceFor(self)
            body = resource.render(self)
            if body is not server.NOT_DONE_YET:
                self.answer(self.code, (), body)
        except UnicodeDecodeError:
            self.refuse(BadRequest("the request has a header whose bytes are not UTF-8"))
        except UnsupportedMethod as error:
            allowed = b", ".join(error.allowedMethods).decode("ascii")
            self.refuse(Unsupported.method(self.method.decode("ascii"), allowed))
        except Exception:
            self._log.failure("answering {request} failed", request=self.shown, request_id=self.request_id)
            if not self.startedWriting:
                self.refuse(Internal("docxy failed to answer this; its log says more"))
            elif self.channel is not None:
                self.error = "docxy failed to answer this"
                self.channel.transport.abortConnection()

    def unsupported(self, allow: str = "GET, HEAD") -> Unsupported:
        """The error for a request whose method is none of these."""
        return Unsupported.method(self.method[:16].decode("ascii", "replace"), allow)

    @property
    def shown(self) -> str:
        """For lines of the log: what was asked for, without its query, and the request's id."""
        method, path = self.method[:16].decode("ascii", "replace"), self.path[:512].decode("ascii", "replace")
        return f"{printable(method)} {printable(path)} (request {self.request_id})"

    def server_timing(self) -> tuple[str, str]:
        """`Server-Timing`: how the cache answers and, where it could not alone, the milliseconds until now."""
        word = cache_word(self.cache_status)
        if word in _FROM_CACHE:
            return _FROM_CACHE[word]
        upstream = (self.site.reactor.seconds() - self.started) * 1000
        return "Server-Timing", f"cache;desc={word or 'none'}, upstream;dur={max(0.0, upstream):.1f}"

    def start(self, status: int, headers: Pairs, length: int | None) -> None:
        """Say what the answer will be; `length`: of its body in bytes, None when unknown."""
        self.code = status
        self._said = headers
        self.length = length
        self.headed = self.site.reactor.seconds()

    def answer(self, status: int, headers: Pairs, body: bytes) -> None:
        """All of a small answer; for HEAD its head only."""
        # The length in a 304 would be that of the content which the client has (RFC 9110 section 8.6).
        self.start(status, headers, None if status in _NO_BODY else len(body))
        self.write(body)
        self.finish()

    def refuse(self, error: RegistryError) -> int:
        """An error as the distribution-spec has it, in the place of what was to be answered; NOT_DONE_YET."""
        self.error = error.message[:LONGEST_ERROR]
        self.retry_after = error.retry_after
        self.limit = getattr(error, "limit", "")
        self.__dict__.pop("responseHeaders", None)
        for name, value in error.headers:
            if name == "Cache-Status":
                self.cache_status = value
        headers = (API_VERSION, ("Content-Type", "application/json"), *error.headers)
        self.answer(error.status, headers, error.body())
        return server.NOT_DONE_YET

    @property
    def is_whole(self) -> bool:
        """Whether all of the answer went out."""
        if self.method == b"HEAD" or self.code in _NO_BODY or self.length is None:
            return bool(self.finished)
        return self.sentLength == self.length

    def wait(self, what: str, seconds: float) -> None:
        """See `ITrail.wait`."""
        self.waits[what] = self.waits.get(what, 0.0) + seconds

    def charge(self, account: str | None) -> None:
        """See `ITrail.charge`."""
        self.charges = {**self.charges, account: self.charges.get(account, 0) + 1}
        if self.finished or self._disconnected:
            self.site.charged_late(self, account)

    def failed_over(self) -> None:
        """See `ITrail.failed_over`."""
        self.failovers += 1

    def write(self, data: bytes) -> None:
        if self.finished:
            raise RuntimeError("an answer that is finished takes no more bytes")
        if self._disconnected:
            return
        channel = self.channel
        assert channel is not None
        head = b""
        if not self.startedWriting:
            head = self._head(channel)
            self.startedWriting = 1
        if self.method == b"HEAD" or self.code in _NO_BODY:
            data = b""
        self.sentLength += len(data)
        if self.chunked and data:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if head or data:
            channel.write(head + data)

    def begin(self) -> None:
        """Write the head, ahead of a body that follows at once on the connection's socket."""
        channel = self.channel
        if channel is not None and not self.startedWriting:
            head = self._head(channel)
            self.startedWriting = 1
            channel.write_head(head)

    def _head(self, channel: IChannel) -> bytes:
        """Status line and headers."""
        said = self._said
        more = self.__dict__.get("responseHeaders")
        if more is not None:
            lines = [(name, value) for name, values in more.getAllRawHeaders() for value in values]
            said = [*said, *((name.decode("latin-1"), value.decode("latin-1")) for name, value in lines)]
        headers = "".join([f"{name}: {printable(value)}\r\n" for name, value in said])
        if self.length is not None:
            headers += f"Content-Length: {self.length}\r\n"
        elif self.code not in _NO_BODY and self.method != b"HEAD":
            if self.clientproto == b"HTTP/1.1":
                headers += "Transfer-Encoding: chunked\r\n"
                self.chunked = 1
            else:
                channel.persistent = False
        if not channel.persistent:
            headers += "Connection: close\r\n"
        elif self.clientproto == b"HTTP/1.0":
            headers += "Connection: keep-alive\r\n"
        status = _STATUS.get(self.code) or f"HTTP/1.1 {self.code} \r\n"
        head = f"{status}Server: docxy\r\nDate: {channel.date()}\r\nX-Request-Id: {self.request_id}\r\n{headers}\r\n"
        return head.encode("utf-8", "replace")

    def finish(self) -> None:
        if self._disconnected:
            raise RuntimeError("the client of this request is gone")
        if self.finished:
            raise RuntimeError("this request is finished already")
        channel = self.channel
        assert channel is not None
        if not self.startedWriting:
            self.write(b"")
        if self.chunked:
            channel.write(b"0\r\n\r\n")
        self.finished = 1  # before it is noted: the note says whether it was
        self.site.log(self)
        if self.producer is not None:
            self.unregisterProducer()  # type: ignore[no-untyped-call]  # not annotated
        self.content = None
        self.channel = None
        channel.requestDone(self)
        for waiting in self.notifications:
            waiting.callback(None)
        self.notifications = []

    def connectionLost(self, reason: Failure) -> None:
        """The client is gone."""
        self._disconnected = True
        if not self.finished:
            self.site.lost(self)
        self.content = None
        notifications, self.notifications = self.notifications, []
        self.channel = None
        for waiting in notifications:
            waiting.errback(reason)


@lru_cache(256)
def _field(name: str) -> bytes:
    """A header's name as `Request.fields` has it."""
    return name.lower().encode()


def printable(value: str) -> str:
    """A header's value without what could end it or command a terminal, wherever it came from."""
    if value.isprintable():
        return value
    return "".join(c for c in value if c == "\t" or (c >= " " and c != "\x7f"))
