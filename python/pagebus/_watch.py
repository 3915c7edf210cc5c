"""What a monitor shows of a hub: readings once a second, and what follows from two of them."""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pagebus._core import PubSubHub, Stats

PERIOD = 1.0
"""Seconds between two readings."""
SPAN = 180.0
"""For so many seconds readings are kept."""

MOST_LISTED = 20
MOST_CHARACTERS = 200
# Listing sessions and topics takes longer the more there are; it may take one second in so many.
SHARE_OF_LISTS = 200


@dataclass(frozen=True)
class Reading:
    """A hub at one moment, in values that JSON knows."""

    at: float
    published: int
    delivered: int
    failed: int
    dropped: int
    pending: int
    sessions: int
    topics: int
    subscriptions: int
    latency_p50: float
    latency_p99: float
    latency_max: float
    outbox: int
    unpublished: int
    unreadable: int
    gaps: int
    reconnects: int
    named: list[list[str]]
    """Some of the sessions: id, and what it says of itself."""
    busiest: list[tuple[str, int, int]]
    """Topics, the busiest first: name, sessions, messages."""
    slowest: list[tuple[str, int, float, float]]
    """Handlers: name, slow calls, their mean and longest time in seconds."""
    failing: list[tuple[str, int, str]]
    """Handlers: name, failures, last traceback."""


class Reader:
    """Reads a hub, without keeping it alive and without asking too much of it."""

    def __init__(self, hub: PubSubHub) -> None:
        self._hub = weakref.ref(hub)
        self._named: list[list[str]] = []
        self._quiet: list[tuple[str, int]] = []
        self._list_again_at = 0.0

    def read(self) -> Reading | None:
        """Read the hub; ``None`` if it is gone."""
        if (hub := self._hub()) is None:
            return None
        stats = hub.stats()
        busiest = [(_shown(b.topic), b.sessions, b.published) for b in stats.busiest]
        busy = {b.topic for b in stats.busiest}
        self._list(hub, busy)
        quiet = [
            (_shown(topic), sessions, 0) for topic, sessions in self._quiet if topic not in busy
        ]
        return Reading(
            at=time.monotonic(),
            **_numbers(stats),
            named=self._named,
            busiest=(busiest + quiet)[:MOST_LISTED],
            slowest=[(_shown(s.handler), s.calls, s.mean, s.max) for s in stats.slowest],
            failing=[
                (_shown(f.handler), f.failures, _writable(f.traceback)) for f in stats.failing
            ],
        )

    def _list(self, hub: PubSubHub, busy: set[str]) -> None:
        """List some of the sessions, and topics that nothing is sent on."""
        begin = time.monotonic()
        if begin < self._list_again_at:
            return
        sessions = islice(hub.sessions().items(), MOST_LISTED)
        self._named = [[_shown(session_id), _identity(info)] for session_id, info in sessions]
        quiet = islice((topic for topic in hub.topics() if topic not in busy), MOST_LISTED)
        self._quiet = [(topic, hub.subscriber_count(topic)) for topic in quiet]
        end = time.monotonic()
        self._list_again_at = end + (end - begin) * SHARE_OF_LISTS


def _numbers(stats: Stats) -> dict[str, Any]:
    return {name: value for name, value in stats.asdict().items() if isinstance(value, int | float)}


def _identity(info: Mapping[str, Any]) -> str:
    return _shown(", ".join(f"{name}={_text(value)}" for name, value in info.items()))


def _text(value: Any) -> str:
    try:
        return str(value)[:MOST_CHARACTERS]
    except Exception:
        return f"<{type(value).__name__}>"


def _shown(name: str) -> str:
    return _writable(name[:MOST_CHARACTERS])


def _writable(text: str) -> str:
    """A text that can be sent: lone surrogates, which no encoding has, are written out."""
    return text.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class Moment:
    """A point of the charts: rates in messages per second, latencies in seconds."""

    at: float
    published: float
    delivered: float
    p50: float
    p99: float
    max: float


class Watch:
    """The last minutes of one hub, for all who look at it."""

    def __init__(self) -> None:
        self.reading: Reading | None = None
        self._moments: deque[Moment] = deque(maxlen=int(SPAN / PERIOD) + 1)

    def add(self, reading: Reading) -> None:
        """Take the next reading."""
        before, self.reading = self.reading, reading
        if before is not None and reading.at > before.at:
            self._moments.append(_moment(before, reading))

    def moments(self) -> Iterator[Moment]:
        """The points of the charts, oldest first."""
        return iter(self._moments)

    @property
    def last(self) -> Moment | None:
        """The newest point."""
        return self._moments[-1] if self._moments else None


class HubWatch(Watch):
    """A watch that reads a hub itself, at most once in a period, however many look at it."""

    def __init__(self, hub: PubSubHub) -> None:
        super().__init__()
        self._reader = Reader(hub)

    def refresh(self) -> None:
        """Read the hub, unless that was done just now."""
        now = time.monotonic()
        if self.reading is not None and now < self.reading.at + PERIOD * 0.9:
            return
        if (reading := self._reader.read()) is not None:
            self.add(reading)


_watches: weakref.WeakKeyDictionary[PubSubHub, HubWatch] = weakref.WeakKeyDictionary()


def watch_of(hub: PubSubHub) -> HubWatch:
    """The watch that all monitors of a hub share."""
    return _watches.get(hub) or _watches.setdefault(hub, HubWatch(hub))


def _moment(before: Reading, now: Reading) -> Moment:
    seconds = now.at - before.at
    return Moment(
        at=now.at,
        published=(now.published - before.published) / seconds,
        delivered=(now.delivered - before.delivered) / seconds,
        p50=now.latency_p50,
        p99=now.latency_p99,
        max=now.latency_max,
    )
