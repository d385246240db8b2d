"""An agent whose answers a test scripts, for what real sockets cannot show: https, other hosts, a clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer, IResponse
from zope.interface import implementer


@frozen
class Asked:
    """A request that came to the agent."""

    method: str
    url: str
    headers: Headers
    body: bytes

    def header(self, name: str) -> str | None:
        values = self.headers.getRawHeaders(name)
        return None if values is None else ", ".join(values)


class Transport:
    """A body's, which counts what is done to it."""

    def __init__(self) -> None:
        self.paused = False
        self.stopped = 0

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def stopProducing(self) -> None:
        self.stopped += 1


@implementer(IResponse)
@define(eq=False)
class Scripted:
    """A response; its body comes at once, or never when `stalls`."""

    code: int = 200
    fields: dict[str, str | bytes] = field(factory=dict)
    body: bytes = b""
    stalls: bool = False
    version: Any = ("HTTP", 1, 1)
    phrase: bytes = b""
    request: Any = None
    previousResponse: Any = None
    transport: Transport = field(factory=Transport)
    headers: Headers = field(init=False)
    length: Any = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.headers = Headers()
        for name, value in self.fields.items():
            self.headers.setRawHeaders(name.encode(), [value.encode("latin-1") if isinstance(value, str) else value])
        self.length = UNKNOWN_LENGTH if self.stalls else len(self.body)

    def deliverBody(self, protocol: IProtocol) -> None:
        protocol.makeConnection(self.transport)  # type: ignore[arg-type]  # all that is used of a transport
        if not self.stalls:
            if self.body:
                protocol.dataReceived(self.body)
            protocol.connectionLost(Failure(ResponseDone()))

    def setPreviousResponse(self, response: IResponse) -> None:
        self.previousResponse = response


Answer = Scripted | Exception | None
"""None: never."""


@implementer(IAgent)
class ScriptedAgent:
    """Answers by a function of the request, and keeps all of them."""

    def __init__(self, script: Callable[[Asked], Answer]) -> None:
        self.script = script
        self.asked: list[Asked] = []

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        body = b"" if bodyProducer is None else bodyProducer._inputFile.read()  # type: ignore[attr-defined]  # treq's
        asked = Asked(method.decode(), uri.decode(), (headers or Headers()).copy(), body)
        self.asked.append(asked)
        answered: Deferred[IResponse] = Deferred()
        answer = self.script(asked)
        if isinstance(answer, Exception):
            answered.errback(answer)
        elif answer is not None:
            answered.callback(answer)
        return answered
