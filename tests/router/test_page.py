"""The status page in a real Chromium, with real uploads behind it."""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.endpoint.faults import Do
from tests.endpoint.request import Operation
from tests.endpoint.server import Endpoint
from tests.need import absent, need
from tests.support.browser import ask, card, chromium, emulate, one, text, texts, value
from tests.support.cluster import Cluster, cluster
from tests.support.programs import wait_for

EVIL = "<img src=x onerror=document.title='owned'>.bin"
BLOCK = 64 * 1024
ROOM = "takes the next start"
AXE = Path(__file__).parents[2] / ".tools/axe/node_modules/axe-core/axe.min.js"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as it:
        yield it


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, endpoint: Endpoint) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("page"), 2, endpoint.connection_string, block_size=BLOCK) as it:
        yield it


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    need("chromium", "chromedriver")
    with chromium(tmp_path_factory.mktemp("chromium")) as it:
        yield it


@pytest.fixture
def page(site: Cluster, browser: Chrome) -> Iterator[Chrome]:
    """The page, live and idle."""
    emulate(browser)
    browser.get(site.router.url)
    wait_for(lambda: text(browser, "#line") == "live", "the page to be live")
    yield browser
    site.clear()


@pytest.fixture
def turns(page: Chrome, endpoint: Endpoint) -> Iterator[threading.Semaphore]:  # noqa: ARG001 this ends before the page
    """Each block of a file waits for a turn, so that the file is in flight until the page has been looked at."""
    it = threading.Semaphore(0)
    endpoint.faults.add(Do(lambda _: it.acquire()), Operation.PUT_BLOCK, times=1_000_000)
    yield it
    endpoint.faults.clear()
    it.release(1_000_000)


def keys(browser: Chrome, *pressed: str) -> None:
    ActionChains(browser).send_keys(*pressed).perform()


def complaints(browser: Chrome) -> list[str]:
    """Return what the console says, but for the requests that a test makes fail on purpose."""
    lines = [str(entry["message"]) for entry in browser.get_log("browser")]  # type: ignore[no-untyped-call]
    return [line for line in lines if "Failed to load resource" not in line and "ERR_" not in line]


def test_a_running_upload_is_seen_to_run(
    page: Chrome, site: Cluster, endpoint: Endpoint, turns: threading.Semaphore
) -> None:
    """Bars move, finished files are counted, rate and time left are shown, and the end is said."""

    def bar_shows(blocks: int) -> bool:
        """Tell whether so many blocks are confirmed, and the bar shows them and those that the store holds."""
        sent = endpoint.log.of(Operation.PUT_BLOCK, "seen/big.bin")
        confirmed = sum(request.status == 201 for request in sent)
        shown = round(value(page, ".files [data-is=bar]") * 200, 6)
        return confirmed == blocks and shown == sum(request.received for request in sent) / BLOCK > blocks

    folder = site.start("seen")
    for number in range(20):
        (folder / f"small-{number}.bin").write_bytes(os.urandom(1000))
    (folder / ".big").write_bytes(os.urandom(200 * BLOCK))
    (folder / ".big").rename(folder / "big.bin")
    wait_for(lambda: "big.bin" in texts(page, card("seen", "path")), "the file in flight")
    assert text(page, card("seen", "state")) == "taking files"
    wait_for(lambda: text(page, card("seen", "completed")) == "20", "the small files")
    wait_for(lambda: bar_shows(0), "the file's bar to show what is under way")
    assert value(page, "article > progress") < 0.1
    turns.release(40)
    wait_for(lambda: bar_shows(40), "the file's bar to move")
    wait_for(lambda: value(page, "article > progress") > 0.19, "the session's bar to move")

    def flows() -> bool:
        turns.release()
        left, rate = texts(page, f"{card('seen', 'eta')}, {card('seen', 'rate')}")
        return "left" in left and "not known" not in left and rate.endswith("B/s") and rate != "0 B/s"

    wait_for(flows, "the rate and the time left", interval=0.5)  # 120 looks at most: some blocks are left
    turns.release(1000)
    wait_for(lambda: text(page, card("seen", "completed")) == "21", "all files done")
    wait_for(lambda: value(page, "article > progress") == 1, "the session's bar to be full")
    wait_for(lambda: "nothing left to do" in text(page, card("seen", "eta")), "the card to say so")
    edge = "document.querySelector('.edge').getAttribute('d')"
    wait_for(lambda: len(ask(page, edge).split("L")) > 5, "the rate's line to have points")
    assert complaints(page) == []


