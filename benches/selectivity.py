"""Selectivity: a send to a topic with a few subscribers, among very many others or alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from pyperf import perf_counter

from benches.audience import Audience
from benches.contest import Contest, Contestant, Round, Values
from benches.handlers import TopicHandler
from benches.sessions import make_context
from pagebus import PubSubHub

AUDIENCE = 10
"""Subscribers of the topic."""
EACH = 10
"""Topics that each of the other sessions is on."""
TOPICS = 1_000
SENDS = 1_000
"""Sends in a round."""


class Topic:
    """A topic with its subscribers."""

    def __init__(self, bus: PubSubHub, name: str) -> None:
        self.bus, self.name = bus, name
        self.audience = Audience()
        for number in range(AUDIENCE):
            session, handler = f"{name}-{number}", self.audience.make_topic_handler()
            make_context(session).run(bus.subscribe_topic, session, name, handler)

    def timed(self) -> Values:
        """The cost of a send with its deliveries; and that of the first one, with cold caches."""
        send, topic = self.bus.send_all_on_topic, self.name
        before = self.audience.calls()
        start = perf_counter()
        send(topic, "hello")
        first = perf_counter()
        for _ in range(SENDS):
            send(topic, "hello")
        end = perf_counter()
        self.audience.expect((SENDS + 1) * AUDIENCE, before)
        return {"time": (end - first) / SENDS, "first": first - start}


@cache
def crowded(sessions: int) -> tuple[Topic, Topic]:
    """Two topics of one hub, whose subscribers came before and after everybody else."""
    bus, others = PubSubHub(), Audience()
    early = Topic(bus, "early")
    topics = [f"topic-{number}" for number in range(TOPICS)]
    for number in range(sessions):
        session, handler = f"session-{number}", others.make_topic_handler()
        chosen = [topics[(number + step) % TOPICS] for step in range(EACH)]
        make_context(session).run(join, bus, session, chosen, handler)
    if bus.stats().subscriptions != sessions * EACH + AUDIENCE:
        raise RuntimeError("somebody is missing")
    return early, Topic(bus, "late")


def join(bus: PubSubHub, session: str, topics: list[str], handler: TopicHandler) -> None:
    """Subscribes a session to topics."""
    for topic in topics:
        bus.subscribe_topic(session, topic, handler)


def sending(topic: Callable[[], Topic]) -> Contestant:
    """A contestant that sends to a topic."""

    @contextmanager
    def contestant() -> Iterator[Round]:
        yield topic().timed

    return contestant


def contest(sessions: int, **settings: Any) -> Contest:
    """The contest for one number of other sessions."""
    contestants = {
        "pagebus": sending(lambda: crowded(sessions)[1]),
        "joined first": sending(lambda: crowded(sessions)[0]),
        "nobody else": sending(lambda: Topic(PubSubHub(), "alone")),
    }
    return Contest(f"selectivity {sessions * EACH}", contestants, **settings)


CONTESTS = [
    contest(10_000, rounds=20, processes=2, short_rounds=10),
    contest(100_000, rounds=10, processes=2, short_rounds=0),
]
