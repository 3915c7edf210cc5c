"""Sessions that come and go: subscribe, join topics, leave, with sends in between."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass
from typing import Any

from pyperf import perf_counter

from benches.audience import Audience
from benches.contest import Contest, Contestant, Round, Values
from benches.handlers import Handler, TopicHandler
from benches.sessions import flet_hub, make_context
from pagebus import PubSubHub

EACH = 3
"""Topics that a session joins."""
TOPICS = 1_000
JOINS = 100
"""Sessions that come between two sends."""


@dataclass(frozen=True)
class Person:
    """One session, with handlers of its own."""

    session: str
    on_message: Handler
    on_topic: TopicHandler
    topics: tuple[str, ...]
    context: Context

    def come(self, bus: Any) -> None:
        """Subscribes to everything and to the topics."""
        bus.subscribe(self.session, self.on_message)
        for topic in self.topics:
            bus.subscribe_topic(self.session, topic, self.on_topic)


class Crowd:
    """The sessions that come, in that order, and leave in another."""

    def __init__(self, size: int, *, to_all: bool) -> None:
        self.to_all = to_all
        self.audience = Audience()
        choose = random.Random(size)
        topics = [f"topic-{number}" for number in range(TOPICS)]
        self.people = [
            self._make_person(f"session-{number}", tuple(choose.sample(topics, EACH)))
            for number in range(size)
        ]
        self.leavers = choose.sample(self.people, size)
        self.deliveries = self._count_deliveries()

    def _make_person(self, session: str, topics: tuple[str, ...]) -> Person:
        on_message, on_topic = self.audience.make_handler(), self.audience.make_topic_handler()
        return Person(session, on_message, on_topic, topics, make_context(session))

    def _count_deliveries(self) -> int:
        """How many deliveries a round makes, by the plainest means."""
        count, members = 0, dict.fromkeys(itertools.chain(*(p.topics for p in self.people)), 0)
        for number, person in enumerate(self.people, 1):
            for topic in person.topics:
                members[topic] += 1
            if number % JOINS == 0:
                count += number if self.to_all else members[person.topics[0]]
        return count

    def timed(self, bus: Any) -> Values:
        """The cost of a session from its coming to its leaving, and that of the parts."""
        before, sending = self.audience.calls(), 0.0
        start = perf_counter()
        for number, person in enumerate(self.people, 1):
            person.context.run(person.come, bus)
            if number % JOINS == 0:
                sends = perf_counter()
                self._send(bus, person)
                sending += perf_counter() - sends
        come = perf_counter()
        for person in self.leavers:
            bus.unsubscribe_all(person.session)
        left = perf_counter()
        self.audience.expect(self.deliveries, before)
        self._expect_silence(bus)
        size = len(self.people)
        return {
            "time": (left - start) / size,
            "join": (come - start - sending) / size,
            "send": sending / (size // JOINS),
            "leave": (left - come) / size,
        }

    def _send(self, bus: Any, person: Person) -> None:
        if self.to_all:
            bus.send_all("hello")
        else:
            bus.send_all_on_topic(person.topics[0], "hello")

    def _expect_silence(self, bus: Any) -> None:
        """Everybody has left."""
        before = self.audience.calls()
        bus.send_all("hello")
        for topic in self.people[0].topics:
            bus.send_all_on_topic(topic, "hello")
        self.audience.expect(0, before)


def hub(make: Callable[[], Any], size: int, *, to_all: bool) -> Contestant:
    """A hub without an executor, the same one in all rounds: nothing may pile up in it."""

    @contextmanager
    def contestant() -> Iterator[Round]:
        crowd, bus = Crowd(size, to_all=to_all), make()
        yield lambda: crowd.timed(bus)

    return contestant


def contest(name: str, size: int, *, to_all: bool, **settings: Any) -> Contest:
    """The contest for one number of sessions."""
    ways: dict[str, Callable[[], Any]] = {"pagebus": PubSubHub, "Flet": flet_hub}
    contestants = {way: hub(make, size, to_all=to_all) for way, make in ways.items()}
    return Contest(f"{name} {size}", contestants, **settings)


CONTESTS = [
    contest("churn topic", 100_000, to_all=False, rounds=3, warmups=1, processes=2, short_rounds=0),
    contest("churn topic", 10_000, to_all=False, warmups=1, processes=3, short_rounds=3),
    # Everybody hears everybody: the deliveries grow with the square of the sessions.
    contest("churn all", 10_000, to_all=True, rounds=10, warmups=1, processes=3, short_rounds=2),
]
