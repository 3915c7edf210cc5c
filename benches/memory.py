"""The memory of a topic subscription: resident bytes before and after, in a fresh process."""

from __future__ import annotations

import gc
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from benches.audience import Audience
from benches.contest import Contest, Contestant, Round
from benches.handlers import TopicHandler
from benches.sessions import flet_hub, make_context
from pagebus import PubSubHub

SESSIONS = (1_000, 10_000, 100_000)
EACH = 5
"""Topics that a session is on."""
TOPICS = 1_000

HUBS: dict[str, Callable[[], Any]] = {"pagebus": PubSubHub, "Flet": flet_hub}


class Crowd:
    """Sessions, each with an id, a handler and a context of its own, as pages have."""

    def __init__(self, size: int) -> None:
        self.audience = Audience()
        choose = random.Random(size)
        self.topics = [f"topic-{number}" for number in range(TOPICS)]
        self.sessions = [f"session-{number}" for number in range(size)]
        self.handlers = [self.audience.make_topic_handler() for _ in self.sessions]
        self.contexts = [make_context(session) for session in self.sessions]
        self.choices = [tuple(choose.sample(self.topics, EACH)) for _ in self.sessions]

    def join(self, bus: Any) -> None:
        """Subscribes everybody; what it returns is dropped, as programs written for Flet do."""
        everybody = zip(self.sessions, self.handlers, self.contexts, self.choices, strict=True)
        for session, handler, context, topics in everybody:
            context.run(self._join, bus.subscribe_topic, session, topics, handler)

    @staticmethod
    def _join(
        subscribe_topic: Callable[..., Any],
        session: str,
        topics: tuple[str, ...],
        handler: TopicHandler,
    ) -> None:
        for topic in topics:
            subscribe_topic(session, topic, handler)

    def check(self, bus: Any) -> None:
        """Sends on every topic, and sees that everybody who joined has heard."""
        for topic in self.topics:
            bus.send_all_on_topic(topic, "hello")
        self.audience.expect(EACH * len(self.sessions), 0)


def resident() -> int:
    """The bytes that this process occupies now."""
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def measure(way: str, size: int) -> float:
    """Bytes for each subscription of a hub that is in use: every topic has had a message."""
    crowd, bus = Crowd(size), HUBS[way]()
    before = resident()
    crowd.join(bus)
    crowd.check(bus)
    return (resident() - before) / (size * EACH)


def in_a_fresh_process(way: str, size: int) -> Contestant:
    """A contestant whose rounds know nothing of what earlier ones have freed."""

    @contextmanager
    def contestant() -> Iterator[Round]:
        command = [sys.executable, "-m", "benches.memory", way, str(size)]
        yield lambda: {"time": float(subprocess.check_output(command, text=True))}

    return contestant


def contest(size: int) -> Contest:
    """The contest for one number of sessions."""
    contestants = {way: in_a_fresh_process(way, size) for way in HUBS}
    return Contest(
        f"memory {size}",
        contestants,
        unit="byte",
        # Every round measures in a process of its own anyway.
        rounds=1,
        warmups=0,
        short_rounds=1 if size == 10_000 else 0,
    )


CONTESTS = [contest(size) for size in SESSIONS]

if __name__ == "__main__":
    print(measure(sys.argv[1], int(sys.argv[2])))
