"""What one send costs the sender, on a hub with an event loop: its handlers run later.

A look at the clock costs about as much as a send. So nothing is timed call by call: *burst* times
many sends to a hub that is awake; *idle* times one send to each of several hubs, all of which
sleep, so that every one of these sends makes its wake-up. What looking at the clock takes is
measured beside it and taken off.

A loop around the calls would cost as much as the least of them. So the calls stand one after the
other in a function that is compiled for each contestant: call sites of its own, as in a program.

The handlers of a large hub would leave cold caches to their own next sends and to nobody else's.
So before each measurement, whosever it is, the loop calls very many other handlers, and a burst
begins before its clock starts. *Idle* begins cold: *first* is its first send, which fetches the
code of a send as well, and which the others find there. *Idle, warm* tells what a send to an idle
hub costs without that other work, for hubs that have next to none.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

from flet.pubsub.pubsub_hub import PubSubHub as FletHub
from pyperf import perf_counter

from benches.audience import AwaitedAudience
from benches.contest import Contest, Contestant, Round, Values
from benches.event_loop import tasks_ended
from benches.sessions import make_context, subscribe_all
from pagebus import PubSubHub

MANY = 10_000
"""Subscribers that a send should not feel."""
REPEATS = 5
"""Measurements in a round."""
LEAST = 1e-9
"""Whatever takes less is nothing that the clock could tell."""
SENDER = "session-0"

Send = Callable[..., Any]


class Times(NamedTuple):
    """What some sends took."""

    first: float
    others: float
    look: float
    """How long it takes to look at the clock, which is in each of the others."""


Timed = Callable[[Sequence[Send], Sequence[Any]], Times]
"""Makes each of the sends once, all with the same arguments."""
Where = Callable[[Callable[[], Times]], Times]
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
IDLE = Pattern("send idle", hubs=10, unmeasured=0, sends=1, others=5)
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


class Audience(AwaitedAudience):
    """Handlers on the loop."""

    def __init__(self) -> None:
        super().__init__(event_loop())

    def make_hub(self, way: Way) -> Any:
        """A hub with its subscribers, and those who get nothing."""
        bus = way.make(loop=event_loop())
        for number in range(way.on_topics):
            session, handler = f"other-{number}", self.make_topic_handler()
            make_context(session).run(bus.subscribe_topic, session, "elsewhere", handler)
        subscribe_all(bus, [self.make_async_handler() for _ in range(way.subscribers)])
        return bus

    async def all_heard(self) -> None:
        """Waits until all calls were made, and nothing is left to be done for them."""
        await self.all_called()
        await asyncio.sleep(0)
        await tasks_ended()
        self.expect_silence()


STRAIGHT_LINE = """\
def timed(sends, arguments):
    {sends}, = sends
    {arguments}, = arguments
    begin = clock()
    start = clock()
    {first}
    middle = clock()
    {others}
    end = clock()
    return Times(middle - start, end - middle, start - begin)
"""


def straight_line(sends: int, arguments: int) -> Timed:
    """Compiles calls that stand one after the other."""
    names = [f"send_{number}" for number in range(sends)]
    given = ", ".join(f"argument_{number}" for number in range(arguments))
    first, *others = (f"{name}({given})" for name in names)
    code = STRAIGHT_LINE.format(
        sends=", ".join(names), arguments=given, first=first, others="; ".join(others)
    )
    space: dict[str, Any] = {"clock": perf_counter, "Times": Times}
    exec(code, space)
    timed: Timed = space["timed"]
    return timed


class Measurement:
    """One way of sending on a loop, with the other work that the loop does in between."""

    def __init__(self, way: Way, pattern: Pattern) -> None:
        self.pattern = pattern
        self.others = others(pattern.others)
        self.audience = Audience()
        made = [self.audience.make_hub(way) for _ in range(pattern.hubs)]
        sends = [way.method(bus) for bus in made]
        self.unmeasured, self.sends = sends * pattern.unmeasured, sends * pattern.sends
        self.calls = way.listeners * (len(self.unmeasured) + len(self.sends))
        self.arguments = way.arguments
        self.straight_line = straight_line(len(self.sends), len(self.arguments))

    def timed(self) -> Times:
        """How long the measured sends take."""
        for send in self.unmeasured:
            send(*self.arguments)
        return self.straight_line(self.sends, self.arguments)

    async def round(self, where: Where) -> Values:
        """The cost of a send; of those to hubs that sleep, that of the first one alone, too."""
        taken: list[Times] = []
        for _ in range(REPEATS):
            await self.others.work()
            self.audience.await_calls(self.calls)
            taken.append(where(self.timed))
            await self.audience.all_heard()
        look = statistics.median(times.look for times in taken)
        first = max(statistics.fmean(times.first for times in taken) - look, LEAST)
        others = max(statistics.fmean(times.others for times in taken) - look, LEAST)
        values = {"time": (first + others) / len(self.sends)}
        return values if self.pattern.unmeasured else values | {"first": first}


class Others:
    """Handlers that leave nothing of anybody's in the caches."""

    def __init__(self, hubs: int) -> None:
        self.audience = Audience()
        self.hubs = [self.audience.make_hub(TO_MANY) for _ in range(hubs)]

    async def work(self) -> None:
        """Calls them all."""
        self.audience.await_calls(MANY * len(self.hubs))
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
    return Contest(
        name,
        contestants,
        # Call sites are specialized in their ninth run, which is within the second round.
        warmups=2,
        # What the others do takes its time.
        rounds=5 if pattern.others > 1 else 10,
        processes=2 if from_thread else 3,
        short_rounds=short_rounds,
    )


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
