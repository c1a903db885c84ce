"""Pictures of the status page: make picture, or python -m tests.pictures FOLDER for every scene at every width.

Without a folder only docs/status-page.png is made anew: two sessions on two shards, one of them with a file that fails.
"""

import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
from selenium.webdriver import Chrome

from tests.endpoint.faults import Do
from tests.endpoint.request import Operation
from tests.endpoint.server import Endpoint
from tests.support.browser import ask, card, chromium, emulate, one, picture, text, texts
from tests.support.cluster import Cluster, cluster
from tests.support.programs import TOP, wait_for

BLOCK = 64 * 1024
DOCUMENT = TOP / "docs/status-page.png"
WIDTHS = (360, 800, 1280)
FAILURES = (0, 3, 500)
HELD = 24  # blocks that go before the picture is taken


class Scenes:
    """The programs, and the page in a browser."""

    def __init__(self, site: Cluster, browser: Chrome, endpoint: Endpoint) -> None:
        self.site = site
        self.browser = browser
        self.endpoint = endpoint

    def look(self) -> None:
        """Open the page and wait until it is live."""
        emulate(self.browser)
        self.browser.get(self.site.router.url)
        wait_for(lambda: text(self.browser, "#line") == "live", "the page to be live")

    def failing(self, name: str, count: int) -> None:
        """Start a session in which so many files fail, and wait until the page says so."""
        folder = self.site.start(name)
        for number in range(20):
            (folder / f"frame-{number:04}.h5").write_bytes(os.urandom(1000 + 999 * number))
        for number in range(count):
            (folder / f"camera-2-{number:04}.h5").symlink_to("nowhere")
        wait_for(lambda: text(self.browser, card(name, "completed")) == "20", "the good files")
        wait_for(lambda: text(self.browser, card(name, "failed")) == str(count), "the failures")

    @contextmanager
    def uploading(self, name: str, sizes: list[int]) -> Iterator[None]:
        """Have files in flight, which stand still after some blocks until the block ends."""
        turns = threading.Semaphore(0)
        self.endpoint.faults.add(Do(lambda _: turns.acquire()), Operation.PUT_BLOCK, times=1_000_000)
        folder = self.site.start(name)
        for number, size in enumerate(sizes):
            (folder / f".scan-{number}").write_bytes(os.urandom(size))
            (folder / f".scan-{number}").rename(folder / f"scan-{number}.h5")
        wait_for(lambda: len(texts(self.browser, card(name, "path"))) >= len(sizes), "the files in flight")
        for _ in range(HELD):
            turns.release()
            threading.Event().wait(0.25)  # so that there is a rate to show
        try:
            yield
        finally:
            self.endpoint.faults.clear()
            turns.release(1_000_000)

    def end(self, name: str) -> None:
        """Stop a session and wait until its result is shown."""
        httpx.post(f"{self.site.router.url}/v1/watch/stop", json={"session": name}, timeout=60).raise_for_status()
        wait_for(lambda: name in " ".join(texts(self.browser, "#ended [data-is=name]")), "the result")


@contextmanager
def scenes() -> Iterator[Scenes]:
    """Run two shards, a router and a browser."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        endpoint = stack.enter_context(Endpoint())
        site = stack.enter_context(cluster(Path(folder), 2, endpoint.connection_string, block_size=BLOCK))
        (Path(folder) / "browser").mkdir()
        browser = stack.enter_context(chromium(Path(folder) / "browser"))
        yield Scenes(site, browser, endpoint)


def document() -> None:
    """Make the picture of the documentation."""
    with scenes() as it:
        it.look()
        it.failing("run-41", 1)
        with it.uploading("run-42", [40 * BLOCK, 30 * BLOCK, 12 * BLOCK]):
            emulate(it.browser, 1280, 800)
            picture(it.browser, DOCUMENT)
    print(f"{DOCUMENT.relative_to(TOP)}: {DOCUMENT.stat().st_size} bytes")


def everything(folder: Path) -> None:
    """Make every scene at every width, light and dark."""
    folder.mkdir(parents=True, exist_ok=True)

    def shoot(it: Scenes, scene: str, *, whole: bool = True) -> None:
        for width in WIDTHS:
            for scheme in ("light", "dark"):
                emulate(it.browser, width, 900, scheme)
                picture(it.browser, folder / f"{scene}-{width}-{scheme}.png", whole=whole)
        emulate(it.browser)
        print(scene, flush=True)

    with scenes() as it:
        it.look()
        shoot(it, "idle")
        for count in FAILURES:
            it.failing(f"run-{count}", count)
            with it.uploading("flying", [40 * BLOCK, 20 * BLOCK]):
                shoot(it, f"failures-{count}")
            if count == FAILURES[-1]:
                dialogs(it, f"run-{count}", lambda scene: shoot(it, scene, whole=False))
            it.end("flying")
            it.end(f"run-{count}")
        shoot(it, "ended")
        one(it.browser, "#ended [data-is=again]").click()
        shoot(it, "dialog-again", whole=False)
        one(it.browser, "#again [value=leave]").click()
        it.failing("away", 3)
        (owner,) = (
            shard for shard, about in enumerate(texts(it.browser, "#shards [data-is=about]")) if "away" in about
        )
        it.site.shards[owner].kill()
        wait_for(lambda: text(it.browser, card("away", "eta")).startswith("as of "), "the shard to be missed")
        shoot(it, "away")
        it.site.shards[owner].up()


def dialogs(it: Scenes, name: str, shoot: Callable[[str], None]) -> None:
    """Open each dialog of a session."""
    one(it.browser, card(name, "all")).click()
    wait_for(lambda: text(it.browser, "#failed-count").startswith("failed: 1 to"), "the first page")
    shoot("dialog-failed")
    one(it.browser, "#failed-close").click()
    one(it.browser, card(name, "stop")).click()
    shoot("dialog-stop")
    one(it.browser, "#stop [value=now]").click()
    shoot("dialog-stop-sure")
    one(it.browser, "#stop [value=keep]").click()
    assert not ask(it.browser, "document.getElementById('stop').open")


if __name__ == "__main__":
    everything(Path(sys.argv[1])) if len(sys.argv) > 1 else document()
