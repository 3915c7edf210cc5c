"""One app in several workers, gunicorn's and uvicorn's, with hubs that a Redis server links."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from redis_server import REDIS, RedisServer
from websockets.asyncio.client import ClientConnection, connect

from environments import PROGRAMS, ROOT
from flet_sessions import WebSession

pytestmark = [
    pytest.mark.link,
    pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs Unix"),
]

WORKERS, SESSIONS, AT_ONCE = 4, 200, 20
PATIENCE = 60.0

UVICORN = ["uvicorn", "--fd", "{fd}", "--workers", str(WORKERS)]
GUNICORN = ["gunicorn", "--bind", "fd://{fd}", "--workers", str(WORKERS)]
SERVERS = {
    "uvicorn": UVICORN,
    "gunicorn with uvicorn's workers": [*GUNICORN, "-k", "uvicorn_worker.UvicornWorker"],
}


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of the test's own."""
    if REDIS is None:
        pytest.skip("missing: redis-server")
    server = RedisServer(tmp_path)
    yield server
    server.kill()


@contextlib.contextmanager
def serving(command: list[str], app: str, redis: RedisServer, log: Path) -> Iterator[int]:
    """Start a server on a socket that listens already, and give its port."""
    path = os.pathsep.join(map(str, (PROGRAMS, ROOT / "examples")))
    environment = {**os.environ, "PYTHONPATH": path, "PAGEBUS_LINK": redis.url}
    with log.open("w") as output, socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        fd, port = listener.fileno(), listener.getsockname()[1]
        words = [word.replace("{fd}", str(fd)) for word in (*command, f"worker_apps:{app}")]
        server = subprocess.Popen(
            [sys.executable, "-m", *words],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[fd],
            start_new_session=True,
        )
        try:
            yield port
        finally:
            server.terminate()
            try:
                status = server.wait(30)
            finally:
                # Whatever is left of the group that began with this server.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(server.pid, signal.SIGKILL)
    assert status in (0, -signal.SIGTERM), log.read_text()
    assert "Traceback" not in log.read_text(), log.read_text()


# ---- visitors of either app ---------------------------------------------------------------------


class Visitor(ABC):
    """A session of an app, with what it reads there, line by line."""

    def __init__(self, socket: ClientConnection) -> None:
        assert socket.response is not None
        self.worker = socket.response.headers["x-worker"]

    @property
    @abstractmethod
    def lines(self) -> list[str]:
        """What it has read."""

    @abstractmethod
    async def say(self, line: str) -> None:
        """Send a line to all."""

    @abstractmethod
    async def read(self) -> None:
        """Wait for something to read."""

    @abstractmethod
    async def close(self) -> None:
        """Leave."""

    async def read_until(self, is_there: Callable[[list[str]], bool]) -> None:
        """Read until there is enough."""
        while not is_there(self.lines):
            await asyncio.wait_for(self.read(), PATIENCE)


class WebsocketVisitor(Visitor):
    """A browser's websocket at the FastAPI chat."""

    def __init__(self, socket: ClientConnection) -> None:
        super().__init__(socket)
        self._socket = socket
        self._lines: list[str] = []

    @classmethod
    async def open(cls, port: int) -> "WebsocketVisitor":
        return cls(await connect(f"ws://127.0.0.1:{port}/chat", open_timeout=PATIENCE))

    @property
    def lines(self) -> list[str]:
        return self._lines

    async def say(self, line: str) -> None:
        await self._socket.send(json.dumps({"name": "Ada", "text": line}))

    async def read(self) -> None:
        self._lines.append(json.loads(await self._socket.recv())["text"])

    async def close(self) -> None:
        await self._socket.close()


class PageVisitor(Visitor):
    """A page of the Flet chat, in Flet's own protocol."""

    def __init__(self, session: WebSession) -> None:
        super().__init__(session.socket)
        self._session = session

    @classmethod
    async def open(cls, port: int) -> "PageVisitor":
        visitor = cls(await WebSession.open(port))
        await visitor._session.control("Message")
        return visitor

    @property
    def lines(self) -> list[str]:
        return self._session.texts

    async def say(self, line: str) -> None:
        await self._session.fill("Message", line)
        await self._session.click("Send")

    async def read(self) -> None:
        await self._session.read()

    async def close(self) -> None:
        await self._session.close()


@contextlib.asynccontextmanager
async def visiting(kind: type[Visitor], port: int) -> AsyncIterator[list[Visitor]]:
    """So many sessions; more, if they should all be with one worker."""
    visitors: list[Visitor] = []
    try:
        while len(visitors) < SESSIONS or len({visitor.worker for visitor in visitors}) < 2:
            visitors += await asyncio.gather(*(kind.open(port) for _ in range(AT_ONCE)))
        yield visitors
    finally:
        await asyncio.gather(*(visitor.close() for visitor in visitors))


async def until_linked(visitors: list[Visitor]) -> None:
    """Return when every worker hears what is sent: one of its visitors reads its own line."""

    async def talk_to_oneself(visitor: Visitor) -> None:
        number = 0
        while not any(line.startswith(f"{visitor.worker} is here") for line in visitor.lines):
            await visitor.say(f"{visitor.worker} is here {(number := number + 1)}")
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(visitor.read(), 1)

    one_of_each = {visitor.worker: visitor for visitor in visitors}
    await asyncio.gather(*map(talk_to_oneself, one_of_each.values()))


async def expect_one_chat(visitors: list[Visitor], speakers: list[Visitor]) -> None:
    """Everybody reads every speaker's line once, in the same order."""
    await until_linked(visitors)
    said = [f"line {number}" for number in range(len(speakers))]
    saying = [speaker.say(line) for speaker, line in zip(speakers, said, strict=True)]
    await asyncio.gather(read_all(visitors, lambda lines: len(spoken(lines)) >= len(said)), *saying)
    # What came twice has come before this.
    await asyncio.gather(
        read_all(visitors, lambda lines: "the end" in lines), speakers[0].say("the end")
    )
    transcript = spoken(visitors[0].lines)
    assert sorted(transcript) == sorted(said)
    assert all(spoken(visitor.lines) == transcript for visitor in visitors)


async def read_all(visitors: list[Visitor], is_there: Callable[[list[str]], bool]) -> None:
    """Everybody reads until there is enough."""
    await asyncio.gather(*(visitor.read_until(is_there) for visitor in visitors))


def spoken(lines: list[str]) -> list[str]:
    """What the speakers said."""
    return [line for line in lines if line.startswith("line ")]


@pytest.mark.parametrize("server", SERVERS.values(), ids=SERVERS)
def test_websockets_of_four_workers_are_one_chat(
    tmp_path: Path, redis: RedisServer, server: list[str]
) -> None:
    async def main(port: int) -> None:
        async with visiting(WebsocketVisitor, port) as visitors:
            await expect_one_chat(visitors, visitors)

    with serving(server, "websockets", redis, tmp_path / "server.log") as port:
        asyncio.run(main(port))


@pytest.mark.parametrize("server", SERVERS.values(), ids=SERVERS)
def test_flet_pages_of_four_workers_are_one_chat(
    tmp_path: Path, redis: RedisServer, server: list[str]
) -> None:
    async def main(port: int) -> None:
        async with visiting(PageVisitor, port) as visitors:
            await expect_one_chat(visitors, visitors[:: SESSIONS // 20])

    with serving(server, "pages", redis, tmp_path / "server.log") as port:
        asyncio.run(main(port))