def test_a_failed_file_is_shown_with_its_reason_and_the_others_go_on(page: Chrome, site: Cluster) -> None:
    """The user sees the same reason as in the API, and the number of failures in the title."""
    folder = site.start("failing")
    (folder / "secret.bin").symlink_to("/etc/passwd")
    (folder / "good.bin").write_bytes(b"good")
    wait_for(lambda: text(page, card("failing", "completed")) == "1", "the good file")
    wait_for(lambda: text(page, card("failing", "failed")) == "1", "the failed file")
    (reason,) = texts(page, card("failing", "error"))
    status = httpx.get(f"{site.router.url}/v1/watch/status", timeout=60).json()["sessions"][0]["current"][0]
    assert texts(page, card("failing", "path")) == ["secret.bin"]
    assert status["error"]
    assert reason.startswith(status["error"])
    assert "1 file failed" in page.title


@pytest.mark.usefixtures("turns")
def test_names_from_outside_are_shown_as_text(page: Chrome, site: Cluster) -> None:
    """A file's name can neither run a script nor hide its ending by turning the direction of writing."""
    folder = site.start("named")
    (folder / EVIL).write_bytes(os.urandom(3 * BLOCK))
    (folder / "gpj\u202e.bin").symlink_to("nowhere")
    wait_for(lambda: EVIL in texts(page, card("named", "path")), "the name as text")
    wait_for(lambda: "gpj⟨U+202E⟩.bin" in texts(page, card("named", "path")), "the sign that turns writing round")
    assert page.find_elements(By.CSS_SELECTOR, "main img") == []
    assert "owned" not in page.title


def test_nothing_but_the_page_itself_can_run_in_it(page: Chrome, site: Cluster) -> None:
    """The policy forbids foreign scripts, inserted HTML and every outside resource."""
    response = httpx.get(site.router.url, timeout=60)
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert "//" not in response.text.replace("http://www.w3.org", "").partition("<script>")[0]  # no outside resource
    refused = ask(
        page,
        """(() => {
            const element = document.createElement("script");
            try { element.textContent = "document.title = 'owned'"; } catch { return "refused"; }
            document.body.append(element);
            return document.title;
        })()""",
    )
    assert refused == "refused"
    with pytest.raises(Exception, match="Trusted"):
        ask(page, "document.body.innerHTML = '<b>x</b>'")
    page.get_log("browser")  # type: ignore[no-untyped-call]
    names = ask(page, "performance.getEntriesByType('resource').map(entry => entry.name)")
    assert all(name.startswith((site.router.url, "data:")) for name in names)


def test_a_session_is_started_and_stopped_with_the_keyboard_alone(page: Chrome, site: Cluster) -> None:
    """The focus goes through form and dialog, keeps the session on Escape, and comes back."""
    for _ in range(20):
        if ask(page, "document.activeElement.id") == "name":
            break
        keys(page, Keys.TAB)
    keys(page, "typed-in", Keys.TAB, ".bin, .h5", Keys.ENTER)
    wait_for(lambda: text(page, "#start-answer").startswith("typed-in runs on shard"), "the answer")
    wait_for(lambda: texts(page, card("", "name")) == ["typed-in"], "the session")
    record = json.loads((site.root / ".nfs-watch/sessions/typed-in.json").read_text())
    assert record["extensions"] == [".bin", ".h5"]
    ask(page, "document.querySelector('article button').focus()")
    for leave in (Keys.ENTER, Keys.ESCAPE):
        keys(page, Keys.ENTER)
        assert ask(page, "document.activeElement.value") == "keep"
        keys(page, leave)
        assert not ask(page, "document.getElementById('stop').open")
    assert ask(page, "document.activeElement.textContent") == "Stop"  # the focus is back where it was
    keys(page, Keys.ENTER, Keys.SHIFT + Keys.TAB, Keys.NULL, Keys.SHIFT + Keys.TAB, Keys.NULL)
    assert ask(page, "document.activeElement.value") == "drain"
    keys(page, Keys.ENTER)
    wait_for(lambda: texts(page, card("", "name")) == [], "the session to end")
    wait_for(lambda: not ask(page, "document.getElementById('idle').hidden"), "the page to be idle")


