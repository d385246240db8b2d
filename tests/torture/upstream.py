"""The upstream: a process with two endpoints, a token service and a store that blobs are redirected to.

    python -m tests.torture.upstream '{"seed": 7, "shape": {...}}'

It writes its ports as one line of JSON and serves until its standard input ends.  Who started it steers
it by POST: `/-/weather` sets the weather, `/-/attempts` gives what it saw, `/-/move` moves a tag.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import time
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from random import Random
from socket import SO_LINGER, SOL_SOCKET
from typing import Any
from urllib.parse import parse_qsl

from attrs import asdict, define, field

from tests.fakes.content import OCI_CONFIG
from tests.torture.answers import Answer, deformed, error, plain, right
from tests.torture.faults import Weather, draw
from tests.torture.library import Library, Shape, Thing, build

PIECE = 1 << 16
KEPT = 100_000
"""Attempts that are remembered."""
LATE = 1.0
"""Seconds: a third of what the daemon waits for an answer."""
STALL = 20.0
"""Seconds for which an upstream that stalls says nothing, longer than anybody's patience."""
CHURNED = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": OCI_CONFIG, "digest": "sha256:" + "0" * 64, "size": 2},
        "layers": [],
    }
).encode()
"""The manifest of every repository below `churn/`."""


@define(eq=False)
class Upstream:
    """All of it."""

    seed: str
    library: Library
    weather: Weather = field(factory=Weather)
    attempts: deque[dict[str, Any]] = field(factory=lambda: deque(maxlen=KEPT))
    counts: Counter[tuple[str, str]] = field(factory=Counter)
    ports: dict[str, int] = field(factory=dict)
    things: dict[str, Thing] = field(factory=dict)
    refusals: deque[dict[str, Any]] = field(factory=lambda: deque(maxlen=KEPT))
    """Each 429."""
    gaps: deque[tuple[float, float]] = field(factory=lambda: deque(maxlen=KEPT))
    """From when to when it stood still for longer than LATE."""
    served: Counter[str] = field(factory=Counter)
    """Requests by kind."""

    def __attrs_post_init__(self) -> None:
        for image in self.library.images:
            for version, blobs in zip(image.versions, image.blobs, strict=True):
                for thing in (version, *blobs):
                    self.things[f"{thing.repository} {thing.digest}"] = thing
                    self.things[f"cdn {thing.digest}"] = thing
            self.things[f"{image.repository} {image.tag}"] = image.versions[0]

    async def pulse(self) -> None:
        """Note when the machine has no time for this process."""
        before = time.monotonic()
        while True:
            await asyncio.sleep(LATE / 10)
            now = time.monotonic()
            if now - before > LATE:
                self.gaps.append((before, now))
            before = now

    async def serve(self, name: str) -> asyncio.Server:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                while await self.one(name, reader, writer):
                    pass
            writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=512)
        self.ports[name] = server.sockets[0].getsockname()[1]
        return server

    async def one(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection goes on."""
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        path = target.partition("?")[0]
        if path.startswith("/-/"):
            await send(writer, self.steer(path, json.loads(body)))
            return True
        if self.weather.off:
            abort(writer)
            return False
        if self.weather.delay:
            await asyncio.sleep(self.weather.delay)
        key, answer = self.answer(name, method, path, headers)
        self.served[key.partition(" ")[0]] += 1
        count = self.counts[name, key] = self.counts[name, key] + 1
        faulty = answer.thing is not None or key == "token"
        fault = draw(self.seed, self.weather, name, key, count) if faulty else None
        told = f"{key} {asked_for(target)}" if key == "token" or key.startswith("manifest ") else key
        attempt: dict[str, Any] = {"key": told, "endpoint": name, "started": time.monotonic(), "fault": fault}
        attempt["method"] = method
        if key:
            self.attempts.append(attempt)
        try:
            if fault == "429":
                self.refusals.append({"endpoint": name, "at": attempt["started"]})
            return await self.strike(writer, fault, answer, Random(f"{self.seed} {name} {key} {count} at").random())
        finally:
            attempt["ended"] = time.monotonic()

    async def strike(self, writer: asyncio.StreamWriter, fault: str | None, answer: Answer, at: float) -> bool:
        if fault in ("drop", "reset"):
            abort(writer) if fault == "reset" else writer.close()
            return False
        if fault == "silent":
            await asyncio.sleep(STALL)
            return False
        if fault is not None:
            answer = deformed(fault, answer, at, f"http://127.0.0.1:{self.ports['nowhere']}/")
        return await send(writer, answer, self.weather.bytes_per_second)

    def steer(self, path: str, told: dict[str, Any]) -> Answer:
        if path == "/-/weather":
            self.weather = Weather(**{**told, "kinds": tuple(told["kinds"])})
            return plain(200, b"{}")
        if path == "/-/move":
            image = next(each for each in self.library.images if each.repository == told["repository"])
            self.things[f"{image.repository} {image.tag}"] = image.versions[told["version"]]
            return plain(200, b"{}")
        if path == "/-/served":
            return plain(200, json.dumps(self.served).encode())
        keys, since, now = {*told["keys"]}, told["since"], time.monotonic()
        found = []
        for each in reversed(self.attempts):
            if each["started"] < since - 4 * STALL:
                break
            if each["key"] in keys and each.get("ended", now) >= since:
                found.append({"ended": now, **each})
        refusals = [each for each in self.refusals if each["at"] >= since]
        gaps = [each for each in self.gaps if each[1] >= since]
        return plain(200, json.dumps({"attempts": found, "refusals": refusals, "gaps": gaps}).encode())

    def answer(self, name: str, method: str, path: str, headers: Mapping[str, str]) -> tuple[str, Answer]:
        """What is asked for, and the right answer."""
        head = method == "HEAD"
        if path == "/token":
            expires = time.monotonic() + self.weather.tokens
            told = {"token": f"{expires:.3f}", "expires_in": max(1, int(self.weather.tokens))}
            return "token", plain(200, json.dumps(told).encode(), media_type="application/json")
        parts = path.strip("/").split("/")
        if parts[0] == "cdn":
            thing = self.things.get(f"cdn {parts[-1]}")
            found = right(thing, asked_range(headers), head) if thing else error(404, "BLOB_UNKNOWN")
            return f"blob {parts[-1]}", found
        if self.weather.tokens and not self.knows(headers.get("authorization", "")):
            scope = f"repository:{'/'.join(parts[1:-2])}:pull"
            realm = f"http://127.0.0.1:{self.ports['a']}/token"
            challenge = f'Bearer realm="{realm}",service="torture",scope="{scope}"'
            return "", error(401, "UNAUTHORIZED", {"WWW-Authenticate": challenge})
        if len(parts) < 4:
            return "", plain(200, b"{}")
        repository, kind, reference = "/".join(parts[1:-2]), parts[-2], parts[-1]
        if repository.startswith("churn/"):
            return "churn", self.churned(kind, reference, head)
        thing = self.things.get(f"{repository} {reference}")
        if thing is None:
            return "", error(404, "MANIFEST_UNKNOWN" if kind == "manifests" else "BLOB_UNKNOWN")
        if kind == "blobs" and self.weather.redirects:
            return "", plain(307, b"", {"Location": f"http://127.0.0.1:{self.ports['cdn']}/cdn/{reference}"})
        key = f"blob {reference}" if kind == "blobs" else f"manifest {repository}"
        return key, right(thing, asked_range(headers), head)

    def churned(self, kind: str, reference: str, head: bool) -> Answer:
        if kind != "manifests" or reference.startswith("gone"):
            return error(404, "MANIFEST_UNKNOWN" if kind == "manifests" else "BLOB_UNKNOWN")
        media_type = "application/vnd.oci.image.manifest.v1+json"
        answer = plain(200, CHURNED, media_type=media_type)
        return Answer(answer.status, answer.headers, text=CHURNED, length=len(CHURNED), head=head)

    def knows(self, authorization: str) -> bool:
        try:
            return float(authorization.removeprefix("Bearer ")) > time.monotonic()
        except ValueError:
            return False


def asked_range(headers: Mapping[str, str]) -> tuple[int, int | None] | None:
    """First and last byte of a single range."""
    text = headers.get("range", "")
    if not text.startswith("bytes=") or "," in text:
        return None
    first, _, last = text.removeprefix("bytes=").partition("-")
    return int(first), int(last) if last else None


def asked_for(target: str) -> str:
    """The tag or digest of a manifest, or the repository of a token."""
    path, _, query = target.partition("?")
    if not query:
        return path.rpartition("/")[2]
    scope = dict(parse_qsl(query)).get("scope", "")
    return scope.removeprefix("repository:").rpartition(":")[0]


def abort(writer: asyncio.StreamWriter) -> None:
    """End a connection with a reset."""
    writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def send(writer: asyncio.StreamWriter, answer: Answer, pace: int = 0) -> bool:
    """Send an answer; whether the connection goes on."""
    lines = [f"HTTP/1.1 {answer.status} As Planned", *(f"{k}: {v}" for k, v in answer.headers.items())]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
    sent, length = 0, 0 if answer.head else answer.length
    while sent < length:
        stop = min([each for each in (answer.cut, answer.stall, length) if each is not None and each >= sent])
        if sent == answer.cut or sent == answer.stall:
            break
        piece = min(PIECE, stop - sent, max(1, length // 4) if answer.slow else PIECE)
        data = body(answer, sent, piece)
        writer.write(b"%x\r\n%b\r\n" % (len(data), data) if answer.chunked else data)
        await writer.drain()
        sent += piece
        if pace or answer.slow:
            await asyncio.sleep(0.1 if answer.slow else piece / pace)
    if sent == answer.stall and sent < length:
        await asyncio.sleep(STALL)
        return False
    if sent < length or answer.close:
        abort(writer) if answer.reset else writer.close()
        return False
    if answer.chunked and not answer.head:
        writer.write(b"0\r\n\r\n")
    await writer.drain()
    return True


def body(answer: Answer, sent: int, length: int) -> bytes:
    """A piece of its body."""
    if answer.thing is None:
        return answer.text[sent : sent + length]
    data = answer.thing.read(answer.first + sent, length)
    at = -1 if answer.flip is None else answer.flip - answer.first - sent
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] if 0 <= at < len(data) else data


async def main(told: dict[str, Any]) -> None:
    """Serve until standard input ends."""
    shape = Shape(**{**told["shape"], "sizes": tuple(told["shape"]["sizes"])})
    upstream = Upstream(f"{told['seed']} {told['name']}", build(told["seed"], shape))
    servers = [await upstream.serve(name) for name in ("a", "b", "cdn", "nowhere")]
    servers.pop().close()  # nobody is there
    sys.stdout.write(json.dumps(upstream.ports) + "\n")
    sys.stdout.flush()
    loop = asyncio.get_running_loop()
    pulse = loop.create_task(upstream.pulse())
    await loop.run_in_executor(None, sys.stdin.read)
    pulse.cancel()
    for server in servers:
        server.close()


def start_words(seed: int, name: str, shape: Shape) -> str:
    """The argument of this program."""
    return json.dumps({"seed": seed, "name": name, "shape": asdict(shape)})


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(json.loads(sys.argv[1])))
