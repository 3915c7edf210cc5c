"""Fixtures of the whole test suite: a hub in each delivery mode, and the log that it must keep."""

import gc
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

import parallel
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
    "caplog": "what is logged is logged for the whole process",
    "capsys": "there is one stdout",
    "monkeypatch": "what is patched is patched for the whole process",
    "_ctrl_c": "there is one handler of a signal",
    "impolite_threads": "there is one switch interval",
    "broker": "what fails has several servers",
    "cluster": "a cluster has several servers",
    "watched": "a master, its replica and its sentinels are several servers",
    "process": "it is about other processes",
}
"""Fixtures that belong to the process, and why two threads cannot use them at once."""


PROGRAMS = Path(__file__).parent / "flet"
"""Tests of programs and browsers, which would only be the same four times."""


def _runs_in_threads(config: pytest.Config) -> bool:
    return str(config.getoption("parallel_threads", 1)) != "1"


def pytest_configure(config: pytest.Config) -> None:
    if _runs_in_threads(config):
        parallel.inherit_runners()


def pytest_collection_finish(session: pytest.Session) -> None:
    """What pytest has made so far is not looked at whenever a test collects garbage."""
    if _runs_in_threads(session.config):
        gc.collect()
        gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``--parallel-threads``, a test runs in several threads if nothing is against it."""
    if not _runs_in_threads(config):
        return
    for item in items:
        if isinstance(item, pytest.Function):
            for name in OF_THE_PROCESS.keys() & item.fixturenames:
                item.add_marker(pytest.mark.thread_unsafe(reason=OF_THE_PROCESS[name]))
            if PROGRAMS in item.path.parents:
                item.add_marker(pytest.mark.thread_unsafe(reason="it is about other processes"))
            if not item.get_closest_marker("thread_unsafe"):
                parallel.prepare(item)


LOGGER = logging.getLogger("pagebus")


class Log(logging.Handler):
    """What was logged on ``pagebus``. A warning or error that no test has taken is a failure."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.addFilter(parallel.here())
        self.records: list[logging.LogRecord] = []
        self._beside: list[logging.Handler] = []
        self._grew = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._grew:
            self.records.append(record)
            self._grew.notify_all()
        for handler in self._beside:
            handler.handle(record)

    @contextmanager
    def beside(self, handler: logging.Handler) -> Iterator[None]:
        """Meanwhile, what is logged here goes to ``handler`` too."""
        self._beside.append(handler)
        try:
            yield
        finally:
            self._beside.remove(handler)

    def keep_alone(self) -> list[logging.LogRecord]:
        """The records; pytest keeps none of them, nor what their tracebacks refer to."""
        LOGGER.propagate = False
        return self.records

    def take(self, count: int) -> list[logging.LogRecord]:
        """Wait for ``count`` records, forget them here, and return them."""
        with self._grew:
            came = self._grew.wait_for(lambda: len(self.records) >= count, DEADLINE)
            assert came, f"{len(self.records)} of {count} records were logged"
            taken, self.records = self.records, []
        assert len(taken) == count, [record.getMessage() for record in taken]
        return taken

    def take_all(self) -> list[logging.LogRecord]:
        """Forget every record here and return them, however many there are."""
        with self._grew:
            taken, self.records = self.records, []
        return taken

    def text(self, record: logging.LogRecord) -> str:
        """The record as a log file would show it, traceback included."""
        return logging.Formatter("%(levelname)s %(message)s").format(record)


class Logs(logging.Handler):
    """The logs of all threads that run the test, each of which takes what is its own.

    A logger passes over a handler while another thread removes one; so it has only this.
    """

    def __init__(self) -> None:
        super().__init__()
        self._all: list[Log] = []
        self._changing = threading.Lock()

    def handle(self, record: logging.LogRecord) -> bool:
        for log in self._all:
            if record.levelno >= log.level:
                log.handle(record)
        return True

    @contextmanager
    def one_more(self) -> Iterator[Log]:
        log = Log()
        with self._changing:
            self._all = [*self._all, log]
        try:
            yield log
        finally:
            with self._changing:
                self._all = [other for other in self._all if other is not log]
        assert [log.text(record) for record in log.take_all()] == []


@pytest.fixture
def log(request: pytest.FixtureRequest) -> Iterator[Log]:
    logs = Logs()
    LOGGER.addHandler(logs)
    try:
        yield from parallel.for_each_runner(request, logs.one_more)
    finally:
        LOGGER.removeHandler(logs)
        LOGGER.propagate = True


@pytest.fixture
def told(request: pytest.FixtureRequest) -> Iterator[list[BaseException | None]]:
    """What the interpreter was told because nobody else could be: errors of ``__del__``."""
    listeners: list[Callable[[Any], None]] = []

    @contextmanager
    def listen() -> Iterator[list[BaseException | None]]:
        is_own, errors = parallel.here(), list[BaseException | None]()

        def listener(problem: Any) -> None:
            if is_own(problem):
                errors.append(problem.exc_value)

        listeners.append(listener)
        yield errors

    def tell(problem: Any) -> None:
        for listener in listeners:
            listener(problem)

    before, sys.unraisablehook = sys.unraisablehook, tell
    try:
        yield from parallel.for_each_runner(request, listen)
    finally:
        sys.unraisablehook = before


@pytest.fixture
def _ctrl_c() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, even where the tests were started with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def _fixture_of(modes: list[Mode]) -> object:
    @pytest.fixture(params=modes, ids=str)
    def bus_in_mode(request: pytest.FixtureRequest, log: Log) -> Iterator[Bus]:
        yield from parallel.for_each_runner(request, lambda: closing(Bus(request.param)))

    return bus_in_mode


bus = _fixture_of(ALL)
queued_bus = _fixture_of(QUEUED)
async_bus = _fixture_of(ASYNC)
suspending_bus = _fixture_of(SUSPENDING)
executor_bus = _fixture_of(EXECUTOR)
inline_bus = _fixture_of(INLINE)
awaiting_bus = _fixture_of(AWAITING)
