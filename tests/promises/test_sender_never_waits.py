"""Promise 4: a send costs the same for any number of subscribers, and handlers cannot reach it."""

import asyncio
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from delivery_modes import (
    DEADLINE,
    LOOPS,
    Bus,
    Gate,
    LoopThread,
    Recorder,
    WatchedExecutor,
    in_threads,
    turns_of_the_loop,
)
from pagebus import PubSubHub


def test_a_send_returns_while_every_handler_is_blocked(queued_bus: Bus):
    gate = queued_bus.gate()
    recorders = [queued_bus.recorder(gate) for _ in range(8)]
    for number, got in enumerate(recorders):
        queued_bus.subscribe(f"session {number}", got.handler)

    for message in range(100):
        queued_bus.hub.send_all(message)
    gate.arrivals.wait(1)

    assert all(got == [] for got in recorders)
    gate.open()
    assert [got.wait(100) for got in recorders] == [list(range(100))] * 8


def test_a_send_from_the_loops_own_thread_calls_no_handler_itself(async_bus: Bus):
    got = async_bus.recorder()
    async_bus.subscribe("ann", got.handler)

    def send_and_look() -> list[Any]:
        async_bus.hub.send_all("hello")
        return list(got)

    assert async_bus.run(send_and_look) == []
    assert got.wait(1) == ["hello"]


