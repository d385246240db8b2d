"""HEAD requests over 64 connections that are kept: wrk waits for the body that an answer to HEAD speaks of.

::

    python bench/heads.py SECONDS CA ACCEPT URL

The law: as wrk with `unalike.lua`, it sends the next request of a connection when the answer is there, each
with credentials and with a header in which it differs from all others.  It prints requests, seconds and the
99th percentile in milliseconds; an answer that is not a 200 with a length ends it with exit status 1.

It takes about 15 µs a request of its own, more over HTTPS: its rate is a bound where the server needs less.
"""

from __future__ import annotations

import select
import socket
import ssl
import sys
import time
from urllib.parse import SplitResult, urlsplit

CONNECTIONS = 64
PATIENCE = 30.0
"""Seconds without an answer on any connection."""
CREDENTIALS = "Basic YmVuY2g6YmVuY2g="
"""Those of `unalike.lua`."""
_END = b"\r\n\r\n"


class BadAnswer(Exception):
    """An answer that is not the one to HEAD."""


def connect(url: SplitResult, ca: str) -> socket.socket:
    """Without waiting from now on."""
    connection = socket.create_connection((url.hostname, url.port), PATIENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if url.scheme == "https":
        context = ssl.create_default_context(cafile=ca)
        connection = context.wrap_socket(connection, server_hostname=url.hostname)
    connection.setblocking(False)
    return connection


def check(answer: bytes) -> None:
    """Raises BadAnswer."""
    if not answer.startswith(b"HTTP/1.1 200 ") or b"\ncontent-length:" not in answer.lower():
        raise BadAnswer(repr(answer[:200]))


def load(url: SplitResult, seconds: float, accept: str, ca: str) -> tuple[int, float, float]:
    """Requests that were answered, seconds they took, and the 99th percentile in milliseconds.

    Raises BadAnswer, OSError.
    """
    fields = f"Host: {url.netloc}\r\nAccept: {accept}\r\nAuthorization: {CREDENTIALS}\r\nX-Count: "
    head = f"HEAD {url.path} HTTP/1.1\r\n{fields}".encode()
    connections = [connect(url, ca) for _ in range(CONNECTIONS)]
    by_descriptor = {each.fileno(): each for each in connections}
    rests = dict.fromkeys(by_descriptor, b"")
    asked: dict[int, float] = {}
    poll = select.epoll(CONNECTIONS)
    count, now = 0, time.perf_counter()
    for descriptor, connection in by_descriptor.items():
        poll.register(descriptor, select.EPOLLIN)
        count += 1
        connection.send(head + str(count).encode() + _END)
        asked[descriptor] = now
    took: list[float] = []
    started = now
    while now - started < seconds:
        ready = poll.poll(PATIENCE)
        if not ready:
            raise BadAnswer(f"no answer within {PATIENCE:g} s")
        for descriptor, _ in ready:
            connection = by_descriptor[descriptor]
            try:
                data = connection.recv(65536)
            except ssl.SSLWantReadError:
                continue
            answer = rests[descriptor] + data
            if not data or len(answer) > 65536:
                raise BadAnswer(f"the connection ended after {answer[:200]!r}")
            if not answer.endswith(_END):
                rests[descriptor] = answer
                continue
            rests[descriptor] = b""
            check(answer)
            now = time.perf_counter()
            took.append(now - asked[descriptor])
            count += 1
            connection.send(head + str(count).encode() + _END)
            asked[descriptor] = now
    for connection in connections:
        connection.close()
    return len(took), now - started, sorted(took)[len(took) * 99 // 100] * 1e3


def main(seconds: str, ca: str, accept: str, url: str) -> int:
    try:
        count, lasted, p99 = load(urlsplit(url), float(seconds), accept, ca)
    except (BadAnswer, OSError) as error:
        sys.stderr.write(f"{url}: {error}\n")
        return 1
    sys.stdout.write(f"{count} {lasted} {p99}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
