"""Signals: Ctrl-C is answered at once, and whatever it hits, no message is lost or stuck."""

import asyncio
import functools
import os
import textwrap
from typing import Any

import pytest

import python_programs
from delivery_modes import Recorder
from pagebus import PubSubHub

SIGNALS = int(os.environ.get("PAGEBUS_SIGNALS", "500"))
"""How often the storm of signals hits the loop."""

ANSWERED_WITHIN = 0.2
"""Seconds from the signal to the KeyboardInterrupt in the program."""


# ---- a broadcast to very many ----------------------------------------------------------------

BROADCAST = """
import asyncio, logging, os, signal, threading, time
from concurrent.futures import ThreadPoolExecutor
from pagebus import PubSubHub

COUNT = 100_000
signal.signal(signal.SIGINT, signal.default_int_handler)
calls, interrupted, sent = [0] * COUNT, [], []
begun, over = threading.Event(), threading.Event()

def body(number, message):
    calls[number] += 1
    if message == 1 and number == 1000:
        begun.set()
    if message == 1 and number == COUNT // 2:
        # However late the other thread comes, the broadcast is not over by then.
        while not over.is_set():
            time.sleep(0)
    sum(range(20))

def interrupt():
    begun.wait(30)
    sent.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)
    over.set()

def answered():
    took = time.monotonic() - sent[0]
    assert took < {within}, took

threading.Thread(target=interrupt, daemon=True).start()
"""

BROADCASTS = {
    "inside an inline send": """
        hub = PubSubHub()
        for number in range(COUNT):
            hub.subscribe(str(number), lambda message, number=number: body(number, message))
        try:
            hub.send_all(1)
        except KeyboardInterrupt:
            answered()
        else:
            raise AssertionError("not interrupted")
        assert 1000 < sum(calls) < COUNT, sum(calls)
        hub.send_all(2)
        # Whoever was being called when Ctrl-C came has had the message, all others get it now.
        assert set(calls) <= {1, 2} and calls.count(1) <= 1, set(calls)
    """,
    "on a loop under asyncio.run": """
        async def main():
            global hub
            hub = PubSubHub(asyncio.get_running_loop())
            def subscribe(number):
                async def handler(message):
                    body(number, message)
                hub.subscribe(str(number), handler)
            for number in range(COUNT):
                subscribe(number)
            hub.send_all(1)
            await asyncio.sleep(30)

        logging.disable(logging.ERROR)
        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            answered()
        else:
            raise AssertionError("not interrupted")
        # The loop is closed: what it had not delivered is counted, and nothing is left.
        stats = hub.stats()
        assert 1000 < stats.delivered == sum(calls)
        assert stats.delivered + stats.dropped == COUNT and stats.pending == 0, stats
    """,
    "while the main thread waits for an executor": """
        hub = PubSubHub(executor=ThreadPoolExecutor(2))
        for number in range(COUNT):
            hub.subscribe(str(number), lambda message, number=number: body(number, message))
        hub.send_all(1)
        try:
            time.sleep(30)
        except KeyboardInterrupt:
            answered()
        else:
            raise AssertionError("not interrupted")
        while hub.stats().delivered < COUNT or hub.stats().pending:
            time.sleep(0.01)
        assert set(calls) == {1}, set(calls)
    """,
}


@pytest.mark.thread_unsafe(reason="how soon something is answered is measured")
@pytest.mark.parametrize("body", BROADCASTS.values(), ids=BROADCASTS)
def test_ctrl_c_during_a_broadcast_to_a_hundred_thousand_is_answered_at_once(body: str):
    program = BROADCAST.replace("{within}", str(ANSWERED_WITHIN)) + textwrap.dedent(body)

    done = python_programs.run(program)

    assert done.stderr == "", done.stderr
    assert (done.returncode, done.stdout) == (0, "")


# ---- a signal at an unlucky moment -----------------------------------------------------------


class ForgetfulLoop(asyncio.SelectorEventLoop):
    """A loop that Ctrl-C hits when it has taken a callback and not begun it, as it can any loop.

    asyncio forgets the callback then.
    """

    callbacks_until_interrupt = -1

    def _run_once(self) -> None:
        ready: Any = self._ready  # type: ignore[attr-defined]
        for _ in range(len(ready)):
            if self.callbacks_until_interrupt < 0:
                break
            callback = ready.popleft()
            self.callbacks_until_interrupt -= 1
            if self.callbacks_until_interrupt < 0:
                del callback
                raise KeyboardInterrupt
            callback._run()
        super()._run_once()  # type: ignore[misc]


SESSIONS, MESSAGES = 24, 3
MOMENTS = 2 * SESSIONS * MESSAGES


def work_for_a_turn(message: int) -> None:
    """With the messages after the first, as long as a drain task keeps its loop, or half of it."""
    if message:
        sum(range(20_000))


@pytest.mark.filterwarnings("ignore:coroutine '_until' was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("first", range(8))
def test_a_loop_that_forgets_a_callback_because_of_ctrl_c_loses_no_message(first: int, log: Any):
    for moment in range(first, MOMENTS, 8):
        loop, calls = ForgetfulLoop(), Recorder()
        # asyncio tells of the task that it has lost.
        loop.set_exception_handler(lambda _, context: None)
        hub = PubSubHub(loop)

        async def handler(number: int, calls: Recorder, message: int) -> None:
            calls.record((number, message))
            work_for_a_turn(message)
            if message == 0 or number % 3:
                await asyncio.sleep(0)

        for number in range(SESSIONS):
            hub.subscribe(str(number), functools.partial(handler, number, calls))
        for message in range(MESSAGES):
            hub.send_all(message)
        loop.callbacks_until_interrupt = moment

        for _ in range(2):
            try:
                loop.run_until_complete(_until(calls, SESSIONS * MESSAGES))
            except KeyboardInterrupt:
                continue
            break

        expected = [(number, message) for number in range(SESSIONS) for message in range(MESSAGES)]
        assert sorted(calls) == expected, moment
        assert (hub.stats().pending, hub.stats().dropped) == (0, 0), moment
        loop.close()


async def _until(calls: Recorder, count: int) -> None:
    for _ in range(100 * count):
        if len(calls) >= count:
            break
        await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)


