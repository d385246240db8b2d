"""What a line of the access log says of a request.

The law: no line holds a query, nor a header of a client's request but its User-Agent and its
X-Request-Id, nor anything that could look like another line or field.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any, Protocol

from twisted.web.http import datetimeToLogString

from docxy.observe.metrics import cache_word
from docxy.settings.model import LogFormat

UNANSWERED = 499
"""In place of a status, as nginx has it."""
_LONGEST_PATH = 512
_LONGEST_METHOD = 16
_LONGEST_NAME = 64
_LONGEST_AGENT = 128
"""Bytes of what a client chose."""


class Answered(Protocol):
    """A request that was answered, as `docxy.web.request.Request` is one."""

    method: bytes
    uri: bytes
    clientproto: bytes
    code: Any
    sentLength: int
    started: float
    headed: float | None
    account: str | None
    about: tuple[str, str] | None
    target: Any
    """Of `docxy.routing.Target`, or None."""
    digest: str | None
    cache_status: str

    @property
    def is_whole(self) -> bool:
        """Whether all of the answer went out."""

    @property
    def request_id(self) -> str: ...

    def getHeader(self, key: bytes) -> bytes | None: ...


Form = Callable[[Answered, str, float, float], str]
"""From a request, its client's address, the time since the epoch and the seconds it took to a line."""


def form_of(format: LogFormat) -> Form:
    """The form of lines."""
    return json_line if format is LogFormat.JSON else Combined()


class Combined:
    """The Combined Log Format, and behind it what docxy did.

    That is the seconds it took, how the cache answered (`docxy.observe.metrics.cache_word`), the upstream's
    name and the request's id, each `-` where there is none.  The referrer is always `-`.
    """

    def __init__(self) -> None:
        self._second, self._stamp = -1, ""

    def __call__(self, request: Answered, address: str, now: float, seconds: float) -> str:
        second = int(now)
        if second != self._second:
            self._second, self._stamp = second, datetimeToLogString(second)
        account, about = request.account, request.about
        user = "-" if account is None else _shown(account.encode()[:_LONGEST_NAME]).replace(" ", "\\x20")
        method = _shown(request.method[:_LONGEST_METHOD])
        path = _shown(request.uri.partition(b"?")[0][:_LONGEST_PATH])
        agent = _shown((request.getHeader(b"User-Agent") or b"-")[:_LONGEST_AGENT])
        return (
            f'{address} - {user} {self._stamp} "{method} {path} {request.clientproto.decode("ascii")}" '
            f'{_status(request)} {request.sentLength} "-" "{agent}" {seconds:.3f} '
            f"{cache_word(request.cache_status) or '-'} {about[0] if about else '-'} {request.request_id}"
        )


def json_line(request: Answered, address: str, now: float, seconds: float) -> str:
    """One object, with all its keys in each line; null where there is nothing to say."""
    target, about, headed = request.target, request.about, request.headed
    agent = request.getHeader(b"User-Agent")
    return json.dumps(
        {
            "time": stamp(now),
            "log": "access",
            "client": address,
            "user": request.account,
            "method": _text(request.method, _LONGEST_METHOD),
            "path": _text(request.uri.partition(b"?")[0], _LONGEST_PATH),
            "status": _status(request),
            "bytes": request.sentLength,
            "whole": request.is_whole,
            "seconds": round(seconds, 4),
            "first_byte": None if headed is None else round(max(0.0, headed - request.started), 4),
            "upstream": about[0] if about else None,
            "repository": target.repository or None if target is not None else None,
            "reference": target.reference or None if target is not None else None,
            "digest": request.digest,
            "cache": cache_word(request.cache_status) or None,
            "agent": None if agent is None else _text(agent, _LONGEST_AGENT),
            "request_id": request.request_id,
        },
        separators=(",", ":"),
    )


def _status(request: Answered) -> int:
    """The answer's; `UNANSWERED` where the client went before there was one."""
    return UNANSWERED if request.headed is None else int(request.code)


def stamp(now: float) -> str:
    """The time in RFC 3339, to the millisecond; `now`: seconds since the epoch."""
    return datetime.fromtimestamp(now, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text(sent: bytes, most: int) -> str:
    return sent[:most].decode("utf-8", "replace")


@lru_cache(1024)
def _shown(sent: bytes) -> str:
    """What a client sent, as it may stand between quotes."""
    text = sent.decode("latin-1")
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else f"\\x{ord(c):02x}" for c in text)
