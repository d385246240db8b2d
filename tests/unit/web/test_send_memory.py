"""A large answer that is in memory, for clients that do not read it."""

from __future__ import annotations

import hashlib
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionAborted
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource

from docxy.web import send
from docxy.web.channel import Channel
from docxy.web.large_answers import LargeAnswers
from docxy.web.request import Request
from docxy.web.respond import respond
from tests.harness.built import open_site
from tests.unit.web.test_send import Client, reactor


class MemoryTests(TestCase):
    """Answers that are in memory, for clients that do not read."""

    async def test_stalled(self) -> None:
        """A large one is not copied for each client that takes nothing, and such a client is dropped."""
        data = hashlib.shake_128(b"manifest").digest(8 * 1024 * 1024)
        large = LargeAnswers()
        senders = {b"/whole": send.Sender(reactor, 600.0, large), b"/stalled": send.Sender(reactor, 0.3, large)}
        channels: list[Channel] = []
        gone: Deferred[list[Deferred[None]]] = Deferred()

        class Large(Resource):
            isLeaf = True

            def render(self, request: Request) -> int:
                channels.append(cast(Channel, request.channel))
                rendered = respond(request, senders[request.path].answer(request, 200, [], data))
                if request.path == b"/stalled":
                    gone.callback([request.notifyFinish()])
                return rendered

        site = open_site(Large())
        site.timeOut = None
        port: Any = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        endpoint: Any = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        reads: Client = await connectProtocol(endpoint, Client())
        reads.ask("whole")
        self.assertEqual(await reads.responses(1), [hashlib.sha256(data).hexdigest()])
        stalled: Client = await connectProtocol(endpoint, Client())
        cast(Any, stalled.transport).pauseProducing()
        stalled.ask("stalled")
        (dropped,) = await gone
        transport = channels[1].transport
        self.assertLess(len(transport.dataBuffer) + sum(map(len, transport._tempDataBuffer)), 128 * 1024)
        await self.assertFailure(dropped, ConnectionAborted)
        cast(Any, stalled.transport).resumeProducing()
        while not stalled.lost:
            await stalled.changed
        self.assertEqual(site.channels, {channels[0]})
        emptied: Deferred[None] = Deferred()
        site.emptied = lambda: emptied.callback(None)
        cast(Any, reads.transport).abortConnection()
        await emptied
        self.assertTrue(reads.lost)
