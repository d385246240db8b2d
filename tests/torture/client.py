"""One request of a client's, and what came of it.

The law: no byte is believed.  Every byte is compared with the library's as it comes, and whether a body
is whole is decided by HTTP's own framing alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from contextlib import suppress

from attrs import evolve, field, frozen

from tests.torture.judge import Outcome
from tests.torture.library import Thing

ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_LONG = 64 << 20
"""More than any body of the library."""


@frozen
class Ask:
    """What to ask for and how to take it."""

    thing: Thing
    reference: str
    """A digest or a tag."""
    method: str = "GET"
    asked: tuple[int, int | None] | None = None
    bound: float = 60.0
    """Seconds until it is a hang."""
    pace: float = 0.0
    """Bytes a second that the client takes; 0: as fast as they come."""
    leave_after: int | None = None
    """Bytes of body after which the client goes away."""
    others: tuple[Thing, ...] = field(default=())
    """Other manifests that are right, where the tag moves."""

    @property
    def path(self) -> str:
        return f"/v2/{self.thing.repository}/{self.thing.kind}/{self.reference}"


class Line:
    """A connection that is used again and again, for questions that are asked one after the other."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, what: Ask) -> Outcome:
        """As `ask`.  A connection that was closed meanwhile is no failure: it is made anew."""
        used = self._streams is not None
        outcome = await self._ask(what)
        return await self._ask(what) if used and outcome.status is None and not outcome.timed_out else outcome

    async def _ask(self, what: Ask) -> Outcome:
        started = time.monotonic()
        taking = _Taking(what, Outcome(what.method, what.thing, what.asked, started, started), keep=True)
        streams, self._streams = self._streams, None
        outcome = await _taken(taking, taking.run(self._port, streams))
        if outcome.whole and "content-length" in outcome.headers and outcome.headers.get("connection") != "close":
            self._streams = taking.streams
        elif taking.streams is not None:
            taking.streams[1].transport.abort()
        return outcome

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()


async def ask(port: int, what: Ask) -> Outcome:
    """Ask on a connection of its own.  Raises nothing."""
    started = time.monotonic()
    taking = _Taking(what, Outcome(what.method, what.thing, what.asked, started, started))
    try:
        return await _taken(taking, taking.run(port))
    finally:
        if taking.streams is not None:
            taking.streams[1].transport.abort()


async def _taken(taking: _Taking, running: Awaitable[None]) -> Outcome:
    """What came of it, within its bound."""
    try:
        await asyncio.wait_for(running, taking.what.bound)
    except asyncio.TimeoutError:
        taking.outcome = evolve(taking.outcome, timed_out=True)
    except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
        taking.outcome = evolve(taking.outcome, error=f"{type(error).__name__} {error}"[:120])
    return evolve(taking.outcome, ended=time.monotonic())


class _Taking:
    """An answer under way."""

    def __init__(self, what: Ask, outcome: Outcome, keep: bool = False) -> None:
        """`keep`: whether another question may follow on the connection."""
        self.what = what
        self.outcome = outcome
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._keep = keep
        self._candidates = [what.thing, *what.others]

    async def run(self, port: int, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None) -> None:
        """Ask on these, or on a new connection."""
        limit = 1 << 15 if self.what.pace else 1 << 18
        self.streams = streams or await asyncio.open_connection("127.0.0.1", port, limit=limit)
        reader, writer = self.streams
        lines = [f"{self.what.method} {self.what.path} HTTP/1.1", "Host: mirror.test"]
        if not self._keep:
            lines.append("Connection: close")
        if self.what.thing.kind == "manifests":
            lines.append(f"Accept: {ACCEPT}")
        if self.what.asked is not None:
            first, last = self.what.asked
            lines.append(f"Range: bytes={first}-{'' if last is None else last}")
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
        self.outcome = evolve(self.outcome, status=int(head[0].split(" ")[1]), headers=headers)
        if self.what.method == "HEAD":
            self.outcome = evolve(self.outcome, whole=True)
        elif "chunked" in headers.get("transfer-encoding", ""):
            await self._chunks(reader)
        else:
            await self._plain(reader, int(headers["content-length"]) if "content-length" in headers else None)

    async def _plain(self, reader: asyncio.StreamReader, length: int | None) -> None:
        left = _LONG if length is None else length
        while left and not self.outcome.left:
            data = await reader.read(min(left, 1 << 16))
            if not data:
                break
            left -= len(data)
            await self._take(data)
        # A body until the connection's end is whole when it ends, as far as HTTP knows.
        self._end(left == 0 or length is None)

    async def _chunks(self, reader: asyncio.StreamReader) -> None:
        while not self.outcome.left:
            size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
            if not size:
                await reader.readuntil(b"\r\n")
                self._end(True)
                return
            await self._take(await reader.readexactly(size))
            await reader.readexactly(2)

    def _end(self, whole: bool) -> None:
        if not self.outcome.left:
            self.outcome = evolve(self.outcome, whole=whole, error="" if whole else "the connection ended")

    async def _take(self, data: bytes) -> None:
        outcome, what = self.outcome, self.what
        if outcome.status in (200, 206):
            start = outcome.received + (what.asked[0] if outcome.status == 206 and what.asked else 0)
            self._candidates = [each for each in self._candidates if each.read(start, len(data)) == data]
        received = outcome.received + len(data)
        left = what.leave_after is not None and received >= what.leave_after
        right = bool(self._candidates)
        self.outcome = evolve(outcome, received=received, right=right, left=left)
        if what.pace:
            await asyncio.sleep(len(data) / what.pace)


async def text(port: int, path: str, bound: float = 5.0) -> tuple[int, str]:
    """Status and body of a small answer; status 0 when there was none."""
    writer = None
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), bound)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: mirror.test\r\nConnection: close\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), bound)
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), body.decode("utf-8", "replace")
    except (OSError, EOFError, LookupError, ValueError, asyncio.TimeoutError):
        return 0, ""
    finally:
        if writer is not None:
            with suppress(OSError):
                writer.transport.abort()
