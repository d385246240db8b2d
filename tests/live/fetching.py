"""Many plain clients at once, in a process of their own, whose bytes are compared with what was pushed.

Real clients would spend more on copying than docxy does on sending.  The law: a fetch is
right only when every byte was compared; nothing is kept in memory or on disk.
"""

from __future__ import annotations

import json
import mmap
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from attrs import asdict, define

from tests.harness.processes import CHECKOUT, SYSTEM_PATH, Reactor, run

PIECE = 1 << 20
_PATIENCE = 60.0
"""Seconds between two pieces."""


@define
class Fetched:
    """What became of one fetch."""

    status: int = 0
    """Of HTTP; 0: there was no answer."""
    first_byte: float = 0.0
    """Seconds until it was there."""
    total: float = 0.0
    """Seconds until the end."""
    received: int = 0
    """Bytes of the body."""
    wrong: bool = False
    """Whether a byte was another than expected, or too much."""
    whole: bool = False
    """Whether exactly the expected bytes came."""


async def fetch(reactor: Reactor, urls: list[str], expected: Path) -> list[Fetched]:
    """GET these at once, comparing every body with a file.

    An answer that is cut short, or none, is not wrong, only not whole.
    """
    argv = [sys.executable, "-m", "tests.live.fetching", str(expected), *urls]
    output = await run(reactor, argv, {"PATH": SYSTEM_PATH, "PYTHONPATH": str(CHECKOUT)}, timeout=180)
    return [Fetched(**each) for each in json.loads(output.stdout)]


def one(url: str, expected: mmap.mmap) -> Fetched:
    """One GET."""
    fetched = Fetched()
    start = time.monotonic()
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=_PATIENCE)
    piece = bytearray(PIECE)
    try:
        connection.request("GET", parts.path)
        response = connection.getresponse()
        fetched.status = response.status
        while count := response.readinto(piece):
            fetched.first_byte = fetched.first_byte or time.monotonic() - start
            end = fetched.received + count
            got = piece if count == PIECE else piece[:count]
            fetched.wrong = fetched.wrong or got != expected[fetched.received : end]
            fetched.received = end
        fetched.whole = fetched.status == 200 and fetched.received == len(expected) and not fetched.wrong
    except (OSError, HTTPException):
        pass
    finally:
        connection.close()
    fetched.total = time.monotonic() - start
    return fetched


def main(expected: str, *urls: str) -> None:
    """All of them, told as JSON."""
    with (
        Path(expected).open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        ThreadPoolExecutor(len(urls)) as threads,
    ):
        done = list(threads.map(lambda url: one(url, mapped), urls))
    print(json.dumps([asdict(each) for each in done]))  # noqa: T201  # standard output is the answer


if __name__ == "__main__":
    main(*sys.argv[1:])
