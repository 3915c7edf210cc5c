"""What each thread that runs a test has for itself; only `make parallel` runs them in several."""

import logging
import threading
import weakref
from typing import Any

from delivery_modes import Bus, collect_garbage, in_threads
from pagebus import PubSubHub

LOGGER = logging.getLogger("pagebus")


def test_a_log_has_what_its_own_threads_have_logged_and_nothing_else(log: Any):
    name = threading.current_thread().name

    def log_it() -> None:
        LOGGER.error(name)

    for _ in range(100):
        log_it()
        in_threads(log_it, lambda: in_threads(log_it))
        assert [record.getMessage() for record in log.take(3)] == [name] * 3


def test_a_log_has_what_the_hub_of_its_own_bus_reports_on_whatever_thread(bus: Bus, log: Any):
    def fail(message: Any) -> None:
        raise ValueError(message)

    message = threading.current_thread().name
    bus.subscribe("ann", bus.handler(fail))
    for _ in range(20):
        bus.hub.send_all(message)
        (record,) = log.take(1)
        assert str(record.exc_info[1]) == message


def test_the_interpreter_tells_each_thread_of_its_own_errors(told: list[Any]):
    name = threading.current_thread().name

    class Dying:
        def __del__(self) -> None:
            raise ValueError(name)

    for _ in range(100):
        Dying()
        in_threads(Dying)

    assert [str(error) for error in told] == [name] * 200


def test_collecting_garbage_leaves_none_whoever_else_collects_it():
    class Cycle:
        def __init__(self) -> None:
            self.me, self.hub = self, PubSubHub()

    for _ in range(20):
        gone = weakref.ref(Cycle())
        collect_garbage()
        assert gone() is None
