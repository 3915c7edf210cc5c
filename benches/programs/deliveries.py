"""Sends to few and to many handlers, to be counted: ``-m benches.programs.deliveries WAY 10 50``.

At the borders of what is to be counted it calls ``os.getppid``, which nothing else does: there
valgrind is told to begin a new part. It prints how many turns the event loop took in each.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

from benches.handlers import make_async, make_sync
from benches.sessions import make_context, subscribe_all
from pagebus import PubSubHub

BORDER = "getppid"
FEW, MANY = 10, 50
"""Handlers; so few that even under valgrind all are called in one turn of the loop."""
SENDS = 100
WARMUPS = 8
"""Times that all is sent before it is counted: pagebus times more calls while some are slow, and
they are while valgrind meets their code for the first time."""

Handler = Callable[[Any], Any]
Send = Callable[[Any], Any]
Loop = asyncio.AbstractEventLoop


class Audience:
    """Handlers, the last of which is waited for."""

    def __init__(self, size: int, make: Callable[[], Handler]) -> None:
        self.heard = 0
        self.inner: Any = make()
        last = self._last if make is make_sync else self._last_async
        self.handlers: list[Handler] = [*(make() for _ in range(size - 1)), last]

    def _last(self, message: Any) -> None:
        self.inner(message)
        self.heard += 1

    async def _last_async(self, message: Any) -> None:
        await self.inner(message)
        self.heard += 1

    async def hear(self, send: Send) -> int:
        """Gets one message after the other; returns how many turns the loop took."""
        turns = 0
        for number in range(self.heard + 1, self.heard + SENDS + 1):
            send("hello")
            while self.heard < number and turns < 10 * SENDS:
                await asyncio.sleep(0)
                turns += 1
            if self.heard != number:
                raise RuntimeError("a message was not delivered, or twice")
        return turns

    async def check(self, send: Send) -> None:
        """Makes sure that every handler runs once for every message."""
        calls = 0

        def note(frame: FrameType, event: str, _: Any) -> None:
            nonlocal calls
            calls += event == "call" and frame.f_code is self.inner.__code__

        sys.setprofile(note)
        await self.hear(send)
        sys.setprofile(None)
        if calls != SENDS * len(self.handlers):
            raise RuntimeError(f"{SENDS} messages, {len(self.handlers)} handlers, {calls} calls")


def for_loop(_: Loop, handlers: list[Handler]) -> Send:
    """The floor of sync handlers."""

    def send(message: Any) -> None:
        for handler in handlers:
            handler(message)

    return send


def context_run(_: Loop, handlers: list[Handler]) -> Send:
    """The same in contexts; none of the handlers gets a fresh copy of its own."""
    contexts = [make_context(f"session-{number}").run for number in range(len(handlers))]

    def send(message: Any) -> None:
        for run, handler in zip(contexts, handlers):  # noqa: B905 - nothing but the least
            run(handler, message)

    return send


def await_loop(loop: Loop, handlers: list[Handler]) -> Send:
    """The floor of async handlers that do not suspend: one task for them all."""

    async def await_all(message: Any) -> None:
        for handler in handlers:
            await handler(message)

    return lambda message: loop.create_task(await_all(message))


def create_task(loop: Loop, handlers: list[Handler]) -> Send:
    """A task for each handler."""
    return lambda message: [loop.create_task(handler(message)) for handler in handlers]


def hub(loop: Loop | None, handlers: list[Handler], *, own_contexts: bool = False) -> Send:
    """A hub with that loop."""
    bus = PubSubHub(loop=loop)
    subscribe_all(bus, handlers, own_contexts=own_contexts)
    return bus.send_all


def inline(_: Loop, handlers: list[Handler], *, own_contexts: bool = False) -> Send:
    """A hub that calls sync handlers inside the send."""
    return hub(None, handlers, own_contexts=own_contexts)


WAYS: dict[str, tuple[Callable[[Loop, list[Handler]], Send], Callable[[], Handler]]] = {
    "for loop": (for_loop, make_sync),
    "inline": (inline, make_sync),
    "context.run": (context_run, make_sync),
    "inline, own contexts": (partial(inline, own_contexts=True), make_sync),
    "await loop": (await_loop, make_async),
    "async": (hub, make_async),
    "async, own contexts": (partial(hub, own_contexts=True), make_async),
    "create_task": (create_task, make_async),
}
"""Ways to send, with the kind of handlers."""


def main(way: str, *sizes: str) -> None:
    send_to, make = WAYS[way]
    loop = asyncio.new_event_loop()
    audiences = [Audience(size, make) for size in map(int, sizes)]
    hearings = [(audience, send_to(loop, audience.handlers)) for audience in audiences]
    gc.disable()
    for audience, send in hearings:
        loop.run_until_complete(audience.check(send))
        for _ in range(WARMUPS):
            loop.run_until_complete(audience.hear(send))
    for audience, send in hearings:
        os.getppid()
        print(loop.run_until_complete(audience.hear(send)))
    os.getppid()


if __name__ == "__main__":
    main(*sys.argv[1:])
