"""The status page in a real browser, while real clients pull."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from selenium.webdriver.common.keys import Keys
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from tests.live.browser import LOOKS, PHONE, Browser, Look
from tests.live.case import LiveTestCase
from tests.live.clients import Skopeo
from tests.process.workers.harness import Upstream

CLIENTS = 100
BELOW = "[data-part=pulls] .key, [data-part=pulls] ~ *, footer"
"""What the list of pulls pushes on as it becomes longer."""
SIZE = 40_000_000
"""Bytes of the layer that they pull."""


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
        """The button copies a file, also where the browser has no clipboard, as over plain HTTP; keys alone do, too."""
        return deferToThread(self._copy)

    def _by_keys(self, browser: Browser) -> None:
        """Press what copies the first file; Tab leads to everything, in the page's order, and one sees where it is."""
        wanted = browser.reachable()
        self.assertEqual(wanted[0], "Skip to the content")
        at = [browser.tab() for _ in wanted]
        self.assertEqual([number for number, _ in at], [*range(len(wanted))], wanted)
        self.assertEqual([wanted[number] for number, outline in at if outline.startswith(("none", "auto 0"))], [])
        # Nothing traps: the focus leaves the page, and comes in again at its top.
        copies = wanted.index("Copy")
        self.assertIn(copies, (browser.tab()[0] for _ in range(2 * len(wanted))))
        browser.press(Keys.ENTER)

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
                if before:
                    browser.driver.find_element("css selector", ".code button").click()
                else:
                    self._by_keys(browser)
                browser.wait_for("Copied", ".code button")
                taken = browser.driver.execute_script("return window.taken || navigator.clipboard.readText()")
                self.assertEqual(taken.strip(), browser.text(".code pre"))
                self.assertEqual(browser.complaints(), [])


class FollowTests(LiveTestCase):
    """One docxy with two workers, in front of a registry that sends what the test lets through."""

    def setUp(self) -> None:
        super().setUp()
        self.upstream = Slow(self)
        self.addCleanup(self.upstream.allow, SIZE)
        self.blob = self.upstream.add(SIZE)
        options = ("--workers=2", "--fetch-connections=1", "--no-prefetch")
        self.docxy = self.shared.new_docxy("none", False, options=options, url=self.upstream.url)
        self.docxy.start()
        self.addCleanup(self.docxy.stop)

    def test_follows(self) -> Deferred[None]:
        """While a hundred clients pull a layer that comes slowly, the open page follows by itself.

        It shows how far the layer is and how many clients wait for it, in whichever worker; then their pulls.  Nothing
        in it jumps when only figures change.
        """
        return deferToThread(self._follow)

    def _follow(self) -> None:
        fill = "[data-part=fills] tbody"
        with Browser(Look()) as browser, ThreadPoolExecutor(CLIENTS) as clients, ExitStack() as last:
            last.callback(self.upstream.allow, SIZE)
            browser.open(f"{self.docxy.url}/")
            self.assertNotIn("team/app", browser.text())
            browser.follow()
            browser.show("[data-part=fills]")
            self.upstream.allow(SIZE // 4)
            first = clients.submit(self._pull, 1)
            browser.wait_for("10.0 MB / 40.0 MB", f"{fill} .progress")
            self.assertEqual(browser.text(f"{fill} [data-label=Clients]"), "1")
            browser.driver.execute_script("document.querySelector(arguments[0]).focus()", f"{fill} a")
            pulls = [first, *(clients.submit(self._pull, number) for number in range(2, CLIENTS + 1))]
            browser.wait_for(str(CLIENTS), f"{fill} [data-label=Clients]")
            self.assertIn("team/app", browser.text(fill))
            for quarters in (2, 3):
                self.upstream.allow(quarters * SIZE // 4)
                browser.wait_for(f"{quarters}0.0 MB / 40.0 MB", f"{fill} .progress")
            self.assertEqual(browser.text(f"{fill} [data-label=Clients]"), str(CLIENTS))
            self.assertEqual(browser.jumps(BELOW), [])
            focused = browser.driver.switch_to.active_element
            self.assertEqual(focused, browser.driver.find_element("css selector", f"{fill} a"), "the focus stays")
            self.assertEqual([each.done() for each in pulls], [False] * CLIENTS)
            self.upstream.allow(SIZE)
            self.assertEqual([each.result() for each in pulls], [SIZE] * CLIENTS)
            browser.wait_for("Nothing is being fetched", "[data-part=fills]")
            browser.wait_for("team/app:latest", "[data-part=pulls]")
            self.assertEqual(browser.jumps(BELOW), [])
            self.assertTrue(browser.stayed())
            self.assertEqual(browser.complaints(), [])
        told = self._told_of(2 * CLIENTS)
        self.assertEqual(told["docxy"]["dropped"], 0)

    def _pull(self, number: int) -> int:
        """Pull from an address of its own; bytes of the layer."""
        connection = HTTPConnection("127.0.0.1", self.docxy.port, 120, (f"127.0.0.{number + 1}", 0))
        try:
            connection.request("GET", "/v2/team/app/manifests/latest")
            connection.getresponse().read()
            connection.request("GET", self.blob)
            response, count = connection.getresponse(), 0
            while piece := response.read(1 << 20):
                count += len(piece)
            return count
        finally:
            connection.close()

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


class Slow(Upstream):
    """Sends of its blobs as much as the test allows."""

    def __init__(self, test: SynchronousTestCase) -> None:
        super().__init__(test)
        self._allowed = 0

    def allow(self, count: int) -> None:
        """Bytes of a blob, from its start, that may go out."""
        with self.changed:
            self._allowed = count
            self.changed.notify_all()

    def send(self, request: BaseHTTPRequestHandler, blob: memoryview) -> None:
        sent = 0
        while sent < len(blob):
            with self.changed:
                while self._allowed <= sent:
                    self.changed.wait()
                allowed = min(self._allowed, len(blob))
            request.wfile.write(blob[sent:allowed])
            sent = allowed
