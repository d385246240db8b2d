"""An upstream's answer, its body not read yet.

The law: the body is read, drained or abandoned, once; what is read into memory has a bound in bytes and in time.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import cast

from attrs import define, field
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from docxy.errors import RegistryError, UpstreamError, UpstreamTimeout
from docxy.settings.model import Timeouts
from docxy.upstream.body import ResponseBody, read_whole
from docxy.upstream.pace import Paying

_DRAINED = 64 * 1024
"""A redirect's or an error's body is read up to this many bytes, so that the connection can be used again."""
WHOLE_WITHIN = 120.0
"""Seconds for a body that is read whole, however often another byte of it comes."""
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")


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
    redirected: bool
    """Whether that is another origin than the one that was asked, such as the registry's storage."""
    _response: IResponse
    _clock: IReactorTime
    _timeouts: Timeouts
    _count: Callable[[int], object]
    """Called with the size of each piece that comes."""
    _paying: Paying | None
    """The limits that the body keeps within; None: there are none."""
    _body: ResponseBody | None = field(default=None, init=False)

    def header(self, name: str) -> str | None:
        """The last value of a header, or None."""
        values = self.header_values(name)
        return values[-1] if values else None

    def header_values(self, name: str) -> list[str]:
        """All values of a header, without control characters; bytes that are no text are replaced."""
        values = self.headers.getRawHeaders(name.encode("ascii"), [])
        return [_CONTROL.sub("", value.decode("utf-8", "replace")).strip() for value in values]

    @property
    def media_type(self) -> str | None:
        """Of the Content-Type, without its parameters, in lower case; None without one."""
        return (self.header("Content-Type") or "").partition(";")[0].strip().lower() or None

    @property
    def retry_after(self) -> tuple[tuple[str, str], ...]:
        """The Retry-After to pass on, in seconds: of a date, those since the response's own Date."""
        value = self.header("Retry-After")
        if value is None or value.isdigit():
            return () if not value else (("Retry-After", value),)
        try:
            until, now = (parsedate_to_datetime(text) for text in (value, self.header("Date") or ""))
            seconds = math.ceil((until - now).total_seconds())
        except (ValueError, TypeError):  # no dates, or one with a time zone and one without
            return ()
        return (("Retry-After", str(max(0, seconds))),)

    def body(self) -> ResponseBody:
        """The body, to be read at one's own pace and closed."""
        if self._body is None:
            self._body = ResponseBody(
                self._clock, self._timeouts.silence, self.source, self.length, self._count, self._paying
            )
            self._response.deliverBody(self._body)
        return self._body

    async def read(self, limit: int) -> bytes:
        """The whole body; UpstreamError past `limit` bytes, and after WHOLE_WITHIN seconds."""
        reading = Deferred.fromCoroutine(read_whole(self.body(), limit, self.source))
        try:
            return await reading.addTimeout(WHOLE_WITHIN, self._clock)
        except TimeoutError:
            raise UpstreamTimeout(f"{self.source} did not send all of its answer in {WHOLE_WITHIN:.0f} s") from None

    async def said(self) -> str:
        """What the error JSON says, as the end of a sentence; empty when it says nothing readable."""
        try:
            errors = json.loads(await self.read(64 * 1024))["errors"]
            message = str(errors[0].get("message") or errors[0]["code"])
        except (RegistryError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            self.abandon()
            return ""
        return f": {''.join(c for c in message[:200] if c.isprintable())}"

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
