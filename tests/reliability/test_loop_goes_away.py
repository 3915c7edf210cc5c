"""An event loop that stops, starts again, is replaced or closes; and several at once."""

import asyncio
import threading
from typing import Any

import pytest

from delivery_modes import LOOPS, Gate, LoopThread, Recorder, in_threads, numbers
from pagebus import PubSubHub

SOON = 0.05
"""A timeout for what never comes."""


def recorder() -> Recorder:
    got = Recorder()
    got.handler = got.record_async
    return got


def restart(thread: LoopThread) -> LoopThread:
    """Let another thread run the same loop on."""
    return LoopThread(lambda: thread.loop)


@pytest.mark.parametrize("kind", LOOPS)
def test_messages_wait_for_a_loop_that_has_stopped_until_another_thread_runs_it(kind: str):
    thread, got = LoopThread(LOOPS[kind]), recorder()
    hub = PubSubHub(thread.loop)
    hub.subscribe("ann", got.handler)
    hub.send_all("before")
    got.wait(1)

    thread.stop()
    for message in range(100):
        hub.send_all(message)
    assert got == ["before"]
    thread = restart(thread)
    got.wait(101)
    thread.close()

    assert got == ["before", *range(100)]


@pytest.mark.parametrize("kind", LOOPS)
def test_a_handler_that_is_suspended_when_its_loop_stops_goes_on_when_it_runs_again(kind: str):
    thread, gate, got = LoopThread(LOOPS[kind]), Gate(), Recorder()
    hub = PubSubHub(thread.loop)

    async def handler(message: Any) -> None:
        await gate.passed(message)
        got.record(message)

    hub.subscribe("ann", handler)
    for message in range(10):
        hub.send_all(message)
    gate.arrivals.wait(1)
    thread.stop()
    hub.send_all(10)
    thread = restart(thread)
    gate.open()
    got.wait(11)
    thread.close()

    assert got == list(range(11))


def test_a_program_may_run_one_loop_after_the_other():
    hub, got = PubSubHub(), recorder()

    async def visit(number: int) -> None:
        subscription = hub.subscribe(f"session {number}", got.handler)
        hub.send_all(number)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        subscription.cancel()

    for number in range(50):
        asyncio.run(visit(number))

    assert got == list(range(50))
    assert numbers(hub)["pending"] == 0


def test_sessions_of_a_loop_that_closes_are_cut_off_and_those_of_its_successor_hear_on(log: Any):
    hub, old, new = PubSubHub(), recorder(), recorder()
    first = LoopThread()
    first.run(hub.subscribe, "ann", old.handler)
    hub.send_all("to the first")
    old.wait(1)
    first.close()

    second = LoopThread()
    second.run(hub.subscribe, "ann", new.handler)
    hub.send_all("to the second")
    new.wait(1)
    second.close()

    assert (old, new) == (["to the first"], ["to the second"])
    assert numbers(hub)["dropped"] == 0


@pytest.mark.parametrize("kind", LOOPS)
def test_loops_in_several_threads_hear_everything_in_one_order(kind: str):
    hub, threads = PubSubHub(), [LoopThread(LOOPS[kind]) for _ in range(4)]
    heard = [[recorder() for _ in range(5)] for _ in threads]
    for number, (thread, recorders) in enumerate(zip(threads, heard, strict=True)):
        for place, got in enumerate(recorders):
            thread.run(hub.subscribe, f"session {number}.{place}", got.handler)

    def send(sender: int) -> None:
        for number in range(250):
            hub.send_all((sender, number))

    in_threads(*(lambda sender=sender: send(sender) for sender in range(4)))
    everybody = [got.wait(1000) for recorders in heard for got in recorders]
    for thread in threads:
        thread.close()

    assert len(everybody[0]) == 1000
    assert all(got == everybody[0] for got in everybody)


def test_a_loop_that_closes_in_the_middle_does_not_disturb_the_other_threads(log: Any):
    hub, threads = PubSubHub(), [LoopThread() for _ in range(3)]
    heard = [recorder() for _ in threads]
    for thread, got in zip(threads, heard, strict=True):
        thread.run(hub.subscribe, "ann", got.handler)
    half = threading.Event()

    def send() -> None:
        for number in range(2000):
            hub.send_all(number)
            if number == 1000:
                half.set()

    def close() -> None:
        half.wait()
        # Not its close(): asyncio may complain of the task that was delivering, as of any other.
        threads[0].stop()
        threads[0].loop.close()

    in_threads(send, close)
    for got in heard[1:]:
        got.wait(2000)
    for thread in threads[1:]:
        thread.close()

    assert heard[1] == heard[2] == list(range(2000))
    assert heard[0] == list(range(len(heard[0])))
    log.take_all()


def test_a_hub_whose_loop_never_ran_gives_up_what_is_queued_when_it_closes(log: Any):
    loop, got = asyncio.new_event_loop(), recorder()
    hub = PubSubHub(loop)
    hub.subscribe("ann", got.handler)
    for message in range(10):
        hub.send_all(message)

    hub.close(timeout=SOON)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()

    assert got == []
    assert (numbers(hub)["dropped"], numbers(hub)["pending"]) == (10, 0)
    log.take(1)


def test_a_hub_whose_loop_is_closed_closes_at_once(log: Any):
    thread = LoopThread()
    hub = PubSubHub(thread.loop)
    hub.subscribe("ann", recorder().handler)
    thread.stop()
    hub.send_all("nobody runs the loop")
    thread.loop.close()

    hub.close(timeout=None)

    assert (numbers(hub)["dropped"], numbers(hub)["pending"]) == (1, 0)
    log.take(1)
