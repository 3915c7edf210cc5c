"""Sync handlers on a thread pool, from the first send until the last handler has run."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from flet.pubsub.pubsub_hub import PubSubHub as FletHub

from benches.contest import Contest, Contestant, Round, Values
from benches.handlers import Handler
from pagebus import PubSubHub

SESSIONS = (1, 10, 100, 1_000, 10_000)
MESSAGES = 20

Send = Callable[[Any], Any]
SendTo = Callable[[asyncio.AbstractEventLoop, ThreadPoolExecutor, list[Handler]], Send]
"""Gives a way to send to handlers on an executor."""


class Audience:
    """Handlers that count, so that the last call of all is noticed, whosever it is."""

    def __init__(self, size: int, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.heard = itertools.count(1)
        self.last = 0
        self.ended = 0.0
        self.done = asyncio.Event()
        self.handlers = [self._make_handler() for _ in range(size)]

    def _make_handler(self) -> Handler:
        heard = self.heard

        def handler(message: Any) -> None:
            if next(heard) == self.last:
                self._end()

        return handler

    def _end(self) -> None:
        self.ended = perf_counter()
        self.loop.call_soon_threadsafe(self.done.set)

    async def timed(self, send: Send, executor: ThreadPoolExecutor) -> Values:
        """The cost of a delivery, sent on the loop's own thread, as Flet apps do."""
        calls = MESSAGES * len(self.handlers)
        self.last = next(self.heard) + calls
        self.done.clear()
        start = perf_counter()
        for _ in range(MESSAGES):
            send("hello")
        await self.done.wait()
        # What the calls leave for the executor and the loop is not for the next contestant, and
        # must not be a further call.
        await self.loop.run_in_executor(executor, lambda: None)
        await asyncio.sleep(0)
        if next(self.heard) != self.last + 1:
            raise RuntimeError("a message came twice")
        return {"time": (self.ended - start) / calls}


def on_executor(size: int, send_to: SendTo) -> Contestant:
    """A contestant with an event loop and an executor of its own."""

    @contextmanager
    def contestant() -> Iterator[Round]:
        loop = asyncio.new_event_loop()
        # The number of threads that Flet's own executor has, too.
        with ThreadPoolExecutor() as executor:
            audience = Audience(size, loop)
            send = send_to(loop, executor, audience.handlers)
            yield lambda: loop.run_until_complete(audience.timed(send, executor))
        loop.close()

    return contestant


def hub(make: Callable[..., Any]) -> SendTo:
    """Sends through a hub that was given the loop and the executor."""

    def send_to(
        loop: asyncio.AbstractEventLoop, executor: ThreadPoolExecutor, handlers: list[Handler]
    ) -> Send:
        bus = make(loop=loop, executor=executor)
        for number, handler in enumerate(handlers):
            bus.subscribe(f"session-{number}", handler)
        send: Send = bus.send_all
        return send

    return send_to


def submit(
    loop: asyncio.AbstractEventLoop, executor: ThreadPoolExecutor, handlers: list[Handler]
) -> Send:
    """The floor that the executor gives: a job for each delivery."""

    def send(message: Any) -> None:
        for handler in handlers:
            executor.submit(handler, message)

    return send


def contest(size: int) -> Contest:
    """The contest for one number of sessions."""
    ways = {"pagebus": hub(PubSubHub), "executor.submit": submit, "Flet": hub(FletHub)}
    contestants = {way: on_executor(size, send_to) for way, send_to in ways.items()}
    return Contest(
        f"executor {size}",
        contestants,
        # A round of Flet's takes a second for 1,000 sessions.
        rounds=2 if size > 1_000 else 5,
        warmups=1,
        processes=1 if size > 1_000 else 3,
        short_rounds=2 if size == 1_000 else 0,
    )


CONTESTS = [contest(size) for size in SESSIONS]