def test_what_was_refused_says_why(page: Chrome, site: Cluster) -> None:
    """The rule for names stands beside the form; a stop without an answer keeps its dialog open."""
    one(page, "#name").send_keys("no/slash")
    one(page, "#start button").click()
    wait_for(lambda: "1 to 128" in text(page, "#start-answer"), "the rule for names")
    site.start("gone")
    wait_for(lambda: texts(page, card("", "name")) == ["gone"], "the session")
    one(page, "article button").click()
    site.router.kill()
    one(page, "button[value=now]").click()
    assert text(page, "#stop-answer").startswith("What is not uploaded yet will stay")  # asked once more
    one(page, "button[value=now]").click()
    wait_for(lambda: "did not answer" in text(page, "#stop-answer"), "the refusal in the dialog")
    assert ask(page, "document.getElementById('stop').open")
    site.router.up()


def test_the_page_comes_back_after_the_router_was_restarted(page: Chrome, site: Cluster) -> None:
    """During the outage the last state stays and is marked as old."""
    site.start("before")
    wait_for(lambda: texts(page, card("", "name")) == ["before"], "the session")
    site.router.kill()
    wait_for(lambda: text(page, "#line").startswith("no connection since"), "the loss to be shown")
    assert texts(page, card("", "name")) == ["before"]  # what was known stays, and is marked
    assert ask(page, "document.body.classList.contains('stale')")
    site.router.up()
    wait_for(lambda: text(page, "#line") == "live", "the page to be live again")
    site.start("after")
    wait_for(lambda: sorted(texts(page, card("", "name"))) == ["after", "before"], "what began since")


def test_a_dead_shard_is_shown_and_so_is_its_return(page: Chrome, site: Cluster) -> None:
    """The change is shown without a reload, and announced to screen readers."""
    wait_for(lambda: texts(page, "#shards [data-is=state]") == [ROOM, ROOM], "both shards")
    site.shards[1].kill()
    wait_for(lambda: texts(page, "#shards [data-is=state]") == [ROOM, "not reachable"], "the loss")
    wait_for(lambda: text(page, "#news") == "Shard 1 is not reachable.", "it to be read out")
    site.shards[1].up()
    wait_for(lambda: texts(page, "#shards [data-is=state]") == [ROOM, ROOM], "the return")


@pytest.mark.usefixtures("turns")
def test_a_screen_reader_is_told_what_matters_and_everything_has_a_name(page: Chrome, site: Cluster) -> None:
    """Every control has a name, and a new session is announced."""
    assert ask(page, "document.getElementById('news').getAttribute('aria-live')") == "polite"
    folder = site.start("heard")
    wait_for(lambda: "Session heard has begun on shard" in text(page, "#news"), "the beginning to be read out")
    (folder / "big.bin").write_bytes(os.urandom(2 * BLOCK))
    wait_for(lambda: "big.bin" in texts(page, card("heard", "path")), "the file in flight")
    for element in page.find_elements(By.CSS_SELECTOR, "button, input, progress, svg[role=img], section, dialog"):
        assert ask(page, "arguments[0].isConnected", element) is False or _name(page, element)
    assert ask(page, "document.documentElement.lang") == "en"
    assert ask(page, "document.querySelectorAll('h1').length") == 1


def _name(browser: Chrome, element: WebElement) -> str:
    """Return the name that assistive technology hears."""
    return str(
        ask(
            browser,
            """(node => node.getAttribute("aria-label") || node.labels?.[0]?.textContent
                || document.getElementById(node.getAttribute("aria-labelledby"))?.textContent
                || (node.localName === "button" && node.textContent) || "")(arguments[0])""",
            element,
        )
    ).strip()


CONTRAST = """(() => {
    const channels = color => color.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
        .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = node => {
        for (; node; node = node.parentElement) {
            const color = channels(getComputedStyle(node).backgroundColor);
            if (color.length < 4 || color[3] === 1) return color;
        }
    };
    const poor = [];
    for (const node of document.querySelectorAll("body *")) {
        const own = [...node.childNodes].some(child => child.nodeType === 3 && child.textContent.trim());
        if (!own || !node.checkVisibility() || node.matches(":disabled, .unseen, script, style, noscript *")) continue;
        const [a, b] = [light(channels(getComputedStyle(node).color)), light(ground(node))].sort((x, y) => y - x);
        if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(`${node.textContent} ${(a + 0.05) / (b + 0.05)}`);
    }
    return poor;
})()"""