class InterruptedLoop(asyncio.SelectorEventLoop):
    """A loop that Ctrl-C hits inside one of its methods, before or after that has done its work."""

    calls_until_interrupt = -1
    after = False

    def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> asyncio.Handle:
        return self._call(super().call_soon_threadsafe, *args, **kwargs)

    def call_soon(self, *args: Any, **kwargs: Any) -> asyncio.Handle:
        return self._call(super().call_soon, *args, **kwargs)

    def is_closed(self) -> bool:
        return bool(self._call(super().is_closed))

    def _call(self, method: Any, *args: Any, **kwargs: Any) -> Any:
        self.calls_until_interrupt -= 1
        if self.calls_until_interrupt != 0:
            return method(*args, **kwargs)
        if self.after:
            method(*args, **kwargs)
        raise KeyboardInterrupt


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("moment", range(1, 4))
@pytest.mark.usefixtures("_ctrl_c")
def test_ctrl_c_inside_the_loop_while_a_send_wakes_it_reaches_the_sender_and_nothing_is_lost(
    moment: int, after: bool, log: Any
):
    loop, got = InterruptedLoop(), Recorder()
    hub = PubSubHub(loop)
    hub.subscribe("ann", got.record_async)

    loop.calls_until_interrupt, loop.after = moment, after
    interrupted = False
    try:
        hub.send_all("hello")
    except KeyboardInterrupt:
        interrupted = True
    is_over = loop.calls_until_interrupt <= 0
    loop.calls_until_interrupt = -1
    loop.run_until_complete(_until(got, 1))
    hub.send_all("again")
    loop.run_until_complete(_until(got, 2))

    assert interrupted == is_over
    assert got == ["hello", "again"]
    assert (hub.stats().pending, hub.stats().dropped) == (0, 0)
    loop.close()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.usefixtures("_ctrl_c")
def test_ctrl_c_while_a_task_is_made_for_handlers_reaches_the_program_and_nothing_is_lost(
    after: bool, log: Any
):
    loop, got = InterruptedLoop(), Recorder()
    loop.set_exception_handler(lambda _, context: None)
    hub = PubSubHub(loop)
    hub.subscribe("ann", got.record_async)
    hub.send_all("hello")
    # Nothing but the hub's own callback is there: it makes a task, and that schedules one.
    loop.calls_until_interrupt, loop.after = 1, after

    with pytest.raises(KeyboardInterrupt):
        loop._ready.popleft()._run()  # type: ignore[attr-defined]
    loop.run_until_complete(_until(got, 1))

    assert got == ["hello"]
    assert (hub.stats().pending, hub.stats().dropped) == (0, 0)
    loop.close()


STORM = """
import asyncio, os, signal, sys, threading, time
from pagebus import PubSubHub

armed = stop = False

def on_signal(*_):
    # Only while the loop runs, and once each time: nothing else here is ready to be hit.
    global armed, hits
    if armed:
        armed = False
        hits += 1
        raise KeyboardInterrupt

signal.signal(signal.SIGINT, on_signal)
loop, hits = asyncio.new_event_loop(), 0
loop.set_exception_handler(lambda loop, context: None)
hub, calls = PubSubHub(loop, max_pending=10**5), [0]

def handler_of(number):
    async def handler(message):
        calls[0] += 1
        if number % 3 == 0:
            await asyncio.sleep(0)
    return handler

for number in range(30):
    hub.subscribe(str(number), handler_of(number))

async def send():
    global armed
    while not stop:
        # A signal that came where nobody can be told is given to the program once more.
        armed = True
        if hub.stats().pending == 0:
            hub.send_all(1)
            hub.send_all(2)
        await asyncio.sleep(0)

def interrupt():
    global stop
    # CPython itself, without a hub, can stop calling a signal's handler in such a storm.
    end = time.monotonic() + {count} / 100
    while hits < {count} and time.monotonic() < end:
        time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGINT)
    stop = True

def run_and_be_interrupted(main):
    global armed
    try:
        armed = True
        loop.run_until_complete(main)
        armed = False
    except KeyboardInterrupt:
        pass

threading.Thread(target=interrupt, daemon=True).start()
while not stop:
    run_and_be_interrupted(send())
armed = False
for _ in range(1000):
    loop.run_until_complete(asyncio.sleep(0.001))
    if hub.stats().pending == 0:
        break
stats = hub.stats()
print(stats.pending, stats.dropped, stats.delivered - stats.published * 30, hits)
sys.stdout.flush()
os._exit(0)
"""


def test_no_message_is_stuck_or_lost_after_a_storm_of_signals():
    done = python_programs.run(STORM.replace("{count}", str(SIGNALS)), seconds=60 + SIGNALS / 20)

    assert done.returncode == 0, done.stderr[-2000:]
    *left, hits = [int(number) for number in done.stdout.split()]
    assert left == [0, 0, 0], "pending, dropped, more delivered than sent"
    assert hits > 0
