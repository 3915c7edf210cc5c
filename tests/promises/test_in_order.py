"""Promise 2: messages reach a handler in the order sent, one at a time, the same for everybody."""

import asyncio
import threading
import time
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
    inversions,
)
from pagebus import PubSubHub

SENDERS = ["a_foreign_thread", "the_apps_thread"]
"""Where a send comes from: a thread that the loop does not know, or the loop's own."""


def send_many(bus: Bus, sender: str, count: int) -> None:
    def send() -> None:
        for message in range(count):
            bus.hub.send_all(message)

    bus.run(send) if sender == "the_apps_thread" else send()


async def vary(message: int) -> None:
    """Take no turn of the loop, or a few, or some real time, depending on the message."""
    if message % 4 == 1:
        await asyncio.sleep(0)
    elif message % 4 == 2:
        await asyncio.sleep(0.002)
    elif message % 4 == 3:
        for _ in range(message % 7):
            await asyncio.sleep(0)


@pytest.mark.parametrize("sender", SENDERS)
def test_200_messages_reach_async_handlers_of_varying_duration_in_order(
    async_bus: Bus, sender: str
):
    recorders = [Recorder() for _ in range(3)]
    for number, got in enumerate(recorders):

        async def handler(message: int, got: Recorder = got, number: int = number) -> None:
            await vary(message + number)
            got.record(message)

        async_bus.subscribe(f"session {number}", handler)

    send_many(async_bus, sender, 200)

    for got in recorders:
        assert inversions(got.wait(200)) == 0
        assert got == list(range(200))


@pytest.mark.parametrize("sender", SENDERS)
def test_200_messages_reach_sync_handlers_of_varying_duration_in_order(
    executor_bus: Bus, sender: str
):
    recorders = [Recorder() for _ in range(3)]
    for number, got in enumerate(recorders):

        def handler(message: int, got: Recorder = got, number: int = number) -> None:
            time.sleep((message + number) % 3 / 1000)
            got.record(message)

        executor_bus.subscribe(f"session {number}", handler)

    send_many(executor_bus, sender, 200)

    for got in recorders:
        assert inversions(got.wait(200)) == 0
        assert got == list(range(200))


@pytest.mark.parametrize("sender", SENDERS)
def test_200_messages_reach_every_kind_of_handler_in_order(bus: Bus, sender: str):
    recorders = [bus.recorder() for _ in range(10)]
    for number, got in enumerate(recorders):
        bus.subscribe(f"session {number % 5}", got.handler)

    send_many(bus, sender, 200)
    bus.settle()

    assert recorders == [list(range(200))] * 10


def test_several_sending_threads_make_one_transcript_for_all_sessions(bus: Bus):
    transcripts = [bus.recorder() for _ in range(5)]
    for number, got in enumerate(transcripts):
        bus.subscribe(f"session {number}", got.handler)

    def talk(name: str) -> None:
        for line in range(50):
            bus.hub.send_all((name, line))

    in_threads(*(lambda name=name: talk(name) for name in "abcd"))
    bus.settle()

    assert len(transcripts[0]) == 200
    assert all(transcript == transcripts[0] for transcript in transcripts)
    for name in "abcd":
        assert [line for who, line in transcripts[0] if who == name] == list(range(50))


def test_the_loops_thread_and_foreign_threads_make_one_transcript_too(async_bus: Bus):
    transcripts = [async_bus.recorder() for _ in range(5)]
    for number, got in enumerate(transcripts):
        async_bus.subscribe(f"session {number}", got.handler)

    def talk(name: str) -> None:
        for line in range(50):
            async_bus.hub.send_all((name, line))

    in_threads(lambda: async_bus.run(talk, "loop"), lambda: talk("thread"), lambda: talk("other"))
    async_bus.settle()

    assert len(transcripts[0]) == 150
    assert all(transcript == transcripts[0] for transcript in transcripts)


