"""Fixtures of the whole test suite: a hub in each delivery mode, and the log that it must keep."""

import functools
import inspect
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from delivery_modes import (
    ALL,
    ASYNC,
    AWAITING,
    DEADLINE,
    EXECUTOR,
    INLINE,
    QUEUED,
    SUSPENDING,
    Bus,
    Mode,
)

OF_THE_PROCESS = {
    "log": "what is logged is logged for the whole process",
    "caplog": "what is logged is logged for the whole process",
    "capsys": "there is one stdout",
    "monkeypatch": "what is patched is patched for the whole process",
    "told": "there is one sys.unraisablehook",
    "_ctrl_c": "there is one handler of a signal",
    "impolite_threads": "there is one switch interval",
}
"""Arguments of tests that belong to the process, and why two threads cannot use them at once."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``--parallel-threads``, each thread gets a bus of its own, where that is enough."""
    if str(config.getoption("parallel_threads", 1)) == "1":
        return
    for item in items:
        if isinstance(item, pytest.Function):
            _prepare_for_threads(item)


def _prepare_for_threads(item: pytest.Function) -> None:
    arguments = inspect.signature(item.obj).parameters
    marked = [mark.args[0] for mark in item.iter_markers("usefixtures") if mark.args]
    for name in (*arguments, *marked):
        if name in OF_THE_PROCESS:
            item.add_marker(pytest.mark.thread_unsafe(reason=OF_THE_PROCESS[name]))
    if any("bus" in name for name in arguments):
        item.obj = _with_a_bus_of_its_own(item.obj)


def _with_a_bus_of_its_own(test: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(test)
    def in_a_thread(**arguments: Any) -> None:
        with ExitStack() as at_the_end:
            for name, value in arguments.items():
                if isinstance(value, Bus):
                    arguments[name] = at_the_end.enter_context(closing(Bus(value.mode)))
            test(**arguments)

    return in_a_thread


class Log(logging.Handler):
    """What was logged on ``pagebus``. A warning or error that no test has taken is a failure."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._records: list[logging.LogRecord] = []
        self._grew = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._grew:
            self._records.append(record)
            self._grew.notify_all()

    def take(self, count: int) -> list[logging.LogRecord]:
        """Wait for ``count`` records, forget them here, and return them."""
        with self._grew:
            came = self._grew.wait_for(lambda: len(self._records) >= count, DEADLINE)
            assert came, f"{len(self._records)} of {count} records were logged"
            taken, self._records = self._records, []
        assert len(taken) == count, [record.getMessage() for record in taken]
        return taken

    def take_all(self) -> list[logging.LogRecord]:
        """Forget every record here and return them, however many there are."""
        with self._grew:
            taken, self._records = self._records, []
        return taken

    def text(self, record: logging.LogRecord) -> str:
        """The record as a log file would show it, traceback included."""
        return logging.Formatter("%(levelname)s %(message)s").format(record)


@pytest.fixture
def log() -> Iterator[Log]:
    logger, handler = logging.getLogger("pagebus"), Log()
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    assert [handler.text(record) for record in handler.take_all()] == []


@pytest.fixture
def _ctrl_c() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, even where the tests were started with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def _fixture_of(modes: list[Mode]) -> object:
    @pytest.fixture(params=modes, ids=str)
    def bus_in_mode(request: pytest.FixtureRequest, log: Log) -> Iterator[Bus]:
        bus = Bus(request.param)
        try:
            yield bus
        finally:
            bus.close()

    return bus_in_mode


bus = _fixture_of(ALL)
queued_bus = _fixture_of(QUEUED)
async_bus = _fixture_of(ASYNC)
suspending_bus = _fixture_of(SUSPENDING)
executor_bus = _fixture_of(EXECUTOR)
inline_bus = _fixture_of(INLINE)
awaiting_bus = _fixture_of(AWAITING)
