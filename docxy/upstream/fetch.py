"""One HTTP exchange with an upstream, redirects included.

The law: an Authorization header reaches the origin it was meant for and no other; bytes
arrive as they were sent, never decoded; every failure is an UpstreamError that
names the origin and holds no query (signed URLs are secrets).
"""

from __future__ import annotations

from collections.abc import Sequence
from http.cookiejar import DefaultCookiePolicy
from urllib.parse import quote, urljoin, urlsplit

from attrs import frozen
from hyperlink import EncodedURL
from OpenSSL.SSL import Error as TLSError
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import RequestTransmissionFailed, ResponseFailed, ResponseNeverReceived
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from docxy.errors import UpstreamBroke, UpstreamError, UpstreamTimeout
from docxy.observe.metrics import IMeter
from docxy.observe.state import Notes
from docxy.observe.tracing import ITracer, Work
from docxy.settings.model import Timeouts
from docxy.upstream.pace import Pace, Paying
from docxy.upstream.response import Response

MAX_HOPS = 10
REDIRECTS = frozenset({301, 302, 303, 307, 308})

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
        return self.agent.request(method, uri, headers, bodyProducer).addCallback(_as_they_are)


def _as_they_are(response: IResponse) -> IResponse:
    """Let treq decode nothing: object stores say `gzip`, `aws-chunked` or `utf-8` of bytes whose digest is right."""
    response.headers.removeHeader(b"Content-Encoding")
    return response


def redirect_target(url: str, location: str) -> str:
    """Where a redirect of `url` leads; raises UpstreamError when nobody should go there.  Pure."""
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


class Fetcher:
    """Sends requests and follows redirects; connections are pooled by the agent."""

    _log = Logger()

    def __init__(
        self,
        agent: IAgent,
        clock: IReactorTime,
        timeouts: Timeouts,
        upstream: str,
        meter: IMeter,
        notes: Notes,
        tracer: ITracer,
        paces: Sequence[Pace],
    ) -> None:
        """`upstream`: its name, for the meter, the notes and the tracer; `paces`: the limits of how fast bytes come."""
        self._paces = paces
        self._tracer = tracer
        self._notes = notes
        self._upstream = upstream
        self._meter = meter
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
        began = self._clock.seconds()
        told = {"docxy.upstream": self._upstream, "http.request.method": method, "docxy.origin": origin(url)}
        span = self._tracer.begin(Work.FETCH, told)
        try:
            response = await self._request(method, url, headers, data, follow)
        except UpstreamError as error:
            self._log.debug("{method} {url}: {why}", method=method, url=_shown(url), why=error.message)
            span.end({}, error.message)
            self._meter.fetched(self._upstream, None, self._clock.seconds() - began)
            self._notes.failed(self._upstream, error.message)
            raise
        except BaseException:
            span.end({}, "given up")
            raise
        span.end({"http.response.status_code": response.status, "docxy.answered_by": response.source}, None)
        seconds = max(0.0, self._clock.seconds() - began)
        self._log.debug(
            "{method} {url}: {status} in {seconds:.3f} s",
            method=method,
            url=_shown(url),
            status=response.status,
            seconds=seconds,
        )
        self._meter.fetched(self._upstream, response.status, seconds)
        self._notes.answered(self._upstream, response.status, seconds)
        return response

    def _received(self, count: int) -> None:
        self._meter.received(self._upstream, count)
        self._notes.received(self._upstream, count)

    async def _request(self, method: str, url: str, headers: Headers, data: bytes | None, follow: bool) -> Response:
        headers = headers.copy()
        first, blob = origin(url), _shown(url)
        for _ in range(MAX_HOPS + 1):
            response = await self._exchange(method, url, headers, data, blob)
            response.redirected = response.source != first
            location = response.header("Location")
            if not follow or response.status not in REDIRECTS or location is None:
                return response
            await response.drain()
            target = redirect_target(url, location)
            if origin(target) != first:
                headers.removeHeader("Authorization")
            url = target
        raise UpstreamError(f"{first} redirected more than {MAX_HOPS} times")

    async def _exchange(self, method: str, url: str, headers: Headers, data: bytes | None, blob: str) -> Response:
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
            if any(isinstance(reason, CancelledError) for reason in _reasons(error)):
                # Nobody waits for the answer any more.
                raise CancelledError from error
            raise _broken(source, error) from error
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
            redirected=False,
            response=response,
            clock=self._clock,
            timeouts=self._timeouts,
            count=self._received,
            paying=Paying(self._paces, blob) if self._paces else None,
        )


def _shown(url: str) -> str:
    """A URL for the log: a query may be signed."""
    return url.partition("?")[0]


def _broken(source: str, error: ResponseFailed | RequestTransmissionFailed) -> UpstreamError:
    """What is behind Twisted's wrapping, in words without a URL."""
    reasons = _reasons(error)
    refused = [reason for reason in reasons if isinstance(reason, UpstreamError)]
    told = f"{source}: {'; '.join(_words(reason) for reason in refused or reasons) or type(error).__name__}"
    # A refused certificate, or no TLS at all, stays what it is.
    lasting = refused or any(isinstance(reason, TLSError) for reason in reasons)
    return UpstreamError(told) if lasting else UpstreamBroke(told)


def _reasons(error: ResponseFailed | RequestTransmissionFailed) -> list[object]:
    return [getattr(reason, "value", reason) for reason in getattr(error, "reasons", [])]


def _words(reason: object) -> str:
    """One cause: OpenSSL's errors are lists of triples, the last item of each says what happened."""
    if isinstance(reason, TLSError):
        alerts = [str(entry[-1]) for entry in reason.args[0] if entry] if reason.args and reason.args[0] else []
        return f"TLS failed ({', '.join(alerts) or 'no reason given'})"
    return str(reason) or type(reason).__name__


def _length(method: str, response: IResponse) -> int | None:
    if method == "HEAD" or response.code == 304:
        # The headers tell what a GET would get, while `length` tells of the body: 0.
        told = response.headers.getRawHeaders(b"Content-Length", [b""])[-1].strip()
        return int(told) if told.isdigit() else None
    return response.length if isinstance(response.length, int) else None
