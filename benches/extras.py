"""What direct messages, history and presence cost, beside the same without them.

All on hubs whose handlers run inside the send: so everything that a call brings about is in its
time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pyperf import perf_counter

from benches.contest import Contest, Contestant, Round
from pagebus import PubSub, PubSubHub

CALLS = 1_000
SESSIONS = 10_000
KEPT = 100

Call = Callable[[], object]


def ignore(*_: object) -> None:
    """A handler."""


def repeated(make: Callable[[], Call]) -> Contestant:
    """The time of one of many calls."""

    @contextmanager
    def contestant() -> Iterator[Round]:
        call = make()

        def a_round() -> dict[str, float]:
            start = perf_counter()
            for _ in range(CALLS):
                call()
            return {"time": (perf_counter() - start) / CALLS}

        yield a_round

    return contestant


# ---- direct messages ------------------------------------------------------------------------


def to_one_of(sessions: int) -> Callable[[], Call]:
    """A direct message in a hub of so many sessions."""

    def make() -> Call:
        hub = PubSubHub()
        for number in range(sessions):
            hub.subscribe(str(number), ignore)
        return lambda: hub.send_to("0", "hello")

    return make


def to_all() -> Call:
    """A message to all, who are one."""
    hub = PubSubHub()
    hub.subscribe("0", ignore)
    return lambda: hub.send_all("hello")


# ---- history --------------------------------------------------------------------------------


def room(keeps: int) -> tuple[PubSubHub, Call]:
    """A hub that keeps so many messages, and a send on a topic with one subscriber."""
    hub = PubSubHub(history=keeps)
    hub.subscribe_topic("0", "room/1", ignore)
    return hub, lambda: hub.send_all_on_topic("room/1", "hello")


def joining(replay: int) -> Callable[[], Call]:
    """Coming to a room and leaving it, with so many messages to read first."""

    def make() -> Call:
        hub, send = room(KEPT)
        for _ in range(KEPT):
            send()
        ann = PubSub(hub, "ann")

        def visit() -> None:
            with ann.subscribe_topic("room/1", ignore, replay=replay):
                pass

        return visit

    return make


# ---- presence -------------------------------------------------------------------------------


def watched_by(watchers: int) -> Callable[[], Call]:
    """Coming to a room and leaving it, while so many handlers are told of it."""

    def make() -> Call:
        hub, _ = room(0)
        for number in range(watchers):
            hub.subscribe_presence(f"watcher {number}", "room/1", ignore)
        ann = PubSub(hub, "ann")

        def visit() -> None:
            with ann.subscribe_topic("room/1", ignore):
                pass

        return visit

    return make


CONTESTS = [
    Contest(
        "direct message",
        {
            "pagebus": repeated(to_one_of(SESSIONS)),
            "to the only session": repeated(to_one_of(1)),
            "send_all to the only session": repeated(to_all),
        },
        processes=3,
    ),
    Contest(
        "history send",
        {
            "pagebus": repeated(lambda: room(KEPT)[1]),
            "nothing is kept": repeated(lambda: room(0)[1]),
        },
        processes=3,
    ),
    Contest(
        "history join",
        {
            "pagebus": repeated(joining(20)),
            "without replay": repeated(joining(0)),
        },
        processes=3,
    ),
    Contest(
        "presence join",
        {
            "pagebus": repeated(watched_by(1)),
            "ten watch": repeated(watched_by(10)),
            "nobody watches": repeated(watched_by(0)),
        },
        processes=3,
    ),
]
