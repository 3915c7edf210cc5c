"""What a sync handler returned and nobody can await: a failure that helps, and no noise."""

import asyncio
import gc
import warnings
from collections.abc import Callable, Generator
from typing import Any

import pytest

from delivery_modes import LOOPS, Recorder, WatchedExecutor
from pagebus import PubSubHub


async def work(message: Any) -> None:
    """What a lambda of an app makes of a message."""


class Work:
    """An awaitable that is no coroutine, and has no ``close()``."""

    def __await__(self) -> Any:
        return iter([None])


class GeneratorWork:
    """An awaitable whose ``__await__`` is a generator."""

    def __await__(self) -> Generator[None, None, None]:
        yield


AWAITABLES = {
    "a coroutine": work,
    "an iterator": lambda message: Work(),
    "a generator": lambda message: GeneratorWork(),
}


def deliver(hub: PubSubHub, executor: WatchedExecutor | None, make: Any) -> list[str]:
    """Send to a handler that returns what ``make`` makes; what Python warned of meanwhile."""
    got = Recorder()
    hub.subscribe("ann", lambda message: make(message))
    hub.subscribe("ann", got.record)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hub.send_all("hello")
        got.wait(1)
        if executor:
            executor.shutdown()
        gc.collect()
    return [str(warning.message) for warning in caught]


@pytest.mark.thread_unsafe(reason="warnings are caught for the whole process")
@pytest.mark.parametrize("make", AWAITABLES.values(), ids=AWAITABLES)
@pytest.mark.parametrize("workers", [0, 1], ids=["inline", "executor"])
def test_without_a_loop_the_error_says_what_to_pass_and_nothing_else_complains(
    make: Any, workers: int, log: Any
):
    executor = WatchedExecutor(workers) if workers else None
    hub = PubSubHub(executor=executor)

    assert deliver(hub, executor, make) == []

    assert hub.stats().failed == 1
    assert "PubSubHub(loop=...)" in log.text(log.take(1)[0])


@pytest.mark.thread_unsafe(reason="warnings are caught for the whole process")
@pytest.mark.parametrize("make", AWAITABLES.values(), ids=AWAITABLES)
@pytest.mark.parametrize("workers", [0, 1], ids=["inline", "executor"])
@pytest.mark.parametrize("kind", LOOPS)
def test_on_a_closed_loop_the_error_says_so_and_nothing_else_complains(
    kind: str, workers: int, make: Any, log: Any
):
    loop, executor = LOOPS[kind](), WatchedExecutor(workers) if workers else None
    hub = PubSubHub(loop, executor)
    loop.close()

    assert deliver(hub, executor, make) == []

    assert hub.stats().failed == 1
    assert "loop is closed" in log.text(log.take(1)[0])


class Named(tuple[str, Callable[[str], None]]):
    """A handler that is a tuple, too."""

    def __call__(self, message: Any) -> None:
        name, record = self
        record(f"{name}: {message}")


@pytest.mark.parametrize("is_running", [False, True], ids=["no loop", "a running loop"])
def test_a_handler_may_be_a_tuple_that_can_be_called(is_running: bool):
    hub, got = PubSubHub(), Recorder()

    async def subscribe() -> None:
        hub.subscribe("ann", Named(("Ann", got.record)))

    if is_running:
        asyncio.run(subscribe())
    else:
        hub.subscribe("ann", Named(("Ann", got.record)))
    hub.send_all("hello")

    assert got == ["Ann: hello"]
