"""`/acts/NAME` of the admin socket, on a connection in memory."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from docxy.access.open_gate import OpenGate
from docxy.addresses import Perimeter
from docxy.observe.access_log import Nowhere
from docxy.observe.metrics import NoMeter
from docxy.questions import Nobody
from docxy.settings.load import load
from docxy.steward.lines import Act, Arguments, Failed, Line, done, item, progress
from docxy.steward.processes import Processes
from docxy.web import acts
from docxy.web.admin import Admin, AdminSite
from docxy.web.connections import Connections
from tests.harness.built import read_model


def lose(channel: Any) -> None:
    """A connection is gone, as a transport says it."""
    channel.stopProducing()
    channel.connectionLost(Failure(ConnectionDone()))


class _Full(StringTransport):
    """Has had enough with the first byte."""

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.producer is not None and self.streaming:
            self.producer.pauseProducing()


class ActsTests(SynchronousTestCase):
    async def upgrade(self) -> int:
        return 0

    def setUp(self) -> None:
        self.clock = Clock()
        self.given: list[Any] = []
        self.waiting: Deferred[None] = Deferred()
        self.closed = 0
        self.patch(
            acts,
            "ACTS",
            {
                "look": Act(self.look, False),
                "change": Act(self.look, True),
                "wait": Act(self.wait, False),
                "slow": Act(self.slow, False),
            },
        )
        view, _ = read_model(load({}, {"CERT_PATH": "off", "CACHE_DIR": "off"}), self.clock)
        self.acts = acts.Acts(lambda: self, Processes(Nobody(), (), self.upgrade), self.clock)  # type: ignore[arg-type, return-value]  # no act looks at it
        self.admin = Admin(view, self.acts, self.clock)
        self.site = AdminSite(
            self.admin,
            OpenGate(Perimeter),
            Nowhere(),
            NoMeter(),
            Connections(0, 0, self.clock.seconds),
            self.clock.seconds,
        )
        self.site.reactor = self.clock

    async def look(self, steward: object, arguments: Arguments) -> AsyncGenerator[Line, None]:
        self.given.append(arguments.given)
        if arguments.flag("never"):
            raise Failed("it cannot begin")
        yield item(name="a")
        if arguments.flag("fail"):
            raise Failed("it went wrong")
        yield done(count=1)

    async def wait(self, steward: object, arguments: Arguments) -> AsyncGenerator[Line, None]:
        try:
            yield progress(1, 2)
            await self.waiting
            yield done()
        finally:
            self.closed += 1

    async def slow(self, steward: object, arguments: Arguments) -> AsyncGenerator[Line, None]:
        try:
            yield progress(1, 2)
            yield done()
        finally:
            try:
                await self.waiting
            finally:
                self.closed += 1

    def ask(self, method: str, path: str, body: bytes = b"", before: bool = False) -> tuple[Any, StringTransport]:
        """A request on a connection of its own; `before`: whose client takes nothing."""
        channel = self.site.buildProtocol(None)
        transport = _Full() if before else StringTransport()
        channel.makeConnection(transport)
        head = f"{method} {path} HTTP/1.1\r\nHost: docxy\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        channel.dataReceived(head + body)
        return channel, transport

    def answer(self, method: str, path: str, body: bytes = b"") -> tuple[int, list[Any]]:
        """Status, and the JSON of each line, of an answer that is over."""
        channel, transport = self.ask(method, path, body)
        head, _, rest = transport.value().partition(b"\r\n\r\n")
        lose(channel)
        return int(head.split()[1]), [json.loads(line) for line in rest.split(b"\r\n") if line[:1] == b"{"]

    def test_lines(self) -> None:
        """An act is asked with a JSON object, and answers with its lines."""
        answer = self.answer("POST", "/acts/change", b'{"image": ["alpine"]}')
        self.assertEqual(answer, (200, [{"item": {"name": "a"}}, {"done": {"count": 1}}]))
        self.assertEqual(self.given, [{"image": ["alpine"]}])

    def test_query(self) -> None:
        """What only reads may be asked by a URL; what changes anything may not."""
        self.assertEqual(self.answer("GET", "/acts/look?image=a&image=b")[0], 200)
        self.assertEqual(self.given, [{"image": ["a", "b"]}])
        self.assertEqual(self.answer("GET", "/acts/change")[0], 405)
        self.assertEqual(self.answer("PUT", "/acts/look")[0], 405)
        self.assertEqual(len(self.given), 1)

    def test_wrong(self) -> None:
        """A body that is no object, an argument that makes no sense, an act that does not exist: 400 and 404."""
        self.assertEqual(self.answer("POST", "/acts/look", b"[]")[0], 400)
        self.assertEqual(self.answer("POST", "/acts/look", b"{")[0], 400)
        self.assertEqual(self.answer("POST", "/acts/look", b'{"never": 7}')[0], 400)
        self.assertEqual(self.answer("POST", "/acts/none")[0], 404)

    def test_fails(self) -> None:
        """An act that cannot begin is an error answer; one that fails later says so in its last line."""
        status, (told,) = self.answer("POST", "/acts/look", b'{"never": true}')
        self.assertEqual((status, told["errors"][0]["message"]), (503, "it cannot begin"))
        status, lines = self.answer("POST", "/acts/look", b'{"fail": true}')
        self.assertEqual((status, lines[-1]), (200, {"failed": "it went wrong"}))

    def test_client_goes(self) -> None:
        """A client that goes away ends the act."""
        channel, transport = self.ask("GET", "/acts/wait")
        self.assertIn(b'"progress"', transport.value())
        self.assertEqual(self.closed, 0)
        lose(channel)
        self.assertEqual(self.closed, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_client_goes_between_lines(self) -> None:
        """A client that goes while docxy waits for it to take a line ends the act, whose end may have to wait."""
        channel, transport = self.ask("GET", "/acts/slow", before=True)
        self.assertIn(b'"progress"', transport.value())
        self.assertEqual(self.closed, 0)
        lose(channel)
        self.assertEqual(self.closed, 1)

    def test_alive(self) -> None:
        """While an act says nothing, the connection gets an empty line now and then."""
        channel, transport = self.ask("GET", "/acts/wait")
        transport.clear()
        self.clock.advance(acts.KEEPALIVE)
        self.assertEqual(transport.value(), b"1\r\n\n\r\n")
        self.waiting.callback(None)
        self.assertTrue(transport.value().endswith(b'{"done":{}}\n\r\n0\r\n\r\n'))
        lose(channel)

    def test_bound(self) -> None:
        """There is a bound on the acts at once."""
        channels = [self.ask("GET", "/acts/wait")[0] for _ in range(acts.MOST_ACTS)]
        self.assertEqual(self.answer("POST", "/acts/look")[0], 503)
        lose(channels[0])
        self.assertEqual(self.answer("POST", "/acts/look")[0], 200)
        for channel in channels[1:]:
            lose(channel)

    def test_retire(self) -> None:
        """Who follows what happens is let go when another docxy knows it, in a way that is no end of the answer."""
        channel, transport = self.ask("GET", "/events")
        self.assertIn(b"data: ", transport.value())
        self.admin.retire()
        self.assertTrue(transport.disconnected)
        self.assertFalse(transport.value().endswith(b"0\r\n\r\n"))
        lose(channel)

    def test_stop(self) -> None:
        """A docxy that stops ends its acts, and their connections."""
        channel, transport = self.ask("GET", "/acts/wait")
        self.successResultOf(Deferred.fromCoroutine(self.acts.stop()))
        self.assertEqual((self.closed, transport.disconnecting), (1, True))
        self.assertNotIn(b"0\r\n\r\n", transport.value())
        lose(channel)
