"""A headless Chromium that looks at a page on the disk, and says what it asked for and complained about."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)
"""As root, without a network, with a small /dev/shm."""


@dataclass
class Browser:
    """One window."""

    driver: Any
    """`selenium.webdriver.Chrome`."""

    def open(self, page: Path, width: int, height: int = 900, scheme: str = "light") -> None:
        """Opens a page in a window of a size in CSS pixels, as one who prefers light or dark."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        self.driver.get(page.as_uri())

    def run(self, script: str, *arguments: object) -> Any:
        """Returns what a script returns."""
        return self.driver.execute_script(script, *arguments)

    def wait_for(self, script: str) -> None:
        """Waits until a script returns something true; events come after the key that causes them."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, 20, poll_frequency=0.05).until(lambda driver: driver.execute_script(script))

    def press(self, key: str, *, shift: bool = False) -> None:
        """Presses a key where the focus is."""
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        keys = ActionChains(self.driver, duration=0)
        keys = keys.key_down(Keys.SHIFT).send_keys(key).key_up(Keys.SHIFT) if shift else keys.send_keys(key)
        keys.perform()

    def complaints(self) -> list[str]:
        """Returns what the console says since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Returns the addresses that were asked for since the last call: no data: URIs, and none that CSP stopped."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        stopped = {
            one["params"]["requestId"]
            for one in messages
            if one["method"] == "Network.loadingFailed" and one["params"].get("blockedReason") == "csp"
        }
        sent = [one["params"] for one in messages if one["method"] == "Network.requestWillBeSent"]
        urls = [one["request"]["url"] for one in sent if one["requestId"] not in stopped]
        return [url for url in urls if not url.startswith("data:")]


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """Starts Chromium with an empty profile directory; skips the test where it is not installed."""
    selenium = pytest.importorskip("selenium.webdriver", reason="needs selenium: make setup")
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    options = selenium.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = selenium.Chrome(options, selenium.ChromeService(driver))
    try:
        browser.get("about:blank")  # the page that it starts with is full of requests
        yield Browser(browser)
    finally:
        browser.quit()
