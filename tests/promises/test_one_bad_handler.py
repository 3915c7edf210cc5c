"""Promise 5: a handler's error is logged, counted and given to the hook; nobody else notices."""

import asyncio
import logging
import traceback
from collections.abc import Callable, Generator
from typing import Any

import pytest

from delivery_modes import Bus, Recorder
from pagebus import HandlerFailure


class PageCrashed(Exception):
    """What a broken page raises."""


def crash(*message: Any) -> None:
    raise PageCrashed(f"cannot show {message[-1]}")


def test_the_log_shows_traceback_session_and_handler_of_a_broadcast(bus: Bus, log: Any):
    def show_message(message: Any) -> None:
        crash(message)

    async def show_message_async(message: Any) -> None:
        crash(message)

    bus.subscribe("session of ann", show_message_async if bus.mode.is_async else show_message)
    bus.hub.send_all("hello")

    (record,) = log.take(1)
    assert (record.name, record.levelno) == ("pagebus", logging.ERROR)
    assert record.exc_info is not None
    assert record.exc_info[0] is PageCrashed
    text = log.text(record)
    assert "session of ann" in record.getMessage()
    assert "show_message" in record.getMessage()
    assert "in crash" in text
    assert "PageCrashed: cannot show hello" in text


def test_the_log_shows_the_topic(bus: Bus, log: Any):
    bus.subscribe_topic("ann", "room with a view", bus.handler(crash))
    bus.hub.send_all_on_topic("room with a view", "hello")

    (record,) = log.take(1)
    assert "room with a view" in record.getMessage()
    assert "ann" in record.getMessage()


def test_everybody_else_still_gets_it_and_the_bad_one_gets_the_next(bus: Bus, log: Any):
    recorders, calls = [bus.recorder() for _ in range(6)], Recorder()

    def fail(message: Any) -> None:
        calls.record(message)
        crash(message)

    for number, got in enumerate(recorders):
        bus.subscribe(f"session {number}", got.handler)
        bus.subscribe(f"session {number}", bus.handler(fail))
        bus.subscribe_topic(f"session {number}", "lobby", bus.handler(fail))

    for message in range(5):
        bus.hub.send_all(message)
    bus.settle()

    assert recorders == [[0, 1, 2, 3, 4]] * 6
    assert sorted(calls) == sorted(list(range(5)) * 6)
    assert bus.hub.stats().failed == 30
    log.take(30)


def test_an_error_after_a_suspension_is_reported_like_one_before_it(async_bus: Bus, log: Any):
    got = async_bus.recorder()

    async def early(message: Any) -> None:
        crash("early")

    async def late(message: Any) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        crash("late")

    for name, handler in (("ann", early), ("bob", got.handler), ("cat", late)):
        async_bus.subscribe(name, handler)
    async_bus.hub.send_all("hello")

    texts = sorted(log.text(record) for record in log.take(2))
    assert "cannot show early" in texts[0] + texts[1]
    assert "cannot show late" in texts[0] + texts[1]
    assert "in late" in texts[0] + texts[1]
    assert got.wait(1) == ["hello"]


def test_the_hook_is_told_everything_after_the_log(bus: Bus, log: Any):
    failures = Recorder()
    logged_before: list[int] = []

    def on_error(failure: HandlerFailure) -> None:
        logged_before.append(len(log.take_all()))
        failures.record(failure)

    bus.hub = bus.new_hub(on_error=on_error)
    broadcast, topic, message = bus.handler(crash), bus.handler(crash), object()
    bus.subscribe("ann", broadcast)
    bus.subscribe_topic("bob", "lobby", topic)

    bus.hub.send_all(message)
    failures.wait(1)
    bus.hub.send_all_on_topic("lobby", message)
    failures.wait(2)

    first, second = failures
    assert logged_before == [1, 1]
    assert (first.session_id, first.topic, second.session_id, second.topic) == (
        "ann",
        None,
        "bob",
        "lobby",
    )
    assert first.handler is broadcast
    assert second.handler is topic
    assert first.message is second.message is message
    assert isinstance(first.exception, PageCrashed)
    frames = traceback.extract_tb(first.exception.__traceback__)
    assert frames[-1].name == "crash"


def test_a_hook_that_raises_is_logged_and_hurts_nobody(bus: Bus, log: Any):
    calls = Recorder()

    def broken_hook(failure: HandlerFailure) -> None:
        calls.record(failure.message)
        raise RuntimeError("the hook is broken too")

    bus.hub = bus.new_hub(on_error=broken_hook)
    got = bus.recorder()
    bus.subscribe("ann", bus.handler(crash))
    bus.subscribe("bob", got.handler)

    bus.hub.send_all(1)
    bus.hub.send_all(2)
    bus.settle()

    assert got == calls == [1, 2]
    text = "\n".join(log.text(record) for record in log.take(4))
    assert text.count("RuntimeError: the hook is broken too") == 2


class Outrage(BaseException):
    """An error that ``except Exception`` does not catch."""


def test_a_hook_that_raises_more_than_an_exception_hurts_nobody_either(bus: Bus, log: Any):
    def broken_hook(failure: HandlerFailure) -> None:
        raise Outrage

    bus.hub = bus.new_hub(on_error=broken_hook)
    got = bus.recorder()
    bus.subscribe("ann", bus.handler(crash))
    bus.subscribe("bob", got.handler)

    bus.hub.send_all("hello")
    bus.settle()

    assert got == ["hello"]
    log.take(2)


