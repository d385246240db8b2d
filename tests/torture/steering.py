"""The upstream's process as those see it who steer it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import Any

from attrs import asdict, define, field

from tests.torture.daemons import CHECKOUT
from tests.torture.faults import Weather
from tests.torture.judge import Attempt, Refusal
from tests.torture.library import Image, Shape
from tests.torture.upstream import start_words


@define(eq=False)
class Steered:
    """One upstream; `close` ends it."""

    seed: int
    name: str
    shape: Shape
    weather: Weather = field(factory=Weather)
    ports: dict[str, int] = field(factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Returns when it serves."""
        self._process = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "tests.torture.upstream"),
                start_words(self.seed, self.name, self.shape),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"},
        )
        assert self._process.stdout is not None
        line = await asyncio.get_running_loop().run_in_executor(None, self._process.stdout.readline)
        self.ports = json.loads(line)

    async def be(self, weather: Weather) -> None:
        """Change the weather."""
        self.weather = weather
        await self._tell("/-/weather", asdict(weather))

    async def move(self, image: Image, version: int) -> None:
        """Let the image's tag point to another of its versions."""
        await self._tell("/-/move", {"repository": image.repository, "version": version})

    async def served(self) -> dict[str, int]:
        """How many requests it got, by kind: `manifest`, `blob`, `token`, `churn`."""
        found: dict[str, int] = await self._tell("/-/served", {})
        return found

    async def attempts(
        self, keys: list[str], since: float
    ) -> tuple[list[Attempt], list[Refusal], list[tuple[float, float]]]:
        """What it saw for these keys, in the order of their ends; each 429 of it; from when to when it stood still."""
        told = await self._tell("/-/attempts", {"keys": keys, "since": since})
        attempts = [Attempt(**each) for each in told["attempts"]]
        refusals = [Refusal(**each) for each in told["refusals"]]
        return sorted(attempts, key=lambda each: each.ended), refusals, told["gaps"]

    async def _tell(self, path: str, told: object) -> Any:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports["a"], limit=1 << 26)
        try:
            body = json.dumps(told).encode()
            writer.write(f"POST {path} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.partition("content-length: ")[2].split()[0])
            return json.loads(await reader.readexactly(length))
        finally:
            writer.close()

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
