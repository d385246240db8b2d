"""Images are fetched now, so that later pulls are hits.

The laws: what is here already is not fetched again, so a second run goes on where the first one ended; a few layers
at a time; what a pull limit has left below the floor is left for those who pull.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from attrs import define, frozen
from twisted.internet.defer import Deferred, DeferredQueue, DeferredSemaphore

from docxy.names import Digest
from docxy.pull.warming import CONTENTS, FILL, PAGE
from docxy.questions import Unanswered
from docxy.steward.lines import Arguments, Line, Lines, done, item, progress
from docxy.steward.steward import Steward
from docxy.storage.interfaces import State, StorageError

AT_ONCE = 3
"""Layers on their way."""
FLOOR = 0.1
"""Share of a pull limit that is left alone unless the operator says otherwise."""
RETRIES = 3
"""How often in a row a layer's fetch is begun again without a byte of progress."""


@frozen
class Warmed:
    """What became of one image."""

    name: str
    digest: str = ""
    size: int = 0
    """Bytes."""
    fetched: int = 0
    """Bytes of the layers that were not here."""
    error: str = ""
    status: int = 0
    """Of the error, as clients would get it; 0: nobody answered."""
    retry_after: float | None = None

    def line(self, platform: str | None) -> Line:
        """As an act says it."""
        return item(
            name=self.name,
            platform=platform,
            digest=self.digest,
            size=self.size,
            fetched=self.fetched,
            error=self.error,
            status=self.status,
            retry_after=self.retry_after,
        )


class _Failed(Exception):
    def __init__(self, told: Any) -> None:
        Exception.__init__(self, told["error"])
        self.told = told


async def warm(steward: Steward, arguments: Arguments) -> Lines:
    """`image`: names; `platform`: each is fetched for each of them; `floor`: share of a pull limit to leave."""
    share = arguments.number("floor")
    floor = FLOOR if share is None else min(share, 1.0)
    platforms: list[str | None] = [*arguments.texts("platform")] or [None]
    failed = fetched = count = 0
    for image in dict.fromkeys(arguments.texts("image")):
        for platform in platforms:
            yield progress(0, None, image, "layers")
            warming = Warming(steward, image, platform, floor)
            async for line in warming.run():
                yield line
            count += 1
            failed += bool(warming.outcome.error)
            fetched += warming.outcome.fetched
            yield warming.outcome.line(platform)
    yield done(count=count, failed=failed, fetched=fetched)


@define(eq=False)
class Warming:
    """One image for one platform."""

    steward: Steward
    image: str
    platform: str | None
    floor: float
    outcome: Warmed = Warmed("")
    at_once: int = AT_ONCE
    """Layers."""

    async def run(self) -> Lines:
        """Says how far each layer is; then `outcome` is there."""
        self.outcome = Warmed(self.image)
        lines: DeferredQueue[Line | None] = DeferredQueue()
        running: list[Deferred[Any]] = []
        try:
            told, blobs = await self._contents()
            size = told["manifests"] + sum(size for _, size in blobs)
            missing = [(digest, size) for digest, size in blobs if await self.steward.store.stat(digest) is None]
            self.outcome = Warmed(told["name"], told["digest"], size)
            free = DeferredSemaphore(self.at_once)
            running = [_started(self._layer(digest, size, free, lines)) for digest, size in missing]
            errors: list[Any] = []
            for each in running:
                each.addErrback(lambda reason: errors.append(reason.value)).addBoth(lambda _: lines.put(None))
            left = len(running)
            while left:
                line = await lines.get()
                if line is None:
                    left -= 1
                else:
                    yield line
            if errors:
                raise errors[0]
            self.outcome = Warmed(told["name"], told["digest"], size, sum(size for _, size in missing))
        except _Failed as error:
            known = self.outcome
            self.outcome = Warmed(
                known.name, known.digest, known.size, 0, str(error), error.told["status"], error.told["retry_after"]
            )
        except StorageError as error:
            self.outcome = Warmed(self.outcome.name, error=str(error), status=503)
        except Unanswered as error:
            self.outcome = Warmed(self.outcome.name, error=str(error))
        finally:
            for each in reversed(running):
                each.cancel()

    async def _contents(self) -> tuple[Any, list[tuple[Digest, int]]]:
        """Raises _Failed, Unanswered."""
        blobs: list[tuple[Digest, int]] = []
        while True:
            told = await self.steward.workers.ask_one(CONTENTS, self.image, self.platform, self.floor, len(blobs))
            if "error" in told:
                raise _Failed(told)
            blobs += [(Digest.parse(digest), size) for digest, size in told["blobs"]]
            if len(blobs) >= told["total"] or len(told["blobs"]) < PAGE:
                return told, blobs

    async def _layer(
        self, digest: Digest, size: int, free: DeferredSemaphore, lines: DeferredQueue[Line | None]
    ) -> None:
        """Raises _Failed, Unanswered, StorageError."""
        await free.acquire()
        try:
            what, seen, idle = f"{self.image} {digest.hex[:12]}", 0, 0
            while idle < RETRIES:
                told = await self.steward.workers.ask_one(FILL, self.image, str(digest), self.floor)
                if "error" in told:
                    raise _Failed(told)
                before = seen
                async for there in self._follow(digest):
                    seen = max(seen, there)
                    lines.put(progress(seen, size, what, "B"))
                if await self.steward.store.stat(digest) is not None:
                    lines.put(progress(size, size, what, "B"))
                    return
                idle = 0 if seen > before else idle + 1
            raise _Failed({"error": f"{digest} did not come whole; run it again", "status": 502, "retry_after": None})
        finally:
            free.release()

    async def _follow(self, digest: Digest) -> Any:
        """How many bytes are here, each time that there are more, until nobody fetches it any longer."""
        reader = await self.steward.store.open(digest)
        if reader is None:
            return
        try:
            while reader.state is State.FILLING:
                yield reader.readable
                await reader.changed()
        finally:
            reader.close()


def _started(work: Coroutine[Any, Any, None]) -> Deferred[None]:
    return Deferred.fromCoroutine(work)
