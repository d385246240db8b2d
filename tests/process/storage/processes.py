"""Another process on the same cache directory, driven line by line: `python -m tests.process.storage.processes`.

Each line on standard input is a command, each answered by one line:
`write SEED SIZE`, `piece BYTES` (of the right bytes), `commit`, `cancel`, `release`, `keep SEED SIZE` (all of it),
`announce SEED SIZE` (and hold it), `read SEED SIZE` (keep it open), `used`.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.stdio import StandardIO
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

import docxy
from docxy.storage.filesystem import FilesystemStore
from docxy.storage.interfaces import IBlobReader, IBlobWriter
from docxy.storage.paths import Tree
from tests.unit.storage.fixtures import blob, claim, in_thread, keep, opened


class Commands(LineOnlyReceiver):
    """The other process's side."""

    delimiter = b"\n"

    def __init__(self, store: FilesystemStore) -> None:
        self.store = store
        self.data = b""
        self.writers: list[IBlobWriter] = []
        self.readers: list[IBlobReader] = []

    def lineReceived(self, line: bytes) -> None:
        name, *numbers = line.decode().split()
        work = getattr(self, f"do_{name}")(*map(int, numbers))
        Deferred.fromCoroutine(work).addBoth(self.answer)

    def answer(self, outcome: object) -> None:
        text = type(outcome.value).__name__ if isinstance(outcome, Failure) else str(outcome)
        self.sendLine(text.encode())

    def connectionLost(self, reason: Failure | None = None) -> None:
        os._exit(0)  # without any tidying up

    async def do_write(self, seed: int, size: int) -> int:
        digest, self.data = blob(size, seed)
        writer = await claim(self.store, digest)
        await writer.announce(size)
        self.writers.append(writer)
        return writer.offset

    async def do_announce(self, seed: int, size: int) -> int:
        """Claims without bytes."""
        writer = await claim(self.store, blob(10, seed)[0])
        self.writers.append(writer)
        await writer.announce(size)
        return size

    async def do_piece(self, count: int) -> int:
        writer = self.writers[-1]
        await writer.write(self.data[writer.offset : writer.offset + count])
        return writer.offset

    async def do_commit(self) -> str:
        await self.writers.pop().commit()
        return "done"

    async def do_cancel(self) -> str:
        await self.writers.pop().cancel()
        return "done"

    async def do_release(self) -> str:
        await self.writers.pop().release()
        return "done"

    async def do_keep(self, seed: int, size: int) -> str:
        await keep(self.store, *blob(size, seed), piece=8192)
        return "done"

    async def do_read(self, seed: int, size: int) -> str:
        self.readers.append(await opened(self.store, blob(size, seed)[0]))
        return "done"

    async def do_used(self) -> int:
        return await self.store.used()


class Other(ProcessProtocol):
    """Our side: `await other.ask("write 1 1000")` is the line that answers."""

    def __init__(self) -> None:
        self._buffer = b""
        self._waiting: list[Deferred[str]] = []
        self.ended: Deferred[None] = Deferred()
        self.errors = b""

    @classmethod
    def spawn(cls, directory: str, budget: int) -> Other:
        other = cls()
        environment = dict(os.environ, PYTHONPATH=os.path.dirname(os.path.dirname(docxy.__file__)))
        arguments = [sys.executable, "-m", "tests.process.storage.processes", os.path.abspath(directory), str(budget)]
        cast(Any, reactor).spawnProcess(other, sys.executable, arguments, env=environment)
        return other

    @property
    def pid(self) -> int:
        return int(cast(Any, self.transport).pid)

    def ask(self, command: str) -> Deferred[str]:
        waiting: Deferred[str] = Deferred()
        self._waiting.append(waiting)
        cast(Any, self.transport).write(command.encode() + b"\n")
        return waiting

    def outReceived(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self._waiting.pop(0).callback(line.decode())

    def errReceived(self, data: bytes) -> None:
        self.errors += data

    def processEnded(self, reason: Failure) -> None:
        for waiting in self._waiting:
            waiting.callback(f"gone: {self.errors.decode()}")
        self.ended.callback(None)

    async def kill(self) -> None:
        """kill -9, and wait until it is dead."""
        if not self.ended.called:
            cast(Any, self.transport).signalProcess(signal.SIGKILL)
        if not self.ended.called:
            await self.ended


def main(directory: str, budget: str) -> None:
    Tree.bookkeeping = lambda tree: 0  # type: ignore[method-assign]  # as `count_blobs_only` does
    store = FilesystemStore(directory, int(budget), cast(Any, reactor), in_thread())
    store.start()
    StandardIO(Commands(store))
    cast(Any, reactor).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
