"""The tar of `/export`, read over HTTP from wherever docxy is.

The law: what is read is one tar: a connection that breaks is made again at the byte where it broke, and an archive
that has changed meanwhile is a Failure.
"""

from __future__ import annotations

import http.client
import json
import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import urlencode, urlsplit

import click

from docxy.cli import tls
from docxy.cli.failure import Failure, NotReachable
from docxy.cli.screen import clean

SILENCE = 120.0
"""Seconds without a byte after which a connection counts as broken."""
ATTEMPTS = 6
"""Connections in a row without a byte."""
FAR = 1 << 20
"""Bytes from which on a new request costs less than reading."""
_PIECE = 1 << 18


def authorization(user: str | None, environ: Mapping[str, str]) -> str | None:
    """What logs a user in."""
    if user is None:
        return None
    password = environ.get("DOCXY_PASSWORD")
    if password is None:
        password = click.prompt(f"Password for {user}", hide_input=True, err=True)
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode("ascii")


class Download:
    """One tar.  Every method raises Failure."""

    def __init__(
        self,
        url: str,
        query: Sequence[tuple[str, str]],
        authorization: str | None,
        ca_file: str | None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """`url`: docxy's; `query`: of `/export`."""
        parts = urlsplit(url.rstrip("/"))
        self._host, self._tls = parts.netloc, parts.scheme == "https"
        self._path = f"{parts.path}/export?{urlencode(query)}"
        self._headers = {} if authorization is None else {"Authorization": authorization}
        self._context = tls.context(ca_file=ca_file) if self._tls else None
        self._sleep = sleep
        self._response: HTTPResponse | None = None
        self._connection: HTTPConnection | None = None
        self._etag = ""
        self._size = 0
        self.position = 0

    def open(self) -> int:
        """Asks for it; its size in bytes."""
        self._again()
        return self._size

    def read(self, count: int) -> bytes:
        """Exactly `count` bytes, which must be there."""
        pieces: list[bytes] = []
        while count:
            data = self._some(min(count, _PIECE))
            pieces.append(data)
            count -= len(data)
        return b"".join(pieces)

    def skip(self, count: int) -> None:
        """Go on behind `count` bytes."""
        if count < FAR:
            self.read(count)
            return
        self.position += count
        self.close()

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
        self._connection = self._response = None

    def _some(self, most: int) -> bytes:
        for attempt in range(ATTEMPTS):
            try:
                if self._response is None:
                    self._again()
                assert self._response is not None
                data = self._response.read(most)
                if data:
                    self.position += len(data)
                    return data
                why = "the connection ended early"
            except (OSError, HTTPException) as error:
                why = str(error) or type(error).__name__
            self.close()
            self._sleep(min(2.0**attempt / 2, 10.0))
        raise Failure(f"the download broke off at byte {self.position} of {self._size}: {why}")

    def _again(self) -> None:
        """Ask for what is left."""
        first = not self._etag
        if self._tls:
            self._connection = HTTPSConnection(self._host, timeout=SILENCE, context=self._context)
        else:
            self._connection = HTTPConnection(self._host, timeout=SILENCE)
        headers = dict(self._headers)
        if not first:
            headers |= {"Range": f"bytes={self.position}-", "If-Range": self._etag}
        try:
            self._connection.request("GET", self._path, headers=headers)
            response = self._connection.getresponse()
        except (OSError, HTTPException) as error:
            self.close()
            if first:
                where = f"{'https' if self._tls else 'http'}://{self._host}"
                raise NotReachable(f"{where} does not answer: {tls.reason(error)}") from None
            raise
        if response.status not in (200, 206):
            raise self._refused(response, first)
        if not first and response.status == 200:
            raise Failure("an image moved to another digest meanwhile; run the command again")
        self._response = response
        if first:
            self._etag, self._size = response.getheader("ETag") or "", int(response.getheader("Content-Length") or 0)
            if not self._etag or not self._size:
                raise Failure(f"what answers at {self._host} is no docxy that exports images")

    def _refused(self, response: HTTPResponse, first: bool) -> Exception:
        text = _message(response)
        self.close()
        if not first and response.status >= 500:
            return HTTPException(f"{response.status}: {text}")
        hint = "; log in with --user" if response.status == 401 else ""
        return Failure(f"docxy answered {response.status}: {clean(text)}{hint}")


def _message(response: http.client.HTTPResponse) -> str:
    try:
        return str(json.loads(response.read(65536))["errors"][0]["message"])[:500]
    except (ValueError, LookupError, TypeError, HTTPException, OSError):
        return response.reason[:100]
