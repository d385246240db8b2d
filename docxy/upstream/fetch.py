"""One HTTP exchange with an upstream, redirects included.

The law: an Authorization header reaches the origin it was meant for and no other; bytes
arrive as they were sent, never decoded; whatever goes wrong is an UpstreamError that
names the origin and holds no query (signed URLs are secrets).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from http.cookiejar import DefaultCookiePolicy
from typing import cast
from urllib.parse import quote, urljoin, urlsplit

from attrs import define, field, frozen
from hyperlink import EncodedURL
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import RequestTransmissionFailed, ResponseFailed, ResponseNeverReceived
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from docxy.config import Timeouts
from docxy.errors import UpstreamError, UpstreamTimeout
from docxy.metrics import IMeter, NoMeter
from docxy.upstream.body import Body, read_whole

MAX_HOPS = 10
REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DRAINED = 64 * 1024
"""A redirect's or an error's body is read up to this many bytes, so that the connection can be used again."""


_WRITTEN = "%/:?#[]@!$&'()*+,;=-._~"
"""What may stand in a URL besides letters and digits (RFC 3986 section 2)."""


def origin(url: str) -> str:
    """Scheme, host and port of a URL, in lower case, the port always said."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    host = (parts.hostname or "").lower()
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


class WrittenURL(EncodedURL):
    """A URL that is sent as it was written: signed ones bear no change, and an IPv6 address is no IDNA name."""

    def to_uri(self) -> WrittenURL:
        return self


@implementer(IAgent)
@frozen
class IdentityAgent:
    """Asks for the bytes as they are: treq adds `Accept-Encoding: gzip` and would decode."""

    agent: IAgent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        headers = Headers() if headers is None else headers.copy()
        headers.setRawHeaders(b"Accept-Encoding", [b"identity"])
        answered = self.agent.request(method, uri, headers, bodyProducer)
        return answered.addCallback(_refuse_encoding)


def _refuse_encoding(response: IResponse) -> IResponse:
    encoding = b",".join(response.headers.getRawHeaders(b"Content-Encoding", [])).strip().lower()
    if encoding not in (b"", b"identity"):
        response.deliverBody(_Abandoned())
        raise UpstreamError("a body came encoded although identity was asked for")
    response.headers.removeHeader(b"Content-Encoding")
    return response


class _Abandoned(Protocol):
    """Wants nothing of a body."""

    def connectionMade(self) -> None:
        cast(IPushProducer, self.transport).stopProducing()


@define
class Response:
    """An upstream's answer, its body not read yet.

    Exactly one of `body`, `read` and `abandon` must be used.
    """

    status: int
    headers: Headers
    length: int | None
    """Bytes of the body to come (of the GET that a HEAD stands for); None when not said."""
    source: str
    """The origin that answered, for errors."""
    _response: IResponse
    _clock: IReactorTime
    _timeouts: Timeouts
    _count: Callable[[int], object]
    """Told of the bytes that come."""
    _body: Body | None = field(default=None, init=False)

    def header(self, name: str) -> str | None:
        """The last value of a header, or None."""
        values = self.header_values(name)
        return values[-1] if values else None

    def header_values(self, name: str) -> list[str]:
        """All values of a header; bytes in them that are no text are replaced."""
        values = self.headers.getRawHeaders(name.encode("ascii"), [])
        return [value.decode("utf-8", "replace").strip() for value in values]

    def body(self) -> Body:
        """The body, to be read at one's own pace and closed."""
        if self._body is None:
            self._body = Body(self._clock, self._timeouts.silence, self.source, self.length, self._count)
            self._response.deliverBody(self._body)
        return self._body

    async def read(self, limit: int) -> bytes:
        """The whole body; UpstreamError past `limit` bytes."""
        return await read_whole(self.body(), limit, self.source)

    async def drain(self) -> None:
        """Be done with it, keeping the connection when little is left to read."""
        body = self.body()
        try:
            while body.received <= _DRAINED and await body.read():
                pass
        except UpstreamError:
            pass
        finally:
            body.close()

    def abandon(self) -> None:
        """Be done with it at once."""
        if self._body is None:
            self._response.deliverBody(_Abandoned())
        else:
            self._body.close()


