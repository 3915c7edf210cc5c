"""Several threads that send at once, against one that sends as much."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pyperf import perf_counter

from benches.audience import Audience, AwaitedAudience, expect_delivered
from benches.contest import Contest, Contestant, Round, Values
from benches.sessions import flet_hub, subscribe_all
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
        expect_delivered(bus, bus.stats().published * HANDLERS)


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
        start: float = perf_counter()
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
        self.audience = Audience()
        subscribe_all(self.bus, [self.audience.make_handler() for _ in range(HANDLERS)])

    def timed(self) -> Values:
        """The cost of a message, from the first send until everything is delivered."""
        before = self.audience.calls()
        senders = Senders(self.bus.send_all, self.threads)
        start = senders.start()
        senders.join()
        took = perf_counter() - start
        self.audience.expect(MESSAGES * HANDLERS, before)
        check(self.bus)
        return {"time": took / MESSAGES}


class OnLoop:
    """Async handlers on the loop of this thread."""

    def __init__(self, threads: int) -> None:
        self.loop, self.threads = asyncio.new_event_loop(), threads
        self.bus = PubSubHub(loop=self.loop)
        self.audience = AwaitedAudience(self.loop)
        subscribe_all(self.bus, [self.audience.make_async_handler() for _ in range(HANDLERS)])

    def timed(self) -> Values:
        """The cost of a message, from the first send until everything is delivered."""
        return self.loop.run_until_complete(self._timed())

    async def _timed(self) -> Values:
        self.audience.await_calls(MESSAGES * HANDLERS)
        senders = Senders(self.bus.send_all, self.threads)
        start = senders.start()
        await self.audience.all_called()
        took = perf_counter() - start
        senders.join()
        await asyncio.sleep(0)
        self.audience.expect_silence()
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
        on_loop = OnLoop(threads)
        yield on_loop.timed
        on_loop.loop.close()

    return contestant


CONTESTS = [
    Contest(
        "threads inline",
        {
            "pagebus": inline(PubSubHub, THREADS),
            "1 thread": inline(PubSubHub, 1),
            "Flet": inline(flet_hub, THREADS),
            "Flet, 1 thread": inline(flet_hub, 1),
        },
        rounds=5,
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
