"""The status page in a real browser, while real clients pull."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from tests.live.browser import LOOKS, PHONE, Browser, Look
from tests.live.case import LiveTestCase
from tests.live.clients import Skopeo

CLIENTS = 100


class PageTests(LiveTestCase):
    """One docxy with two workers."""

    def setUp(self) -> None:
        super().setUp()
        self.docxy = self.shared.new_docxy("none", False, options=("--workers=2",))
        self.docxy.start()
        self.addCleanup(self.docxy.stop)

    async def pull(self, repository: str) -> None:
        client = Skopeo(self.machine(self.docxy.target), self.reactor)
        self.assertEqual(await client.pull(self.bed.images[repository], "latest"), set())

    def test_looks(self) -> Deferred[None]:
        """At both widths, in both themes and languages the page fits, obeys its policy, and everybody can use it."""
        return Deferred.fromCoroutine(self._looks())

    async def _looks(self) -> None:
        await self.pull("library/multi")
        await deferToThread(self._look_at_all)

    def _look_at_all(self) -> None:
        pictures = Path("pictures")
        pictures.mkdir(exist_ok=True)
        for look in LOOKS:
            with Browser(look) as browser:
                browser.open(f"{self.docxy.url}/")
                browser.wait_for("library/multi", "[data-part=pulls]")
                self.assertEqual(browser.driver.find_element("tag name", "html").get_attribute("lang"), look.language)
                self.assertLessEqual(browser.overflow(), 0, look)
                self.assertEqual(browser.unusable(), [], look)
                self.assertEqual(browser.complaints(), [], look)
                browser.picture(pictures / f"status-{look.name}.png")
                browser.driver.find_element("css selector", "[data-part=pulls] td a").click()
                self.assertIn("library/multi", browser.text("h1"))
                browser.unfold()
                self.assertLessEqual(browser.overflow(), 0, look)
                self.assertEqual(browser.unusable(), [], look)
                browser.picture(pictures / f"image-{look.name}.png")

    def test_without_script(self) -> Deferred[None]:
        """Without JavaScript the page is whole as it was loaded."""

        async def check() -> None:
            await self.pull("library/small")
            await deferToThread(self._without_script)

        return Deferred.fromCoroutine(check())

    def _without_script(self) -> None:
        with Browser(Look(PHONE, script=False)) as browser:
            browser.open(f"{self.docxy.url}/status")
            self.assertIn("hosts.toml", browser.text("main"))

    def test_copy(self) -> Deferred[None]:
        """The button copies a file, also where the browser has no clipboard, as over plain HTTP."""
        return deferToThread(self._copy)

    def _copy(self) -> None:
        for before in ("", "Object.defineProperty(navigator, 'clipboard', {value: undefined})"):
            with Browser(Look()) as browser:
                # The button says "Copied" for a moment; here it goes on saying it.
                browser.before(f"window.setTimeout = () => 0; {before}")
                browser.permit("clipboardReadWrite", "clipboardSanitizedWrite")
                browser.open(f"{self.docxy.url}/")
                # A selection is what the clipboard gets; the other way nothing is selected.
                browser.driver.execute_script(
                    "document.addEventListener('copy', () => { window.taken = getSelection().toString(); })"
                )
                browser.driver.find_element("css selector", ".code button").click()
                browser.wait_for("Copied", ".code button")
                taken = browser.driver.execute_script("return window.taken || navigator.clipboard.readText()")
                self.assertEqual(taken.strip(), browser.text(".code pre"))
                self.assertEqual(browser.complaints(), [])

    def test_follows(self) -> Deferred[None]:
        """While a hundred clients pull a layer, the open page follows by itself; what did not change stays as it is."""
        return deferToThread(self._follow)

    def _follow(self) -> None:
        digest, size = self.bed.images["library/large"].layers[1]
        with Browser(Look()) as browser, ThreadPoolExecutor(CLIENTS) as clients:
            browser.open(f"{self.docxy.url}/")
            self.assertNotIn("library/large", browser.text())
            browser.driver.execute_script("window.kept = document.querySelector('[data-part=pulls] h2')")
            read = [clients.submit(self._read, f"/v2/library/large/blobs/{digest}") for _ in range(CLIENTS)]
            self.assertEqual([each.result() for each in read], [size] * CLIENTS)
            browser.wait_for("library/large", "[data-part=pulls]")
            self.assertTrue(browser.driver.execute_script("return window.kept.isConnected"))
            self.assertEqual(browser.complaints(), [])
        self.assertEqual(self._told_of(CLIENTS)["docxy"]["dropped"], 0)

    def _told_of(self, answers: int) -> dict[str, Any]:
        """The first event that tells of so many answers."""
        connection = self.docxy.connect()
        try:
            connection.request("GET", "/events")
            response = connection.getresponse()
            while line := response.readline():
                if line.startswith(b"data: "):
                    told: dict[str, Any] = json.loads(line[6:])
                    if told["traffic"]["hour"]["answers"] >= answers:
                        return told
            raise AssertionError("the events ended")
        finally:
            connection.close()

    def _read(self, path: str) -> int:
        """Bytes of an answer."""
        connection = self.docxy.connect(timeout=120)
        try:
            connection.request("GET", path)
            response, count = connection.getresponse(), 0
            while piece := response.read(1 << 20):
                count += len(piece)
            return count
        finally:
            connection.close()
