"""What the hub's hooks are given: failed calls and lost messages."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from delivery_modes import ASYNC, DEADLINE, EXECUTOR, INLINE, Bus, Gate, LoopThread, Recorder
from pagebus import HandlerFailure, Overflow, PubSubHub


def test_a_failure_carries_everything_about_one_delivery(bus: Bus, log: Any):
    failures, message = Recorder(), object()
    error = ValueError("no")

    def fail(*args: Any) -> None:
        raise error

    bus.hub = bus.new_hub(on_error=failures.record)
    handler = bus.handler(fail)
    bus.subscribe_topic("ann", "lobby", handler)
    bus.hub.send_all_on_topic("lobby", message)

    (failure,) = failures.wait(1)
    assert isinstance(failure, HandlerFailure)
    assert failure.exception is error
    assert failure.exception.__traceback__ is not None
    assert (failure.session_id, failure.topic) == ("ann", "lobby")
    assert failure.handler is handler
    assert failure.message is message
    assert "HandlerFailure" in repr(failure)
    log.take(1)


def test_a_failure_of_a_broadcast_has_no_topic(inline_bus: Bus, log: Any):
    failures = Recorder()
    inline_bus.hub = inline_bus.new_hub(on_error=failures.record)
    inline_bus.subscribe("ann", lambda message: 1 / 0)
    inline_bus.hub.send_all("hello")

    assert failures[0].topic is None
    log.take(1)


def test_an_overflow_carries_whose_it_is_and_how_much(queued_bus: Bus, log: Any):
    overflows, gate = Recorder(), queued_bus.gate()
    queued_bus.hub = queued_bus.new_hub(max_pending=1, on_overflow=overflows.record)
    got, neighbour = queued_bus.recorder(gate), queued_bus.recorder()
    queued_bus.subscribe_topic("ann", "lobby", got.handler)
    queued_bus.subscribe_topic("bob", "lobby", neighbour.handler)
    for message in range(5):
        queued_bus.hub.send_all_on_topic("lobby", message)
        neighbour.wait(message + 1)
        gate.arrivals.wait(1)
    gate.open()
    queued_bus.settle()

    first, last = overflows.wait(2)
    for overflow in (first, last):
        assert isinstance(overflow, Overflow)
        assert (overflow.session_id, overflow.topic) == ("ann", "lobby")
        assert overflow.handler is got.handler
        assert "Overflow" in repr(overflow)
    assert (first.dropped, last.dropped) == (1, 3)
    log.take(1)


@pytest.mark.parametrize("kind", [HandlerFailure, Overflow])
def test_a_report_is_made_by_a_hub_only(kind: Callable[[], object]):
    with pytest.raises(TypeError):
        kind()


def test_a_report_cannot_be_changed(log: Any):
    failures = Recorder()
    hub = PubSubHub(on_error=failures.record)
    hub.subscribe("ann", lambda message: 1 / 0)
    hub.send_all("hello")

    with pytest.raises(AttributeError):
        failures[0].session_id = "bob"
    log.take(1)


def test_a_report_may_outlive_its_hub(log: Any):
    failures = Recorder()
    hub = PubSubHub(on_error=failures.record)
    hub.subscribe("ann", lambda message: 1 / 0)
    hub.send_all("hello")
    del hub

    (failure,) = failures
    assert (failure.session_id, failure.message) == ("ann", "hello")
    assert isinstance(failure.exception, ZeroDivisionError)
    log.take(1)


# ---- a topic whose loop, executor or sender does not keep up --------------------------------


def blocking(bus: Bus, gate: Gate, got: Recorder) -> Callable[..., object]:
    """A handler that keeps the thread that delivers at a gate."""

    def block(message: Any) -> None:
        gate.wait(message)
        got.record(message)

    async def block_async(message: Any) -> None:
        block(message)

    return block_async if bus.mode.is_async else block


@pytest.mark.parametrize("bus", [*ASYNC, *INLINE], indirect=True, ids=str)
def test_the_end_of_a_topics_burst_is_told_after_its_beginning_however_long_that_takes(
    bus: Bus, log: Any
):
    gate, report, got, told = bus.gate(), bus.gate(), Recorder(), Recorder()

    def tell(overflow: Overflow) -> None:
        if threading.current_thread() is sender:
            report.wait(overflow)
        told.record(overflow.dropped)

    def send(*messages: int) -> None:
        for message in messages:
            bus.hub.send_all(message)

    first = threading.Thread(target=send, args=(0,))
    sender = threading.Thread(target=send, args=(1, 2, 3))
    bus.hub = bus.new_hub(max_pending=2, on_overflow=tell)
    bus.subscribe("ann", blocking(bus, gate, got))
    first.start()
    gate.arrivals.wait(1)
    sender.start()
    # Ann catches up, while her topic's first loss is still being reported.
    report.arrivals.wait(1)
    gate.open()
    got.wait(3)
    assert told == []
    report.open()
    for thread in (first, sender):
        thread.join(DEADLINE)
    bus.settle()

    assert got == [0, 2, 3]
    assert told == [1, 1]
    log.take(1)


def test_a_sender_does_not_wait_for_the_report_that_another_thread_makes(log: Any):
    thread, blocked, report, told = LoopThread(), Gate(), Gate(), Recorder()

    def tell(overflow: Overflow) -> None:
        report.wait(overflow)
        told.record((overflow.topic, overflow.dropped))

    hub = PubSubHub(thread.loop, max_pending=1, on_overflow=tell)
    for topic in ("one", "two"):
        hub.subscribe_topic("ann", topic, Recorder().record_async)
    thread.loop.call_soon_threadsafe(blocked.wait)

    def send(topic: str) -> None:
        for number in range(3):
            hub.send_all_on_topic(topic, number)

    other = threading.Thread(target=send, args=("one",))
    other.start()
    report.arrivals.wait(1)
    send("two")
    assert told == []
    blocked.open()
    thread.spin()
    report.open()
    other.join(DEADLINE)
    thread.close()

    assert told == [("one", 1), ("two", 1), ("one", 1), ("two", 2)]
    log.take(2)


def test_what_a_hook_loses_is_told_when_the_hook_has_returned(log: Any):
    thread, events = LoopThread(), Recorder()

    def tell(overflow: Overflow) -> None:
        events.record(("begins", overflow.topic))
        if overflow.topic == "one" and overflow.dropped == 1:
            send("two")
        events.record(("ends", overflow.topic))

    def send(topic: str) -> None:
        for number in range(3):
            hub.send_all_on_topic(topic, number)

    hub = PubSubHub(thread.loop, max_pending=1, on_overflow=tell)
    for topic in ("one", "two"):
        hub.subscribe_topic("ann", topic, Recorder().record_async)
    thread.run(send, "one")
    thread.spin()
    thread.close()

    topics = ["one", "two", "two", "one"]
    assert events == [(what, topic) for topic in topics for what in ("begins", "ends")]
    log.take(2)


@pytest.mark.parametrize(
    ("bus", "who"),
    [
        *((mode, "the event loop") for mode in ASYNC),
        *((mode, "the executor") for mode in EXECUTOR),
        *((mode, "the thread that delivers") for mode in INLINE),
    ],
    indirect=["bus"],
    ids=str,
)
def test_the_log_says_who_does_not_keep_up(bus: Bus, who: str, log: Any):
    gate, got = bus.gate(), Recorder()
    bus.hub = bus.new_hub(max_pending=1)
    bus.subscribe("ann", blocking(bus, gate, got))
    if bus.executor:
        for _ in range(bus.workers):
            bus.executor.submit(gate.wait)
    sender = threading.Thread(target=bus.hub.send_all, args=(0,))
    sender.start()
    gate.arrivals.wait(1)
    for number in range(1, 3):
        bus.hub.send_all(number)
    gate.open()
    sender.join(DEADLINE)
    bus.settle()

    (record,) = log.take(1)
    assert record.getMessage() == f"{who} does not keep up; dropping its oldest messages"
