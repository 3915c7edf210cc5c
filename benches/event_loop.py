"""Async handlers, from the send until the last one is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvloop
from flet.pubsub.pubsub_hub import PubSubHub as FletHub
from pyperf import perf_counter

from benches.contest import Contest, Contestant, Round, Values
from benches.handlers import AsyncHandler, make_async, make_suspending
from benches.sessions import subscribe_all
from pagebus import PubSubHub

SUBSCRIBERS = (1, 10, 100, 1_000, 10_000, 100_000)
BURST = 20

MakeLoop = Callable[[], asyncio.AbstractEventLoop]
Make = Callable[[], AsyncHandler]
Send = Callable[[Any], Any]
SendTo = Callable[[asyncio.AbstractEventLoop, list[AsyncHandler]], Send]
"""Gives a way to send to handlers on a loop."""


class Audience:
    """Handlers, every last one of which is waited for."""

    def __init__(self, size: int, make: Make, sends: int) -> None:
        self.sends = sends
        self.awaited = 0
        self.done = asyncio.Event()
        inner = make()

        async def last(message: Any) -> None:
            await inner(message)
            self.awaited -= 1
            if self.awaited == 0:
                self.done.set()

        self.handlers: list[AsyncHandler] = [*(make() for _ in range(size - 1)), last]

    async def timed(self, send: Send) -> Values:
        """The cost of a delivery, from the first send until the last handler is done."""
        self.awaited = self.sends
        self.done.clear()
        start = perf_counter()
        for _ in range(self.sends):
            send("hello")
        await self.done.wait()
        took = perf_counter() - start
        # What tasks leave to be done after their last step is not for the next contestant.
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)
        return {"time": took / self.sends / len(self.handlers)}


def on_loop(
    send_to: SendTo, size: int, make: Make, *, sends: int = 1, make_loop: MakeLoop
) -> Contestant:
    """A contestant with an event loop of its own, on which all of its rounds run."""

    @contextmanager
    def contestant() -> Iterator[Round]:
        loop = make_loop()
        audience = Audience(size, make, sends)
        send = send_to(loop, audience.handlers)
        yield lambda: loop.run_until_complete(audience.timed(send))
        loop.close()

    return contestant


def hub(make: Callable[..., Any], *, own_contexts: bool = False) -> SendTo:
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


def contest(
    name: str,
    size: int,
    make: Make,
    *,
    flet: bool = True,
    sends: int = 1,
    make_loop: MakeLoop = asyncio.new_event_loop,
    **settings: Any,
) -> Contest:
    """The contest for one kind and number of handlers."""
    ways: dict[str, SendTo] = {
        "pagebus": hub(PubSubHub),
        "own contexts": hub(PubSubHub, own_contexts=True),
        "create_task": create_task,
    }
    if flet:
        ways["Flet"] = hub(FletHub)
    contestants = {
        way: on_loop(send_to, size, make, sends=sends, make_loop=make_loop)
        for way, send_to in ways.items()
    }
    return Contest(f"{name} {size}", contestants, **settings)


CONTESTS = [
    *(
        contest("async", size, make_async, short_rounds=10 if size == 1_000 else 0)
        for size in SUBSCRIBERS[:-1]
    ),
    # Flet's tasks for 100,000 handlers take most of a minute for each round.
    contest("async", SUBSCRIBERS[-1], make_async, flet=False, rounds=5, short_rounds=0),
    contest("burst", 1_000, make_async, sends=BURST, rounds=3, warmups=1, short_rounds=1),
    contest("suspending", 1_000, make_suspending, flet=False, rounds=40, short_rounds=20),
    contest("uvloop", 1_000, make_async, make_loop=uvloop.new_event_loop, short_rounds=0),
    contest(
        "uvloop suspending", 1_000, make_suspending, make_loop=uvloop.new_event_loop, short_rounds=0
    ),
]
