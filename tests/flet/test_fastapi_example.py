"""``examples/fastapi_chat.py``, which has no Flet in it, in two browser windows."""

import importlib.util
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import uvicorn
from playwright.sync_api import Page, expect, sync_playwright
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from environments import ROOT
from flet_servers import READY_WITHIN, Server
from flet_windows import ARGUMENTS, PATIENCE_MS
from pagebus import PubSubHub

pytestmark = pytest.mark.browser

CHAT = ROOT / "examples" / "fastapi_chat.py"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def load() -> ModuleType:
    """The example, as a module of its own with its own hub."""
    spec = importlib.util.spec_from_file_location("fastapi_chat", CHAT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Window:
    """One visitor's window, used as a person uses it."""

    page: Page
    pictures: Path

    def is_called(self, name: str) -> None:
        self.page.get_by_placeholder("Your name").fill(name)

    def says(self, text: str) -> None:
        self.page.get_by_placeholder("Message").fill(text)
        self.page.get_by_role("button", name="Send").click()

    def reads(self, *lines: str) -> None:
        """Wait until these lines are all that stands in the transcript."""
        expect(self.page.get_by_role("listitem")).to_have_text(lines)

    def picture(self, moment: str) -> None:
        self.page.screenshot(path=f"{self.pictures}-{moment}.png")


@pytest.fixture
def running() -> Iterator[tuple[ModuleType, str]]:
    """The example on a thread of this process, so that a test can ask its hub."""
    module = load()
    server = uvicorn.Server(uvicorn.Config(module.app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + READY_WITHIN
    while not server.started:
        assert thread.is_alive(), "the server ended"
        assert time.monotonic() < deadline, "the server does not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield module, f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(READY_WITHIN)
    assert not thread.is_alive(), "the server does not end"
    assert subscriptions(module) == 0


def subscriptions(module: ModuleType) -> int:
    count: int = module.hub.stats().subscriptions
    return count


def wait_for_subscriptions(module: ModuleType, count: int) -> None:
    """Return when so many visitors are in the hub; the server notices in its own time."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while subscriptions(module) != count:
        assert time.monotonic() < deadline, f"{subscriptions(module)} visitors, not {count}"
        time.sleep(0.01)


@pytest.fixture
def windows(
    running: tuple[ModuleType, str], request: pytest.FixtureRequest
) -> Iterator[tuple[Window, Window]]:
    """The windows of Ada and Bob, who have typed their names."""
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if not chromium:
        pytest.skip("missing: Chromium (apt-get install chromium)")
    module, url = running
    artifacts = ROOT / "artifacts"
    artifacts.mkdir(exist_ok=True)
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)

        def visit(name: str) -> Window:
            page = browser.new_context(viewport={"width": 640, "height": 480}).new_page()
            page.goto(url)
            window = Window(page, artifacts / f"{request.node.name}-{name}")
            window.is_called(name)
            return window

        ada, bob = visit("Ada"), visit("Bob")
        wait_for_subscriptions(module, 2)
        yield ada, bob
        browser.close()


def test_what_one_types_both_read_in_one_order(windows: tuple[Window, Window]) -> None:
    ada, bob = windows
    ada.says("Hello, is anybody there?")
    bob.reads("AAdaHello, is anybody there?")
    bob.says("Yes, and I can read you.")
    ada.reads("AAdaHello, is anybody there?", "BBobYes, and I can read you.")
    for number in range(10):
        ada.says(f"question {number}")
        bob.says(f"answer {number}")
    for window in windows:
        expect(window.page.get_by_role("listitem")).to_have_count(22)
        window.picture("has-talked")
    assert transcript(ada) == transcript(bob)


def transcript(window: Window) -> list[str]:
    return window.page.get_by_role("listitem").all_inner_texts()


def test_a_line_is_shown_as_it_was_typed(windows: tuple[Window, Window]) -> None:
    ada, bob = windows
    ada.is_called("<b>Ada</b>")
    ada.says("<script>document.body.remove()</script> & so on")
    bob.reads("<<b>Ada</b><script>document.body.remove()</script> & so on")
    bob.picture("reads-markup")


def test_a_window_that_is_closed_leaves_nothing_in_the_hub(
    running: tuple[ModuleType, str], windows: tuple[Window, Window]
) -> None:
    (module, _), (ada, bob) = running, windows
    ada.page.close()
    wait_for_subscriptions(module, 1)
    bob.says("now that she is away")
    bob.reads("BBobnow that she is away")
    bob.page.close()
    wait_for_subscriptions(module, 0)
    stats = module.hub.stats()
    assert (stats.sessions, stats.pending, stats.failed, stats.dropped) == (0, 0, 0, 0)


NO_LINES = ["", "no JSON", '"half', "[" * 100_000, "null", "7", '{"name": 7}', '{"name": ""}']
ODD_LINE = '{"name": "\\ud800", "text": "from half a letter"}'


def test_what_is_no_line_of_a_chat_is_not_shown_and_stops_nobody(
    running: tuple[ModuleType, str],
    windows: tuple[Window, Window],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (_, url), (ada, bob) = running, windows
    with connect(url.replace("http", "ws") + "/chat") as eve:
        for line in (*NO_LINES, ODD_LINE):
            eve.send(line)
        assert [eve.recv(READY_WITHIN) for _ in NO_LINES] == NO_LINES
        assert eve.recv(READY_WITHIN) == ODD_LINE
        ada.says("Who was that?")
        for window in (ada, bob):
            lines = window.page.get_by_role("listitem")
            expect(lines).to_have_text([re.compile("from half a letter$"), "AAdaWho was that?"])
        assert "Who was that?" in eve.recv(READY_WITHIN)
        eve.send(b"what no page sends")
        with pytest.raises(ConnectionClosed):
            eve.recv(READY_WITHIN)
    assert caplog.messages == []


def test_a_line_that_a_link_does_not_take_ends_the_visit_and_says_no_more(
    running: tuple[ModuleType, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    module, url = running
    linked = PubSubHub(link="redis://127.0.0.1:1/0", max_message_bytes=100)
    monkeypatch.setattr(module, "hub", linked)
    with linked, connect(url.replace("http", "ws") + "/chat") as socket:
        socket.send("x" * 200)
        with pytest.raises(ConnectionClosed):
            socket.recv(READY_WITHIN)
        assert [record for record in caplog.records if record.name != "pagebus"] == []


def test_a_page_that_came_encrypted_talks_encrypted(
    running: tuple[ModuleType, str], windows: tuple[Window, Window]
) -> None:
    module, _ = running
    page = windows[0].page.context.new_page()
    page.route("https://chat.example/", lambda route: route.fulfill(body=module.PAGE))
    with page.expect_websocket() as opened:
        page.goto("https://chat.example/")
    assert opened.value.url == "wss://chat.example/chat"


def test_it_is_as_short_as_it_is_said_to_be() -> None:
    assert "in less than 80 lines" in (ROOT / "docs" / "streams.md").read_text(encoding="utf-8")
    assert len(CHAT.read_text(encoding="utf-8").splitlines()) < 80


def test_the_documentation_shows_a_part_of_it() -> None:
    page = (ROOT / "docs" / "streams.md").read_text(encoding="utf-8")
    excerpt = page.partition("part of the example")[2].partition("```python\n")[2]
    assert excerpt.partition("```")[0] in CHAT.read_text(encoding="utf-8")


def test_started_as_a_program_it_prints_its_address(tmp_path: Path) -> None:
    server = Server([sys.executable, str(CHAT)], tmp_path / "server.log", {})
    try:
        server.wait_until_ready()
        assert server.read_line() == f"Chat on {server.url}"
    finally:
        server.stop()
    assert server.log() == ""
