"""The tasks that deliver on a loop: they share its turns, and nobody else's task is theirs."""

import asyncio
import subprocess
import sys
import textwrap
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from delivery_modes import LOOPS, Bus, LoopThread, Recorder, turns_of_the_loop
from pagebus import PubSubHub

MILLISECOND = 0.001
"""What deliveries may keep the loop for, before others get their turn."""

AT_ONCE = 12
"""How many calls of a millisecond or a part of one may follow each other, at the most."""


async def per_turn(send: Callable[[], object], count: Callable[[], int], end: int) -> list[int]:
    """Send; then, for each turn of the loop until ``count`` is ``end``, how much was added."""
    added, before = [], count()
    send()
    while count() < end:
        await asyncio.sleep(0)
        added.append(count() - before)
        before += added[-1]
    return added


# ---- turns -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LOOPS)
def test_the_loop_turns_while_messages_are_left_for_busy_handlers(kind: str):
    sessions, messages = 1000, 1000
    thread, done, begun = LoopThread(LOOPS[kind]), asyncio.Event(), [0]
    hub = PubSubHub(thread.loop, max_pending=messages)

    async def handler(message: Any) -> None:
        begun[0] += 1
        await done.wait()

    for number in range(sessions):
        hub.subscribe(f"session {number}", handler)
    thread.run_async(per_turn(lambda: hub.send_all("first"), lambda: begun[0], sessions))

    def send() -> None:
        for message in range(messages):
            hub.send_all(message)

    waiting = sessions * messages
    turns = thread.run_async(per_turn(send, lambda: hub.stats().pending, waiting))
    for number in range(sessions):
        hub.unsubscribe_all(f"session {number}")
    thread.run(done.set)
    thread.spin()
    thread.close()

    # A million messages take many milliseconds, on any machine.
    assert len(turns) > 5


@pytest.mark.parametrize("kind", LOOPS)
def test_the_loop_turns_while_busy_handlers_overflow(kind: str, log: Any):
    thread, done, begun, told = LoopThread(LOOPS[kind]), asyncio.Event(), [0], [0]

    def hook(overflow: Any) -> None:
        time.sleep(MILLISECOND)
        told[0] += 1

    async def handler(message: Any) -> None:
        begun[0] += 1
        await done.wait()

    hub = PubSubHub(thread.loop, max_pending=1, on_overflow=hook)
    for number in range(50):
        hub.subscribe(f"session {number}", handler)
    thread.run_async(per_turn(lambda: hub.send_all("first"), lambda: begun[0], 50))
    thread.run_async(per_turn(lambda: hub.send_all("second"), lambda: hub.stats().pending, 50))

    turns = thread.run_async(per_turn(lambda: hub.send_all("third"), lambda: told[0], 50))
    for number in range(50):
        hub.unsubscribe_all(f"session {number}")
    thread.run(done.set)
    thread.spin()
    thread.close()

    assert max(turns) <= AT_ONCE
    log.take_all()


@pytest.mark.parametrize("kind", LOOPS)
def test_tasks_that_take_the_rest_of_a_walk_share_one_turn(kind: str):
    thread, done, calls = LoopThread(LOOPS[kind]), asyncio.Event(), [0]
    hub = PubSubHub(thread.loop)

    async def quick(message: Any) -> None:
        time.sleep(MILLISECOND / 4)
        calls[0] += 1

    async def suspends(message: Any) -> None:
        await done.wait()

    # Handler after handler suspends, so that more and more tasks take the rest together ...
    for number in range(300):
        hub.subscribe(f"suspends {number}", suspends)
    # ... which turns out to be work.
    for number in range(150):
        hub.subscribe(f"session {number}", suspends if number % 3 == 2 else quick)

    turns = thread.run_async(per_turn(lambda: hub.send_all("hello"), lambda: calls[0], 100))
    thread.run(done.set)
    thread.spin()
    thread.close()

    assert max(turns) <= AT_ONCE


