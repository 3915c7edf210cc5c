"""Workers and the event loop: each gets its turn, and neither waits for the other for ever."""

import asyncio
import contextvars
import signal
import sys
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from delivery_modes import (
    DEADLINE,
    LOOPS,
    Gate,
    LoopThread,
    Recorder,
    WatchedExecutor,
    collect_garbage,
)
from pagebus import PubSubHub

SESSIONS = 60
MANY = 1000
"""So many that a loop comes round in time even if a busy machine keeps it waiting at times."""


@pytest.fixture
def impolite_threads() -> Iterator[None]:
    """No thread that runs Python code is interrupted: the others run when it waits."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(DEADLINE)
    yield
    sys.setswitchinterval(before)


def work(rounds: int = 50_000) -> None:
    """Keep the interpreter for about a millisecond."""
    for _ in range(rounds):
        pass


class Page:
    """A session's page: handlers put what they show into a queue, the loop writes it out."""

    def __init__(self, loop: asyncio.AbstractEventLoop, log: list[Any]) -> None:
        self.loop, self.log = loop, log
        self.patches: asyncio.Queue[str] = asyncio.Queue()
        self.written = Recorder()

    def show(self, message: str) -> None:
        work()
        self.log.append("handled")
        # As Flet's `page.update()` does, from whatever thread.
        self.patches.put_nowait(message)

    async def write(self) -> None:
        while True:
            patch = await self.patches.get()
            self.log.append("written")
            self.written.record(patch)


@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
@pytest.mark.usefixtures("impolite_threads")
def test_pages_are_written_while_other_sessions_handlers_still_run(new_loop: Callable[[], Any]):
    thread, executor, log = LoopThread(new_loop), WatchedExecutor(2), list[str]()
    hub, pages = PubSubHub(thread.loop, executor), list[Page]()
    # In its debug mode, asyncio forbids what `page.update()` does.
    thread.loop.set_debug(False)

    async def open_pages() -> list[asyncio.Task[None]]:
        pages.extend(Page(thread.loop, log) for _ in range(MANY))
        return [asyncio.create_task(page.write()) for page in pages]

    writers = thread.run_async(open_pages())
    for number, page in enumerate(pages):
        hub.subscribe(f"session {number}", page.show)
    hub.send_all("hello")
    for page in pages:
        page.written.wait(1)
    executor.wait_idle()

    behind = [log[:at].count("handled") - log[:at].count("written") for at in range(len(log))]
    assert max(behind) < MANY / 2, "the loop came round only when the workers were done"
    assert len(writers) == MANY
    thread.close()
    executor.shutdown()


def test_a_loop_that_waits_for_a_handler_gets_what_it_waits_for():
    thread, executor, last = LoopThread(), WatchedExecutor(1), Future[str]()
    hub, got = PubSubHub(thread.loop, executor), Recorder()

    def handler(message: str) -> None:
        got.record(message)
        if len(got) == SESSIONS:
            last.set_result(message)

    for number in range(SESSIONS):
        hub.subscribe(f"session {number}", handler)

    def send_and_block() -> str:
        hub.send_all("hello")
        return last.result(DEADLINE)

    assert thread.run(send_and_block) == "hello"
    thread.close()
    executor.shutdown()


def test_a_loop_that_does_not_run_keeps_no_worker():
    loop, executor, got = asyncio.new_event_loop(), WatchedExecutor(2), Recorder()
    hub = PubSubHub(loop, executor)
    for number in range(SESSIONS):
        hub.subscribe(f"session {number}", lambda message: (work(), got.record(message)))

    hub.send_all("nobody turns this loop")

    got.wait(SESSIONS)
    loop.close()
    hub.send_all("nobody ever will")
    got.wait(2 * SESSIONS)
    executor.shutdown()


class AtOnce:
    """An executor that runs a job where it is submitted, as some tests and tools do."""

    def submit(self, job: Callable[[], Any]) -> None:
        job()


def test_jobs_that_run_on_the_loops_own_thread_do_not_wait_for_it():
    thread, got = LoopThread(), Recorder()
    hub = PubSubHub(thread.loop, AtOnce())
    for number in range(SESSIONS):
        hub.subscribe(f"session {number}", lambda message: (work(), got.record(message)))

    assert thread.run(lambda: (hub.send_all("hello"), len(got))[1]) == SESSIONS
    thread.close()


def test_workers_that_wait_for_a_busy_loop_go_on_when_it_is_free():
    thread, executor, busy = LoopThread(), WatchedExecutor(3), Gate()
    hub, got = PubSubHub(thread.loop, executor), Recorder()
    thread.loop.call_soon_threadsafe(busy.wait)
    busy.arrivals.wait(1)
    for number in range(SESSIONS):
        hub.subscribe(f"session {number}", lambda message: (work(), got.record(message)))

    hub.send_all("while the loop is busy")
    got.wait(SESSIONS)
    busy.open()
    hub.send_all("now it is free")
    got.wait(2 * SESSIONS)

    executor.wait_idle()
    thread.close()
    executor.shutdown()


class Interrupted(asyncio.SelectorEventLoop):
    """Ctrl-C is pressed while a wake-up is under way."""

    wake_ups = 0
    interrupt = False

    def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> Any:
        self.wake_ups += 1
        if self.interrupt:
            self.interrupt = False
            signal.raise_signal(signal.SIGINT)
        return super().call_soon_threadsafe(*args, **kwargs)


@pytest.mark.usefixtures("_ctrl_c")
def test_ctrl_c_in_a_wake_up_is_not_lost_and_neither_are_later_wake_ups():
    thread, got = LoopThread(Interrupted), Recorder()
    hub, loop = PubSubHub(thread.loop), thread.loop
    hub.subscribe("ann", got.record)
    hub.send_all(1)
    thread.spin()
    loop.interrupt = True

    with pytest.raises(KeyboardInterrupt):
        hub.send_all(2)
    before = loop.wake_ups
    hub.send_all(3)

    assert loop.wake_ups == before + 1
    assert got == [1, 2, 3]
    thread.close()


def test_a_wake_up_keeps_nothing_of_a_session_alive():
    loop, executor, got = asyncio.new_event_loop(), WatchedExecutor(1), Recorder()
    hub = PubSubHub(loop, executor)
    of_session: contextvars.ContextVar[Any] = contextvars.ContextVar("of_session")

    def subscribe() -> weakref.ref[Recorder]:
        own = Recorder()
        of_session.set(own)
        hub.subscribe("ann", got.record)
        return weakref.ref(own)

    own = contextvars.Context().run(subscribe)
    hub.send_all("the loop does not run")
    got.wait(1)
    executor.wait_idle()
    hub.unsubscribe_all("ann")
    executor.shutdown()
    collect_garbage()

    assert own() is None
    loop.close()
