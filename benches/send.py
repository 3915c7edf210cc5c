"""What one send costs the sender, on a hub with an event loop: its handlers run later.

A clock pair costs about as much as a send, and would flatter it. So nothing is timed call by call:
*burst* times many sends to a hub that is awake; *idle* times one send to each of several hubs, all
of which sleep, so that every one of these sends makes its wake-up. The empty method, the least that
any call costs, is called by the very same loop.

The handlers of a large hub would leave cold caches to their own next sends and to nobody else's.
So before each measurement, whosever it is, the loop calls as many other handlers, and a burst
begins before its clock starts. *Idle, warm* tells what a send to an idle hub costs without that
other work, for hubs that have next to none.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from time import perf_counter
from typing import Any

from flet.pubsub.pubsub_hub import PubSubHub as FletHub

from benches.contest import Contest, Contestant, Round, Values
from benches.handlers import AsyncHandler
from pagebus import PubSubHub

MANY = 10_000
"""Subscribers that a send should not feel."""
REPEATS = 5
"""Measurements in a round."""
SENDER = "session-0"

Send = Callable[..., Any]
Where = Callable[[Callable[[], float]], float]
"""Runs a measurement on some thread, while the loop waits."""
Place = Callable[[], AbstractContextManager[Where]]


@cache
def event_loop() -> asyncio.AbstractEventLoop:
    """The loop that all contestants share, one after the other."""
    return asyncio.new_event_loop()


@dataclass(frozen=True)
class Pattern:
    """When sends are made."""

    name: str
    hubs: int
    """Hubs that each get one send after the other."""
    unmeasured: int
    """Sends to each of them before the clock starts."""
    sends: int
    """Sends to each of them by the clock."""
    others: int
    """Hubs, of very many subscribers each, that the loop serves before."""


BURST = Pattern("send burst", hubs=1, unmeasured=10, sends=100, others=1)
IDLE = Pattern("send idle", hubs=10, unmeasured=0, sends=1, others=10)
IDLE_WARM = replace(IDLE, name="send idle, warm", others=0)


@dataclass(frozen=True)
class Way:
    """One kind of call, to hubs of one size."""

    subscribers: int
    """Subscribers to everything of each hub."""
    listeners: int
    """How many of them get the message."""
    arguments: tuple[Any, ...]
    method: Callable[[Any], Send]
    """What is called of a hub."""
    make: Callable[..., Any] = PubSubHub
    on_topics: int = 0
    """Subscribers that a hub has beside them, who get nothing."""


def empty_method(_: Any) -> Send:
    """A C method that has nothing to do: there is no element to compare the argument with."""
    return ().count


def idle_callback() -> None:
    """What the loop runs when it was woken for nothing."""


TO_MANY = Way(MANY, MANY, ("hello",), lambda hub: hub.send_all)
TO_ONE = replace(TO_MANY, subscribers=1, listeners=1)
ONE_OF_MANY = replace(TO_ONE, on_topics=MANY)
TO_NOBODY = replace(TO_MANY, subscribers=0, listeners=0)
OTHERS_ALONE = Way(1, 0, (SENDER, "hello"), lambda hub: hub.send_others)
UNHEARD = Way(1, 0, ("nowhere", "hello"), lambda hub: hub.send_all_on_topic)
FLET = replace(TO_ONE, make=FletHub)
EMPTY = replace(TO_NOBODY, method=empty_method)
CALL_SOON = Way(0, 0, (idle_callback,), lambda _: event_loop().call_soon)
CALL_SOON_THREADSAFE = replace(CALL_SOON, method=lambda _: event_loop().call_soon_threadsafe)
"""The least that a wake-up costs."""


class Audience:
    """Handlers on a loop that count the calls."""

    def __init__(self) -> None:
        self.heard = itertools.count(1)
        self.last = 0
        self.done = asyncio.Event()

    def subscribe(self, bus: Any, size: int) -> Any:
        """Subscribes new handlers to a hub."""
        for number in range(size):
            bus.subscribe(f"session-{number}", self._make_handler())
        return bus

    def make_hub(self, way: Way) -> Any:
        """A hub with its subscribers, and those who get nothing."""
        bus = way.make(loop=event_loop())
        for number in range(way.on_topics):
            bus.subscribe_topic(f"other-{number}", "elsewhere", self._make_topic_handler())
        return self.subscribe(bus, way.subscribers)

    def _make_handler(self) -> AsyncHandler:
        heard = self.heard

        async def handler(message: Any) -> None:
            if next(heard) == self.last:
                self.done.set()

        return handler

    def _make_topic_handler(self) -> Callable[[str, Any], Awaitable[None]]:
        heard = self.heard

        async def handler(topic: str, message: Any) -> None:
            next(heard)

        return handler

    def expect(self, calls: int) -> None:
        """That many calls will be made."""
        self.last = next(self.heard) + calls
        self.done.clear()
        if not calls:
            self.done.set()

    async def all_heard(self) -> None:
        """Waits until all calls were made, and nothing is left to be done for them."""
        await self.done.wait()
        await asyncio.sleep(0)
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)
        if next(self.heard) != self.last + 1:
            raise RuntimeError("a message came twice, or to somebody who should not get it")


class Measurement:
    """One way of sending on a loop, with the other work that the loop does in between."""

    def __init__(self, way: Way, pattern: Pattern) -> None:
        self.pattern = pattern
        self.others = others(pattern.others)
        self.audience = Audience()
        made = [self.audience.make_hub(way) for _ in range(pattern.hubs)]
        self.send = [way.method(bus) for bus in made]
        self.calls = way.listeners * len(made) * (pattern.unmeasured + pattern.sends)
        self.arguments = way.arguments

    def timed(self) -> float:
        """How long the measured sends take."""
        for send in self.send * self.pattern.unmeasured:
            send(*self.arguments)
        sends = self.send * self.pattern.sends
        if len(self.arguments) == 2:
            first, second = self.arguments
            start = perf_counter()
            for send in sends:
                send(first, second)
            return perf_counter() - start
        (message,) = self.arguments
        start = perf_counter()
        for send in sends:
            send(message)
        return perf_counter() - start

    async def round(self, where: Where) -> Values:
        """The cost of a send."""
        took = 0.0
        for _ in range(REPEATS):
            await self.others.work()
            self.audience.expect(self.calls)
            took += where(self.timed)
            await self.audience.all_heard()
        return {"time": took / REPEATS / len(self.send) / self.pattern.sends}


class Others:
    """Handlers that leave nothing of anybody's in the caches."""

    def __init__(self, hubs: int) -> None:
        self.audience = Audience()
        self.hubs = [self.audience.make_hub(TO_MANY) for _ in range(hubs)]

    async def work(self) -> None:
        """Calls them all."""
        self.audience.expect(MANY * len(self.hubs))
        for bus in self.hubs:
            bus.send_all("hello")
        await self.audience.all_heard()


