"""``pagebus.flet.Monitor`` and ``pagebus monitor``: what they show of a running program."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from environments import PROGRAMS
from flet_servers import READY_WITHIN, Serve, Server, accepts
from flet_sessions import WebSession, visitors
from flet_windows import PATIENCE_MS, Look, Meet
from pagebus._beside import Beside
from pagebus._monitor import Monitor, _count, _duration, _Linear, _Logarithmic

CHAT = PROGRAMS / "watched_chat.py"
DESKTOP = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"}

CHATTING = float(os.environ.get("PAGEBUS_CHATTING", "5"))
"""For so many seconds there is talk in the chat before its monitor's picture is taken."""

MONITOR = re.compile(r"the monitor of \S+ is on http://127\.0\.0\.1:(?P<port>\d+)")


def monitor_of(server: Server) -> int:
    """The port on which the monitor's page is."""
    deadline = time.monotonic() + READY_WITHIN
    while not (announced := MONITOR.search(server.log())):
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.05)
    return int(announced["port"])


@pytest.fixture
def watch(serve: Serve) -> Serve:
    """Start a program with its monitor beside it: ``watch(python, program, *arguments)``."""
    return lambda python, *arguments, **settings: serve(
        python, "-m", "pagebus", "monitor", *arguments, **settings
    )


# ---- looked at ----------------------------------------------------------------------------------


@pytest.mark.browser
@pytest.mark.timeout(4 * PATIENCE_MS / 1000 + 2 * CHATTING)
def test_the_monitor_of_a_running_chat(flet_1_0: str, watch: Serve, meet: Meet, look: Look) -> None:
    server = watch(flet_1_0, CHAT)
    ada, bob = meet(server)
    url = f"http://127.0.0.1:{monitor_of(server)}"
    desktop = look(url, "desktop", **DESKTOP)
    phone = look(url, "phone", **PHONE)
    end = time.monotonic() + CHATTING
    while True:
        for window, line in ((ada, "I wrote to bob@example.org"), (bob, "No mail so far")):
            window.type("Message", line)
            window.click("Send")
        if time.monotonic() > end:
            break
    for window in (desktop, phone):
        for text in (
            *("watched_chat.py: main", "Sessions", "Messages per second", "Latency"),
            *("name=Ada", "name=Bob", "name=Cleo, room=kitchen"),
            *("room/kitchen", "main.count_words", "main.send_mail"),
            "ConnectionError: the mail server does not answer",
            'raise ConnectionError("the mail server does not answer")',
        ):
            window.reads(text)
    desktop.picture("light")
    phone.picture("dark")


# ---- what is shown ------------------------------------------------------------------------------

# Every line on standard input is an expression, whose value is the answer.
WITH_A_MONITOR = """
import json
import logging
import sys
import threading

import flet as ft

import pagebus.flet
from pagebus import PubSub, PubSubHub
from pagebus._watch import watch_of

hub = PubSubHub()
ann = PubSub(hub, "ann's session")
ann.identify(name="Ann")


def main(page):
    page.add(pagebus.flet.Monitor(hub, title="What happens here"))


def answer():
    for line in sys.stdin:
        print(json.dumps(eval(line), default=str))


def fail(topic, message):
    raise ValueError(message)


threading.Thread(target=answer, daemon=True).start()
ft.run(main)
"""


