"""Closing a hub: what is queued is delivered, for so long, and what is left is reported."""

import asyncio
import contextlib
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from delivery_modes import (
    ASYNC,
    DEADLINE,
    INLINE,
    Bus,
    Gate,
    LoopThread,
    Recorder,
    WatchedExecutor,
    collect_garbage,
    in_threads,
    numbers,
)
from pagebus import HubClosed, PubSubHub

SOON = 0.05
"""A timeout for what never comes."""


class Closing:
    """``hub.close()`` on a thread of its own, under way."""

    def __init__(self, hub: PubSubHub, timeout: float | None = DEADLINE) -> None:
        self.result: Future[None] = Future()
        self._hub = hub
        threading.Thread(target=self._close, args=(timeout,), daemon=True).start()
        deadline = time.monotonic() + DEADLINE
        while not hub.closed:
            assert time.monotonic() < deadline, "it does not begin to close"

    def _close(self, timeout: float | None) -> None:
        try:
            self._hub.close(timeout)
            self.result.set_result(None)
        except BaseException as error:
            self.result.set_exception(error)

    def wait(self) -> None:
        self.result.result(DEADLINE)


def queue(bus: Bus, count: int = 50) -> tuple[Recorder, Gate]:
    """A handler of Ann's that is at a closed gate, with messages behind it."""
    gate = bus.gate()
    got = bus.recorder(gate)
    bus.subscribe("ann", got.handler)
    for message in range(count):
        bus.hub.send_all(message)
    gate.arrivals.wait(1)
    return got, gate


def test_close_returns_when_everything_queued_is_delivered(queued_bus: Bus):
    got, gate = queue(queued_bus)

    closing = Closing(queued_bus.hub)
    with pytest.raises(HubClosed):
        queued_bus.hub.send_all("too late")
    assert not closing.result.done()
    gate.open()
    closing.wait()

    assert got == list(range(50))
    assert numbers(queued_bus.hub)["pending"] == numbers(queued_bus.hub)["subscriptions"] == 0


def test_what_is_left_after_the_timeout_is_given_up_counted_and_logged(queued_bus: Bus, log: Any):
    got, gate = queue(queued_bus)
    queued_bus.wait_until_handed_on()

    queued_bus.hub.close(timeout=SOON)
    gate.open()
    queued_bus.settle()

    assert got == [0]
    stats = queued_bus.hub.stats()
    assert (stats.dropped, stats.pending, stats.subscriptions) == (49, 0, 0)
    (record,) = log.take(1)
    assert record.levelname == "ERROR"
    assert "before 49 deliveries were made and 1 handler was done" in record.getMessage()


def blocked_in_the_middle(bus: Bus, last: Callable[[Any], Any]) -> tuple[Recorder, Gate]:
    """A message that blocks the deliverer in the second of five handlers, which ends as `last`."""
    gate, got = bus.gate(), Recorder()

    def block(message: Any) -> None:
        gate.wait()
        last(message)

    async def block_async(message: Any) -> None:
        block(message)

    for number in range(5):
        blocks = block_async if bus.mode.is_async else block
        quick = bus.handler(lambda message, number=number: got.record(number))
        bus.subscribe(str(number), blocks if number == 1 else quick)
    return got, gate


@pytest.mark.parametrize("bus", [*ASYNC, *INLINE], indirect=True, ids=str)
def test_who_is_left_of_a_message_whose_deliverer_is_blocked_is_counted(bus: Bus, log: Any):
    got, gate = blocked_in_the_middle(bus, str)
    sender = threading.Thread(target=bus.hub.send_others, args=("3", "hello"), daemon=True)
    sender.start()
    gate.arrivals.wait(1)

    bus.hub.close(timeout=SOON)
    stats = bus.hub.stats()
    gate.open()
    sender.join(DEADLINE)
    bus.settle()

    assert got == [0]
    assert (stats.dropped, bus.hub.stats().dropped) == (2, 2)
    (record,) = log.take(1)
    assert "before 2 deliveries were made" in record.getMessage()


def test_a_closed_hub_keeps_no_message_that_a_handler_left_half_way(inline_bus: Bus, log: Any):
    class Message: ...

    def end(message: Any) -> None:
        raise SystemExit

    _, gate = blocked_in_the_middle(inline_bus, end)

    def send() -> None:
        with contextlib.suppress(SystemExit):
            inline_bus.hub.send_all(messages.pop())

    messages = [Message()]
    gone = weakref.ref(messages[0])
    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    gate.arrivals.wait(1)
    inline_bus.hub.close(timeout=SOON)
    gate.open()
    sender.join(DEADLINE)
    collect_garbage()

    assert gone() is None
    log.take(1)


