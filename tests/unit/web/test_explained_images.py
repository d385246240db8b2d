"""What is told of whole images, and of registries with several endpoints: who asked, what came from where."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import html
import re

from attrs import evolve

from docxy.observe import journal
from docxy.orders.model import Kind, Order
from docxy.settings.image_names import ImageName
from docxy.settings.policy import Keep, Policy
from docxy.web.pages.page import Pages
from tests import fakes
from tests.fakes import Fault
from tests.unit.pull.harness import NAME, REPOSITORY
from tests.unit.web.explained import BIG, ExplainedCase


class ImageTests(ExplainedCase):
    """The page of an image."""

    async def page(self, repository: str = REPOSITORY) -> tuple[int, str]:
        self.mirror.served.recorder.flush()
        answer = await self.mirror.ask(f"/status/image?name={NAME}/{repository}")
        return answer.status, re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", answer.body.decode())))

    async def test_history(self) -> None:
        """Where a tag led and when that was first and last seen; what of it is cached; nobody's address."""
        old = self.upstream.add_image(REPOSITORY, "moving", layers=[b"old"])
        await self.mirror.manifest("moving")
        self.seconds.advance(3 * 3600)
        await self.mirror.manifest("moving")
        new = self.upstream.add_index(REPOSITORY, "moving", {"amd64": old})
        self.seconds.advance(3600)
        await self.mirror.manifest("moving")
        self.seconds.advance(600)
        status, text = await self.page()
        self.assertEqual(status, 200)
        self.assertIn(f"moving Confirmed 10 min ago {new} linux/amd64 ", text)
        self.assertRegex(text, f"moving {new}  ?10 min ago 10 min ago moving {old}  ?4 h ago 70 min ago")
        self.assertNotIn("127.0.0.1", text)
        self.assertNotIn("Who pulled it", text)

    async def test_marks(self) -> None:
        """What is ordered about a tag stands beside it, in both languages; of another tag nothing does."""
        digest = self.upstream.add_image(REPOSITORY, "marked", layers=[b"marked"])
        await self.mirror.manifest("marked")
        await self.mirror.manifest("latest")
        image = f"{NAME}/{REPOSITORY}:marked"
        self.mirror.policies.swap(Policy(keeps=(Keep((ImageName(NAME, REPOSITORY, "mark*"),)),)))
        for kind in (Kind.PIN, Kind.FREEZE, Kind.RECALL):
            at = str(digest) if kind is Kind.FREEZE else ""
            self.mirror.orders.put(Order(kind, image, at, "CVE", 0.0, "root"))
        self.seconds.advance(2)
        for language, words in (("en", "recalled frozen pinned kept"), ("zh", "已召回 已冻结 已固定 常驻缓存")):
            answer = await self.mirror.ask(f"/status/image?name={NAME}/{REPOSITORY}&lang={language}")
            heads = re.findall(r"<h3>(.*?)</h3>", answer.body.decode(), re.DOTALL)
            told = sorted(" ".join(re.sub(r"<[^>]*>", " ", head).split()) for head in heads)
            self.assertEqual(len(told), 2)
            self.assertTrue(told[1].startswith(f"marked {words} "), told)
            self.assertNotIn(words.split()[0], told[0])

    async def test_askers(self) -> None:
        """Who pulled it and how often, for a viewer whose rows say so; its text is escaped."""
        for _ in range(2):
            await self.mirror.manifest("latest")
            self.seconds.advance(3600)
        self.mirror.served.recorder.flush()
        snapshot = await self.mirror.served.view.snapshot()
        pulls = [evolve(journal.from_json(pull), account="<b>") for pull in snapshot["pulls"]]
        page = Pages().image({**snapshot, "pulls": []}, f"{NAME}/{REPOSITORY}", pulls, [], [], "en", "")
        self.assertRegex(page, "Who pulled it(?s:.*)&lt;b&gt; · 127.0.0.1</td><td [^>]*>2</td>")

    async def test_cached_only(self) -> None:
        """An image that is cached and was not pulled lately has a page; one that nobody knows has none."""
        await self.mirror.manifest("latest")
        await self.mirror.stop()
        self.mirror = self.timed()
        status, text = await self.page()
        self.assertEqual(status, 200)
        self.assertIn("In the cache", text)
        self.assertEqual((await self.page("team/none"))[0], 404)


class FailoverTests(ExplainedCase):
    """Two endpoints of one registry."""

    async def setUp(self) -> None:
        await super().setUp()
        self.second = fakes.Upstream(self.upstream.reactor)
        await self.second.start()
        self.addCleanup(self.second.stop)
        self.second.add_image(REPOSITORY)
        self.second.add_blob(REPOSITORY, BIG)
        await self.mirror.stop()
        self.mirror = self.timed(endpoints=(self.second.url,))

    async def test_at_once(self) -> None:
        """The first endpoint fails before a byte."""
        self.upstream.on("blob", Fault(status=500))
        slow = self.second.on("blob", Fault(stall_after=1 << 20))
        await self.blob_while(slow, 8)
        await self.assert_said("upstream", f"{NAME} sent RATE; failed over once", f"{NAME} sent RATE; failed over 1×")

    async def test_in_the_middle(self) -> None:
        """It breaks off in the middle of a layer."""
        self.upstream.on("blob", Fault(cut_after=1 << 20))
        slow = self.second.on("blob", Fault(stall_after=1 << 20))
        await self.blob_while(slow, 8)
        await self.assert_said(
            "upstream",
            f"{NAME} sent RATE; resumed once; failed over once",
            f"{NAME} sent RATE; resumed 1×; failed over 1×",
        )