class Fetcher:
    """Sends requests and follows redirects; connections are pooled by the agent."""

    def __init__(
        self, agent: IAgent, clock: IReactorTime, timeouts: Timeouts, upstream: str = "", meter: IMeter | None = None
    ) -> None:
        """`upstream`: its name, for the meter."""
        self._upstream = upstream
        self._meter: IMeter = NoMeter() if meter is None else meter
        jar = IndexableCookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))
        self._client = HTTPClient(IdentityAgent(agent), cookiejar=jar)
        self._clock = clock
        self._timeouts = timeouts

    async def request(
        self,
        method: str,
        url: str,
        headers: Headers,
        *,
        data: bytes | None = None,
        follow: bool = True,
    ) -> Response:
        """The final response; raises UpstreamError, UpstreamTimeout.

        `follow`: whether to follow redirects (never for token requests).
        """
        try:
            response = await self._request(method, url, headers, data, follow)
        except UpstreamError:
            self._meter.fetched(self._upstream, None)
            raise
        self._meter.fetched(self._upstream, response.status)
        return response

    async def _request(self, method: str, url: str, headers: Headers, data: bytes | None, follow: bool) -> Response:
        headers = headers.copy()
        first = origin(url)
        for _ in range(MAX_HOPS + 1):
            response = await self._exchange(method, url, headers, data)
            location = response.header("Location")
            if not follow or response.status not in REDIRECTS or location is None:
                return response
            await response.drain()
            target = self._target(url, location)
            if origin(target) != first:
                headers.removeHeader("Authorization")
            url = target
        raise UpstreamError(f"{first} redirected more than {MAX_HOPS} times")

    def _target(self, url: str, location: str) -> str:
        """Where a redirect of `url` leads; raises UpstreamError when nobody should go there."""
        try:
            # Some write a Location as people read it; what is encoded already stays as it is.
            target = quote(urljoin(url, location), safe=_WRITTEN)
            came, goes = urlsplit(url), urlsplit(target)
            valid = goes.scheme in ("http", "https") and bool(goes.hostname) and goes.port != 0
        except ValueError:
            valid = False
        if not valid:
            raise UpstreamError(f"{origin(url)} redirected to something that is not an http or https URL")
        if came.scheme == "https" and goes.scheme != "https":
            raise UpstreamError(f"{origin(url)} redirected from https to plain http ({origin(target)}); refused")
        return target

    async def _exchange(self, method: str, url: str, headers: Headers, data: bytes | None) -> Response:
        source = origin(url)
        timeout = self._timeouts.headers
        timed_out = False

        def expire(failure: Failure, _: float) -> Failure:
            nonlocal timed_out
            timed_out = True
            return failure

        try:
            response = await self._client.request(
                method,
                WrittenURL.from_text(url),
                headers=headers,
                data=data,
                allow_redirects=False,
                unbuffered=True,
                reactor=self._clock,  # type: ignore[arg-type]  # only its callLater would be used
            ).addTimeout(timeout, self._clock, onTimeoutCancel=expire)
        except UpstreamError as error:
            raise UpstreamError(f"{source}: {error.message}") from error
        except ConnectTimeout as error:
            raise UpstreamTimeout(
                f"{source} did not accept a connection within {self._timeouts.connect:g} s"
            ) from error
        except CancelledError as error:
            if timed_out:
                raise UpstreamTimeout(f"{source} did not answer within {timeout:g} s") from error
            raise
        except (ResponseFailed, ResponseNeverReceived, RequestTransmissionFailed) as error:
            if timed_out:
                raise UpstreamTimeout(f"{source} did not answer within {timeout:g} s") from error
            raise UpstreamError(f"{source}: {_innermost(error)}") from error
        except DNSLookupError as error:
            raise UpstreamError(f"{source}: its name cannot be resolved") from error
        except ConnectError as error:
            raise UpstreamError(f"{source} cannot be reached: {error}") from error
        except Exception as error:
            # Whatever else a transport, TLS or a parser may raise is the upstream's doing.
            raise UpstreamError(f"{source}: {type(error).__name__}") from error
        return Response(
            status=response.code,
            headers=response.headers,
            length=_length(method, response),
            source=source,
            response=response,
            clock=self._clock,
            timeouts=self._timeouts,
            count=partial(self._meter.received, self._upstream),
        )


def _innermost(error: ResponseFailed | RequestTransmissionFailed) -> str:
    """What is behind Twisted's wrapping, in words without a URL."""
    reasons = [getattr(reason, "value", reason) for reason in getattr(error, "reasons", [])]
    told = "; ".join(str(reason) or type(reason).__name__ for reason in reasons)
    return told or type(error).__name__


def _length(method: str, response: IResponse) -> int | None:
    if method == "HEAD" or response.code == 304:
        # The headers tell what a GET would get, while `length` tells of the body: 0.
        told = response.headers.getRawHeaders(b"Content-Length", [b""])[-1].strip()
        return int(told) if told.isdigit() else None
    return response.length if isinstance(response.length, int) else None
