"""A gate in front of nothing, asked through Twisted's own HTTP server over a transport in memory."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import bcrypt
from attrs import field, frozen
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, execute
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from zope.interface import provider

from docxy.access.interfaces import IGate
from docxy.access.open_gate import OpenGate
from docxy.access.scopes import readings
from docxy.access.token_keys import KeyFile
from docxy.broadcast import Broadcast, to_nobody
from docxy.gate import make_gate
from docxy.observe.access_log import Nowhere
from docxy.observe.metrics import NoMeter
from docxy.routing import EndpointKind, Router
from docxy.settings.access import parse
from docxy.settings.model import DOCKER_HUB, Upstream
from docxy.web.connections import Connections
from docxy.web.request import Request
from docxy.web.respond import respond
from docxy.web.site import RegistrySite
from tests.harness.built import NoRecorder

PUBLIC_URL = "https://mirror.example:8443"
REALM = f"{PUBLIC_URL}/auth/token"
KEY = b"k" * 64
GHCR = Upstream(name="ghcr.io", url="https://ghcr.io", hosts=frozenset({"ghcr.mirror.example"}))
UPSTREAMS = (DOCKER_HUB, GHCR)
PASSWORDS = {"alice": "wonder:land", "bob": "builder", "eve": "dropper"}


def hashed(password: str, prefix: str = "2b") -> str:
    """A bcrypt hash that costs as little as any may."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode().replace("$2b$", f"${prefix}$")


def lines(passwords: Mapping[str, str] = PASSWORDS) -> str:
    """The text of an htpasswd file."""
    return "".join(f"{user}:{hashed(password)}\n" for user, password in passwords.items())


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@frozen
class Answer:
    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def code(self) -> str:
        """The code of the distribution-spec."""
        return str(self.body["errors"][0]["code"])

    @property
    def challenge(self) -> str:
        return self.headers.get("www-authenticate", "")


class Guarded(Resource):
    """What docxy does with a gate: routes, asks it, and answers."""

    isLeaf = True

    def __init__(self, gate: IGate) -> None:
        Resource.__init__(self)
        self._gate = gate
        self._router = Router(UPSTREAMS)

    def render(self, request: Request) -> int:
        return respond(request, self._answer(request))

    async def _answer(self, request: Request) -> None:
        path, _, query = request.uri.decode().partition("?")
        if path == "/auth/token":
            post = request.method == b"POST"
            given = request.content.read().decode() if request.content is not None else query
            answer = await self._gate.token(request, parse_qsl(given, keep_blank_values=True), post)
        else:
            ns = dict(parse_qsl(query)).get("ns")
            target = self._router.route(path, ns, request.getHeader("Host"))
            await self._gate.admit(request, target.upstream.name, target.repository or None)
            answer = {"address": self._gate.address(request)}
            if target.kind is EndpointKind.CATALOG:
                known = dict(parse_qsl(query))["known"].split()
                answer["names"] = await self._gate.pullable(request, target.upstream.name, known)
        request.answer(200, (), json.dumps(answer).encode())


@frozen
class Sent:
    """A request on its way."""

    transport: StringTransport
    close: Callable[[], None]

    def answer(self) -> Answer | None:
        """None as long as there is none."""
        raw = self.transport.value()
        if not raw:
            return None
        head, _, body = raw.partition(b"\r\n\r\n")
        status, *rest = head.decode("ascii").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
        return Answer(int(status.split(" ")[1]), headers, json.loads(body or b"null"))


def peer(text: str) -> IAddress:
    if text == "unix":
        return UNIXAddress("")
    return IPv6Address("TCP", text, 4711) if ":" in text else IPv4Address("TCP", text, 4711)


