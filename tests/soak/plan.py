"""What each thread is going to do: a function of the seed, of nothing else."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

TOPICS = ("lobby", "kitchen", "garden", "s\udcffde")
"""A few, so that many sessions share each; one that UTF-8 has no form for."""

ASYNC_KINDS = ("straight", "suspends", "sleeps", "fails late", "leaves", "replies", "overlaps")
"""Handlers on an event loop."""

SYNC_KINDS = ("plain", "appends", "fails", "leaves", "replies", "invites", "returns", "overlaps")
"""Handlers inside the send, or on an executor."""


STEPS = (30, 120, 120, 120, 500)
"""In a round."""

INTERVALS = (1e-6, 1e-5, 1e-4, 1e-3, 5e-3)
"""Seconds after which the interpreter goes on with another thread."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much goes on at once."""

    threads: int = 8
    sessions: int = 100

    def sessions_of(self, thread: int) -> range:
        """The sessions that a thread looks after; no other thread ends their subscriptions."""
        return range(thread, self.sessions, self.threads)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that a thread does with one hub."""

    hub: int
    what: str
    session: int
    topic: str | None
    kind: str = ""
    which: int = 0

    def __str__(self) -> str:
        on = "" if self.topic is None else f" on {self.topic!a}"
        kind = f" {self.kind!r}" if self.kind else ""
        return f"hub {self.hub}: {self.what} {self.session}{on}{kind} {self.which}".rstrip()


SENDS = ("send_all", "send_others")
JOINS = ("join", "join twice")
LEAVES = ("cancel", "cancel there", "unsubscribe", "unsubscribe_topic", "unsubscribe_all")


def switch_interval(seed: int, turn: int) -> float:
    """How often threads take turns in a round."""
    return random.Random(f"{seed} {turn} switch").choice(INTERVALS)


def first_steps(seed: int, thread: int, size: Size, hubs: list[bool]) -> Iterator[Step]:
    """Every session of the thread joins every hub."""
    chance = random.Random(f"{seed} first {thread}")
    for session in size.sessions_of(thread):
        for hub, has_async in enumerate(hubs):
            yield _join(chance, hub, session, has_async=has_async)


def steps(seed: int, turn: int, thread: int, size: Size, hubs: list[bool]) -> Iterator[Step]:
    """What a thread does in a round. ``hubs`` tells which of them take async handlers."""
    chance = random.Random(f"{seed} {turn} {thread}")
    for _ in range(chance.choice(STEPS)):
        hub = chance.randrange(len(hubs))
        session = chance.choice(size.sessions_of(thread))
        topic = chance.choice(TOPICS) if chance.random() < 0.5 else None
        dice = chance.random()
        if dice < 0.6:
            anybody = chance.randrange(size.sessions)
            yield Step(hub, chance.choice(SENDS), anybody, topic)
        elif dice < 0.8:
            yield _join(chance, hub, session, has_async=hubs[hub])
        else:
            # Most take away one of a session's subscriptions only.
            (what,) = chance.choices(LEAVES, (5, 5, 2, 3, 1))
            yield Step(hub, what, session, topic, which=chance.randrange(8))


def _join(chance: random.Random, hub: int, session: int, *, has_async: bool) -> Step:
    topic = chance.choice(TOPICS) if chance.random() < 0.5 else None
    is_async = has_async and chance.random() < 0.6
    kind = chance.choice(ASYNC_KINDS if is_async else SYNC_KINDS)
    what = "join twice" if chance.random() < 0.1 else "join"
    kind = f"async {kind}" if is_async else kind
    return Step(hub, what, session, topic, kind, chance.randrange(8))