def test_who_is_left_of_a_message_between_two_turns_of_the_loop_is_counted(
    async_bus: Bus, log: Any
):
    got = Recorder()

    async def slow(message: Any) -> None:
        got.record(message)
        # Longer than a turn.
        ends = time.perf_counter() + 0.002
        while time.perf_counter() < ends:
            pass

    for number in range(50):
        async_bus.subscribe(str(number), slow)

    async def send_and_close() -> None:
        async_bus.hub.send_all("hello")
        got_before = len(got)
        while len(got) == got_before:
            await asyncio.sleep(0)
        await async_bus.hub.aclose(timeout=0)

    async_bus.loop.run_async(send_and_close())
    stats = async_bus.hub.stats()
    async_bus.settle()

    assert 0 < len(got) < 50
    assert len(got) + stats.dropped == 50
    (record,) = log.take(1)
    assert f"before {stats.dropped} deliveries were made" in record.getMessage()


def suspended_on_a_closed_loop(thread: LoopThread, hub: PubSubHub, handler: Any, gate: Gate) -> Any:
    """Suspends a handler of Ann's, with two messages behind it, for ever; returns its tasks."""
    thread.run(hub.subscribe, "ann", handler)
    for message in range(3):
        hub.send_all(message)
    gate.arrivals.wait(1)
    thread.spin()
    tasks = thread.run(asyncio.all_tasks, thread.loop)
    thread.loop.set_exception_handler(None)
    thread.stop()
    thread.loop.close()
    return tasks


@pytest.mark.parametrize("leaves", [False, True], ids=["stays", "leaves"])
@pytest.mark.parametrize("loop_of", ["hub", "subscriber", "sync handler"])
def test_close_does_not_wait_for_a_handler_whose_loop_is_closed(
    loop_of: str, leaves: bool, log: Any
):
    thread, gate = LoopThread(), Gate()
    hub = PubSubHub(thread.loop if loop_of == "hub" else None)
    is_sync = loop_of == "sync handler"
    handler = (lambda message: gate.passed(message)) if is_sync else gate.passed
    tasks = suspended_on_a_closed_loop(thread, hub, handler, gate)
    if leaves:
        hub.unsubscribe_all("ann")

    Closing(hub, timeout=None).wait()

    lost = "" if leaves else "2 deliveries were made and "
    assert hub.stats().dropped == (0 if leaves else 2)
    (record,) = log.take(1)
    assert record.getMessage() == f"the hub closed before {lost}1 handler was done"
    del tasks
    collect_garbage()  # asyncio logs that the task is pending.


def test_close_waits_for_others_than_those_whose_loop_is_closed(log: Any):
    hub, gone, living, gates = PubSubHub(), LoopThread(), LoopThread(), [Gate(), Gate()]
    living.run(hub.subscribe_topic, "bob", "lobby", lambda topic, message: gates[1].passed())
    hub.send_all_on_topic("lobby", "hello")
    gates[1].arrivals.wait(1)
    tasks = suspended_on_a_closed_loop(gone, hub, gates[0].passed, gates[0])

    closing = Closing(hub, timeout=None)
    log.take(1)
    # They go before it ends, and not once more.
    del tasks
    collect_garbage()
    assert not closing.result.done()
    gates[1].open()
    closing.wait()

    assert hub.stats().dropped == 2
    living.close()


def test_close_waits_for_handlers_that_are_running(bus: Bus):
    gate, ended = bus.gate(), Recorder()
    bus.subscribe("ann", bus.handler(ended.record, gate))
    sender = threading.Thread(target=bus.hub.send_all, args=("hello",), daemon=True)
    sender.start()
    gate.arrivals.wait(1)

    closing = Closing(bus.hub)
    assert not closing.result.done()
    gate.open()
    closing.wait()

    assert ended == ["hello"]
    sender.join(DEADLINE)
    bus.settle()


def test_an_idle_hub_closes_at_once_and_lets_its_handlers_go(bus: Bus):
    class Page:
        def on_message(self, message: Any) -> None: ...

    page = Page()
    subscription = bus.subscribe("ann", bus.handler(page.on_message))
    gone = weakref.ref(page)
    del page

    bus.hub.close(timeout=None)
    collect_garbage()

    assert bus.hub.closed
    assert not subscription.active
    assert gone() is None


