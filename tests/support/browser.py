"""A real Chromium, and what tests and pictures ask of the status page in it."""

import contextlib
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1280,900"
)


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Chrome]:
    """Run a browser with an empty profile in this folder."""
    options = ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for option in [*OPTIONS.split(), f"--user-data-dir={folder}"]:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        yield driver
    finally:
        driver.quit()


def emulate(browser: Chrome, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
    browser.execute_cdp_cmd(
        "Emulation.setScrollbarsHidden", {"hidden": True}
    )  # as on a phone; pictures keep their width
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def ask(browser: Chrome, script: str, *values: Any) -> Any:
    return browser.execute_script(f"return {script}", *values)


def text(browser: Chrome, selector: str) -> str:
    return str(ask(browser, "document.querySelector(arguments[0])?.textContent ?? ''", selector)).strip()


def texts(browser: Chrome, selector: str) -> list[str]:
    """Read them in one step: the page changes four times a second."""
    found: list[str] = ask(
        browser, "[...document.querySelectorAll(arguments[0])].map(node => node.textContent)", selector
    )
    return found


def value(browser: Chrome, selector: str) -> float:
    return float(ask(browser, "document.querySelector(arguments[0])?.value ?? 0", selector))


def one(browser: Chrome, selector: str) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, selector)


def card(name: str, part: str) -> str:
    return f"article [data-is={part}]" if not name else f"article:has([aria-label='Stop {name}']) [data-is={part}]"


def picture(browser: Chrome, file: Path, *, whole: bool = False) -> None:
    """Save what is seen; `whole`: the page to its end."""
    data = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": whole})
    file.write_bytes(b64decode(data["data"]))
