"""The longest stall of an event loop while a message goes to very many async handlers.

A heartbeat, a callback that schedules itself again with ``call_soon``, runs in every turn of the
loop; the longest time between two of its runs is how long anything else on the loop has to wait.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from pyperf import perf_counter

from benches.contest import Contest, Contestant, Round, Values
from benches.event_loop import FLET, PAGEBUS, TASKS, Send, SendTo, tasks_ended
from benches.handlers import AsyncHandler

SUBSCRIBERS = (1_000, 10_000)
WORK = 10e-6
"""How long a handler takes, alone."""


def work(steps: int) -> None:
    """Keeps the interpreter busy, without help from C."""
    for _ in range(steps):
        pass


@cache
def calibrated() -> int:
    """How many steps of work take a handler's time: the same number for all contestants."""
    steps = 1_000

    def timed() -> float:
        start = perf_counter()
        work(steps)
        took: float = perf_counter() - start
        return took

    return max(1, round(steps * WORK / statistics.median(timed() for _ in range(1_000))))


class Heartbeat:
    """Runs in every turn of the loop and notes the longest time between two turns."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.longest = 0.0
        self.beats = 0
        self.last = perf_counter()
        self.handle = loop.call_soon(self.beat)

    def beat(self) -> None:
        """Runs once more in the next turn."""
        self._note()
        self.beats += 1
        self.handle = self.loop.call_soon(self.beat)

    def stop(self) -> None:
        """Ends it; what went on since its last run counts too."""
        self._note()
        self.handle.cancel()

    def _note(self) -> None:
        now = perf_counter()
        self.longest = max(self.longest, now - self.last)
        self.last = now


class Audience:
    """Handlers that work for a while, the last of which to be done ends the measurement."""

    def __init__(self, size: int) -> None:
        self.steps = calibrated()
        self.awaited = 0
        self.done = asyncio.Event()
        self.heartbeat: Heartbeat | None = None
        self.handlers = [self._make_handler() for _ in range(size)]

    def _make_handler(self) -> AsyncHandler:
        async def handler(message: Any) -> None:
            work(self.steps)
            self.awaited -= 1
            if self.awaited == 0:
                self._end()

        return handler

    def _end(self) -> None:
        if self.heartbeat:
            self.heartbeat.stop()
        self.done.set()

    async def timed(self, send: Send) -> Values:
        """The longest stall, the send itself, and all of it."""
        self.awaited = len(self.handlers)
        self.done.clear()
        loop = asyncio.get_running_loop()
        self.heartbeat = heartbeat = Heartbeat(loop)
        await asyncio.sleep(0)
        heartbeat.longest, heartbeat.last = 0.0, perf_counter()
        start = heartbeat.last
        send("hello")
        sent = perf_counter()
        await self.done.wait()
        await tasks_ended()
        if self.awaited:
            raise RuntimeError("a message came twice")
        took = heartbeat.last - start
        if took < len(self.handlers) * WORK / 2:
            raise RuntimeError("the handlers did not work")
        return {"time": heartbeat.longest, "send": sent - start, "all": took}


def on_loop(send_to: SendTo, size: int) -> Contestant:
    """A contestant with an event loop of its own."""

    @contextmanager
    def contestant() -> Iterator[Round]:
        loop = asyncio.new_event_loop()
        audience = Audience(size)
        send = send_to(loop, audience.handlers)
        yield lambda: loop.run_until_complete(audience.timed(send))
        loop.close()

    return contestant


def contest(size: int) -> Contest:
    """The contest for one number of handlers."""
    ways = PAGEBUS | TASKS | FLET
    contestants = {way: on_loop(send_to, size) for way, send_to in ways.items()}
    return Contest(
        f"stall {size}",
        contestants,
        rounds=5,
        warmups=1,
        processes=3,
        short_rounds=2 if size == 10_000 else 0,
    )


CONTESTS = [contest(size) for size in SUBSCRIBERS]