@pytest.mark.parametrize(
    ("handlers", "left"),
    [
        (1, "1 delivery was made and 1 handler was done"),
        (2, "2 deliveries were made and 2 handlers were done"),
    ],
)
def test_the_log_counts_what_is_given_up_as_people_do(handlers: int, left: str, log: Any):
    thread, gate = LoopThread(), Gate()
    hub = PubSubHub(thread.loop)
    for number in range(handlers):
        hub.subscribe_topic(str(number), "lobby", lambda _, message: gate.passed(message))
        hub.subscribe(str(number), gate.passed)
    for _ in range(2):
        hub.send_all("hello")
    gate.arrivals.wait(handlers)
    thread.spin()

    hub.close(timeout=0)

    (record,) = log.take(1)
    assert record.getMessage() == f"the hub closed before {left}"
    gate.open()
    thread.spin()
    thread.close()


def test_close_waits_for_the_report_of_a_loss_whichever_thread_makes_it(log: Any):
    thread, blocked, report, events = LoopThread(), Gate(), Gate(), Recorder()

    def tell(overflow: Any) -> None:
        report.wait(overflow)
        events.record("reported")

    hub = PubSubHub(thread.loop, max_pending=1, on_overflow=tell)
    hub.subscribe("ann", events.record_async)
    thread.loop.call_soon_threadsafe(blocked.wait)
    sender = threading.Thread(target=lambda: [hub.send_all(number) for number in range(2)])
    sender.start()
    report.arrivals.wait(1)

    closing = Closing(hub, timeout=None)
    blocked.open()
    events.wait(1)
    thread.spin()
    assert not closing.result.done()
    report.open()
    closing.wait()

    assert events == [1, "reported", "reported"]
    sender.join()
    thread.close()
    log.take(1)


def test_closing_twice_is_as_good_as_once(queued_bus: Bus):
    got, gate = queue(queued_bus)

    first, second = Closing(queued_bus.hub), Closing(queued_bus.hub)
    gate.open()
    first.wait()
    second.wait()
    queued_bus.hub.close()

    assert got == list(range(50))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_a_handler_left_undelivered_that_ends_the_program_is_delivered_by_close(
    error: type[BaseException], log: Any
):
    hub, got = PubSubHub(), Recorder()

    def end(message: Any) -> None:
        raise error

    hub.subscribe("ann", end)
    hub.subscribe("bob", got.handler)
    with pytest.raises(error), hub:
        hub.send_all("last words")

    assert got == ["last words"]
    assert hub.stats().dropped == 0


def test_close_does_not_wait_for_what_a_handler_that_ends_the_program_has_finished():
    hub = PubSubHub()

    def end(message: Any) -> None:
        raise SystemExit

    hub.subscribe("ann", end)
    with pytest.raises(SystemExit):
        hub.send_all("last words")
    Closing(hub, timeout=None).wait()

    assert hub.stats().subscriptions == 0


def test_the_shorter_of_two_timeouts_ends_both(queued_bus: Bus, log: Any):
    _, gate = queue(queued_bus)

    patient = Closing(queued_bus.hub, None)
    queued_bus.hub.close(SOON)
    patient.wait()

    gate.open()
    log.take(1)


def test_what_two_give_up_at_the_same_time_is_logged_once(async_bus: Bus, log: Any):
    got, gate = queue(async_bus)

    async def close_twice() -> None:
        await asyncio.gather(async_bus.hub.aclose(0), async_bus.hub.aclose(0))

    async_bus.loop.run_async(close_twice())
    gate.open()
    async_bus.settle()

    assert got == [0]
    log.take(1)


def test_a_hook_in_a_send_that_closes_the_hub_does_not_wait_for_what_is_sent(log: Any):
    hub: PubSubHub
    got = Recorder()

    def close(overflow: Any) -> None:
        hub.close(timeout=None)

    def handler(message: Any) -> None:
        got.record(message)
        if message == "first":
            hub.send_all("queued")
            raise SystemExit

    hub = PubSubHub(max_pending=1, on_overflow=close)
    hub.subscribe("ann", handler)
    with pytest.raises(SystemExit):
        hub.send_all("first")
    in_threads(lambda: hub.send_all("last"))

    assert got == ["first", "last"]
    assert hub.closed
    log.take(1)