def test_it_fits_every_screen_and_can_be_read_by_day_and_night(page: Chrome, site: Cluster) -> None:
    """No sideways scrolling; text has a contrast of 4.5 (WCAG 2.2, 1.4.3); controls are large enough (2.5.8)."""
    folder = site.start("00-session-01KAS1Q5Z0V7J8H9K2M3N4P5Q6-and-a-tail-" + "x" * 70)
    (folder / ("long-" * 40 + ".bin")).symlink_to("nowhere")
    wait_for(lambda: text(page, card("", "failed")) == "1", "a full card")
    for width in (360, 800, 1280, 1920):
        for scheme, ground in (("light", "rgb(241, 243, 246)"), ("dark", "rgb(13, 18, 23)")):
            emulate(page, width, 900, scheme)
            assert ask(page, "getComputedStyle(document.body).backgroundColor") == ground
            assert ask(page, "document.documentElement.scrollWidth <= innerWidth"), width
            assert ask(page, CONTRAST) == [], scheme
            assert min(size for size in ask(page, SIZES) if size) >= 24


SIZES = "[...document.querySelectorAll('button, input')].map(node => node.getBoundingClientRect().height)"


def failing(site: Cluster, name: str, count: int) -> Path:
    """Start a session in which `count` files cannot be sent, and one can."""
    folder = site.start(name)
    (folder / "good.bin").write_bytes(b"x" * 1000)
    for number in range(count):
        (folder / f"{number:03}.bin").symlink_to("nowhere")
    return folder


def objections(browser: Chrome) -> list[str]:
    """Return what axe finds, each rule with the first element."""
    if not AXE.exists():
        absent("axe is not there: make .tools/axe/ready")
    browser.execute_script(AXE.read_text(encoding="utf-8"))
    found = browser.execute_async_script("axe.run().then(arguments[0])")
    return [f"{rule['id']}: {rule['nodes'][0]['html']} {rule['nodes'][0]['any']}" for rule in found["violations"]]


def test_every_failed_file_is_counted_and_can_be_seen_and_tried(page: Chrome, site: Cluster) -> None:
    """The numbers are true at any size: not 40 of 50, and not 100% beside failures."""
    failing(site, "many", 120)
    wait_for(lambda: text(page, card("many", "failed")) == "120", "the failures", 120)
    wait_for(lambda: text(page, card("many", "completed")) == "1", "the good file")
    assert text(page, card("many", "failing-title")) == "Failed: 5 of 120"
    wait_for(lambda: "99%" in text(page, card("many", "bytes")), "what is done")
    assert "1 of 121 files" in text(page, card("many", "bytes"))
    assert value(page, "article > progress") == 0.99
    assert "next try at" in text(page, card("many", "error")) or "due now" in text(page, card("many", "error"))
    one(page, card("many", "all")).click()
    wait_for(lambda: text(page, "#failed-count") == "failed: 1 to 100", "the first page")
    assert len(texts(page, "#failed-rows [data-is=path]")) == 100
    assert objections(page) == []
    one(page, "#failed-next").click()
    wait_for(lambda: text(page, "#failed-count") == "failed: 101 to 120", "the second page")
    one(page, "#failed-rows button").click()
    wait_for(lambda: text(page, "#failed-answer") == "1 file will be tried now.", "one to be tried")
    one(page, "#retry-all").click()
    wait_for(lambda: text(page, "#failed-answer") == "120 files will be tried now.", "all to be tried")
    one(page, "#failed-close").click()


def test_a_session_of_a_shard_that_is_away_keeps_its_last_known_numbers(page: Chrome, site: Cluster) -> None:
    """It neither vanishes nor looks alive."""
    failing(site, "kept", 3)
    wait_for(lambda: text(page, card("kept", "failed")) == "3", "the failures")
    wait_for(lambda: text(page, card("kept", "completed")) == "1", "the good file")
    owner = httpx.get(f"{site.router.url}/v1/watch/status?session=kept", timeout=60).json()["sessions"][0]["shard"]
    site.shards[owner].kill()
    wait_for(lambda: text(page, card("kept", "eta")).startswith("as of "), "the time of what is shown")
    assert text(page, card("kept", "state")) == "shard not reachable"
    last = "Number(document.querySelector('.edge').getAttribute('d').split('L').pop().replace('M', '').split(' ')[0])"
    wait_for(lambda: ask(page, last) < 299, "the line of the rate to end where knowledge does")
    assert (text(page, card("kept", "failed")), text(page, card("kept", "completed"))) == ("3", "1")
    assert "last known to run kept" in texts(page, "#shards [data-is=about]")[owner]
    assert ask(page, "[...document.querySelectorAll('article button:not([hidden])')].every(one => one.disabled)")
    assert objections(page) == []
    site.shards[owner].up()
    wait_for(lambda: text(page, card("kept", "state")) == "taking files", "its return")