@pytest.mark.parametrize("kind", LOOPS)
def test_slow_handlers_after_quick_ones_are_noticed(kind: str):
    thread, calls = LoopThread(LOOPS[kind]), [0]
    hub = PubSubHub(thread.loop)

    async def quick(message: Any) -> None:
        pass

    async def slow(message: Any) -> None:
        time.sleep(MILLISECOND)
        calls[0] += 1

    for number in range(300):
        hub.subscribe(f"quick {number}", quick)
    for number in range(60):
        hub.subscribe(f"slow {number}", slow)

    turns = thread.run_async(per_turn(lambda: hub.send_all("hello"), lambda: calls[0], 60))
    thread.close()

    assert max(turns) <= AT_ONCE


# ---- whose task ------------------------------------------------------------------------------


def test_a_task_that_is_referred_to_weakly_is_nobody_elses(async_bus: Bus):
    gate, kept = async_bus.gate(), Recorder()
    finished = [Recorder() for _ in range(10)]

    async def refers_to_its_task(message: Any) -> None:
        kept.record(weakref.ref(asyncio.current_task()))

    for number, got in enumerate(finished):

        async def waits(message: Any, got: Recorder = got) -> None:
            await gate.passed()
            got.record(message)

        async_bus.subscribe(f"refers {number}", refers_to_its_task)
        async_bus.subscribe(f"waits {number}", waits)
    async_bus.hub.send_all("hello")
    gate.arrivals.wait(10)
    kept.wait(10)

    def cancel_all() -> None:
        for reference in kept:
            task = reference()
            if task is not None:
                task.cancel()

    async_bus.run(cancel_all)
    async_bus.loop.spin()
    gate.open()

    assert [got.wait(1) for got in finished] == [["hello"]] * 10
    async_bus.settle()


# ---- loops that others have changed ----------------------------------------------------------


class LoopInside(asyncio.SelectorEventLoop):
    """A loop that can be run from inside a handler."""

    def run_inside(self, coroutine: Any) -> None:
        task, current = self.create_task(coroutine), asyncio.current_task(self)
        assert current is not None
        scheduled = len(self._ready)
        asyncio.tasks._leave_task(self, current)
        try:
            while not task.done():
                self._run_once()
        finally:
            asyncio.tasks._enter_task(self, current)
        # The turn outside goes on to take as many callbacks as it found when it began.
        while len(self._ready) < scheduled:
            self.call_soon(bool)


def test_a_handler_that_runs_the_loop_itself_is_not_overtaken():
    thread, events, waiting = LoopThread(LoopInside), Recorder(), [0]
    hub = PubSubHub(thread.loop)

    async def suspends(message: Any) -> None:
        waiting[0] += 1
        await asyncio.sleep(0)

    async def runs_the_loop(message: int) -> None:
        events.record(("in", message))
        thread.loop.run_inside(turns_of_the_loop(20))
        events.record(("out", message))

    async def other(message: int) -> None:
        events.record(("other", message))
        await asyncio.sleep(0)

    # Several tasks share the walk by the time that it comes to the last two.
    for number in range(10):
        hub.subscribe(f"session {number}", suspends)
    hub.subscribe("ann", runs_the_loop)
    hub.subscribe("bob", other)
    for message in range(3):
        hub.send_all(message)
    events.wait(9)
    thread.spin()
    thread.close()

    assert events == [(what, message) for message in range(3) for what in ("in", "out", "other")]
    assert waiting == [30]
    assert hub.stats().failed == 0


def test_handlers_run_where_asyncios_task_was_replaced_by_the_one_in_python():
    program = """
        import asyncio
        asyncio.Task = asyncio.tasks.Task = asyncio.tasks._CTask = asyncio.tasks._PyTask
        from pagebus import PubSubHub

        async def suspends(message):
            before = asyncio.current_task()
            await asyncio.sleep(0)
            got.append((message, before is asyncio.current_task()))

        async def straight(message):
            got.append(message)

        async def main():
            hub = PubSubHub(asyncio.get_running_loop())
            hub.subscribe("ann", suspends)
            hub.subscribe("bob", straight)
            hub.send_all("hello")
            while len(got) < 2:
                await asyncio.sleep(0)

        got = []
        asyncio.run(main())
        print(sorted(got, key=str))
    """

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60
    )

    assert (done.returncode, done.stdout) == (0, "[('hello', True), 'hello']\n"), done.stderr
    assert done.stderr == ""
