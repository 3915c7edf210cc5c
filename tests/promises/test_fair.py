"""Promise 10: fan-out runs in slices, and one session's blocking handler holds up nobody else."""

import asyncio
import time
from typing import Any

import pytest

from delivery_modes import LOOPS, Bus, Gate, LoopThread, Recorder, WatchedExecutor
from pagebus import PubSubHub

TURNS = 5
"""How often other callbacks of the loop must get their turn during ten thousand calls, at least."""


def do_some_work() -> None:
    """Take a few microseconds, as the shortest real handler does."""
    sum(range(200))


class TurnCounter:
    """A callback that is always scheduled on the loop, and counts how often it gets its turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.turns = 0
        self.running = True
        self._loop = loop
        loop.call_soon(self._turn)

    def _turn(self) -> None:
        self.turns += 1
        if self.running:
            self._loop.call_soon(self._turn)


def count_turns_while(thread: LoopThread, send: Any, is_done: Any) -> int:
    """Send on the loop's thread; count the loop's turns from then until it is done."""

    async def count() -> int:
        counter = TurnCounter(asyncio.get_running_loop())
        send()
        while not is_done():
            await asyncio.sleep(0)
        counter.running = False
        return counter.turns

    return thread.run_async(count())


@pytest.mark.parametrize("turns", [0, 1], ids=["straight", "suspending"])
def test_the_loop_turns_while_ten_thousand_handlers_are_called(async_bus: Bus, turns: int):
    calls = [0]

    async def handler(message: Any) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        do_some_work()
        calls[0] += 1

    for number in range(10_000):
        async_bus.run(async_bus.hub.subscribe, f"session {number}", handler)

    seen = count_turns_while(
        async_bus.loop, lambda: async_bus.hub.send_all("hello"), lambda: calls[0] == 10_000
    )

    assert seen >= TURNS


def test_the_loop_turns_while_one_handler_gets_ten_thousand_messages(async_bus: Bus):
    calls = [0]

    async def handler(message: Any) -> None:
        do_some_work()
        calls[0] += 1

    async_bus.subscribe("ann", handler)

    seen = count_turns_while(
        async_bus.loop,
        lambda: [async_bus.hub.send_all(message) for message in range(10_000)],
        lambda: calls[0] == 10_000,
    )

    assert seen >= TURNS


def test_the_loop_turns_between_handlers_that_take_their_time(async_bus: Bus):
    calls = [0]

    async def handler(message: Any) -> None:
        time.sleep(0.001)
        calls[0] += 1

    for number in range(100):
        async_bus.subscribe(f"session {number}", handler)

    seen = count_turns_while(
        async_bus.loop, lambda: async_bus.hub.send_all("hello"), lambda: calls[0] == 100
    )

    # A hundred milliseconds of work: a slice that only counted calls would do it in one go.
    assert seen >= TURNS


@pytest.mark.parametrize("kind", LOOPS)
def test_a_handler_that_answers_itself_for_ever_does_not_stop_the_loop(kind: str):
    thread, stop = LoopThread(LOOPS[kind]), [False]
    hub = PubSubHub(thread.loop)

    async def echo(message: int) -> None:
        if not stop[0]:
            hub.send_all(message + 1)

    hub.subscribe("ann", echo)
    hub.send_all(0)
    thread.spin(20)

    stop[0] = True
    thread.spin()
    thread.close()
    assert hub.stats().delivered > 1


def test_a_session_that_answers_itself_for_ever_leaves_its_worker_to_others():
    executor, got, stop = WatchedExecutor(1), Recorder(), [False]
    hub = PubSubHub(executor=executor)

    def echo(topic: str, message: int) -> None:
        if not stop[0]:
            hub.send_all_on_topic("echo", message + 1)

    hub.subscribe_topic("ann", "echo", echo)
    hub.subscribe("bob", got.record)
    hub.send_all_on_topic("echo", 0)
    for message in range(20):
        hub.send_all(message)
        got.wait(message + 1)

    stop[0] = True
    executor.wait_idle()
    executor.shutdown()
    assert got == list(range(20))


def test_a_blocked_session_holds_up_no_other_even_with_two_workers():
    executor, gate, blocked = WatchedExecutor(2), Gate(), Recorder()
    hub = PubSubHub(executor=executor)

    def block(message: Any) -> None:
        gate.wait()
        blocked.record(message)

    hub.subscribe("blocked", block)
    others = [Recorder() for _ in range(50)]
    for number, got in enumerate(others):
        hub.subscribe(f"session {number}", got.record)
    for message in range(50):
        hub.send_all(message)

    for got in others:
        assert got.wait(50) == list(range(50))
    assert blocked == []

    gate.open()
    assert blocked.wait(50) == list(range(50))
    executor.shutdown()


def test_a_message_finds_a_free_worker_while_an_earlier_one_blocks_another(executor_bus: Bus):
    gate = executor_bus.gate()
    slow, quick = executor_bus.recorder(gate), executor_bus.recorder()
    executor_bus.subscribe_topic("ann", "slow", slow.handler)
    executor_bus.subscribe_topic("bob", "quick", quick.handler)
    executor_bus.hub.send_all_on_topic("slow", "first")
    gate.arrivals.wait(1)

    # Nothing was waiting when the handler blocked: the only worker that was needed is stuck.
    for message in range(10):
        executor_bus.hub.send_all_on_topic("quick", message)
        quick.wait(message + 1)

    assert slow == []
    gate.open()
    executor_bus.settle()


def test_six_blocked_sessions_take_six_of_eight_workers_and_no_more():
    executor, gate = WatchedExecutor(8), Gate()
    hub = PubSubHub(executor=executor)
    for number in range(6):
        hub.subscribe(f"blocked {number}", gate.wait)
        hub.subscribe_topic(f"blocked {number}", "lobby", lambda topic, message: gate.wait())
    others = [Recorder() for _ in range(20)]
    for number, got in enumerate(others):
        hub.subscribe(f"session {number}", got.record)

    for message in range(50):
        hub.send_all(message)
        hub.send_all_on_topic("lobby", message)

    for got in others:
        assert got.wait(50) == list(range(50))
    gate.open()
    executor.wait_idle()
    executor.shutdown()


def test_a_busy_session_and_a_quiet_one_take_turns_on_one_worker():
    executor, busy, order = WatchedExecutor(1), Gate(), Recorder()
    executor.submit(busy.wait)
    hub = PubSubHub(executor=executor)
    hub.subscribe_topic("ann", "flood", lambda topic, message: order.record("ann"))
    hub.subscribe("bob", lambda message: order.record("bob"))
    for message in range(5000):
        hub.send_all_on_topic("flood", message)
    hub.send_all("one line of bob's")

    busy.open()
    executor.wait_idle()
    executor.shutdown()

    # In slices: bob need not wait for all five thousand.
    assert len(order) == 5001
    assert order.index("bob") < 2500


def test_an_idle_hub_occupies_no_worker(executor_bus: Bus):
    got = executor_bus.recorder()
    executor_bus.subscribe("ann", got.handler)
    executor_bus.hub.send_all("hello")
    executor_bus.settle()

    everybody = [executor_bus.executor.submit(bool) for _ in range(4)]

    assert [future.result(30) for future in everybody] == [False] * 4
    executor_bus.executor.wait_idle()


def test_an_idle_hub_leaves_the_loop_asleep(async_bus: Bus):
    got = async_bus.recorder()
    async_bus.subscribe("ann", got.handler)
    async_bus.hub.send_all("hello")
    async_bus.settle()

    assert async_bus.run(lambda: asyncio.all_tasks()) == set()
