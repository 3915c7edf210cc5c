"""Delivery on workers: who serves which session, and what becomes of queued calls at an end."""

import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

import pytest

from delivery_modes import DEADLINE, LOOPS, Gate, LoopThread, Recorder, WatchedExecutor
from pagebus import Overflow, PubSubHub

LIMIT = 10

LONGER_THAN_A_JOB = 0.06
"""Seconds in one handler after which its job makes room for other users of the executor."""


class Overlaps:
    """Makes handlers that note when two of one session are called at once."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self._inside: Counter[str] = Counter()

    def handler(self, session_id: str, work: Any = lambda message: time.sleep(0)) -> Any:
        def handler(*args: Any) -> None:
            self._inside[session_id] += 1
            self.calls[session_id] += 1
            self.most[session_id] = max(self.most[session_id], self._inside[session_id])
            work(args[-1])
            self._inside[session_id] -= 1

        return handler


# ---- which worker ----------------------------------------------------------------------------


def test_messages_behind_an_awaitable_find_a_free_worker_when_it_is_done():
    thread, executor, blocked, got = LoopThread(), WatchedExecutor(4), Gate(), Recorder()
    hub, answer = PubSubHub(thread.loop, executor), Gate()

    def handler(topic: str, message: int) -> Any:
        got.record(message)
        return answer.passed() if message == 1 else None

    hub.subscribe_topic("ann", "lobby", handler)
    hub.subscribe("bob", blocked.wait)
    hub.send_all_on_topic("lobby", 1)
    answer.arrivals.wait(1)
    hub.send_all_on_topic("lobby", 2)
    executor.wait_idle()
    hub.send_all("this blocks a worker")
    blocked.arrivals.wait(1)

    answer.open()

    assert got.wait(2) == [1, 2]
    blocked.open()
    executor.shutdown()
    thread.close()


@pytest.mark.parametrize("refused", [1, 2, 3])
def test_an_executor_that_refuses_one_job_does_not_let_two_workers_into_one_session(
    refused: int, log: Any
):
    class FullOnce(WatchedExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
            if self.submitted == refused and not was_full.is_set():
                was_full.set()
                raise RuntimeError("the queue is full")
            return super().submit(*args, **kwargs)

    was_full = threading.Event()
    executor, overlaps = FullOnce(4), Overlaps()
    hub = PubSubHub(executor=executor)
    names = [f"session {number}" for number in range(20)]

    def work(message: int) -> None:
        # No worker comes to an end before so many are wanted.
        assert was_full.wait(DEADLINE)
        time.sleep(0.0001)

    for name in names:
        hub.subscribe(name, overlaps.handler(name, work))

    for message in range(10):
        hub.send_all(message)
    executor.wait_idle()
    executor.shutdown()

    assert overlaps.calls == dict.fromkeys(names, 10)
    assert overlaps.most == dict.fromkeys(names, 1)
    assert hub.stats().pending == 0


def test_a_session_whose_job_was_cancelled_is_served_again(log: Any):
    jobs: list[Future[Any]] = []

    class Pool(WatchedExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
            jobs.append(super().submit(*args, **kwargs))
            return jobs[-1]

    executor, first, other, got = Pool(1), Gate(), Gate(), Recorder()
    hub = PubSubHub(executor=executor)

    def slow(message: int) -> None:
        if message == 0:
            first.wait()
            time.sleep(LONGER_THAN_A_JOB)

    hub.subscribe("ann", slow)
    hub.subscribe("bob", got.record)
    hub.send_all(0)
    first.arrivals.wait(1)
    # Bob's session stands in the run queue, and somebody else's work before the next job.
    executor.submit(other.wait)
    hub.unsubscribe_all("bob")
    first.open()
    other.arrivals.wait(1)
    cancelled = [job.cancel() for job in jobs]
    assert sum(cancelled) == 1
    other.open()
    executor.submit(bool).result()

    hub.subscribe("bob", got.record)
    for message in (1, 2, 3):
        hub.send_all(message)

    assert got.wait(3) == [1, 2, 3]
    executor.shutdown()
    log.take_all()


def test_a_process_pool_is_refused():
    with ProcessPoolExecutor(1) as executor, pytest.raises(TypeError, match="in this process"):
        PubSubHub(executor=executor)


# ---- an end ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LOOPS)
def test_a_loop_that_closes_does_not_take_the_workers_messages_with_it(kind: str, log: Any):
    loop, executor, gate = LOOPS[kind](), WatchedExecutor(2), Gate()
    got, neighbour, never = Recorder(), Recorder(), Recorder()
    hub = PubSubHub(loop, executor)

    def handler(message: int) -> None:
        gate.wait(message)
        got.record(message)

    hub.subscribe("ann", handler)
    hub.subscribe("ann", never.record_async)
    hub.subscribe("bob", neighbour.record)
    hub.send_all(0)
    gate.arrivals.wait(1)
    for message in range(1, 6):
        hub.send_all(message)
    # Who has bob's has put ann's into her session's queue as well.
    neighbour.wait(6)

    loop.close()
    gate.open()

    assert got.wait(6) == [0, 1, 2, 3, 4, 5]
    executor.wait_idle()
    executor.shutdown()
    assert never == []
    assert hub.stats().dropped == 6
    log.take(1)


@pytest.mark.parametrize("kind", LOOPS)
def test_a_loop_that_closes_does_not_let_a_second_worker_into_a_session(kind: str, log: Any):
    loop, executor, gate = LOOPS[kind](), WatchedExecutor(4), Gate()
    overlaps, neighbour = Overlaps(), Recorder()
    hub = PubSubHub(loop, executor)
    hub.subscribe_topic("ann", "lobby", overlaps.handler("ann", gate.wait))
    hub.subscribe("ann", neighbour.record_async)
    hub.subscribe_topic("bob", "lobby", lambda topic, message: neighbour.record(message))
    hub.send_all_on_topic("lobby", 0)
    gate.arrivals.wait(1)
    hub.send_all("for the loop")

    loop.close()
    for message in range(1, 50):
        hub.send_all_on_topic("lobby", message)
        neighbour.wait(message + 1)

    assert gate.arrivals == [0]
    gate.open()
    gate.arrivals.wait(50)
    executor.wait_idle()
    executor.shutdown()
    assert overlaps.most == {"ann": 1}
    log.take(1)


def test_a_shutdown_that_waits_sees_everything_delivered():
    executor, gate, got = WatchedExecutor(1), Gate(), Recorder()
    hub = PubSubHub(executor=executor)

    def slow(message: int) -> None:
        gate.wait(message)
        time.sleep(LONGER_THAN_A_JOB if message == 0 else 0)

    hub.subscribe("the slow one", slow)
    for number in range(100):
        hub.subscribe(f"session {number}", got.record)
    for message in range(5):
        hub.send_all(message)
    gate.arrivals.wait(1)

    executor.shutdown(wait=False)
    gate.open()
    executor.shutdown(wait=True)

    assert Counter(got) == dict.fromkeys(range(5), 100)
    assert (hub.stats().dropped, hub.stats().pending) == (0, 0)


def test_a_program_that_ends_delivers_what_waits_for_its_workers_first():
    program = """
        import atexit, time
        from concurrent.futures import ThreadPoolExecutor
        from pagebus import PubSubHub

        def slow(message):
            time.sleep(0.005)
            got.append(message)

        got = []
        atexit.register(lambda: print(got == list(range(30))))
        hub = PubSubHub(executor=ThreadPoolExecutor(2))
        hub.subscribe("ann", slow)
        for message in range(30):
            hub.send_all(message)
    """

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


# ---- limits ----------------------------------------------------------------------------------


def test_a_blocked_only_worker_makes_one_burst_of_losses(log: Any):
    executor, gate, overflows, got = WatchedExecutor(1), Gate(), Recorder(), Recorder()
    hub = PubSubHub(executor=executor, max_pending=3, on_overflow=overflows.record)

    def handler(message: int) -> None:
        gate.wait(message)
        got.record(message)

    hub.subscribe("ann", handler)
    hub.send_all(0)
    gate.arrivals.wait(1)
    for message in range(1, 10):
        hub.send_all(message)
    assert [overflow.dropped for overflow in overflows] == [1]
    gate.open()
    executor.wait_idle()
    executor.shutdown()

    assert got == [0, 7, 8, 9]
    assert [overflow.dropped for overflow in overflows] == [1, 6]
    assert (hub.stats().dropped, hub.stats().pending) == (6, 0)
    log.take(1)


def let_ann_fall_behind(
    executor: WatchedExecutor, gate: Gate, on_overflow: Callable[[Overflow], object], count: int
) -> tuple[PubSubHub, Recorder]:
    """Ann is at a closed gate and loses what cannot wait, while Bob hears ``count`` messages."""
    hub, heard = PubSubHub(executor=executor, max_pending=1, on_overflow=on_overflow), Recorder()
    hub.subscribe("ann", gate.wait)
    hub.subscribe("bob", heard.record)
    for message in range(count):
        hub.send_all(message)
        heard.wait(message + 1)
        gate.arrivals.wait(1)
    return hub, heard


def test_a_slow_report_about_one_handler_delays_nobody_else(log: Any):
    executor, gate, report = WatchedExecutor(4), Gate(), Gate()

    hub, got = let_ann_fall_behind(executor, gate, report.wait, 3)
    # Ann has lost a message, and the report of that is not through.
    report.arrivals.wait(1)
    for message in range(3, 6):
        hub.send_all(message)
        got.wait(message + 1)
    report.open()
    gate.open()
    executor.shutdown()

    assert got == list(range(6))
    log.take(1)


def test_the_end_of_a_burst_is_reported_after_its_beginning_however_long_that_takes(log: Any):
    executor, gate, report, told = WatchedExecutor(4), Gate(), Gate(), Recorder()

    def tell(overflow: Overflow) -> None:
        report.wait(overflow)
        told.record(overflow.dropped)

    let_ann_fall_behind(executor, gate, tell, 5)
    # Ann catches up, while her first loss is still being reported.
    report.arrivals.wait(1)
    gate.open()
    gate.arrivals.wait(2)
    report.open()
    told.wait(2)
    executor.shutdown()

    assert told == [1, 3]
    log.take(1)


def test_what_is_lost_is_counted_even_while_the_report_of_something_else_takes_long(log: Any):
    executor, report = WatchedExecutor(4), Gate()
    hub = PubSubHub(
        executor=executor, max_pending=1, overflow="unsubscribe", on_overflow=report.wait
    )
    got, slow = Recorder(), [Gate(), Gate()]
    for number, handler in enumerate(slow):
        hub.subscribe_topic(str(number), str(number), lambda _, m, h=handler: h.wait(m))
    hub.subscribe("bob", got.record)

    for number, handler in enumerate(slow):
        for message in range(3):
            hub.send_all_on_topic(str(number), message)
            handler.arrivals.wait(1)
        report.arrivals.wait(1)
    hub.send_all("behind both")
    got.wait(1)
    during = hub.stats()
    for waiting in (report, *slow):
        waiting.open()
    executor.shutdown()

    assert (during.pending, during.dropped, hub.stats().dropped) == (0, 4, 4)
    log.take(2)


def test_what_overflows_behind_an_awaitable_is_counted_and_reported(log: Any):
    thread, executor, gate, overflows = LoopThread(), WatchedExecutor(2), Gate(), Recorder()
    hub = PubSubHub(thread.loop, executor, max_pending=LIMIT, on_overflow=overflows.record)
    hub.subscribe("ann", lambda message: gate.passed(message))
    hub.send_all(0)
    gate.arrivals.wait(1)
    for message in range(1, 51):
        hub.send_all(message)
        executor.wait_idle()

    gate.open()
    gate.arrivals.wait(1 + LIMIT)
    executor.wait_idle()
    thread.spin()
    executor.shutdown()
    thread.close()

    assert gate.arrivals == [0, *range(41, 51)]
    assert [overflow.dropped for overflow in overflows] == [1, 40]
    assert hub.stats().dropped == 40
    log.take(1)


def test_a_hook_that_says_goodbye_at_the_end_of_a_burst_has_the_last_word(log: Any):
    executor, events, sent = WatchedExecutor(1), Recorder(), [0]

    def hook(overflow: Overflow) -> None:
        if overflow.dropped > 1:
            hub.unsubscribe_all("ann")
            events.record("goodbye")

    def handler(message: int) -> None:
        events.record(message)
        for _ in range(2 if sent[0] < 20 else 0):
            sent[0] += 1
            hub.send_all(sent[0])

    hub = PubSubHub(executor=executor, max_pending=2, on_overflow=hook)
    hub.subscribe("ann", handler)
    hub.send_all(0)
    executor.wait_idle()
    executor.shutdown()

    assert events[-1] == "goodbye"
    assert events.count("goodbye") == 1
    log.take_all()


def test_calls_that_may_overlap_have_a_limit_while_others_keep_the_worker(log: Any):
    executor, made, pending = WatchedExecutor(1), Recorder(), Recorder()
    hub = PubSubHub(executor=executor, max_pending=LIMIT)

    def next_round(topic: str, round_: int) -> None:
        for message in range(LIMIT):
            hub.send_all((round_, message))
        pending.record(hub.stats().pending)
        if round_ < 50:
            hub.send_all_on_topic("rounds", round_ + 1)
        else:
            made.record("the end")

    hub.subscribe("ann", made.record, concurrent=True)
    hub.subscribe_topic("bob", "rounds", next_round)
    hub.send_all_on_topic("rounds", 1)
    executor.wait_idle()
    executor.shutdown()

    # What waits at the end is the newest, once, however often the queue was full before.
    assert made[made.index("the end") + 1 :] == [(50, message) for message in range(LIMIT)]
    assert max(pending) <= 2 * LIMIT
    assert hub.stats().pending == 0
    assert len(made) - 1 + hub.stats().dropped == 50 * LIMIT
    log.take_all()


class OneJob(WatchedExecutor):
    """Takes one job, and drops all others without a word."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        return super().submit(fn, *args, **kwargs) if not self.submitted else None


def test_what_gave_way_is_counted_once_when_the_executor_drops_its_job(log: Any):
    executor, got = OneJob(1), Recorder()
    hub = PubSubHub(executor=executor, max_pending=1)

    def send_one_more(message: int) -> None:
        got.record(message)
        if message == 0:
            hub.send_all(1)
        else:
            time.sleep(LONGER_THAN_A_JOB)

    hub.subscribe("ann", send_one_more)
    hub.subscribe("bob", got.record)
    hub.send_all(0)
    executor.wait_idle()
    stats = hub.stats()

    assert stats.delivered + stats.dropped == 2 * stats.published
    assert stats.pending == 0
    executor.shutdown()
    log.take_all()
