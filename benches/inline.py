"""Sync handlers, called inside the send."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flet.pubsub.pubsub_hub import PubSubHub as FletHub
from pyperf import perf_counter

from benches.contest import Contest, Contestant, Round, Values
from benches.handlers import Handler, make_sync
from benches.sessions import subscribe_all
from pagebus import PubSubHub

SUBSCRIBERS = (1, 10, 100, 1_000, 10_000, 100_000)
DELIVERIES = 20_000
"""Deliveries in a round, so that small numbers of subscribers can be timed as well."""


class Audience:
    """Handlers, the last of which counts: nobody measures a loop that does nothing."""

    def __init__(self, size: int) -> None:
        self.heard = 0

        def last(message: Any) -> None:
            self.heard += 1

        self.handlers: list[Handler] = [*(make_sync() for _ in range(size - 1)), last]
        self.sends = max(1, DELIVERIES // size)

    def timed(self, send: Callable[[Any], Any]) -> Values:
        """The cost of a delivery."""
        before, sends = self.heard, range(self.sends)
        start = perf_counter()
        for _ in sends:
            send("hello")
        took = perf_counter() - start
        if self.heard != before + self.sends:
            raise RuntimeError("a message was not delivered")
        return {"time": took / self.sends / len(self.handlers)}


def hub(make: Callable[[], Any], size: int, *, own_contexts: bool = False) -> Contestant:
    """A hub without an executor, whose handlers run inside the send."""

    @contextmanager
    def contestant() -> Iterator[Round]:
        audience, bus = Audience(size), make()
        subscribe_all(bus, audience.handlers, own_contexts=own_contexts)
        yield lambda: audience.timed(bus.send_all)

    return contestant


def for_loop(size: int) -> Contestant:
    """The floor: a plain loop over the same handlers."""

    @contextmanager
    def contestant() -> Iterator[Round]:
        audience = Audience(size)
        handlers = audience.handlers

        def send_all(message: Any) -> None:
            for handler in handlers:
                handler(message)

        yield lambda: audience.timed(send_all)

    return contestant


def contest(size: int) -> Contest:
    """The contest for one number of subscribers."""
    contestants = {
        "pagebus": hub(PubSubHub, size),
        "own contexts": hub(PubSubHub, size, own_contexts=True),
        "for loop": for_loop(size),
        # Flet's hub refuses to deliver without a loop, even where it does not use it.
        "Flet": hub(lambda: FletHub(loop=asyncio.new_event_loop()), size),
    }
    return Contest(f"inline {size}", contestants, short_rounds=10 if size == 1_000 else 0)


CONTESTS = [contest(size) for size in SUBSCRIBERS]
