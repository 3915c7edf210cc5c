"""A TCP proxy that a test can make fail: it cuts, delays, swallows and truncates."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

from link_tools import PATIENCE


class Proxy:
    """Passes everything on to a port, until told otherwise."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self.delay = 0.0
        self._flows = asyncio.Event()
        self._cut_after: int | None = None
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.port = int(self._run(self._listen()))

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def cut(self) -> None:
        """Close every connection."""
        self._run(self._close_all())

    def swallow(self) -> None:
        """Go on taking everything, and pass on nothing: a half-open connection."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def flow(self) -> None:
        """Pass on again."""
        self._loop.call_soon_threadsafe(self._flows.set)

    def cut_after(self, count: int) -> None:
        """Close the next connection in the middle of what the server sends, after so many bytes."""
        self._cut_after = count

    def close(self) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    async def _listen(self) -> int:
        self._flows.set()
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _close_all(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _end(self) -> None:
        self._server.close()
        self._flows.set()
        while self._writers:
            await self._close_all()
            await asyncio.sleep(0.01)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, there[1]}
        ways = [self._pump(reader, there[1], False), self._pump(there[0], writer, True)]
        await asyncio.gather(*ways)
        for end in (writer, there[1]):
            end.close()
            self._writers.discard(end)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_answer: bool
    ) -> None:
        try:
            while data := await reader.read(65536):
                await asyncio.sleep(self.delay)
                await self._flows.wait()
                if is_answer and self._cut_after is not None:
                    data, rest = data[: self._cut_after], self._cut_after - len(data)
                    self._cut_after = rest if rest > 0 else None
                    writer.write(data)
                    if rest <= 0:
                        break
                    continue
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.transport.abort()
