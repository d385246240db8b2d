"""What tests get of an HTTP exchange: an answer that is over, or a body under way whose every byte counts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers


@frozen
class Head:
    """The head of a response."""

    status: int
    headers: Headers

    def header(self, name: str) -> str | None:
        values = self.headers.getRawHeaders(name)
        return None if values is None else ", ".join(values)

    @property
    def cache_status(self) -> str:
        return self.header("Cache-Status") or ""


@frozen
class Answer(Head):
    """A response that is over."""

    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        value = json.loads(self.body)
        assert isinstance(value, dict)
        return value

    @property
    def code(self) -> str:
        """The error code of the distribution-spec."""
        return str(json.loads(self.body)["errors"][0]["code"])


class Client(Protocol):
    """Takes one response's body: counted and hashed, kept only when asked to be."""

    def __init__(self, keep: bool = True) -> None:
        self.received = 0
        self.whole = False
        self.ended: Deferred[None] = Deferred()
        self._over = False
        self._hasher = hashlib.sha256()
        self._kept = bytearray() if keep else None
        self._waiting: list[tuple[int, Deferred[None]]] = []

    @property
    def digest(self) -> str:
        """Of what came so far."""
        return f"sha256:{self._hasher.hexdigest()}"

    @property
    def body(self) -> bytes:
        assert self._kept is not None
        return bytes(self._kept)

    def dataReceived(self, data: bytes) -> None:
        self.received += len(data)
        self._hasher.update(data)
        if self._kept is not None:
            self._kept += data
        self._tell()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.whole = reason.check(ResponseDone) is not None
        self._over = True
        self._tell()
        self.ended.callback(None)

    def _tell(self) -> None:
        ready = [waiting for count, waiting in self._waiting if self._over or count <= self.received]
        self._waiting = [each for each in self._waiting if each[1] not in ready]
        for waiting in ready:
            waiting.callback(None)

    def reached(self, count: int) -> Deferred[None]:
        """Fires once so many bytes are here, or no more come."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append((count, waiting))
        self._tell()
        return waiting

    @property
    def _producer(self) -> Any:
        return self.transport

    def pause(self) -> None:
        self._producer.pauseProducing()

    def resume(self) -> None:
        self._producer.resumeProducing()

    def vanish(self) -> None:
        """Close the connection in the middle."""
        self._producer.stopProducing()


@frozen
class Streamed(Head):
    """A response whose body is under way."""

    length: int | None
    client: Client


SendHeaders = Mapping[str, str | list[str]]


def sent(headers: SendHeaders | None) -> Headers:
    """A request's headers: a name has one value, or a line for each."""
    found = Headers({"Host": ["mirror.test"]})
    for name, value in (headers or {}).items():
        found.setRawHeaders(name, [value] if isinstance(value, str) else value)
    return found


async def whole(path: str, streamed: Streamed) -> Answer:
    """All of an answer, which must come whole."""
    await streamed.client.ended
    if not streamed.client.whole:
        raise AssertionError(f"{path} was cut after {streamed.client.received} bytes")
    return Answer(streamed.status, streamed.headers, streamed.client.body)