@pytest.mark.parametrize("kind", LOOPS)
def test_handlers_on_different_loops_see_the_same_order(kind: str):
    hub = PubSubHub()
    loops = [LoopThread(LOOPS[kind]) for _ in range(3)]
    transcripts = [Recorder() for _ in loops]
    for number, (loop, got) in enumerate(zip(loops, transcripts, strict=True)):
        loop.run(hub.subscribe, f"session {number}", got.record_async)

    def talk(name: str) -> None:
        for line in range(50):
            hub.send_all((name, line))

    in_threads(lambda: talk("a"), lambda: talk("b"), lambda: loops[0].run(talk, "loop"))
    for got in transcripts:
        got.wait(150)
    for loop in loops:
        loop.close()

    assert len(transcripts[0]) == 150
    assert all(transcript == transcripts[0] for transcript in transcripts)


def test_broadcasts_and_topics_keep_their_order_between_them(executor_bus: Bus):
    got = Recorder()
    executor_bus.subscribe("ann", got.record)
    executor_bus.subscribe_topic("ann", "lobby", lambda topic, message: got.record(message))

    for message in range(0, 200, 2):
        executor_bus.hub.send_all(message)
        executor_bus.hub.send_all_on_topic("lobby", message + 1)
    executor_bus.settle()

    assert got == list(range(200))


def test_a_reply_comes_after_its_message_at_every_session(bus: Bus):
    transcripts = [bus.recorder() for _ in range(4)]
    for number, got in enumerate(transcripts[:2]):
        bus.subscribe(f"before {number}", got.handler)

    def reply(message: Any) -> None:
        if isinstance(message, int):
            bus.hub.send_all(f"reply to {message}")

    bus.subscribe("replier", bus.handler(reply))
    for number, got in enumerate(transcripts[2:]):
        bus.subscribe(f"after {number}", got.handler)

    bus.hub.send_all(1)
    bus.settle()
    bus.hub.send_all(2)
    bus.settle()

    assert transcripts == [[1, "reply to 1", 2, "reply to 2"]] * 4


class Overlaps:
    """Counts how many calls run at the same time, at most."""

    def __init__(self) -> None:
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._now -= 1


def test_an_async_handler_never_overlaps_itself(async_bus: Bus):
    overlaps, got = Overlaps(), Recorder()

    async def handler(message: int) -> None:
        with overlaps:
            await vary(message)
        got.record(message)

    async_bus.subscribe("ann", handler)
    send_many(async_bus, "a_foreign_thread", 100)
    got.wait(100)

    assert overlaps.most == 1


def test_sync_handlers_of_one_session_never_overlap_however_many_workers_there_are():
    executor, overlaps, got = WatchedExecutor(8), Overlaps(), Recorder()
    hub = PubSubHub(executor=executor)

    def handler(*message: Any) -> None:
        with overlaps:
            time.sleep(0.0005)
        got.record(message)

    for number in range(8):
        hub.subscribe("ann", lambda message, number=number: handler(message))
        hub.subscribe_topic("ann", f"room {number}", handler)
    for message in range(10):
        hub.send_all(message)
        for number in range(8):
            hub.send_all_on_topic(f"room {number}", message)
    got.wait(160)
    executor.shutdown()

    assert overlaps.most == 1


def test_a_slow_async_handler_delays_only_itself(async_bus: Bus):
    gate = async_bus.gate()
    slow, sibling, other = async_bus.recorder(gate), async_bus.recorder(), async_bus.recorder()
    async_bus.subscribe("ann", slow.handler)
    async_bus.subscribe("ann", sibling.handler)
    async_bus.subscribe("bob", other.handler)

    send_many(async_bus, "a_foreign_thread", 50)
    sibling.wait(50)
    other.wait(50)
    assert slow == []

    gate.open()
    assert slow.wait(50) == sibling == other == list(range(50))