def test_a_hook_may_use_the_hub(bus: Bus, log: Any):
    def evict(failure: HandlerFailure) -> None:
        bus.hub.unsubscribe_all(failure.session_id)
        bus.hub.send_all(f"{failure.session_id} was evicted")

    bus.hub = bus.new_hub(on_error=evict)
    got = bus.recorder()
    bus.subscribe("ann", bus.handler(crash))
    bus.subscribe("bob", got.handler)

    bus.run(bus.hub.send_all, "hello")
    bus.settle()

    assert got == ["hello", "ann was evicted"]
    log.take(1)


class Unspeakable(Exception):
    """An error that cannot be shown."""

    def __str__(self) -> str:
        raise ValueError("no words")

    __repr__ = __str__


class Unprintable:
    """A handler that fails, and that cannot be shown."""

    def __call__(self, *message: Any) -> None:
        raise Unspeakable

    def __repr__(self) -> str:
        raise ValueError("no words")


def test_a_handler_and_an_error_that_cannot_be_shown_are_still_logged(inline_bus: Bus, log: Any):
    got = inline_bus.recorder()
    inline_bus.subscribe_topic("ann", "lobby", Unprintable())
    inline_bus.subscribe_topic("bob", "lobby", got.handler)

    inline_bus.hub.send_all_on_topic("lobby", "hello")

    assert got == [("lobby", "hello")]
    (record,) = log.take(1)
    assert "ann" in record.getMessage()
    assert "lobby" in record.getMessage()


def test_a_log_handler_may_use_the_hub(bus: Bus, log: Any):
    class Reporter(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            bus.hub.stats()
            bus.hub.send_all_on_topic("errors", record.levelname)

    got = bus.recorder()
    bus.subscribe("ann", bus.handler(crash))
    bus.subscribe_topic("admin", "errors", got.handler)
    with log.beside(Reporter()):
        bus.hub.send_all("hello")
        bus.settle()

    assert got == [("errors", "ERROR")]
    log.take(1)


def test_a_log_handler_that_raises_hurts_nobody(bus: Bus, log: Any, told: list[Any]):
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("the disk is full")

    got = bus.recorder()
    bus.subscribe("ann", bus.handler(crash))
    bus.subscribe("bob", got.handler)
    with log.beside(Broken()):
        bus.hub.send_all(1)
        bus.hub.send_all(2)
        bus.settle()

    assert got == [1, 2]
    # What cannot be logged goes to sys.unraisablehook, as in a __del__.
    assert [type(error) for error in told] == [OSError, OSError]
    log.take(2)


class Yields:
    """An awaitable that gives the event loop something that it does not understand."""

    def __init__(self, what: Callable[[], Any]) -> None:
        self.what = what

    def __await__(self) -> Generator[Any, Any, None]:
        yield self.what()


FORBIDDEN: dict[str, Callable[[], Any]] = {
    "a number": lambda: 42,
    "a future, not awaited": lambda: asyncio.get_running_loop().create_future(),
    "a generator": lambda: (_ for _ in ()),
    "its own task": asyncio.current_task,
}


@pytest.mark.parametrize("what", FORBIDDEN.values(), ids=FORBIDDEN)
def test_a_handler_that_yields_nonsense_to_the_loop_fails_alone(
    async_bus: Bus, log: Any, what: Callable[[], Any]
):
    before, after = async_bus.recorder(), async_bus.recorder()

    async def nonsense(message: Any) -> None:
        await Yields(what)

    async_bus.subscribe("ann", before.handler)
    async_bus.subscribe("bob", nonsense)
    async_bus.subscribe("cat", after.handler)

    for message in range(3):
        async_bus.hub.send_all(message)
    async_bus.settle()

    assert before == after == [0, 1, 2]
    for record in log.take(3):
        assert record.exc_info is not None
        assert record.exc_info[0] is RuntimeError


def test_a_handler_that_awaits_a_future_of_another_loop_fails_alone(async_bus: Bus, log: Any):
    elsewhere = asyncio.new_event_loop()
    future, got = elsewhere.create_future(), async_bus.recorder()

    async def wrong_loop(message: Any) -> None:
        await future

    async_bus.subscribe("ann", wrong_loop)
    async_bus.subscribe("bob", got.handler)
    async_bus.hub.send_all("hello")
    async_bus.settle()
    elsewhere.close()

    assert got == ["hello"]
    assert "loop" in log.text(log.take(1)[0])


class BrokenAwaitable:
    """An awaitable whose ``__await__`` raises."""

    def __await__(self) -> Generator[Any, Any, None]:
        raise PageCrashed("cannot even be awaited")


class NoIterator:
    """An awaitable whose ``__await__`` does not return an iterator."""

    def __await__(self) -> Any:
        return 42


@pytest.mark.parametrize("awaitable", [BrokenAwaitable, NoIterator])
def test_an_awaitable_that_cannot_be_awaited_fails_alone(
    awaiting_bus: Bus, log: Any, awaitable: type
):
    got = awaiting_bus.recorder()
    awaiting_bus.subscribe("ann", lambda message: awaitable())
    awaiting_bus.subscribe("bob", got.handler)

    awaiting_bus.hub.send_all("hello")
    awaiting_bus.settle()

    assert got == ["hello"]
    log.take(1)


def test_a_deep_recursion_in_a_handler_fails_alone(bus: Bus, log: Any):
    got = bus.recorder()

    def dive(message: Any) -> None:
        dive(message)

    bus.subscribe("ann", bus.handler(dive))
    bus.subscribe("bob", got.handler)
    bus.hub.send_all("hello")
    bus.settle()

    assert got == ["hello"]
    assert log.take(1)[0].exc_info[0] is RecursionError
