"""Handlers that count how often they are called, all together: the proof that they ran."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from pyperf import perf_counter

from benches.handlers import AsyncHandler, Handler, TopicHandler


class Audience:
    """Makes handlers, and knows how often they were called, on whatever threads.

    They share a counter of C, which no other thread interrupts and which costs next to nothing.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._looks = 0

    def calls(self) -> int:
        """How often the handlers were called until now."""
        self._looks += 1
        return next(self._numbers) - self._looks

    def expect(self, calls: int, before: int) -> None:
        """Fails unless there were that many calls since there were some ``before``."""
        found = self.calls() - before
        if found != calls:
            raise RuntimeError(f"there were {found} calls of handlers, not {calls}")

    def make_handler(self) -> Handler:
        """A sync handler."""
        numbers = self._numbers

        def handler(message: Any) -> None:
            next(numbers)

        return handler

    def make_topic_handler(self) -> TopicHandler:
        """A sync handler for a topic."""
        numbers = self._numbers

        def handler(topic: str, message: Any) -> None:
            next(numbers)

        return handler


class AwaitedAudience(Audience):
    """Makes handlers whose last call, whosever it is, is waited for on an event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._done = asyncio.Event()
        self._last = 0
        self.ended = 0.0
        """When the last call was."""

    def await_calls(self, calls: int) -> None:
        """Announces that there will be that many calls."""
        self._looks += 1
        self._last = next(self._numbers) + calls
        self._done.clear()
        if not calls:
            self._done.set()

    async def all_called(self) -> None:
        """Waits for the last call."""
        await self._done.wait()

    def expect_silence(self) -> None:
        """Fails if there was a call after the last one."""
        self._looks += 1
        if next(self._numbers) != self._last + 1:
            raise RuntimeError("a message came twice, or to somebody who should not get it")

    def make_handler(self) -> Handler:
        """A sync handler, for whatever thread."""
        numbers = self._numbers

        def handler(message: Any) -> None:
            if next(numbers) == self._last:
                self.ended = perf_counter()
                self._loop.call_soon_threadsafe(self._done.set)

        return handler

    def make_async_handler(self) -> AsyncHandler:
        """An async handler."""
        numbers = self._numbers

        async def handler(message: Any) -> None:
            if next(numbers) == self._last:
                self._done.set()

        return handler


def expect_each(counts: list[int], calls: int) -> None:
    """Fails unless every handler was called that often."""
    wrong = sum(count != calls for count in counts)
    if wrong:
        raise RuntimeError(f"{wrong} of {len(counts)} handlers did not run {calls} times")


def expect_delivered(bus: Any, calls: int) -> None:
    """Fails unless the hub itself says that it made that many calls, and lost nothing."""
    stats = bus.stats()
    lost = stats.failed or stats.dropped or stats.pending
    if lost or stats.delivered != calls:
        raise RuntimeError(f"there should be {calls} deliveries: {stats!r}")
