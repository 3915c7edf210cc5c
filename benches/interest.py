"""A send to a topic with a few subscribers, among very many others or alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from time import perf_counter
from typing import Any

from benches.contest import Contest, Contestant, Round, Values
from pagebus import PubSubHub

AUDIENCE = 10
"""Subscribers of the topic."""
EACH = 10
"""Topics that each of the other sessions is on."""
TOPICS = 1_000
SENDS = 1_000
"""Sends in a round."""

TopicHandler = Callable[[str, Any], None]


def make_handler(heard: itertools.count[int]) -> TopicHandler:
    """A handler that counts."""

    def handler(topic: str, message: Any) -> None:
        next(heard)

    return handler


class Audience:
    """The subscribers of one topic."""

    def __init__(self, bus: PubSubHub, topic: str) -> None:
        self.bus, self.topic = bus, topic
        self.heard = itertools.count()
        self.handlers = [make_handler(self.heard) for _ in range(AUDIENCE)]
        for number, handler in enumerate(self.handlers):
            bus.subscribe_topic(f"{topic}-{number}", topic, handler)

    def timed(self) -> Values:
        """The cost of a send with its deliveries; and that of the first one, with cold caches."""
        send, topic, before = self.bus.send_all_on_topic, self.topic, next(self.heard)
        start = perf_counter()
        send(topic, "hello")
        first = perf_counter()
        for _ in range(SENDS):
            send(topic, "hello")
        end = perf_counter()
        if next(self.heard) - before - 1 != (SENDS + 1) * AUDIENCE:
            raise RuntimeError("a message was not delivered")
        return {"time": (end - first) / SENDS, "first": first - start}


@cache
def crowded(sessions: int) -> tuple[Audience, Audience]:
    """The audiences of two topics of one hub: those who came before and after everybody else."""
    bus, heard = PubSubHub(), itertools.count()
    early = Audience(bus, "early")
    topics = [f"topic-{number}" for number in range(TOPICS)]
    for number in range(sessions):
        handler = make_handler(heard)
        for step in range(EACH):
            bus.subscribe_topic(f"session-{number}", topics[(number + step) % TOPICS], handler)
    if bus.stats().subscriptions != sessions * EACH + AUDIENCE:
        raise RuntimeError("somebody is missing")
    return early, Audience(bus, "late")


def hearing(audience: Callable[[], Audience]) -> Contestant:
    """A contestant that sends to an audience."""

    @contextmanager
    def contestant() -> Iterator[Round]:
        yield audience().timed

    return contestant


def contest(sessions: int, **settings: Any) -> Contest:
    """The contest for one number of other sessions."""
    contestants = {
        "pagebus": hearing(lambda: crowded(sessions)[1]),
        "joined first": hearing(lambda: crowded(sessions)[0]),
        "nobody else": hearing(lambda: Audience(PubSubHub(), "alone")),
    }
    return Contest(f"interest {sessions * EACH}", contestants, **settings)


CONTESTS = [
    contest(10_000, rounds=20, processes=2, short_rounds=10),
    contest(100_000, rounds=20, processes=2, short_rounds=0),
]
