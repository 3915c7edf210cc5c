"""Sync handlers, called inside the send."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pyperf import perf_counter

from benches.audience import expect_delivered, expect_each
from benches.contest import Contest, Contestant, Round, Values
from benches.handlers import Handler, count_calls, make_sync
from benches.sessions import flet_hub, subscribe_all
from pagebus import PubSubHub

SUBSCRIBERS = (1, 10, 100, 1_000, 10_000, 100_000)
DELIVERIES = 20_000
"""Deliveries in a round, so that small numbers of subscribers can be timed as well."""

Send = Callable[[Any], Any]
Check = Callable[[int], None]
"""Fails unless there were that many deliveries until now."""
SendTo = Callable[[list[Handler]], tuple[Send, Check]]
"""Gives a way to send to handlers."""


class Audience:
    """Handlers that do nothing, but for the last one, which counts."""

    def __init__(self, size: int) -> None:
        self.heard = 0

        def last(message: Any) -> None:
            self.heard += 1

        self.handlers: list[Handler] = [*(make_sync() for _ in range(size - 1)), last]
        self.sends = max(1, DELIVERIES // size)

    def timed(self, send: Send, check: Check) -> Values:
        """The cost of a delivery."""
        before, sends = self.heard, range(self.sends)
        start = perf_counter()
        for _ in sends:
            send("hello")
        took = perf_counter() - start
        if self.heard != before + self.sends:
            raise RuntimeError("a message was not delivered")
        check(self.heard * len(self.handlers))
        return {"time": took / self.sends / len(self.handlers)}


def prove(send_to: SendTo, size: int) -> None:
    """Sends once to handlers that all count: nobody measures a loop that does nothing."""
    counts = [0] * size
    send, check = send_to([count_calls(make_sync(), counts, place) for place in range(size)])
    send("hello")
    expect_each(counts, 1)
    check(size)


def sending(send_to: SendTo, size: int) -> Contestant:
    """A contestant that sends in some way."""

    @contextmanager
    def contestant() -> Iterator[Round]:
        prove(send_to, size)
        audience = Audience(size)
        send, check = send_to(audience.handlers)
        yield lambda: audience.timed(send, check)

    return contestant


def pagebus(handlers: list[Handler], *, own_contexts: bool = True) -> tuple[Send, Check]:
    """A hub without an executor, whose handlers run inside the send."""
    bus = PubSubHub()
    subscribe_all(bus, handlers, own_contexts=own_contexts)
    return bus.send_all, lambda calls: expect_delivered(bus, calls)


def shared_context(handlers: list[Handler]) -> tuple[Send, Check]:
    """The same, where all were subscribed from one place."""
    return pagebus(handlers, own_contexts=False)


def flet(handlers: list[Handler]) -> tuple[Send, Check]:
    """Flet's hub, which counts nothing."""
    bus = flet_hub()
    subscribe_all(bus, handlers)
    return bus.send_all, lambda _: None


def for_loop(handlers: list[Handler]) -> tuple[Send, Check]:
    """The floor: a plain loop over the same handlers."""

    def send_all(message: Any) -> None:
        for handler in handlers:
            handler(message)

    return send_all, lambda _: None


def contest(size: int) -> Contest:
    """The contest for one number of subscribers."""
    ways: dict[str, SendTo] = {
        "pagebus": pagebus,
        "shared context": shared_context,
        "for loop": for_loop,
        "Flet": flet,
    }
    contestants = {way: sending(send_to, size) for way, send_to in ways.items()}
    return Contest(
        f"inline {size}",
        contestants,
        rounds=20 if size <= 10_000 else 10,
        processes=5 if size <= 10_000 else 3,
        short_rounds=10 if size == 1_000 else 0,
    )


CONTESTS = [contest(size) for size in SUBSCRIBERS]
