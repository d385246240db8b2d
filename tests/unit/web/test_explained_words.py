"""What the page says of pulls that were made over HTTP, in both languages, where no wait was the cause."""

from __future__ import annotations

import html
import re

from docxy.orders.model import Kind, Order
from tests.fakes import Fault
from tests.unit.pull.harness import NAME, REPOSITORY, drain
from tests.unit.web.explained import ExplainedCase


class RowTests(ExplainedCase):
    """The last cell of the newest row."""

    async def assert_row(self, cause: str, english: str, chinese: str) -> None:
        self.assertEqual((await self.told())["verdict"]["cause"], cause)
        for language, words in (("en", english), ("zh", chinese)):
            page = html.unescape((await self.mirror.ask(f"/status?lang={language}")).body.decode())
            said = re.findall('<td class="words">(.*?)</td>', page.partition('data-part="upstreams"')[0])
            self.assertRegex(said[0], f"\\A{words}\\Z")

    async def test_nothing(self) -> None:
        """A pull that came from the registry without a wait."""
        self.assertEqual((await self.mirror.manifest("latest")).status, 200)
        await self.assert_row("nothing", "no wait stands out", "没有明显的等待")

    async def test_cache(self) -> None:
        """The same again, later."""
        await self.mirror.blob(self.big)
        await drain(self.mirror, self.big)
        self.seconds.advance(120)
        await self.mirror.blob(self.big)
        await self.assert_row("cache", "from the cache", "来自缓存")

    async def test_recalled(self) -> None:
        """The operator's reason follows."""
        await self.mirror.manifest("latest")
        self.mirror.orders.put(Order(Kind.RECALL, f"{NAME}/{REPOSITORY}:latest", "", "CVE-2026-1234", 0.0, "root"))
        self.seconds.advance(120)
        self.assertGreaterEqual((await self.mirror.manifest("latest")).status, 400)
        await self.assert_row("recalled", "recalled: CVE-2026-1234", "已召回：CVE-2026-1234")

    async def test_failed(self) -> None:
        """What went wrong follows, as docxy put it."""
        self.upstream.on("manifest", Fault(status=500), times=None)
        self.assertEqual((await self.mirror.manifest("none")).status, 502)
        await self.assert_row(
            "failed", "failed with status 502: .+ answered 500 .*", "失败，状态码 502: .+ answered 500 .*"
        )

    async def test_limited(self) -> None:
        """The pull limit is used up."""
        self.upstream.on("manifest", Fault.too_many_requests("30"), times=None)
        self.assertEqual((await self.mirror.manifest("latest")).status, 429)
        await self.assert_row(
            "limited",
            f"{NAME} answered 429: its pull limit is used up, wait 30 s",
            f"{NAME} 返回 429：拉取配额已用完，需等待 30 秒",
        )