@pytest.fixture(params=["flet_1_0", "flet_0_86"])
def python(request: pytest.FixtureRequest) -> Any:
    """An interpreter with each version of Flet in turn for which there is a monitor."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def server(python: str, serve: Serve, tmp_path: Path) -> Server:
    """A running program with a monitor on its page."""
    program = tmp_path / "app.py"
    program.write_text(WITH_A_MONITOR)
    return serve(python, program)


def test_it_shows_what_has_happened_and_what_happens_next(server: Server) -> None:
    server.ask("ann.subscribe_topic('news', lambda topic, message: None)")

    async def watch() -> None:
        async with visitors(WebSession, server.port, 1) as [page]:
            for text in ("What happens here", "ann's session", "name=Ann", "news", "0/s"):
                await page.reads(text)
            server.ask("[hub.send_all_on_topic('weather', 'fine') for _ in range(12345)]")
            await page.reads("12.3k")
            server.ask("ann.subscribe_topic('weather', lambda topic, message: None)")
            await page.reads("weather")
            await page.reads("No handler has raised.")
            server.ask("ann.subscribe_topic('weather', fail)")
            server.ask("logging.disable()")
            server.ask("[hub.send_all_on_topic('weather', 'a storm') for _ in range(3)]")
            await page.reads("ValueError: a storm")
            await page.reads("3 times")
            assert "fail" in page.texts
            server.ask("ann.subscribe_topic('\\ud800', fail)")
            server.ask("hub.send_all_on_topic('\\ud800', 'hail')")
            await page.reads("ValueError: hail")
            await page.reads("\\ud800")

    asyncio.run(watch())


def test_nothing_is_read_for_a_window_that_is_closed(server: Server) -> None:
    async def come_and_go() -> None:
        async with visitors(WebSession, server.port, 2) as pages:
            for page in pages:
                await page.reads("What happens here")

    def last_read() -> float:
        return float(server.ask("watch_of(hub).reading.at"))

    asyncio.run(come_and_go())
    deadline, last = time.monotonic() + 60, 0.0
    while last != (last := last_read()):
        assert time.monotonic() < deadline
        time.sleep(3)


def test_on_flet_0_28_it_is_refused(flet_0_28: str, tmp_path: Path) -> None:
    refusal = "Flet 0.28.3 is not supported; the monitor works with Flet 0.86.x and 1.0.x"
    program = f"""
        import pagebus.flet

        try:
            pagebus.flet.Monitor
        except pagebus.flet.UnsupportedFletError as error:
            assert str(error) == {refusal!r}, error
        else:
            raise AssertionError("no error")
    """
    subprocess.run([flet_0_28, "-c", dedent(program)], check=True)
    app = tmp_path / "app.py"
    app.write_text("raise SystemExit('the program has started')")
    command = [flet_0_28, "-m", "pagebus", "monitor", app]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (1, f"pagebus: {refusal}\n")


def test_what_is_no_hub_is_refused() -> None:
    with pytest.raises(TypeError, match=r"hub must be a pagebus\.PubSubHub, not 'NoneType'"):
        Monitor(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *[(0.0, "-"), (4e-7, "0.4 µs"), (1e-6, "1 µs"), (0.00000999, "10 µs"), (0.00042, "420 µs")],
        *[(0.000999, "999 µs"), (0.0009999, "1 ms"), (0.0123, "12 ms"), (1.0, "1 s"), (75, "75 s")],
    ],
)
def test_durations_are_short_texts(seconds: float, text: str) -> None:
    assert _duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        *[(0, "0"), (999, "999"), (9_999, "9,999"), (12_345, "12.3k"), (999_999, "1000k")],
        *[(1_234_567, "1.2M"), (123_456_789, "123M"), (5_000_000_000, "5.0G")],
    ],
)
def test_counts_are_short_texts(count: int, text: str) -> None:
    assert _count(count) == text


@pytest.mark.parametrize(
    ("largest", "marks"),
    [(0, (0, 5, 10)), (7, (0, 5, 10)), (24, (0, 20, 40)), (41, (0, 30, 60)), (100, (0, 50, 100))],
)
def test_rates_have_an_axis_to_a_round_number(largest: float, marks: tuple[float, ...]) -> None:
    assert tuple(_Linear().fit([0.0, largest])) == marks


def test_latencies_have_an_axis_of_powers_of_ten() -> None:
    axis = _Logarithmic()
    assert list(axis.fit([0.0, 2e-5, 3e-3])) == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2])
    assert axis.place(1e-5) == pytest.approx(0)
    assert axis.place(1e-2) == pytest.approx(1)
    assert axis.place(0.0) is None


# ---- beside a program ---------------------------------------------------------------------------


def test_it_waits_for_the_first_page_of_the_program(python: str, watch: Serve) -> None:
    server = watch(python, CHAT, "quiet")

    async def chat() -> None:
        async with visitors(WebSession, monitor_of(server), 1) as [monitor]:
            await monitor.reads("watched_chat.py has no hub yet: open its page.")
            async with visitors(WebSession, server.port, 1) as [ada]:
                await ada.fill("Your name", "Ada")
                await ada.click("Send")
                await monitor.reads("watched_chat.py: main")
                await monitor.reads("name=Ada")
                await monitor.reads("room/kitchen")

    asyncio.run(chat())


def test_where_there_are_several_hubs_one_is_chosen(
    flet_1_0: str, watch: Serve, tmp_path: Path
) -> None:
    program = tmp_path / "app.py"
    program.write_text(
        "import flet as ft, pagebus\n"
        "pagebus.PubSub(pagebus.default_hub(), 'ann').subscribe(print)\n"
        "def main(page): page.pubsub.subscribe_topic('news', print)\n"
        "ft.run(main)\n"
    )
    server = watch(flet_1_0, program)

    async def choose() -> None:
        async with visitors(WebSession, monitor_of(server), 1) as [monitor]:
            await monitor.reads("app.py: default hub")
            async with visitors(WebSession, server.port, 1):
                choice = await monitor.control("SegmentedButton")
                assert {"main", "default hub"} <= set(monitor.texts)
                await monitor.set_property(choice, "selected", ["main"])
                await monitor.trigger(choice, "change")
                await monitor.reads("app.py: main")
                await monitor.reads("news")

    asyncio.run(choose())


Program = Callable[[str], Path]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Write a program."""

    def write(source: str) -> Path:
        path = tmp_path / "app.py"
        path.write_text(source)
        return path

    return write


