"""An executor that is shut down, or full of other work; and one that several hubs share."""

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from delivery_modes import Gate, LoopThread, Recorder, WatchedExecutor, numbers
from pagebus import PubSubHub

SOON = 0.05
"""A timeout for what never comes."""


def test_messages_wait_for_an_executor_that_is_full_of_blocked_jobs():
    executor, busy, got = WatchedExecutor(2), Gate(), Recorder()
    for _ in range(2):
        executor.submit(busy.wait)
    hub = PubSubHub(executor=executor)
    for session in range(10):
        hub.subscribe(f"session {session}", got.record)

    for message in range(100):
        hub.send_all(message)
    # However much is sent, the executor is asked for one worker until that has begun.
    assert (len(got), executor.submitted) == (0, 3)
    busy.open()
    executor.wait_idle()
    executor.shutdown()

    assert sorted(got) == sorted(list(range(100)) * 10)


def test_blocked_handlers_of_one_hub_leave_a_shared_executor_to_the_other_hub():
    executor, gate, got = WatchedExecutor(4), Gate(), Recorder()
    blocked, free = PubSubHub(executor=executor), PubSubHub(executor=executor)
    for session in range(3):
        blocked.subscribe(f"session {session}", gate.wait)
    free.subscribe("ann", got.record)
    blocked.send_all("block")
    gate.arrivals.wait(3)

    for message in range(100):
        blocked.send_all(message)
        free.send_all(message)
    got.wait(100)
    gate.open()
    executor.wait_idle()
    executor.shutdown()

    assert got == list(range(100))
    assert numbers(blocked)["delivered"] == 303


def test_a_hub_whose_executor_never_gets_to_it_gives_up_what_is_queued_when_it_closes(log: Any):
    executor, busy, got = WatchedExecutor(1), Gate(), Recorder()
    executor.submit(busy.wait)
    hub = PubSubHub(executor=executor)
    hub.subscribe("ann", got.record)
    for message in range(10):
        hub.send_all(message)

    hub.close(timeout=SOON)
    busy.open()
    executor.wait_idle()
    executor.shutdown()

    assert got == []
    assert (numbers(hub)["dropped"], numbers(hub)["pending"]) == (10, 0)
    log.take(1)


def test_a_hub_whose_executor_is_shut_down_closes_at_once(log: Any):
    executor, busy = ThreadPoolExecutor(1), Gate()
    executor.submit(busy.wait)
    hub = PubSubHub(executor=executor)
    hub.subscribe("ann", print)
    hub.send_all("nobody gets to it")
    executor.shutdown(wait=False, cancel_futures=True)

    hub.close(timeout=None)
    busy.open()

    assert (numbers(hub)["dropped"], numbers(hub)["pending"]) == (1, 0)
    log.take(1)


def test_with_closes_the_hub_before_its_executor_is_shut_down():
    got = Recorder()
    with ThreadPoolExecutor() as executor, PubSubHub(executor=executor) as hub:
        hub.subscribe("ann", got.record)
        for message in range(1000):
            hub.send_all(message)

    assert got == list(range(1000))


def test_an_executor_that_was_shut_down_by_a_handler_is_the_senders_error(log: Any):
    executor, got = ThreadPoolExecutor(1), Recorder()
    hub = PubSubHub(executor=executor)

    def handler(message: Any) -> None:
        executor.shutdown(wait=False)
        got.record(message)

    hub.subscribe("ann", handler)
    hub.send_all("shut down")
    got.wait(1)
    executor.shutdown(wait=True)

    with pytest.raises(RuntimeError, match="shutdown"):
        hub.send_all("too late")
    assert got == ["shut down"]
    assert (numbers(hub)["dropped"], numbers(hub)["pending"]) == (1, 0)
    (record,) = log.take(1)
    assert record.getMessage().startswith("1 message could not be delivered")


def test_what_waited_for_an_awaitable_when_the_executor_was_shut_down_is_reported_once(log: Any):
    thread, executor, gate = LoopThread(), WatchedExecutor(1), Gate()
    hub = PubSubHub(thread.loop, executor)
    hub.subscribe("ann", lambda message: gate.passed(message))
    for message in range(10):
        hub.send_all(message)
    gate.arrivals.wait(1)
    executor.wait_idle()
    executor.shutdown()

    # Whatever were raised here and had nobody to catch it would fail the test as a warning.
    gate.open()
    (record,) = log.take(1)
    thread.spin()
    thread.close()

    assert "9 messages could not be delivered" in record.getMessage()
    assert (numbers(hub)["dropped"], numbers(hub)["pending"]) == (9, 0)


class Interrupted(WatchedExecutor):
    """An executor that something hits inside ``submit``, once, before or after it took the job."""

    def __init__(self, error: BaseException, begun: Recorder | None) -> None:
        super().__init__(1)
        self._error: BaseException | None = error
        self._begun = begun

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        error, self._error = self._error, None
        if error is not None and self._begun is None:
            raise error
        future = super().submit(*args, **kwargs)
        if error is not None and self._begun is not None:
            self._begun.wait(1)
            raise error
        return future


def _after(gate: Gate, got: Recorder) -> Callable[[Any], None]:
    def handler(message: Any) -> None:
        gate.wait()
        got.record(message)

    return handler


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_ctrl_c_while_a_send_wakes_the_executor_reaches_the_sender_and_nothing_is_lost(
    after: bool, log: Any
):
    gate, got = Gate(), Recorder()
    executor = Interrupted(KeyboardInterrupt(), gate.arrivals if after else None)
    hub = PubSubHub(executor=executor)
    hub.subscribe("ann", _after(gate, got))

    with pytest.raises(KeyboardInterrupt):
        hub.send_all("hello")
    hub.send_all("again")
    gate.open()
    hub.close()
    executor.shutdown()

    assert got == ["hello", "again"]
    assert hub.stats().dropped == 0


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_job_that_began_before_submit_failed_is_waited_for_by_close(error: Any, log: Any):
    gate, got = Gate(), Recorder()
    executor = Interrupted(error(), gate.arrivals)
    hub = PubSubHub(executor=executor)
    hub.subscribe("ann", _after(gate, got))
    with contextlib.suppress(KeyboardInterrupt):
        hub.send_all("hello")

    closing = threading.Thread(target=hub.close)
    closing.start()
    closing.join(SOON)
    assert closing.is_alive()
    gate.open()
    closing.join()
    executor.shutdown()

    assert got == ["hello"]