def test_a_handler_that_closes_the_hub_does_not_wait_for_itself(bus: Bus):
    got, closed = bus.recorder(), Recorder()

    def close(topic: str, message: Any) -> None:
        bus.hub.close(timeout=None)
        closed.record("closed")

    bus.subscribe("bob", got.handler)
    bus.subscribe_topic("ann", "admin", bus.handler(close))

    def send() -> None:
        bus.hub.send_all("before")
        bus.hub.send_all_on_topic("admin", "close")

    bus.run(send)
    closed.wait(1)
    bus.settle()

    assert bus.hub.closed
    assert got == ["before"]
    # A closed hub that has nothing left to do lets everybody go.
    assert numbers(bus.hub)["subscriptions"] == 0


def test_closing_while_ten_threads_send_loses_nothing_that_was_accepted(bus: Bus):
    bus.hub = bus.new_hub(max_pending=100_000)
    got, accepted = bus.recorder(), Recorder()
    bus.subscribe("ann", got.handler)
    begun = Recorder()

    def send(thread: int) -> None:
        for number in range(5000):
            try:
                bus.hub.send_all((thread, number))
            except HubClosed:
                return
            accepted.record((thread, number))
            if number == 10:
                begun.record(thread)

    def close() -> None:
        begun.wait(10)
        bus.hub.close(timeout=DEADLINE)

    in_threads(close, *(lambda thread=thread: send(thread) for thread in range(10)))
    bus.settle()

    assert sorted(got) == sorted(accepted)


def test_the_event_loops_own_thread_does_not_wait_for_itself(async_bus: Bus):
    got = async_bus.recorder()
    async_bus.subscribe("ann", got.handler)

    def send_and_close() -> None:
        async_bus.hub.send_all("hello")
        async_bus.hub.close(timeout=None)

    async_bus.run(send_and_close)
    async_bus.settle()

    assert got == ["hello"]


def test_a_loop_that_has_nothing_to_do_with_the_hub_is_not_stopped_by_close_either(
    executor_bus: Bus,
):
    got, gate = queue(executor_bus)

    async def close() -> None:
        executor_bus.hub.close(timeout=None)

    # The gate is still closed: had it waited, it would wait for ever.
    asyncio.run(close())
    assert executor_bus.hub.closed
    gate.open()
    executor_bus.settle()

    assert got == list(range(50))


@pytest.mark.usefixtures("_ctrl_c")
def test_ctrl_c_ends_the_wait_and_what_is_queued_is_still_delivered(queued_bus: Bus):
    got, gate = queue(queued_bus)

    told: list[int] = []

    def on_signal(signum: int, _: Any) -> None:
        if not told:
            told.append(signum)
            raise KeyboardInterrupt

    def interrupt() -> None:
        while not queued_bus.hub.closed:
            time.sleep(0)
        # CPython notices a signal late that comes just before a lock is waited for, hub or no hub.
        while not told:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0)

    signal.signal(signal.SIGINT, on_signal)  # The fixture puts back what was there.
    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        queued_bus.hub.close(timeout=None)
    interrupter.join()
    gate.open()
    Closing(queued_bus.hub).wait()

    assert got == list(range(50))
    assert queued_bus.hub.stats().dropped == 0


def test_aclose_refuses_what_comes_next_before_it_is_awaited():
    hub = PubSubHub()

    closing = hub.aclose()
    with pytest.raises(HubClosed):
        hub.send_all("too late")

    asyncio.run(closing)


def test_aclose_lets_the_loop_deliver_what_is_queued(async_bus: Bus):
    got = async_bus.recorder()
    async_bus.subscribe("ann", got.handler)

    async def send_and_close() -> list[Any]:
        for message in range(1000):
            async_bus.hub.send_all(message)
        await async_bus.hub.aclose(timeout=None)
        return list(got)

    assert async_bus.loop.run_async(send_and_close()) == list(range(1000))


def test_aclose_gives_up_what_is_left_after_the_timeout(async_bus: Bus, log: Any):
    got, gate = queue(async_bus)

    async_bus.loop.run_async(async_bus.hub.aclose(timeout=SOON))
    gate.open()
    async_bus.settle()

    assert got == [0]
    assert numbers(async_bus.hub)["dropped"] == 49
    log.take(1)


def test_an_aclose_that_is_cancelled_leaves_the_hub_to_deliver_the_rest(async_bus: Bus):
    got, gate = queue(async_bus)

    async def close_for_a_moment() -> None:
        closing = asyncio.ensure_future(async_bus.hub.aclose(timeout=None))
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing

    async_bus.loop.run_async(close_for_a_moment())
    gate.open()
    async_bus.settle()

    assert got == list(range(50))


