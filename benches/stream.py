"""A session's messages for an ``async for`` loop, from the send until the loop has them.

Besides the stream, the two things that one would write without it: a queue that a handler puts
messages into, and the queue alone, without a hub.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, NamedTuple

from pyperf import perf_counter

from benches.contest import Contest, Contestant, Round, Values
from benches.event_loop import tasks_ended
from pagebus import PubSubHub

MESSAGES = 2_000


class Channel(NamedTuple):
    """Two ends: what is sent at the one is awaited at the other."""

    send: Callable[[Any], object]
    receive: Callable[[], Awaitable[Any]]


Open = Callable[[], AbstractAsyncContextManager[Channel]]


@asynccontextmanager
async def stream() -> AsyncIterator[Channel]:
    """A stream of a hub."""
    hub = PubSubHub(asyncio.get_running_loop())
    async with hub.stream("reader") as messages:
        yield Channel(hub.send_all, messages.__anext__)


@asynccontextmanager
async def handler() -> AsyncIterator[Channel]:
    """A handler that puts into a queue."""
    hub = PubSubHub(asyncio.get_running_loop())
    queue: asyncio.Queue[Any] = asyncio.Queue()

    async def put(message: Any) -> None:
        queue.put_nowait(message)

    with hub.subscribe("reader", put):
        yield Channel(hub.send_all, queue.get)


@asynccontextmanager
async def queue_alone() -> AsyncIterator[Channel]:
    """A queue without a hub."""
    queue: asyncio.Queue[Any] = asyncio.Queue()
    yield Channel(queue.put_nowait, queue.get)


async def burst(channel: Channel) -> float:
    """All messages are sent before the first is read."""
    start = perf_counter()
    for number in range(MESSAGES):
        channel.send(number)
    got = [await channel.receive() for _ in range(MESSAGES)]
    took: float = perf_counter() - start
    expect(got)
    return took / MESSAGES


async def waiting(channel: Channel) -> float:
    """The reader waits for each message."""
    got: list[Any] = []

    async def read() -> None:
        for _ in range(MESSAGES):
            got.append(await channel.receive())  # noqa: PERF401 - others look at it meanwhile

    reader = asyncio.ensure_future(read())
    await asyncio.sleep(0)
    start = perf_counter()
    for number in range(MESSAGES):
        channel.send(number)
        while len(got) <= number:
            await asyncio.sleep(0)
    took: float = perf_counter() - start
    await reader
    expect(got)
    return took / MESSAGES


def expect(got: list[Any]) -> None:
    """Everything came, in order."""
    if got != list(range(MESSAGES)):
        raise RuntimeError("messages are missing, or in the wrong order")


async def timed(open_channel: Open) -> Values:
    """The cost of a message until it is read, in a burst and when it is waited for."""
    async with open_channel() as channel:
        values = {"time": await burst(channel), "waited for": await waiting(channel)}
    await tasks_ended()
    return values


def reading(open_channel: Open) -> Contestant:
    """A contestant with an event loop of its own."""

    @contextmanager
    def contestant() -> Iterator[Round]:
        loop = asyncio.new_event_loop()
        yield lambda: loop.run_until_complete(timed(open_channel))
        loop.close()

    return contestant


WAYS: dict[str, Open] = {
    "pagebus": stream,
    "handler with asyncio.Queue": handler,
    "asyncio.Queue alone": queue_alone,
}

CONTESTS = [
    Contest("stream", {way: reading(channel) for way, channel in WAYS.items()}, processes=3),
]