def test_a_session_that_has_ended_is_shown_with_its_result_and_starts_again(page: Chrome, site: Cluster) -> None:
    """What was sent, what was left behind and why; the next start takes the same file types."""
    folder = site.start("over", extensions=[".bin"])
    (folder / "good.bin").write_bytes(b"x" * 1000)
    (folder / "bad.bin").symlink_to("nowhere")
    wait_for(lambda: text(page, card("over", "completed")) == "1", "the good file")
    httpx.post(f"{site.router.url}/v1/watch/stop", json={"session": "over"}, timeout=60).raise_for_status()
    ended = "#ended > li:has([aria-label='Start over again'])"
    wait_for(lambda: text(page, f"{ended} [data-is=counts]").startswith("1 file sent, 1.0 kB"), "the result")
    assert "1 file left behind, of these 1 failed" in text(page, f"{ended} [data-is=counts]")
    assert text(page, f"{ended} [data-is=about]").endswith("finished all that could be sent")
    assert texts(page, f"{ended} [data-is=path]") == ["bad.bin"]
    assert "over/.receipts/" in text(page, f"{ended} [data-is=receipts]")
    assert objections(page) == []
    one(page, f"{ended} [data-is=again]").click()
    assert "It takes .bin only" in text(page, "#again-types")
    one(page, "#again [value=start]").click()
    wait_for(lambda: texts(page, card("", "name")) == ["over"], "it to run again")
    assert json.loads((site.root / ".nfs-watch/sessions/over.json").read_text())["extensions"] == [".bin"]


def test_what_was_replaced_is_shown_in_status_page_and_receipt(page: Chrome, site: Cluster) -> None:
    """Other content under a blob's name never vanishes unseen."""
    folder = site.start("twice")
    for number, content in enumerate((b"first", b"second")):
        (folder / ".x.bin").write_bytes(content)
        (folder / ".x.bin").rename(folder / "x.bin")
        wait_for(lambda number=number: text(page, card("twice", "completed")) == str(number + 1), "the file")
        wait_for(lambda: not list(folder.iterdir()), "it to be deleted")
    wait_for(lambda: text(page, card("twice", "replaced")).startswith("1 file took the place"), "the page to say so")
    (session,) = httpx.get(f"{site.router.url}/v1/watch/status?session=twice", timeout=60).json()["sessions"]
    assert session["files"]["replaced"] == 1
    done = httpx.get(f"{site.router.url}/v1/watch/files?session=twice&path=x.bin", timeout=60).json()["files"][0]
    assert done["receipt"]["replaced"]["etag"]
    assert done["receipt"]["replaced"]["snapshot"]
    httpx.post(f"{site.router.url}/v1/watch/stop", json={"session": "twice"}, timeout=60).raise_for_status()
    counts = "#ended > li:has([aria-label='Start twice again']) [data-is=counts]"
    wait_for(lambda: "1 took the place of other content" in text(page, counts), "the result to say so")


def test_where_files_go_and_the_rates_before_the_page_was_opened_are_shown(page: Chrome, site: Cluster) -> None:
    """The router keeps the rates of 15 minutes, and the page begins with them."""
    assert "/uploads/" in text(page, "#facts")
    assert "version " in text(page, "#facts")
    folder = site.start("before")
    (folder / "some.bin").write_bytes(b"x" * 1000)

    def rates() -> list[int]:
        told = httpx.get(f"{site.router.url}/v1/watch/rates", timeout=60).json()["sessions"]
        return [rate for one in told if one["session"] == "before" for rate in one["rates"]]

    wait_for(lambda: len(rates()) >= 2, "the router to have looked twice")
    page.refresh()
    wait_for(lambda: "before" in texts(page, card("", "name")), "the session")
    first = "Math.min(...[...history.values()].flat().map((point) => point[0])) < performance.timeOrigin"
    wait_for(lambda: ask(page, first), "a line that began before the page was opened")
    assert text(page, card("before", "where")).endswith("/uploads/before/")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(page: Chrome, site: Cluster, scheme: str) -> None:
    """A full page, and the dialog that asks."""
    name = f"by-{scheme}"
    failing(site, name, 3)
    wait_for(lambda: text(page, card(name, "failed")) == "3", "the failures")
    for width in (360, 1280):
        emulate(page, width, 900, scheme)
        assert objections(page) == []
    one(page, card(name, "stop")).click()
    assert objections(page) == []


def test_the_screenshot_in_the_documentation_is_small() -> None:
    """The README loads quickly."""
    picture = Path(__file__).parents[2] / "docs/status-page.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size < 200_000