class CountingLoop(asyncio.SelectorEventLoop):
    """A loop that counts what is scheduled on it."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduled = 0

    def call_soon(self, *args: Any, **kwargs: Any) -> asyncio.Handle:
        self.scheduled += 1
        return super().call_soon(*args, **kwargs)

    def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> asyncio.Handle:
        self.scheduled += 1
        return super().call_soon_threadsafe(*args, **kwargs)


def scheduled_by_a_send(subscribers: int) -> int:
    """How many callbacks one send to that many async handlers puts on the loop."""
    thread = LoopThread(CountingLoop)
    loop, hub, got = thread.loop, PubSubHub(loop=thread.loop), Recorder()

    def send_and_count() -> int:
        before = loop.scheduled
        hub.send_all("hello")
        return loop.scheduled - before

    for number in range(subscribers):
        hub.subscribe(f"session {number}", got.record_async)
    count = thread.run(send_and_count)
    got.wait(subscribers)
    thread.close()
    return count


def test_a_send_to_ten_thousand_schedules_no_more_than_a_send_to_one():
    assert scheduled_by_a_send(10_000) == scheduled_by_a_send(1) <= 2


NOBODY_GETS: dict[str, Callable[[PubSubHub], None]] = {
    "a topic that nobody has heard of": lambda hub: hub.send_all_on_topic("elsewhere", "hello"),
    "a topic that everybody has left": lambda hub: hub.send_all_on_topic("left", "hello"),
    "only the sender would get it": lambda hub: hub.send_others("ann", "hello"),
    "only the sender is on the topic": lambda hub: hub.send_others_on_topic("ann", "own", "hello"),
}


@pytest.mark.thread_unsafe(reason="memory blocks are counted for the whole process")
@pytest.mark.parametrize("send", NOBODY_GETS.values(), ids=NOBODY_GETS)
def test_what_nobody_gets_makes_nothing_and_wakes_nobody(send: Callable[[PubSubHub], None]):
    loop, executor = CountingLoop(), WatchedExecutor(1)
    hub = PubSubHub(loop, executor)

    async def on_topic(topic: str, message: Any) -> None:
        raise AssertionError("nobody gets it")

    hub.subscribe("ann", lambda message: None)
    hub.subscribe_topic("ann", "own", on_topic)
    hub.subscribe_topic("ann", "left", on_topic).cancel()

    send(hub)
    blocks = sys.getallocatedblocks()
    for _ in range(1000):
        send(hub)
    made = sys.getallocatedblocks() - blocks

    assert (loop.scheduled, executor.submitted) == (0, 0)
    assert made < 10, "a thousand sends leave no objects behind"
    assert hub.stats().pending == 0
    loop.close()
    executor.shutdown()


def test_a_send_to_a_thousand_sessions_submits_no_more_than_there_are_workers():
    executor, busy, got = WatchedExecutor(2), Gate(), Recorder()
    for _ in range(2):
        executor.submit(busy.wait)
    hub = PubSubHub(executor=executor)
    for number in range(1000):
        hub.subscribe(f"session {number}", got.record)

    before = executor.submitted
    for message in range(100):
        hub.send_all(message)

    assert executor.submitted - before <= 2
    busy.open()
    got.wait(100_000)
    executor.shutdown()


class Outrage(BaseException):
    """An error that ``except Exception`` does not catch."""


ERRORS = [ValueError("no"), Outrage("no"), StopIteration(1), GeneratorExit()]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_no_error_of_a_handler_reaches_the_sender_or_the_others(
    bus: Bus, log: Any, error: BaseException
):
    before, after = bus.recorder(), bus.recorder()

    def fail(message: Any) -> None:
        raise error

    bus.subscribe("ann", before.handler)
    bus.subscribe("bob", bus.handler(fail))
    bus.subscribe("cat", after.handler)

    bus.hub.send_all(1)
    bus.run(bus.hub.send_all, 2)
    bus.settle()

    assert before == after == [1, 2]
    assert bus.hub.stats().failed == 2
    log.take(2)


def test_a_cancellation_raised_by_a_sync_handler_stays_with_it(bus: Bus, log: Any):
    got = bus.recorder()

    def give_up(message: Any) -> None:
        raise asyncio.CancelledError

    bus.subscribe("ann", bus.handler(give_up))
    bus.subscribe("bob", got.handler)

    bus.run(bus.hub.send_all, 1)
    bus.run(bus.hub.send_all, 2)
    bus.settle()

    assert got == [1, 2]
    log.take_all()


QUITS = [KeyboardInterrupt, SystemExit]
"""What means the whole process, not the handler in which it happens to be raised."""


@pytest.mark.parametrize("quit_", QUITS)
def test_what_ends_the_process_passes_through_an_inline_send_and_nothing_is_lost(
    inline_bus: Bus, log: Any, quit_: type[BaseException]
):
    before, after = inline_bus.recorder(), inline_bus.recorder()

    def end(message: Any) -> None:
        if message == 1:
            raise quit_

    inline_bus.subscribe("ann", before.handler)
    inline_bus.subscribe("bob", end)
    inline_bus.subscribe("cat", after.handler)

    with pytest.raises(quit_):
        inline_bus.hub.send_all(1)
    inline_bus.hub.send_all(2)

    assert before == after == [1, 2]
    log.take_all()


@pytest.mark.parametrize("suspends", [False, True], ids=["straight", "suspended"])
@pytest.mark.parametrize("kind", LOOPS)
@pytest.mark.parametrize("quit_", QUITS)
def test_what_ends_the_process_stops_the_loop_as_in_any_task_and_nothing_is_lost(
    kind: str, quit_: type[BaseException], suspends: bool, log: Any
):
    loop = LOOPS[kind]()
    hub, before, after = PubSubHub(loop), Recorder(), Recorder()

    async def end(message: Any) -> None:
        if suspends:
            await asyncio.sleep(0)
        if message == 1:
            raise quit_

    hub.subscribe("ann", before.record_async)
    hub.subscribe("bob", end)
    hub.subscribe("cat", after.record_async)
    hub.send_all(1)
    hub.send_all(2)

    with pytest.raises(quit_):
        loop.run_until_complete(asyncio.wait_for(loop.create_future(), DEADLINE))
    for task in asyncio.all_tasks(loop):
        if "wait_for" in repr(task):
            task.cancel()
    loop.run_until_complete(turns_of_the_loop(20))
    loop.close()

    assert before == after == [1, 2]
    log.take_all()


@pytest.mark.parametrize("quit_", QUITS)
def test_what_would_end_the_process_does_not_end_a_worker(quit_: type[BaseException], log: Any):
    executor, got = WatchedExecutor(1), Recorder()
    hub = PubSubHub(executor=executor)

    def end(message: Any) -> None:
        raise quit_

    hub.subscribe("ann", end)
    hub.subscribe("bob", got.record)
    for message in range(3):
        hub.send_all(message)

    assert got.wait(3) == [0, 1, 2]
    executor.wait_idle()
    executor.shutdown()
    log.take(3)


def test_an_inline_send_has_been_delivered_when_it_returns(inline_bus: Bus):
    seen: list[tuple[Any, int]] = []
    inline_bus.subscribe("ann", lambda message: seen.append((message, threading.get_ident())))

    for message in range(10):
        inline_bus.hub.send_all(message)
        assert seen[-1] == (message, threading.get_ident())


def test_an_inline_send_while_another_thread_delivers_returns_at_once(inline_bus: Bus):
    gate = inline_bus.gate()
    got = inline_bus.recorder(gate)
    inline_bus.subscribe("ann", got.handler)
    busy = threading.Thread(target=inline_bus.hub.send_all, args=("first",))
    busy.start()
    gate.arrivals.wait(1)

    inline_bus.hub.send_all("second")
    assert got == []

    gate.open()
    busy.join(DEADLINE)
    assert got.wait(2) == ["first", "second"]


def test_messages_sent_before_the_loop_runs_are_delivered_when_it_does(log: Any):
    loop, got = asyncio.new_event_loop(), Recorder()
    hub = PubSubHub(loop)
    hub.subscribe("ann", got.record_async)
    for message in range(10):
        hub.send_all(message)
    assert got == []

    async def until_all_came() -> None:
        while len(got) < 10:
            await asyncio.sleep(0)

    loop.run_until_complete(asyncio.wait_for(until_all_came(), DEADLINE))
    loop.close()

    assert got == list(range(10))


def test_a_loop_that_stops_and_runs_again_loses_nothing():
    loop, got = asyncio.new_event_loop(), Recorder()
    hub = PubSubHub(loop)
    hub.subscribe("ann", got.record_async)

    async def until(count: int) -> None:
        while len(got) < count:
            await asyncio.sleep(0)

    for round_ in range(1, 6):
        hub.send_all(round_)
        loop.run_until_complete(asyncio.wait_for(until(round_), DEADLINE))
    loop.close()

    assert got == [1, 2, 3, 4, 5]


def test_a_send_inside_a_handler_does_not_wait_for_its_own_delivery(bus: Bus):
    got = bus.recorder()
    seen_inside: list[int] = []

    def reply(message: Any) -> None:
        if message == "question":
            bus.hub.send_all("answer")
            seen_inside.append(list(got).count("answer"))

    # The same session: its handlers never overlap, so the answer cannot be here already.
    bus.subscribe("ann", bus.handler(reply))
    bus.subscribe("ann", got.handler)
    bus.run(bus.hub.send_all, "question")
    bus.settle()

    assert seen_inside == [0]
    assert got == ["question", "answer"]


def test_many_senders_at_once_never_wait_for_a_blocked_handler(queued_bus: Bus):
    gate = queued_bus.gate()
    got = queued_bus.recorder(gate)
    queued_bus.subscribe("ann", got.handler)

    def send() -> None:
        for message in range(100):
            queued_bus.hub.send_all(message)

    in_threads(*[send] * 4)
    gate.open()

    assert sorted(got.wait(400)) == sorted(list(range(100)) * 4)
