"""What the programme's client makes of an answer, and of a connection that is used again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from twisted.trial.unittest import SynchronousTestCase

from tests.torture.client import Ask, Line, ask
from tests.torture.judge import Outcome
from tests.torture.library import Thing

BODY = b"0123456789"
THING = Thing("blobs", "team/app", "sha256:" + "1" * 64, len(BODY), None, BODY)
WHAT = Ask(THING, THING.digest, bound=20.0)


def answer(body: bytes = BODY, length: int = len(BODY), more: str = "") -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{more}\r\n".encode() + body


class ClientTests(SynchronousTestCase):
    """Against a server that sends what a test says, one answer a request; None ends the connection."""

    def tried(self, answers: list[bytes | None], do: Callable[[int], Awaitable[list[Outcome]]]) -> list[Outcome]:
        self.connections = 0

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            while answers and await reader.readuntil(b"\r\n\r\n"):
                given = answers.pop(0)
                if given is None:
                    break
                writer.write(given)
                if len(given) < len(answer()):
                    break
            writer.close()

        async def run() -> list[Outcome]:
            server = await asyncio.start_server(connected, "127.0.0.1", 0)
            try:
                return await do(server.sockets[0].getsockname()[1])
            finally:
                server.close()

        return asyncio.run(run())

    def test_one(self) -> None:
        """Whole and right, whole and wrong, and cut: HTTP says what is whole, the library what is right."""
        for given, whole, right in (
            (answer(), True, True),
            (answer(b"012345678x"), True, False),
            (answer(BODY[:4]), False, True),
        ):

            async def once(port: int) -> list[Outcome]:
                return [await ask(port, WHAT)]

            (outcome,) = self.tried([given], once)
            self.assertEqual((outcome.status, outcome.whole, outcome.right), (200, whole, right))

    def three(self, *answers: bytes | None) -> list[Outcome]:
        async def thrice(port: int) -> list[Outcome]:
            line = Line(port)
            outcomes = [await line.ask(WHAT) for _ in range(3)]
            line.close()
            return outcomes

        return self.tried(list(answers), thrice)

    def test_line(self) -> None:
        """Questions follow each other on one connection, unless the server says that it is the last one."""
        self.assertTrue(all(each.whole and each.right for each in self.three(answer(), answer(), answer())))
        self.assertEqual(self.connections, 1)
        self.three(answer(), answer(more="Connection: close\r\n"), answer())
        self.assertEqual(self.connections, 2)

    def test_closed_meanwhile(self) -> None:
        """A connection that was closed before the question is made anew; a new one that is closed is a failure."""
        outcomes = self.three(answer(), None, answer(), answer())
        self.assertEqual([each.status for each in outcomes], [200, 200, 200])
        self.assertEqual([each.status for each in self.three(None, answer(), answer())], [None, 200, 200])

    def test_cut_line(self) -> None:
        """After half an answer the connection is not used again."""
        outcomes = self.three(answer(BODY[:4]), answer(), answer())
        self.assertEqual([each.whole for each in outcomes], [False, True, True])
        self.assertEqual(self.connections, 2)
