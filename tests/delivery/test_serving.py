"""A handler that has suspended: its task, its context, and the messages that wait behind it."""

import asyncio
import decimal
import weakref
from typing import Any

import pytest

from delivery_modes import LOOPS, Bus, Recorder, collect_garbage, turns_of_the_loop
from pagebus import PubSubHub


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_goodbye_between_two_messages_comes_before_the_second(async_bus: Bus, turns: int):
    here, after_goodbye, ends = [True], Recorder(), list[asyncio.Future[None]]()
    begun = Recorder()

    async def handler(message: str) -> None:
        if not here[0]:
            after_goodbye.record(message)
        if message == "first":
            ends.append(asyncio.get_running_loop().create_future())
            begun.record(message)
            await ends[0]

    async def end_and_leave() -> None:
        ends[0].set_result(None)
        await turns_of_the_loop(turns)
        async_bus.hub.unsubscribe_all("ann")
        here[0] = False

    async_bus.subscribe("ann", handler)
    async_bus.hub.send_all("first")
    begun.wait(1)
    async_bus.hub.send_all("second")
    async_bus.loop.spin()

    async_bus.loop.run_async(end_and_leave())
    async_bus.settle()

    assert after_goodbye == []
    assert async_bus.hub.stats().pending == 0


def test_a_page_whose_handler_waits_for_the_page_itself_can_be_collected(async_bus: Bus):
    begun = Recorder()

    class Page:
        def __init__(self) -> None:
            self.answer = asyncio.get_running_loop().create_future()

        async def on_message(self, message: Any) -> None:
            begun.record(message)
            await self.answer

    # asyncio tells of the task that goes with it; that is the page's doing.
    async_bus.run(async_bus.loop.loop.set_exception_handler, lambda _, context: None)
    page = async_bus.run(Page)
    reference = weakref.ref(page)
    async_bus.subscribe("ann", page.on_message)
    async_bus.hub.send_all("first")
    begun.wait(1)
    async_bus.hub.send_all("second")
    async_bus.loop.spin()

    async_bus.hub.unsubscribe_all("ann")
    del page
    async_bus.loop.spin()
    async_bus.run(collect_garbage)

    assert reference() is None
    assert begun == ["first"]


def test_a_handlers_task_that_was_cancelled_says_so(async_bus: Bus):
    tasks, outcome = Recorder(), Recorder()

    async def waits(message: Any) -> None:
        tasks.record(asyncio.current_task())
        await asyncio.get_running_loop().create_future()

    async def cancel() -> None:
        tasks[0].cancel()
        try:
            await tasks[0]
        except asyncio.CancelledError:
            outcome.record("cancelled")

    async_bus.subscribe("ann", waits)
    async_bus.hub.send_all("hello")
    tasks.wait(1)
    async_bus.loop.run_async(cancel())

    assert outcome == ["cancelled"]
    assert (tasks[0].done(), tasks[0].cancelled()) == (True, True)


def test_overlapping_calls_of_one_handler_have_settings_of_their_own(async_bus: Bus):
    gate, got = async_bus.gate(), Recorder()

    async def handler(digits: int) -> None:
        with decimal.localcontext() as context:
            context.prec = digits
            await gate.passed(digits)
            got.record((digits, decimal.getcontext().prec))

    async_bus.subscribe("ann", handler, concurrent=True)
    for digits in (3, 5, 7):
        async_bus.hub.send_all(digits)
    gate.arrivals.wait(3)
    gate.open()

    assert sorted(got.wait(3)) == [(3, 3), (5, 5), (7, 7)]


@pytest.mark.thread_unsafe(reason="who collects garbage reports it, whoever has left it")
@pytest.mark.parametrize("kind", LOOPS)
def test_a_message_whose_turn_had_come_when_the_loop_closes_is_counted(kind: str, log: Any):
    loop, begun, ends = LOOPS[kind](), Recorder(), list[asyncio.Future[None]]()
    # asyncio tells about a task that was destroyed; that is the closing program's doing.
    loop.set_exception_handler(lambda _, context: None)
    hub = PubSubHub(loop)

    async def handler(message: int) -> None:
        begun.record(message)
        ends.append(asyncio.get_running_loop().create_future())
        await ends[-1]

    def end_the_first_and_stop() -> None:
        ends[0].set_result(None)
        loop.call_soon(loop.stop)

    hub.subscribe("ann", handler)
    for message in range(4):
        hub.send_all(message)
    loop.run_until_complete(turns_of_the_loop(10))
    loop.call_soon(end_the_first_and_stop)
    loop.run_forever()
    loop.close()
    ends.clear()
    collect_garbage()

    stats = hub.stats()
    assert stats.delivered == len(begun)
    assert stats.delivered + stats.dropped == 4
    assert stats.pending == 0
    assert f"{stats.dropped} messages" in log.take(1)[0].getMessage()