@frozen
class Door:
    """A gate, its clock, and requests to it."""

    gate: IGate
    clock: Clock
    change: Callable[[Mapping[str, Any]], None]
    """Put another table in force."""

    def send(
        self,
        uri: str,
        authorization: str | None = None,
        *,
        at: str = "192.0.2.1",
        form: Mapping[str, str] | None = None,
        headers: tuple[str, ...] = (),
        host: str = "mirror.example",
    ) -> Sent:
        site: Any = RegistrySite(
            Guarded(self.gate),
            self.gate,
            Nowhere(),
            NoMeter(),
            Connections(0, 0, self.clock.seconds),
            NoRecorder(),
            self.clock.seconds,
        )
        site.reactor = MemoryReactorClock()
        channel, transport = site.buildProtocol(peer(at)), StringTransport(peerAddress=peer(at))
        assert channel is not None
        channel.makeConnection(transport)
        body = urlencode(form or {})
        out = [f"{'GET' if form is None else 'POST'} {uri} HTTP/1.1", f"Host: {host}", "Connection: close", *headers]
        if authorization is not None:
            out.append(f"Authorization: {authorization}")
        out += [f"Content-Length: {len(body)}", "", body]
        channel.dataReceived("\r\n".join(out).encode("utf-8", "surrogateescape"))

        def close() -> None:
            channel.connectionLost(Failure(ConnectionDone()))

        return Sent(transport, close)

    def ask(self, uri: str, authorization: str | None = None, **more: Any) -> Answer:
        """What is answered at once."""
        answer = self.send(uri, authorization, **more).answer()
        assert answer is not None, "no answer yet"
        return answer

    def login(self, user: str, *scopes: str, **more: Any) -> dict[str, Any]:
        """The token answer for a user with the password that it has."""
        query = urlencode([("service", "mirror.example:8443"), *(("scope", scope) for scope in scopes)])
        answer = self.ask(f"/auth/token?{query}", basic(user, PASSWORDS[user]), **more)
        assert answer.status == 200, answer
        document: dict[str, Any] = answer.body
        return document

    def bearer(self, user: str, *scopes: str, **more: Any) -> str:
        return "Bearer " + str(self.login(user, *scopes, **more)["token"])


@frozen
class Threads:
    """Threads that take their time: work is done when a test says so."""

    waiting: list[tuple[Deferred[Any], Callable[[], Any]]] = field(factory=list)

    def __call__(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.waiting.append((done, lambda: work(*args, **kwargs)))
        return done

    def run(self) -> None:
        """The one that waits longest."""
        done, work = self.waiting.pop(0)
        done.callback(work())


def door(table: Mapping[str, Any], in_thread: Any = execute, clock: Clock | None = None) -> Door:
    """A gate of these settings; without a key file its tokens are signed with KEY."""
    clock = clock or _clock()
    router = Router(UPSTREAMS)
    settings = parse(table, "docxy.toml")
    gate: IGate = OpenGate(lambda: settings.perimeter)

    def change(table: Mapping[str, Any]) -> None:
        nonlocal settings
        settings = parse(table, "docxy.toml")

    if settings.htpasswd is not None:
        known = readings(router, lambda: settings.rules)
        path = settings.token_key_file
        keys = (lambda: (KEY,)) if path is None else partial(KeyFile(path, clock).derived, "gate")
        gate = make_gate(
            lambda: settings.perimeter,
            lambda: settings.rules,
            settings.htpasswd,
            PUBLIC_URL,
            keys,
            in_thread,
            clock,
            known,
            Broadcast(to_nobody),
        )
    return Door(gate, clock, change)


def _clock() -> Clock:
    clock = Clock()
    clock.advance(1_700_000_000)
    return clock


def write(path: str, text: str) -> str:
    """Write a file so that it is another one, as editors and htpasswd do."""
    new = Path(path + ".new")
    new.write_text(text, "utf-8")
    new.replace(path)
    return path


@contextmanager
def logged() -> Iterator[list[str]]:
    """The lines logged meanwhile."""
    out: list[str] = []

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        out.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    try:
        yield out
    finally:
        globalLogPublisher.removeObserver(observe)