def test_an_async_handler_may_await_the_end_without_waiting_for_itself():
    loop, got = LoopThread(), Recorder()
    hub = PubSubHub(loop.loop)

    async def close(message: Any) -> None:
        await asyncio.sleep(0)
        await hub.aclose(timeout=None)
        got.record(message)

    hub.subscribe("ann", close)
    hub.send_all("close")
    got.wait(1)
    loop.spin()
    loop.close()

    assert hub.closed


def test_an_async_handler_of_another_hub_waits_for_the_end():
    loop, got = LoopThread(), Recorder()
    hub, other = PubSubHub(loop.loop), PubSubHub(loop.loop)
    gate = Gate()

    async def wait(message: Any) -> None:
        await gate.passed()
        got.record(message)

    async def close(message: Any) -> None:
        asyncio.get_running_loop().call_soon(gate.open)
        await other.aclose(timeout=None)
        got.record(message)

    other.subscribe("ann", wait)
    hub.subscribe("bob", close)
    other.send_all("delivered")
    gate.arrivals.wait(1)
    hub.send_all("closed")
    got.wait(2)
    loop.spin()
    loop.close()

    assert got == ["delivered", "closed"]


def test_nobody_is_told_of_the_end_whose_loop_is_closed(queued_bus: Bus, told: list[Any]):
    _, gate = queue(queued_bus)

    async def cancelled() -> None:
        await asyncio.wait_for(queued_bus.hub.aclose(timeout=None), SOON)

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(cancelled())
    gate.open()
    Closing(queued_bus.hub).wait()

    assert told == []


def test_a_handler_on_a_worker_may_run_a_loop_to_the_end_without_waiting_for_itself():
    executor, got = WatchedExecutor(1), Recorder()
    hub = PubSubHub(executor=executor)

    def close(message: Any) -> None:
        asyncio.run(hub.aclose(timeout=None))
        got.record(message)

    hub.subscribe("ann", close)
    hub.send_all("close")
    got.wait(1)
    executor.shutdown()

    assert hub.closed


def test_with_closes_the_hub_when_its_block_ends():
    got = Recorder()
    with ThreadPoolExecutor() as executor:
        with PubSubHub(executor=executor) as hub:
            hub.subscribe("ann", got.record)
            for message in range(100):
                hub.send_all(message)

        assert got == list(range(100))
        with pytest.raises(HubClosed):
            hub.subscribe("ann", got.record)


def test_with_closes_the_hub_and_lets_an_error_through():
    with pytest.raises(ZeroDivisionError), PubSubHub() as hub:
        1 / 0  # noqa: B018 - it raises

    assert hub.closed


def test_async_with_closes_the_hub_when_its_block_ends():
    async def main() -> list[int]:
        got: list[int] = []

        async def handler(message: int) -> None:
            await asyncio.sleep(0)
            got.append(message)

        async with PubSubHub(asyncio.get_running_loop()) as hub:
            hub.subscribe("ann", handler)
            for message in range(100):
                hub.send_all(message)
        assert hub.closed
        return got

    assert asyncio.run(main()) == list(range(100))


@pytest.mark.parametrize("timeout", ["5", True, object()])
def test_a_timeout_that_is_no_number_of_seconds_is_refused_and_the_hub_stays_open(timeout: Any):
    hub = PubSubHub()

    for close in (hub.close, hub.aclose):
        with pytest.raises(TypeError, match="timeout"):
            close(timeout)
    assert not hub.closed


@pytest.mark.parametrize("timeout", [-1, -0.5, float("nan")])
def test_a_negative_timeout_is_refused_and_the_hub_stays_open(timeout: float):
    hub = PubSubHub()

    for close in (hub.close, hub.aclose):
        with pytest.raises(ValueError, match="timeout"):
            close(timeout)
    assert not hub.closed


def test_a_timeout_of_zero_gives_up_at_once_and_an_endless_one_is_for_ever(
    queued_bus: Bus, log: Any
):
    _, gate = queue(queued_bus)
    queued_bus.hub.close(timeout=0)
    gate.open()
    log.take(1)

    idle = PubSubHub()
    idle.close(timeout=float("inf"))
    assert idle.closed


def test_hub_closed_is_a_runtime_error():
    assert issubclass(HubClosed, RuntimeError)
