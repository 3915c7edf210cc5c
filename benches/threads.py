"""Several threads that send at once, against one that sends as much."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from flet.pubsub.pubsub_hub import PubSubHub as FletHub

from benches.contest import Contest, Contestant, Round, Values
from benches.handlers import AsyncHandler, Handler
from pagebus import PubSubHub

HANDLERS = 100
THREADS = 4
MESSAGES = 8_000
"""All of them may wait in the hub at once: fewer than its limit. Sending them takes many of the
interpreter's switch intervals, so that the threads do meet."""

Send = Callable[[Any], Any]


def check(bus: Any) -> None:
    """Nothing may be lost for the sake of speed."""
    if isinstance(bus, PubSubHub):
        stats = bus.stats()
        if stats.dropped or stats.pending or stats.delivered != stats.published * HANDLERS:
            raise RuntimeError(f"not everything was delivered: {stats!r}")


class Senders:
    """Threads that begin together; they exist before the clock starts."""

    def __init__(self, send: Send, threads: int) -> None:
        self.barrier = threading.Barrier(threads + 1)
        each = range(MESSAGES // threads)

        def run() -> None:
            self.barrier.wait()
            for _ in each:
                send("hello")

        self.threads = [threading.Thread(target=run) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    def start(self) -> float:
        """Lets them begin; returns when that was."""
        start = perf_counter()
        self.barrier.wait()
        return start

    def join(self) -> None:
        """Waits until they are done."""
        for thread in self.threads:
            thread.join()


class Inline:
    """Sync handlers that run inside the send, whichever thread's that is."""

    def __init__(self, make: Callable[[], Any], threads: int) -> None:
        self.bus, self.threads = make(), threads
        self.heard = itertools.count()
        for number in range(HANDLERS):
            self.bus.subscribe(f"session-{number}", self._make_handler())

    def _make_handler(self) -> Handler:
        heard = self.heard

        def handler(message: Any) -> None:
            next(heard)

        return handler

    def timed(self) -> Values:
        """The cost of a message, from the first send until everything is delivered."""
        before = next(self.heard)
        senders = Senders(self.bus.send_all, self.threads)
        start = senders.start()
        senders.join()
        took = perf_counter() - start
        if next(self.heard) - before - 1 != MESSAGES * HANDLERS:
            raise RuntimeError("a message was not delivered")
        check(self.bus)
        return {"time": took / MESSAGES}


class OnLoop:
    """Async handlers on the loop of this thread."""

    def __init__(self, threads: int) -> None:
        self.loop, self.threads = asyncio.new_event_loop(), threads
        self.bus = PubSubHub(loop=self.loop)
        self.heard = itertools.count()
        self.last = 0
        self.done = asyncio.Event()
        for number in range(HANDLERS):
            self.bus.subscribe(f"session-{number}", self._make_handler())

    def _make_handler(self) -> AsyncHandler:
        heard = self.heard

        async def handler(message: Any) -> None:
            if next(heard) == self.last:
                self.done.set()

        return handler

    def timed(self) -> Values:
        """The cost of a message, from the first send until everything is delivered."""
        return self.loop.run_until_complete(self._timed())

    async def _timed(self) -> Values:
        self.last = next(self.heard) + MESSAGES * HANDLERS
        self.done.clear()
        senders = Senders(self.bus.send_all, self.threads)
        start = senders.start()
        await self.done.wait()
        took = perf_counter() - start
        senders.join()
        await asyncio.sleep(0)
        check(self.bus)
        return {"time": took / MESSAGES}


def inline(make: Callable[[], Any], threads: int) -> Contestant:
    """A hub without a loop."""

    @contextmanager
    def contestant() -> Iterator[Round]:
        yield Inline(make, threads).timed

    return contestant


def on_loop(threads: int) -> Contestant:
    """A hub with a loop."""

    @contextmanager
    def contestant() -> Iterator[Round]:
        audience = OnLoop(threads)
        yield audience.timed
        audience.loop.close()

    return contestant


def flet() -> Any:
    """Flet's hub refuses to deliver without a loop, even where it does not use it."""
    return FletHub(loop=asyncio.new_event_loop())


CONTESTS = [
    Contest(
        "threads inline",
        {
            "pagebus": inline(PubSubHub, THREADS),
            "1 thread": inline(PubSubHub, 1),
            "Flet": inline(flet, THREADS),
            "Flet, 1 thread": inline(flet, 1),
        },
        rounds=10,
        warmups=1,
        processes=3,
        short_rounds=2,
    ),
    Contest(
        "threads loop",
        {"pagebus": on_loop(THREADS), "1 thread": on_loop(1)},
        rounds=20,
        processes=3,
        short_rounds=5,
    ),
]
