"""Delivery by the sender: one sync handler of a session at a time, and Ctrl-C on the way."""

import asyncio
import logging
import signal
import threading
import time
from typing import Any

import pytest

from delivery_modes import DEADLINE, LOOPS, Gate, LoopThread, Recorder, turns_of_the_loop
from pagebus import PubSubHub


def fail(message: Any) -> None:
    raise ValueError("no")


def send_and_go_on(hub: PubSubHub) -> None:
    """Send, and give the interpreter the occasion to see that a signal came."""
    hub.send_all("hello")
    for _ in range(1000):
        time.sleep(0)


@pytest.mark.usefixtures("_ctrl_c")
def test_ctrl_c_while_a_hook_runs_reaches_the_program(log: Any):
    interrupts = [True]

    def hook(failure: Any) -> None:
        if interrupts.pop():
            raise KeyboardInterrupt

    hub, got = PubSubHub(on_error=hook), Recorder()
    hub.subscribe("ann", got.record)
    hub.subscribe("bob", fail)

    with pytest.raises(KeyboardInterrupt):
        send_and_go_on(hub)

    interrupts.append(False)
    hub.send_all("again")
    assert got == ["hello", "again"]
    log.take(2)


@pytest.mark.usefixtures("_ctrl_c")
def test_ctrl_c_while_a_failure_is_logged_reaches_the_program(log: Any):
    class Interrupted(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            signal.raise_signal(signal.SIGINT)

    hub, got = PubSubHub(), Recorder()
    hub.subscribe("ann", got.record)
    hub.subscribe("bob", fail)
    with log.beside(Interrupted()), pytest.raises(KeyboardInterrupt):
        send_and_go_on(hub)

    hub.send_all("again")
    assert got == ["hello", "again"]
    log.take(2)


def test_what_waited_for_an_awaitable_stays_with_the_thread_that_delivers():
    thread, blocked, awaited = LoopThread(), Gate(), Gate()
    hub, calls, threads = PubSubHub(thread.loop), Recorder(), set[int]()

    def returns_an_awaitable(message: int) -> Any:
        calls.record(("awaitable", message))
        threads.add(threading.get_ident())
        return awaited.passed(message)

    def blocks(message: int) -> None:
        if message == 1:
            blocked.wait()
        calls.record(("plain", message))
        threads.add(threading.get_ident())

    hub.subscribe("ann", returns_an_awaitable)
    hub.subscribe("ann", blocks)
    hub.send_all(0)
    awaited.arrivals.wait(1)
    sender = threading.Thread(target=hub.send_all, args=(1,))
    sender.start()
    blocked.arrivals.wait(1)

    awaited.open()
    thread.spin()
    assert calls == [("awaitable", 0), ("plain", 0)]

    blocked.open()
    sender.join(DEADLINE)
    assert calls.wait(4)[2:] == [("plain", 1), ("awaitable", 1)]
    awaited.arrivals.wait(2)
    thread.spin()
    thread.close()


@pytest.mark.parametrize("kind", LOOPS)
@pytest.mark.parametrize("quit_", [SystemExit, KeyboardInterrupt])
def test_a_quit_after_an_awaitable_stops_the_loop_and_loses_no_message(
    kind: str, quit_: type[BaseException]
):
    loop, got, other = LOOPS[kind](), Recorder(), Recorder()
    # asyncio tells once more of an exception that has stopped the loop already.
    loop.set_exception_handler(lambda _, context: None)
    hub = PubSubHub(loop)

    def handler(message: int) -> Any:
        got.record(message)
        if message == 1:
            raise quit_
        return turns_of_the_loop(3) if message == 0 else None

    hub.subscribe("ann", handler)
    hub.subscribe("bob", other.record)
    for message in range(4):
        hub.send_all(message)

    with pytest.raises(quit_):
        loop.run_until_complete(asyncio.wait_for(loop.create_future(), DEADLINE))
    for message in range(4, 8):
        hub.send_all(message)
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(turns_of_the_loop(10))
    loop.close()

    assert got == other == list(range(8))
    assert hub.stats().pending == 0
