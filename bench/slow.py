"""A line that is far away: a TCP relay with a latency, and a rate for each connection.

`python bench/slow.py PORT TARGET_PORT SECONDS BYTES_A_SECOND`: loopback to loopback.  The latency is that of a
round trip; a new connection takes one, as TCP's handshake does.  What an application sends at once
arrives at the rate; the other direction, in which only requests go, is not slowed down beyond the latency.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque

HOST = "127.0.0.1"
_PIECE = 64 * 1024
_AHEAD = 1024 * 1024
"""Bytes on the line at most, besides what the kernel holds."""


async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter, delay: float, rate: float | None) -> None:
    """Move what comes to the other end, `delay` seconds later and no faster than `rate` bytes a second."""
    loop = asyncio.get_running_loop()
    line: deque[tuple[float, bytes]] = deque()
    there, room = asyncio.Event(), asyncio.Event()
    room.set()

    async def put() -> None:
        free = loop.time()
        held = 0
        while True:
            await room.wait()
            data = await source.read(_PIECE)
            # Each byte takes its time on the line, one after the other.
            free = max(free, loop.time()) + (len(data) / rate if rate else 0)
            line.append((free + delay, data))
            held = sum(len(piece) for _, piece in line)
            if held > _AHEAD:
                room.clear()
            there.set()
            if not data:
                return

    async def take() -> None:
        while True:
            while not line:
                there.clear()
                await there.wait()
            when, data = line.popleft()
            wait = when - loop.time()
            if wait > 0:
                await asyncio.sleep(wait)
            room.set()
            if not data:
                if sink.can_write_eof():
                    sink.write_eof()
                return
            sink.write(data)
            await sink.drain()

    await asyncio.gather(put(), take())


async def serve(port: int, target: int, latency: float, rate: float) -> None:
    """Relays until it is stopped."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await asyncio.sleep(latency)
            there, back = await asyncio.open_connection(HOST, target)
            try:
                await asyncio.gather(carry(reader, back, latency / 2, None), carry(there, writer, latency / 2, rate))
            finally:
                back.close()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(relay, HOST, port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
