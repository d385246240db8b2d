"""A real Chromium without a window, at the sizes and in the looks that people have.

Run as a programme it takes the pictures of the documentation:
`python -m tests.live.browser URL docker.io/library/nginx docs/images`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from attrs import frozen
from axe_core_python.selenium import Axe
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from tests.harness.processes import which

PHONE, DESKTOP = 390, 1280
"""CSS pixels."""


_REACHABLE = "[...document.querySelectorAll('a[href], button, summary, [tabindex]')].filter((e) => e.checkVisibility())"


@frozen
class Look:
    """How one person sees a page."""

    width: int = DESKTOP
    dark: bool = False
    language: str = "en"
    script: bool = True
    """Whether JavaScript runs."""

    @property
    def name(self) -> str:
        return f"{self.language}-{self.width}-{'dark' if self.dark else 'light'}"


LOOKS = tuple(
    Look(width, dark, language) for width in (PHONE, DESKTOP) for dark in (False, True) for language in ("en", "zh")
)


class Browser:
    """One Chromium; use it as a context manager."""

    def __init__(self, look: Look) -> None:
        self.look = look
        options = webdriver.ChromeOptions()
        options.binary_location = which("chromium") or "chromium"
        for argument in (
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--disable-extensions",
        ):
            options.add_argument(argument)
        options.add_argument(f"--lang={look.language}")
        options.add_experimental_option(
            "prefs",
            {
                "intl.accept_languages": look.language,
                "profile.managed_default_content_settings.javascript": 1 if look.script else 2,
            },
        )
        # The console's lines say what a Content-Security-Policy refused.
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options, Service(which("chromedriver")))
        scheme = {"name": "prefers-color-scheme", "value": "dark" if look.dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self._size(900)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.driver.quit()

    def _size(self, height: int) -> None:
        metrics = {"width": self.look.width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def open(self, url: str) -> None:
        """Load a page."""
        self.driver.get(url)

    def before(self, script: str) -> None:
        """Have pages that are opened from now on run this first."""
        self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})

    def permit(self, *permissions: str) -> None:
        """What a person would say yes to."""
        self.driver.execute_cdp_cmd("Browser.grantPermissions", {"permissions": list(permissions)})

    def text(self, selector: str = "body") -> str:
        """What a person reads in it."""
        return str(self.driver.find_element(By.CSS_SELECTOR, selector).text)

    def wait_for(self, text: str, selector: str, seconds: float = 20.0) -> None:
        """Return when the text is there.  Raises TimeoutException."""
        WebDriverWait(self.driver, seconds).until(lambda _: text in self.text(selector))

    def follow(self) -> None:
        """Note from now on what is needed to tell that the page stays the one that was loaded, and what jumps in it.

        A jump: something that was seen moves, though nobody touched the page (the Layout Instability API).
        """
        self.driver.execute_script(
            "window.kept = document.querySelector('main'); window.jumps = [];"
            "window.jumping = new PerformanceObserver((list) => window.jumps.push(...list.getEntries()));"
            "window.jumping.observe({type: 'layout-shift'})"
        )

    def stayed(self) -> bool:
        """Whether it is the document that was there at `follow`."""
        return bool(self.driver.execute_script("return Boolean(window.kept && window.kept.isConnected)"))

    def jumps(self, below: str) -> list[str]:
        """What jumped since the last call, or since `follow`.

        `below`: what may be pushed on, as a list before it became longer.  A figure that has more digits does not jump.
        """
        found = self.driver.execute_script(
            """
            const shifts = [...window.jumps, ...window.jumping.takeRecords()];
            window.jumps = [];
            const told = ({x, y, width, height}) => `${x},${y} ${width}x${height}`;
            return shifts.flatMap(({sources}) => sources).flatMap(({node, previousRect, currentRect}) => {
              const element = node instanceof Element ? node : node?.parentElement;
              const [before, after] = [told(previousRect), told(currentRect)];
              if (before === after || !element || element.matches(arguments[0])) return [];
              return [`${element.outerHTML.slice(0, 80)}: ${before} -> ${after}`];
            });
            """,
            below,
        )
        return [str(each) for each in found]

    def show(self, selector: str) -> None:
        """Scroll to it."""
        self.driver.execute_script("document.querySelector(arguments[0]).scrollIntoView()", selector)

    def press(self, *keys: str) -> None:
        """Keys, for what has the focus."""
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def tab(self) -> tuple[int, str]:
        """Press Tab; which of `reachable` has the focus now, -1 for none, and how that is seen: its outline."""
        self.press(Keys.TAB)
        number, outline = self.driver.execute_script(
            f"const at = document.activeElement, style = getComputedStyle(at);"
            f"return [{_REACHABLE}.indexOf(at), `${{style.outlineStyle}} ${{style.outlineWidth}}`]"
        )
        return int(number), str(outline)

    def reachable(self) -> list[str]:
        """What can be used, in the order of the page: its text or, without any, its tag."""
        found = self.driver.execute_script(
            f"return {_REACHABLE}.map((each) => each.textContent.trim().split('\\n')[0] || each.tagName)"
        )
        return [str(each) for each in found]

    def unfold(self) -> None:
        """Open everything that can be opened."""
        self.driver.execute_script("for (const each of document.querySelectorAll('details')) each.open = true")

    def overflow(self) -> int:
        """CSS pixels by which the page is wider than the window."""
        return int(self.driver.execute_script("return document.documentElement.scrollWidth - window.innerWidth"))

    def complaints(self) -> list[str]:
        """What the console says is wrong."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")]

    def unusable(self) -> list[str]:
        """What axe-core finds that keeps somebody from using the page: rule and place."""
        found: dict[str, Any] = Axe().run(self.driver)
        return [f"{each['id']}: {node['target']}" for each in found["violations"] for node in each["nodes"]]

    def picture(self, path: Path) -> None:
        """The whole page, as PNG."""
        height = int(self.driver.execute_script("return document.documentElement.scrollHeight"))
        self._size(height)
        self.driver.save_screenshot(str(path))
        self._size(900)


def main(url: str, image: str, directory: str) -> None:
    for look, name, path in (
        (Look(), "status", "/"),
        (Look(PHONE, True, "zh"), "status", "/"),
        (Look(dark=True), "image", f"/status/image?name={image}"),
    ):
        with Browser(look) as browser:
            browser.open(f"{url}{path}")
            if name == "image":
                browser.unfold()
            browser.picture(Path(directory) / f"{name}-{look.name}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
