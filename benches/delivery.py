"""What one delivery costs, beside the floor that the interpreter sets, alternating in one run.

Run it with ``make bench``. The figures are medians; the ratios are what to compare.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

from pagebus import PubSubHub

HANDLERS = 1000
ROUNDS = 200


def make_sync() -> Callable[[Any], None]:
    """A handler that does nothing, of its own code object's own function."""

    def handler(message: Any) -> None:
        pass

    return handler


def make_async() -> Callable[[Any], Awaitable[None]]:
    """An async handler that does not suspend."""

    async def handler(message: Any) -> None:
        pass

    return handler


def make_suspending() -> Callable[[Any], Awaitable[None]]:
    """An async handler that suspends once."""

    async def handler(message: Any) -> None:
        await asyncio.sleep(0)

    return handler


def report(what: str, ours: list[float], floor_name: str, floor: list[float]) -> None:
    """Print a row: nanoseconds per delivery, of both, and the ratio."""
    own, other = (statistics.median(times) / HANDLERS * 1e9 for times in (ours, floor))
    print(f"{what:44} {own:8.0f} ns   {floor_name:12} {other:8.0f} ns   ratio {own / other:.3f}")


def inline() -> None:
    """Sync handlers, inside the send."""
    handlers = [make_sync() for _ in range(HANDLERS)]
    hub = PubSubHub()
    for number, handler in enumerate(handlers):
        hub.subscribe(f"session-{number}", handler)
    ours, floor = [], []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        hub.send_all("hello")
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        for handler in handlers:
            handler("hello")
        floor.append(time.perf_counter() - start)
    report("sync handlers, inline", ours, "for loop", floor)


async def on_loop(what: str, make: Callable[[], Callable[[Any], Awaitable[None]]]) -> None:
    """Async handlers, from the send until the last one is done."""
    done = asyncio.Event()
    inner = make()

    async def last(message: Any) -> None:
        await inner(message)
        done.set()

    handlers = [*(make() for _ in range(HANDLERS - 1)), last]
    hub = PubSubHub(loop=asyncio.get_running_loop())
    for number, handler in enumerate(handlers):
        hub.subscribe(f"session-{number}", handler)

    async def timed(send: Callable[[], object]) -> float:
        done.clear()
        start = time.perf_counter()
        kept = send()
        await done.wait()
        took = time.perf_counter() - start
        del kept
        await asyncio.sleep(0.001)
        return took

    def create_tasks() -> object:
        return [asyncio.ensure_future(handler("hello")) for handler in handlers]

    ours, floor = [], []
    for _ in range(ROUNDS):
        ours.append(await timed(lambda: hub.send_all("hello")))
        floor.append(await timed(create_tasks))
    report(what, ours, "create_task", floor)


if __name__ == "__main__":
    inline()
    asyncio.run(on_loop("async handlers that do not suspend", make_async))
    asyncio.run(on_loop("async handlers that suspend once", make_suspending))
