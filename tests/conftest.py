"""Fixtures of the whole test suite: a hub in each delivery mode, and the log that it must keep."""

import logging
import threading
from collections.abc import Iterator

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