def test_a_slow_sync_handler_delays_only_its_own_session(executor_bus: Bus):
    gate = executor_bus.gate()
    slow, others = executor_bus.recorder(gate), [executor_bus.recorder() for _ in range(10)]
    executor_bus.subscribe("ann", slow.handler)
    for number, got in enumerate(others):
        executor_bus.subscribe(f"session {number}", got.handler)

    send_many(executor_bus, "a_foreign_thread", 50)
    for got in others:
        assert got.wait(50) == list(range(50))
    assert slow == []

    gate.open()
    assert slow.wait(50) == list(range(50))


def test_a_failing_message_does_not_disturb_the_order(bus: Bus, log: Any):
    got = bus.recorder()

    def fail_sometimes(message: int) -> None:
        got.record(message)
        if message % 10 == 3:
            raise ValueError(message)

    bus.subscribe("ann", bus.handler(fail_sometimes))
    send_many(bus, "a_foreign_thread", 40)
    bus.settle()

    assert got == list(range(40))
    assert len(log.take(4)) == 4


def test_a_concurrent_async_handler_starts_in_order_and_overlaps(async_bus: Bus):
    gate = async_bus.gate()
    got = async_bus.recorder(gate)
    async_bus.subscribe("ann", got.handler, concurrent=True)

    send_many(async_bus, "a_foreign_thread", 50)
    gate.arrivals.wait(50)

    assert gate.arrivals == list(range(50))
    assert got == []
    gate.open()
    assert sorted(got.wait(50)) == list(range(50))


def test_a_concurrent_async_handler_that_ends_out_of_order_still_got_everything(async_bus: Bus):
    gates, got, started = {n: Gate() for n in range(5)}, Recorder(), Recorder()

    async def handler(topic: str, message: int) -> None:
        started.record(message)
        await gates[message].passed()
        got.record(message)

    async_bus.subscribe_topic("ann", "lobby", handler, concurrent=True)
    for message in range(5):
        async_bus.hub.send_all_on_topic("lobby", message)
    assert started.wait(5) == [0, 1, 2, 3, 4]
    for message in (3, 1, 4, 0, 2):
        gates[message].open()
        async_bus.settle()
        got.wait(1)

    assert sorted(got.wait(5)) == [0, 1, 2, 3, 4]
    assert got[0] == 3


def test_a_concurrent_sync_handler_overlaps_on_the_executor():
    executor, got, together = WatchedExecutor(4), Recorder(), threading.Barrier(3)
    hub = PubSubHub(executor=executor)

    def handler(message: int) -> None:
        together.wait(DEADLINE)
        got.record(message)

    hub.subscribe("ann", handler, concurrent=True)
    for message in range(3):
        hub.send_all(message)

    assert sorted(got.wait(3)) == [0, 1, 2]
    executor.shutdown()


def test_a_concurrent_sync_handler_starts_in_order_on_one_worker():
    executor, got = WatchedExecutor(1), Recorder()
    hub = PubSubHub(executor=executor)
    hub.subscribe("ann", got.record, concurrent=True)

    for message in range(200):
        hub.send_all(message)

    assert got.wait(200) == list(range(200))
    executor.shutdown()


def test_a_concurrent_handler_leaves_the_others_of_its_session_in_order(queued_bus: Bus):
    concurrent, serial = queued_bus.recorder(), queued_bus.recorder()
    queued_bus.subscribe("ann", concurrent.handler, concurrent=True)
    queued_bus.subscribe("ann", serial.handler)

    send_many(queued_bus, "a_foreign_thread", 200)
    queued_bus.settle()

    assert sorted(concurrent) == serial == list(range(200))


def test_concurrent_makes_no_difference_inline(inline_bus: Bus):
    got = inline_bus.recorder()
    inline_bus.subscribe("ann", got.handler, concurrent=True)

    send_many(inline_bus, "a_foreign_thread", 50)

    assert got == list(range(50))