others = cache(Others)


@contextmanager
def here() -> Iterator[Where]:
    """On the loop's own thread."""
    yield lambda timed: timed()


@contextmanager
def elsewhere() -> Iterator[Where]:
    """On another thread, while the loop's thread waits for it.

    So the hubs sleep, and nobody takes the interpreter away from the sender.
    """
    with ThreadPoolExecutor(1) as thread:
        yield lambda timed: thread.submit(timed).result()


def sending(way: Way, pattern: Pattern, place: Place) -> Contestant:
    """A contestant that sends in a pattern from some thread."""

    @contextmanager
    def contestant() -> Iterator[Round]:
        measurement = Measurement(way, pattern)
        with place() as where:
            yield lambda: event_loop().run_until_complete(measurement.round(where))

    return contestant


def contest(pattern: Pattern, ways: dict[str, Way], *, from_thread: bool = False) -> Contest:
    """The contest for one pattern of sends."""
    place, name = here, pattern.name
    if from_thread:
        place, name = elsewhere, f"{name}, from a thread"
    if pattern.hubs > 1:
        ways = ways | {"wake-up": CALL_SOON_THREADSAFE if from_thread else CALL_SOON}
    contestants = {name: sending(way, pattern, place) for name, way in ways.items()}
    short = not from_thread and pattern is not IDLE
    short_rounds = 2 if short else 0
    return Contest(name, contestants, rounds=10, warmups=1, processes=2, short_rounds=short_rounds)


FEW = {
    "nobody": TO_NOBODY,
    "others alone": OTHERS_ALONE,
    "unheard topic": UNHEARD,
    "Flet, 1 subscriber": FLET,
    "empty method": EMPTY,
}
ALL = {"pagebus": TO_MANY, "1 subscriber": TO_ONE, "1 of 10,000": ONE_OF_MANY} | FEW

CONTESTS = [
    contest(BURST, ALL),
    contest(BURST, ALL, from_thread=True),
    contest(IDLE, ALL),
    contest(IDLE, ALL, from_thread=True),
    contest(IDLE_WARM, {"pagebus": TO_ONE} | FEW),
    contest(IDLE_WARM, {"pagebus": TO_ONE} | FEW, from_thread=True),
]
