"""What the tests of linked hubs use: a codec that everybody can read, and a log to wait for."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from pagebus import PubSubHub

PATIENCE = 30.0 * float(os.environ.get("PAGEBUS_PATIENCE", "1"))
"""Seconds after which something that should have happened counts as never happening."""

Linked = Callable[..., PubSubHub]


class Json:
    """A codec that everybody can read."""

    @staticmethod
    def encode(message: Any) -> bytes:
        return json.dumps(message).encode()

    @staticmethod
    def decode(data: bytes) -> Any:
        return json.loads(data)


def until(happens: Callable[[], object], what: str) -> None:
    """Return when something has happened."""
    deadline = time.monotonic() + PATIENCE
    while not happens():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def losses(records: list[logging.LogRecord]) -> list[str]:
    """Why a link was lost, as the log says it.

    Not that a server has been silent for too long: where no test silences it, a busy machine does.
    """
    said = [record.getMessage() for record in records]
    silence = ("no heart beat", "no answer", "timed out")
    return [
        line
        for line in said
        if "the link is lost" in line and not any(words in line for words in silence)
    ]


class Log(list[tuple[str | None, Any]]):
    """What a session got: topics and messages."""

    def __init__(self) -> None:
        super().__init__()
        self._condition = threading.Condition()

    def add(self, topic: str | None, message: Any) -> None:
        with self._condition:
            self.append((topic, message))
            self._condition.notify_all()

    def _told(self) -> str:
        return f"{len(self)} came, and last {self[-5:]}"

    def wait_for(self, message: Any) -> list[tuple[str | None, Any]]:
        """What there is when that message has come."""
        with self._condition:
            is_there = lambda: any(got == message for _, got in self)  # noqa: E731
            assert self._condition.wait_for(is_there, PATIENCE), self._told()
            return list(self)

    def wait(self, count: int) -> list[tuple[str | None, Any]]:
        """What there is when there is so much of it."""
        with self._condition:
            assert self._condition.wait_for(lambda: len(self) >= count, PATIENCE), self._told()
            return list(self)


async def follow(hub: PubSubHub, session: str, *topics: str) -> Log:
    """Subscribe a session to messages to all, and to topics, and return what it gets."""
    log = Log()
    subscriptions = [hub.subscribe(session, lambda message: log.add(None, message))]
    subscriptions += [hub.subscribe_topic(session, topic, log.add) for topic in topics]
    for subscription in subscriptions:
        await asyncio.wait_for(subscription.ready(), PATIENCE)
    return log
