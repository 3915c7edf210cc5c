"""A real Flet app: how long after a click that sends to all the visitors' pages show it."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from benches.contest import Contest, Contestant, Round
from benches.visitors import Crowd

BOARD = str(Path(__file__).parent / "programs" / "board.py")
READY_WITHIN = 60.0
GONE_WITHIN = 20.0

HUBS = 3
"""Apps that are up at the same time."""
OTHER_FILES = 100
"""Files that a process opens beside the sockets of visitors."""

# A web server that opens no browser and needs nothing from outside.
SETTINGS = {
    "FLET_SERVER_IP": "127.0.0.1",
    "FLET_FORCE_WEB_SERVER": "true",
    "FLET_WEB_NO_CDN": "true",
}


@contextmanager
def serving(command: list[str]) -> Iterator[int]:
    """Runs a Flet program in a process of its own; gives the port that it listens on."""
    port = free_port()
    environment = {**os.environ, **SETTINGS, "FLET_SERVER_PORT": str(port)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        wait_until_ready(process, port)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(GONE_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def wait_until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    """Returns when the program accepts connections."""
    deadline = time.monotonic() + READY_WITHIN
    while not accepts(port):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the Flet program does not listen: {process.args!r}")
        time.sleep(0.05)


def accepts(port: int) -> bool:
    """Whether somebody listens on the port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def allow_files(needed: int) -> None:
    """Lets this process, and those that it starts, open as many files as they may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise RuntimeError(
            f"{needed} files would be open at once, and this system allows {hard}: ulimit -Hn"
        )
    # Where any number is allowed, a number is still to be named.
    most = needed if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def app(visitors: int, hub: str, *arguments: str) -> Contestant:
    """A board and all its visitors, who make sure whose hub they are on."""

    @contextmanager
    def contestant() -> Iterator[Round]:
        allow_files(HUBS * visitors + OTHER_FILES)
        with (
            serving([sys.executable, *arguments]) as port,
            closing(Crowd(port, visitors, f"{hub} is ready")) as crowd,
        ):
            yield crowd.click

    return contestant


def contest(kind: str, visitors: int, *, short_rounds: int = 0) -> Contest:
    """The contest for one kind of handlers and one number of visitors.

    All the apps are up all the time. Those whose turn it is not have nothing to do but to ping
    their visitors every twenty seconds. The app without a hub is the floor: what the pages
    themselves cost, and sending what changed on them.
    """
    contestants = {
        "pagebus": app(visitors, "pagebus", "-m", "pagebus", "run", BOARD, kind),
        "Flet": app(visitors, "flet", BOARD, kind),
        "no hub": app(visitors, "flet", BOARD, "loop"),
    }
    # Where the threads of one server come to run makes more of a difference than one click to the
    # next: rather few rounds, and several processes.
    return Contest(
        f"app {kind} {visitors}", contestants, rounds=6, processes=4, short_rounds=short_rounds
    )


CONTESTS = [
    contest("sync", 300, short_rounds=3),
    contest("async", 300, short_rounds=3),
    contest("sync", 500),
    contest("async", 500),
]
