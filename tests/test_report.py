"""What the hub's hooks are given: failed calls and lost messages."""

from collections.abc import Callable
from typing import Any

import pytest

from delivery_modes import Bus, Recorder
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
