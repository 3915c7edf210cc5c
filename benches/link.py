"""Linked hubs over a Redis server, beside the other ways from process to process over one.

Every contestant has a server of its own, without anything on disk, and its receivers in processes
of their own. Messages are numbered, and each receiver checks that all have come, in order.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from statistics import median

from pyperf import perf_counter

from benches.broker import serving
from benches.buses import BUSES, PagebusSync
from benches.contest import Contest, Contestant, Round, Values
from benches.peers import Peer
from benches.programs.crowd import TOPIC

SIZE = 100
"""Bytes of a message."""
PAUSE = 0.002
"""Seconds in which everything comes to rest."""


# ---- from one process to one other --------------------------------------------------------------


class Way:
    """A sender here, a receiver there."""

    def __init__(self, bus: str, port: int, stack: ExitStack) -> None:
        self._receiver = stack.enter_context(Peer("receiver", bus, port))
        self._end = stack.enter_context(closing(BUSES[bus](port)))
        self._numbers = itertools.count()

    def burst(self, count: int) -> Values:
        """Many messages as fast as they can be sent: the time that each takes."""
        messages = [self._message() for _ in range(count)]
        self._expect(count, 1)
        start = self._end.send(messages)
        return {"time": (self._receiver.number() - start) / count}

    def single(self, count: int) -> Values:
        """One message after the other, with nothing else to do: how long each is on its way."""
        took = []
        self._expect(1, count)
        for _ in range(count):
            time.sleep(PAUSE)
            start = self._end.send([self._message()])
            took.append(self._receiver.number() - start)
        return {"time": median(took)}

    def _expect(self, count: int, times: int) -> None:
        self._receiver.tell(count, times)
        self._receiver.hear("listening")

    def _message(self) -> bytes:
        return b"%08d" % next(self._numbers) + b"." * (SIZE - 8)


def over(bus: str, measure: Callable[[Way, int], Values], count: int) -> Contestant:
    """A contestant that sends so many messages in a round."""

    @contextmanager
    def contestant() -> Iterator[Round]:
        with serving() as broker, ExitStack() as stack:
            way = Way(bus, broker.port, stack)
            yield lambda: measure(way, count)

    return contestant


# As many messages as take some tenths of a second.
BURSTS = {
    "pagebus": 100_000,
    "pagebus, sync handler": 100_000,
    "redis-py asyncio": 10_000,
    "channels_redis pub/sub": 1_500,
    "channels_redis": 300,
    "broadcaster": 1_500,
}
SINGLES = (
    *("pagebus", "redis-py asyncio"),
    *("pagebus, sync handler", "redis-py, blocking", "redis-py, blocking, same script"),
)


# ---- one message to many handlers of several processes ------------------------------------------

PROCESSES = 4


def crowds(bus: str, sender: str, processes: int = PROCESSES) -> Contestant:
    """From a send until the last handler of the last process has run."""

    @contextmanager
    def contestant() -> Iterator[Round]:
        with serving() as broker, ExitStack() as stack:
            peers = [stack.enter_context(Peer("crowd", bus, broker.port)) for _ in range(processes)]
            end = stack.enter_context(closing(BUSES[sender](broker.port)))

            def a_round() -> Values:
                for peer in peers:
                    peer.tell("linked")
                for peer in peers:
                    peer.hear("listening")
                time.sleep(PAUSE)
                start = end.send([b"hello"], TOPIC)
                return {"time": max(peer.number() for peer in peers) - start}

            yield a_round

    return contestant


@contextmanager
def one_crowd_and_the_way() -> Iterator[Round]:
    """What one process takes for its own handlers, and what a message takes to one process."""
    with serving() as broker, ExitStack() as stack:
        peer = stack.enter_context(Peer("crowd", "pagebus", broker.port))
        way = Way("pagebus, sync handler", broker.port, stack)

        def a_round() -> Values:
            peer.tell("local")
            local = peer.number()
            latency = way.single(1)["time"]
            return {"time": local + latency, "handlers": local, "way": latency}

        yield a_round


# ---- nodes that a message is not for ------------------------------------------------------------

BYSTANDERS = 20
"""Nodes in one process: one alone does next to nothing, which is hard to measure."""
SECONDS = 1.0
TOPICS = [f"of others {number}" for number in range(50)]
AT_ONCE, EVERY = 20, 0.01
"""Messages and seconds: two thousand messages a second."""


@contextmanager
def beside_traffic() -> Iterator[Round]:
    """Nodes of two servers at the same time; over one of these, now this, now that, others talk."""
    with serving() as one, serving() as other, ExitStack() as stack:
        sides = [
            (
                stack.enter_context(Peer("bystanders", broker.port, BYSTANDERS)),
                Talk(broker.port, stack),
            )
            for broker in (one, other)
        ]

        def a_round() -> Values:
            sides.reverse()
            for peer, _ in sides:
                peer.tell(SECONDS)
            _, talk = sides[0]
            talk.go_on(SECONDS)
            busy, idle = (peer.number() / BYSTANDERS / SECONDS for peer, _ in sides)
            return {"time": busy, "idle node": idle}

        yield a_round


class Talk:
    """Messages to topics, and somebody who hears one of these."""

    def __init__(self, port: int, stack: ExitStack) -> None:
        self._listener = stack.enter_context(closing(PagebusSync(port)))
        self._listener.listen()
        self._sender = stack.enter_context(closing(PagebusSync(port)))

    def go_on(self, seconds: float) -> None:
        """Talks for so long, and makes sure that all of it went over the server."""
        sent: list[bytes] = []
        until = perf_counter() + seconds
        while perf_counter() < until:
            for topic in itertools.islice(itertools.cycle(TOPICS), AT_ONCE - 1):
                self._sender.hub.send_all_on_topic(topic, "." * SIZE)
            sent.append(b"%08d" % len(sent))
            self._sender.send(sent[-1:])
            time.sleep(EVERY)
        if self._listener.receive(len(sent))[0] != sent:
            raise RuntimeError("messages are missing")


CONTESTS = [
    Contest(
        "link burst",
        {bus: over(bus, Way.burst, count) for bus, count in BURSTS.items()},
        rounds=6,
        processes=3,
        short_rounds=0,
    ),
    Contest(
        "link idle",
        {bus: over(bus, Way.single, 50) for bus in SINGLES},
        rounds=8,
        processes=3,
        short_rounds=0,
    ),
    Contest(
        "link fan-out",
        {
            "pagebus": crowds("pagebus", "pagebus, sync handler"),
            "one process, and the way to it": one_crowd_and_the_way,
            "redis-py, blocking, and a for loop": crowds("redis-py", "redis-py, blocking"),
            "pagebus, to one process": crowds("pagebus", "pagebus, sync handler", 1),
        },
        rounds=40,
        processes=3,
        short_rounds=0,
    ),
    Contest(
        "link elsewhere",
        {"pagebus": beside_traffic},
        rounds=8,
        processes=3,
        short_rounds=0,
    ),
]
