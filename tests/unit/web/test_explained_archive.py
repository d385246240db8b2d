"""What the archive gave, or is to give, is not laid to the registry: page and JSON say so."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

from attrs import define
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from zope.interface import implementer

from docxy.archive.interfaces import Found
from docxy.bodies import IBody
from docxy.daemon.archiving import OpenArchive
from docxy.names import Digest
from docxy.settings.model import Redirect
from tests.fakes.archive import MemoryArchive
from tests.unit.pull.harness import NAME, REPOSITORY, drain
from tests.unit.pull.test_archived import ArchiveCase
from tests.unit.web.explained import BIG, ExplainedCase, Timed

MIB = 1 << 20


@implementer(IBody)
@define(eq=False)
class Stalled:
    """A body that stops after a MiB until it is released."""

    body: IBody
    released: Deferred[None]
    read_so_far: int = 0

    async def read(self) -> bytes:
        if self.read_so_far >= MIB:
            await self.released
        data = await self.body.read()
        self.read_so_far += len(data)
        return data

    def close(self) -> None:
        self.body.close()


class ArchiveTests(ExplainedCase, ArchiveCase):
    redirect = Redirect.NEVER

    def timed(self, *args: Any, **settings: Any) -> Timed:
        self.more = {"archive": OpenArchive(self.archive, Service()), "redirect": self.redirect}
        return super().timed(*args, **settings)

    async def setUp(self) -> None:
        await super().setUp()
        self.archive.blobs[self.big] = BIG.read(0, BIG.size)

    async def test_slow_bytes(self) -> None:
        """Bytes of a slow archive, for who began the fetch and who joined it."""
        released: Deferred[None] = Deferred()
        found = MemoryArchive.open

        async def stalled(archive: MemoryArchive, digest: Digest, first: int) -> Found | None:
            opened = await found(archive, digest, first)
            assert opened is not None
            return Found(opened.size, Stalled(opened.body, released))

        self.patch(MemoryArchive, "open", stalled)
        path = f"/v2/{REPOSITORY}/blobs/{self.big}"
        pulled = [await self.mirror.stream(path, keep=False) for _ in range(2)]
        for each in pulled:
            await each.client.reached(MIB)
        self.seconds.advance(8)
        released.callback(None)
        for each in pulled:
            await each.client.ended
        await drain(self.mirror, self.big)
        pull = await self.assert_said("upstream", "the archive sent RATE", chinese="归档存储发送速度 RATE")
        self.assertEqual(
            [(part["cache"], part["archived"]) for part in pull["parts"]], [("miss", True), ("collapsed", True)]
        )

    async def test_slow_answer(self) -> None:
        """An archive that is long in answering at all: the registry was asked as well, so both are named."""
        found = MemoryArchive.open

        async def late(archive: MemoryArchive, digest: Digest, first: int) -> Found | None:
            self.seconds.advance(12)
            return await found(archive, digest, first)

        self.patch(MemoryArchive, "open", late)
        self.assertEqual((await self.mirror.blob(self.big)).status, 200)
        await drain(self.mirror, self.big)
        words = f"{NAME} or the archive took TIME s to answer"
        await self.assert_said("headers", words, chinese=f"{NAME} 或归档存储用了 TIME 秒才响应")

    async def test_registry(self) -> None:
        """What the archive does not have, the registry sends."""
        self.archive.blobs.clear()
        self.assertEqual((await self.mirror.blob(self.big)).status, 200)
        await drain(self.mirror, self.big)
        (part,) = (await self.told())["parts"]
        self.assertNotIn("archived", part)


class RedirectTests(ArchiveTests):
    redirect = Redirect.COLD

    async def test_slow_bytes(self) -> None:
        """The client gets the layer from the archive itself: what that took, docxy says it does not know."""
        self.assertEqual((await self.mirror.blob(self.big)).status, 307)
        words = "the client got a layer from the archive itself, which docxy does not measure"
        page = "layers that the client got from the archive itself, which docxy does not measure: 1"
        await self.assert_said("redirected", words, page, chinese="客户端直接从归档存储下载了 1 个层，docxy 无法计时")

    async def test_slow_answer(self) -> None:
        """What docxy took to send it there is told where it is long."""
        found = MemoryArchive.link

        async def late(archive: MemoryArchive, digest: Digest) -> Any:
            self.seconds.advance(12)
            return await found(archive, digest)

        self.patch(MemoryArchive, "link", late)
        self.assertEqual((await self.mirror.blob(self.big)).status, 307)
        await self.assert_said("headers", f"{NAME} or the archive took TIME s to answer")
