"""The heads of upstreams' responses, within bounds.

The law: no more than `MAX_HEAD` bytes of status line and headers are taken of one response, those of
any number of 1xx before it included, and no more than `MAX_LINE` of one line.  Twisted's own parser
bounds a line at 16 KiB, which is too short for some registries' tokens, and a head not at all.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure
from twisted.web._newclient import HEADER, STATUS, HTTP11ClientProtocol, Request
from twisted.web.client import HTTPConnectionPool
from twisted.web.client import _HTTP11ClientFactory as Factory
from twisted.web.iweb import IResponse

from docxy.errors import UpstreamError

MAX_HEAD = 256 * 1024
MAX_LINE = 64 * 1024
"""Bytes."""
_SLICE = 16 * 1024
"""Bytes parsed at a time while headers are awaited: a read may hold a megabyte of them."""


class BoundedProtocol(HTTP11ClientProtocol):
    """A connection that is given up when a head has no end."""

    _head = 0

    def request(self, request: Request) -> Deferred[IResponse]:
        self._head = 0
        answered = super().request(request)
        if self._parser is not None:
            self._parser.MAX_LENGTH = MAX_LINE
        return answered

    def dataReceived(self, bytes: bytes) -> None:
        data = bytes
        while data and self._awaits_head():
            piece, data = data[:_SLICE], data[_SLICE:]
            super().dataReceived(piece)  # type: ignore[no-untyped-call]  # Twisted's is not annotated
            self._head += len(piece)
            if self._awaits_head() and self._head > MAX_HEAD:
                endless = Failure(UpstreamError(f"it sent more than {MAX_HEAD} bytes of headers"))
                self._giveUp(endless)  # type: ignore[no-untyped-call]  # Twisted's is not annotated
                return
        if data:
            super().dataReceived(data)  # type: ignore[no-untyped-call]  # Twisted's is not annotated

    def _awaits_head(self) -> bool:
        return self._parser is not None and self._parser.state in (STATUS, HEADER)


class _BoundedFactory(Factory):
    def buildProtocol(self, addr: IAddress | None) -> BoundedProtocol:
        return BoundedProtocol(self._quiescentCallback)  # type: ignore[no-untyped-call]  # Twisted's is not annotated


class BoundedPool(HTTPConnectionPool):
    """Twisted's pool, with such connections."""

    _factory: Any = _BoundedFactory
