"""Async handlers, from the send until the last one is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvloop
from flet.pubsub.pubsub_hub import PubSubHub as FletHub
from pyperf import perf_counter

from benches.audience import expect_delivered, expect_each
from benches.contest import Contest, Contestant, Round, Values
from benches.handlers import AsyncHandler, count_async_calls, make_async, make_suspending
from benches.sessions import subscribe_all
from pagebus import PubSubHub

FEW = (1, 10, 100)
"""Numbers of subscribers to whom a single send is too short to be timed."""
TIMES = 200
"""Sends in a round to few subscribers, each when the last handler of the one before is done."""
BURST = 20

MakeLoop = Callable[[], asyncio.AbstractEventLoop]
Make = Callable[[], AsyncHandler]
Send = Callable[[Any], Any]
SendTo = Callable[[asyncio.AbstractEventLoop, list[AsyncHandler]], Send]
"""Gives a way to send to handlers on a loop."""


async def tasks_ended() -> None:
    """Returns when nothing is left to be done of what tasks leave after their last step."""
    while len(asyncio.all_tasks()) > 1:
        await asyncio.sleep(0)


def check(send: Send, calls: int) -> None:
    """Asks pagebus, whose method the send is, for the number of its deliveries; nobody else."""
    bus = getattr(send, "__self__", None)
    if isinstance(bus, PubSubHub):
        expect_delivered(bus, calls)


class Audience:
    """Handlers, every last one of which is waited for."""

    def __init__(self, size: int, make: Make, burst: int, times: int) -> None:
        self.burst, self.times = burst, times
        self.awaited = self.heard = 0
        self.done = asyncio.Event()
        inner = make()

        async def last(message: Any) -> None:
            await inner(message)
            self.heard += 1
            self.awaited -= 1
            if self.awaited == 0:
                self.done.set()

        self.handlers: list[AsyncHandler] = [*(make() for _ in range(size - 1)), last]

    async def timed(self, send: Send) -> Values:
        """The cost of a delivery, from the first send until the last handler is done."""
        before, burst = self.heard, range(self.burst)
        start = perf_counter()
        for _ in range(self.times):
            self.awaited = self.burst
            self.done.clear()
            for _ in burst:
                send("hello")
            await self.done.wait()
        took = perf_counter() - start
        # It is not for the next contestant.
        await tasks_ended()
        sends = self.burst * self.times
        if self.heard != before + sends:
            raise RuntimeError("a message came twice")
        check(send, self.heard * len(self.handlers))
        return {"time": took / sends / len(self.handlers)}


def prove(loop: asyncio.AbstractEventLoop, send_to: SendTo, size: int, make: Make) -> None:
    """Sends once to handlers that all count: nobody measures a loop that does nothing."""
    counts = [0] * size
    handlers = [count_async_calls(make(), counts, place) for place in range(size)]
    send = send_to(loop, handlers)

    async def deliver() -> None:
        send("hello")
        # Every way needs a turn of the loop for each step of a handler; nobody needs a hundred.
        for _ in range(100 + size):
            await asyncio.sleep(0)
            if all(counts):
                break
        await tasks_ended()

    loop.run_until_complete(deliver())
    expect_each(counts, 1)
    check(send, size)


def on_loop(
    send_to: SendTo, size: int, make: Make, *, burst: int, times: int, make_loop: MakeLoop
) -> Contestant:
    """A contestant with an event loop of its own, on which all of its rounds run."""

    @contextmanager
    def contestant() -> Iterator[Round]:
        loop = make_loop()
        prove(loop, send_to, size, make)
        audience = Audience(size, make, burst, times)
        send = send_to(loop, audience.handlers)
        yield lambda: loop.run_until_complete(audience.timed(send))
        loop.close()

    return contestant


def hub(make: Callable[..., Any], *, own_contexts: bool = True) -> SendTo:
    """Sends through a hub that was given the loop."""

    def send_to(loop: asyncio.AbstractEventLoop, handlers: list[AsyncHandler]) -> Send:
        bus = make(loop=loop)
        subscribe_all(bus, handlers, own_contexts=own_contexts)
        send: Send = bus.send_all
        return send

    return send_to


def create_task(loop: asyncio.AbstractEventLoop, handlers: list[AsyncHandler]) -> Send:
    """The floor that asyncio gives: a task for each handler."""
    tasks: set[asyncio.Task[None]] = set()

    def send(message: Any) -> None:
        tasks.clear()
        tasks.update(loop.create_task(handler(message)) for handler in handlers)  # type: ignore[arg-type]

    return send


PAGEBUS: dict[str, SendTo] = {"pagebus": hub(PubSubHub)}
SHARED: dict[str, SendTo] = {"shared context": hub(PubSubHub, own_contexts=False)}
TASKS: dict[str, SendTo] = {"create_task": create_task}
FLET: dict[str, SendTo] = {"Flet": hub(FletHub)}


def contest(
    name: str,
    size: int,
    make: Make,
    ways: dict[str, SendTo],
    *,
    burst: int = 1,
    times: int = 1,
    make_loop: MakeLoop = asyncio.new_event_loop,
    **settings: Any,
) -> Contest:
    """The contest for one kind and number of handlers."""
    contestants = {
        way: on_loop(send_to, size, make, burst=burst, times=times, make_loop=make_loop)
        for way, send_to in ways.items()
    }
    return Contest(f"{name} {size}", contestants, **settings)


ASYNC = PAGEBUS | SHARED | TASKS
ON_UVLOOP: dict[str, Any] = {"make_loop": uvloop.new_event_loop, "short_rounds": 0}

CONTESTS = [
    *(
        contest(
            *("async", size, make_async, ASYNC | FLET),
            times=TIMES,
            rounds=8,
            processes=3,
            short_rounds=0,
        )
        for size in FEW
    ),
    contest("async", 1_000, make_async, ASYNC | FLET, short_rounds=10),
    contest("async", 10_000, make_async, ASYNC | FLET, rounds=10, processes=3, short_rounds=0),
    # Flet's tasks for 100,000 handlers take most of a minute for each round.
    contest("async", 100_000, make_async, ASYNC, rounds=5, processes=3, short_rounds=0),
    contest(
        *("burst", 1_000, make_async, PAGEBUS | TASKS | FLET),
        burst=BURST,
        rounds=3,
        warmups=1,
        short_rounds=1,
    ),
    contest("suspending", 1_000, make_suspending, ASYNC, rounds=40, short_rounds=20),
    contest("uvloop", 1_000, make_async, PAGEBUS | TASKS | FLET, **ON_UVLOOP),
    contest("uvloop suspending", 1_000, make_suspending, PAGEBUS | TASKS | FLET, **ON_UVLOOP),
]