@contextmanager
def running(*command: object) -> Iterator[subprocess.Popen[str]]:
    """A program, which is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pagebus", *map(str, command)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def test_the_program_keeps_its_arguments_its_output_and_its_exit_status(program: Program) -> None:
    path = program("import sys; print(sys.argv[1:]); sys.exit(3)")
    with running("monitor", "--port", 0, path, "--port", "-h") as process:
        output, _ = process.communicate(timeout=60)
        assert (output, process.returncode) == ("['--port', '-h']\n", 3)


@pytest.mark.parametrize("end", ["by itself", "by a signal"])
def test_the_monitor_ends_with_the_program(program: Program, end: str) -> None:
    with running("monitor", program("import sys; sys.stdin.read()")) as process:
        assert process.stderr is not None
        announced = MONITOR.search(process.stderr.readline())
        assert announced
        port = int(announced["port"])
        assert accepts(port)
        if end == "by itself":
            process.communicate(timeout=60)
            assert process.returncode == 0
        else:
            process.kill()
        deadline = time.monotonic() + 60
        while accepts(port):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_without_its_port_there_is_no_monitor_and_the_program_goes_on(program: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        path = program("print(input())")
        with running("monitor", f"--port={port}", path) as process:
            assert process.stderr is not None
            complaint = process.stderr.readline()
            assert complaint.startswith(f"pagebus: no monitor on port {port}: ")
            output, errors = process.communicate("goes on\n", timeout=60)
            assert (output, errors, process.returncode) == ("goes on\n", "", 0)


def test_a_monitor_that_is_closed_while_it_starts_ends_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    beside = Beside("chat.py", port)
    # It listens, and its server does not run yet.
    deadline = time.monotonic() + 60
    while not accepts(port):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    beside.close()
    assert beside._monitor.returncode != -signal.SIGKILL
