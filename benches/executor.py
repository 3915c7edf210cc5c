"""Sync handlers on a thread pool, from the first send until the last handler has run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from flet.pubsub.pubsub_hub import PubSubHub as FletHub
from pyperf import perf_counter

from benches.audience import AwaitedAudience
from benches.contest import Contest, Contestant, Round, Values
from benches.handlers import Handler
from benches.sessions import subscribe_all
from pagebus import PubSubHub

SESSIONS = (1, 10, 100, 1_000, 10_000)
MESSAGES = 20

Send = Callable[[Any], Any]
SendTo = Callable[[asyncio.AbstractEventLoop, ThreadPoolExecutor, list[Handler]], Send]
"""Gives a way to send to handlers on an executor."""


async def timed(
    audience: AwaitedAudience, send: Send, executor: ThreadPoolExecutor, calls: int
) -> Values:
    """The cost of a delivery, sent on the loop's own thread, as Flet apps do."""
    audience.await_calls(calls)
    start = perf_counter()
    for _ in range(MESSAGES):
        send("hello")
    await audience.all_called()
    # What the calls leave for the executor and the loop is not for the next contestant, and must
    # not be a further call.
    await asyncio.get_running_loop().run_in_executor(executor, lambda: None)
    await asyncio.sleep(0)
    audience.expect_silence()
    return {"time": (audience.ended - start) / calls}


def on_executor(size: int, send_to: SendTo) -> Contestant:
    """A contestant with an event loop and an executor of its own."""

    @contextmanager
    def contestant() -> Iterator[Round]:
        loop = asyncio.new_event_loop()
        # The number of threads that Flet's own executor has, too.
        with ThreadPoolExecutor() as executor:
            audience = AwaitedAudience(loop)
            send = send_to(loop, executor, [audience.make_handler() for _ in range(size)])
            calls = MESSAGES * size
            yield lambda: loop.run_until_complete(timed(audience, send, executor, calls))
        loop.close()

    return contestant


def hub(make: Callable[..., Any]) -> SendTo:
    """Sends through a hub that was given the loop and the executor."""

    def send_to(
        loop: asyncio.AbstractEventLoop, executor: ThreadPoolExecutor, handlers: list[Handler]
    ) -> Send:
        bus = make(loop=loop, executor=executor)
        subscribe_all(bus, handlers)
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
