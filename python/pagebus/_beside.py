"""The monitor beside a program: ``pagebus monitor app.py``.

The monitor's page is served by a process of its own, so that drawing it takes no time from the
program. The program's side reads its hubs once a second and writes what it has read, in a line of
JSON, to the standard input of that process, which ends when its input does.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pagebus import PubSubHub
from pagebus._watch import PERIOD, Reader, Reading, Watch
from pagebus.flet import _hubs

if TYPE_CHECKING:
    import flet as ft

GRACE = 5.0
"""Seconds that the monitor has to end in."""


# ---- the program's side -------------------------------------------------------------------------


class Beside:
    """The running process of a monitor, and the thread that tells it about this one's hubs."""

    def __init__(self, title: str, port: int) -> None:
        command = [sys.executable, "-m", "pagebus._beside", "--port", str(port), title]
        if os.environ.get("FLET_FORCE_WEB_SERVER"):
            command.append("--stay")
        self._monitor = subprocess.Popen(
            command,
            # Where modules of the program cannot hide those that the monitor needs.
            cwd=Path(__file__).resolve().parents[1],
            # Flet's settings are the program's: its port, its assets.
            env={k: v for k, v in os.environ.items() if not k.startswith("FLET_")},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )
        self._readers: weakref.WeakKeyDictionary[PubSubHub, Reader] = weakref.WeakKeyDictionary()
        self._end = threading.Event()
        self._teller = threading.Thread(target=self._tell, name="pagebus monitor", daemon=True)
        self._teller.start()

    def close(self) -> None:
        """End the monitor."""
        self._end.set()
        self._monitor.terminate()
        try:
            self._monitor.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._monitor.kill()
        # Where it waits for the monitor to read, it has been let go now.
        self._teller.join(GRACE)
        assert self._monitor.stdin is not None
        with suppress(OSError):
            self._monitor.stdin.close()

    def _tell(self) -> None:
        assert self._monitor.stdin is not None
        try:
            while not self._end.wait(PERIOD):
                print(json.dumps(self._read()), file=self._monitor.stdin, flush=True)
        except OSError:
            pass  # The monitor has ended, and the program goes on.

    def _read(self) -> dict[str, dict[str, Any]]:
        readings = {name: self._reader(hub).read() for name, hub in _hubs().items()}
        return {name: asdict(reading) for name, reading in readings.items() if reading}

    def _reader(self, hub: PubSubHub) -> Reader:
        return self._readers.get(hub) or self._readers.setdefault(hub, Reader(hub))


# ---- the monitor's side -------------------------------------------------------------------------


def main() -> None:
    """Serve the monitor's page, until there is no more to read."""
    parser = argparse.ArgumentParser()
    parser.add_argument("title")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--stay", action="store_true", help="open no browser")
    options = parser.parse_args()
    # Ctrl-C is meant for the program, which ends this process then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        listening = socket.create_server(("127.0.0.1", options.port))
    except OSError as error:
        print(f"pagebus: no monitor on port {options.port}: {error.strerror}", file=sys.stderr)
        sys.exit(1)
    asyncio.run(_serve(listening, options.title, opens=not options.stay))


async def _serve(listening: socket.socket, title: str, opens: bool) -> None:
    import uvicorn
    from flet.utils import is_linux_server, open_in_browser

    watches: dict[str, Watch] = {}
    web = importlib.import_module("flet_web.fastapi")  # it comes without types
    app = web.FastAPI()
    app.mount("/", web.app(lambda page: _Page(page, watches, title), no_cdn=True))
    config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    print(f"pagebus: the monitor of {title} is on {url}", file=sys.stderr, flush=True)
    loop = asyncio.get_running_loop()
    threading.Thread(target=_listen, args=(loop, watches, server), daemon=True).start()
    if opens and not is_linux_server():
        open_in_browser(url)
    await server.serve(sockets=[listening])


def _listen(loop: asyncio.AbstractEventLoop, watches: dict[str, Watch], server: Any) -> None:
    for line in sys.stdin:
        loop.call_soon_threadsafe(_take, watches, json.loads(line))
    server.should_exit = True


def _take(watches: dict[str, Watch], told: dict[str, dict[str, Any]]) -> None:
    for name in watches.keys() - told.keys():
        del watches[name]
    for name, reading in told.items():
        watches.setdefault(name, Watch()).add(Reading(**reading))


class _Page:
    """A window on the monitor: the board of one hub, and a choice where there are several."""

    def __init__(self, page: ft.Page, watches: dict[str, Watch], title: str) -> None:
        self._page, self._watches, self._title = page, watches, title
        self._chosen = ""
        page.title = f"{title} - pagebus"
        page.padding = 12
        page.run_task(self._follow)

    async def _follow(self) -> None:
        from pagebus._monitor import has_expired

        shown: list[str] | None = None
        while not has_expired(self._page.session):
            if self._page.session.connection is not None and list(self._watches) != shown:
                shown = list(self._watches)
                self._show()
            await asyncio.sleep(PERIOD)

    def _show(self) -> None:
        import flet as ft

        from pagebus._monitor import Board

        if self._chosen not in self._watches:
            self._chosen = next(iter(self._watches), "")
        if self._chosen:
            board = Board(self._watches[self._chosen], f"{self._title}: {self._chosen}")
            choice = [self._choice()] if len(self._watches) > 1 else []
            self._page.controls = [*choice, board]
        else:
            wait = f"{self._title} has no hub yet: open its page."
            self._page.controls = [ft.Text(wait, size=16)]
        self._page.update()

    def _choice(self) -> ft.Control:
        import flet as ft

        def choose(event: Any) -> None:
            [self._chosen] = event.control.selected
            self._show()

        segments = [ft.Segment(name, label=name) for name in self._watches]
        return ft.SegmentedButton(segments, selected=[self._chosen], on_change=choose)


if __name__ == "__main__":
    main()
