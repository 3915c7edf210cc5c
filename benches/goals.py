"""What pagebus is to reach: each goal with the contest that measures it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benches import units
from benches.results import Results, Spread

Verdict = Literal["met", "within the limit", "missed"]
Who = tuple[str, str]
"""A contestant, and what of it: its "time", unless there is more to measure."""


@dataclass(frozen=True)
class Limit:
    """A ratio, as people write it: ``0.85``, or ``1/120``."""

    text: str

    @property
    def is_fraction(self) -> bool:
        return self.text.startswith("1/")

    @property
    def value(self) -> float:
        return 1 / float(self.text[2:]) if self.is_fraction else float(self.text)


@dataclass(frozen=True)
class Goal:
    """A ratio of two contestants that is to be small, and how small."""

    number: int
    what: str
    against: str
    goal: Limit
    worst: Limit
    contest: str
    measured: Who
    compared_with: Who
    large: bool = False
    """Whether the ratio is to be large instead."""

    def ratio(self, results: Results) -> Spread | None:
        """The ratio, if the contest was held."""
        measured = results.find(self.contest, *self.measured)
        other = results.find(self.contest, *self.compared_with)
        return measured.ratio(other) if measured and other else None

    def verdict(self, ratio: Spread) -> Verdict:
        """Whether the ratio is what it is to be."""
        if self._reaches(ratio.middle, self.goal):
            return "met"
        return "within the limit" if self._reaches(ratio.middle, self.worst) else "missed"

    def text(self, ratio: Spread) -> str:
        """The ratio, written like the goal."""
        return units.ratios(ratio, fraction=self.goal.is_fraction)

    def _reaches(self, ratio: float, limit: Limit) -> bool:
        # What is shown as 1.00 is no more than 1.0.
        shown = float(f"{ratio:.3g}")
        return shown >= limit.value if self.large else shown <= limit.value


def _time(
    number: int,
    what: str,
    contest: str,
    other: str,
    against: str,
    *limits: str,
    own: str = "pagebus",
) -> Goal:
    """A goal for the one thing that a contest measures."""
    goal, worst = map(Limit, limits)
    compared = (own, "time"), (other, "time")
    return Goal(number, what, against, goal, worst, contest, *compared)


def _churn(contest: str, sessions: str, to: str) -> Goal:
    """A goal for sessions that come and go."""
    text = f"{sessions} sessions come, join 3 topics, leave; after every 100 joins a send to {to}"
    return _time(10, text, contest, "Flet", "Flet", "1/3", "1/1.5")


def _app(kind: str, handlers: str, visitors: int, what: str, *limits: str) -> Goal:
    """A goal for an app: when a session has what was sent."""
    goal, worst = map(Limit, limits)
    text = f"Flet app, {visitors} sessions, {handlers}: the {what} session has the patch"
    number = 12 if what == "first" else 13
    compared = ("pagebus", what), ("Flet", what)
    return Goal(number, text, "Flet", goal, worst, f"app {kind} {visitors}", *compared)


def _threads(kind: str, handlers: str) -> Goal:
    """A goal for the messages a second: one over the time of a message."""
    compared = ("1 thread", "time"), ("pagebus", "time")
    text = f"4 threads sending at once to 100 {handlers}, messages a second"
    limits = Limit("1.0"), Limit("0.7")
    return Goal(14, text, "1 thread", *limits, f"threads {kind}", *compared, large=True)


def _link(number: int, against: str, other: str, *limits: str) -> Goal:
    """A goal for the messages a second from process to process."""
    goal, worst = map(Limit, limits)
    compared = (other, "time"), ("pagebus", "time")
    return Goal(number, BURST, against, goal, worst, "link burst", *compared, large=True)


INLINE = "1,000 sync handlers inside the send, per delivery"
ASYNC = "1,000 async handlers that do not suspend, until the last is done"
SUSPENDING = "1,000 async handlers that suspend once, until the last is done"
EXECUTOR = "sync handlers on an executor, 1,000 sessions, 20 messages"
SEND = "one `send_all` to 10,000 subscribers with a loop, to a hub that is"
STALL = "longest stall of the event loop, 10,000 async handlers of about 10 µs"
MEMORY = "memory of a topic subscription, 100,000 sessions on 5 topics"
SELECTIVITY = "send to a topic with 10 subscribers among 1,000,000 other subscriptions"
BURST = "linked: messages a second from a process to another, 100 bytes each"
IDLE = "linked: one-way latency of a message, nothing else to do"
CROWDS = "linked: one message to 4 processes with 1,000 handlers each, until the last has run"
ELSEWHERE = "linked: CPU of a node that 2,000 messages a second are not for"
LOOP = "a `for` loop over them"
SUM = "one process, and the way to it"
SHARED = "shared context"
TOGETHER = "all subscribed from one context"
TASKS = "`create_task` for each"
METHOD = "an empty method of a C type"
KINDS = (("sync", "sync handlers"), ("async", "async handlers"))
APPS = [(kind, handlers, visitors) for visitors in (300, 500) for kind, handlers in KINDS]

GOALS = [
    _time(1, INLINE, "inline 1000", "for loop", LOOP, "1.0", "1.3"),
    _time(1, f"{INLINE}; {TOGETHER}", "inline 1000", "for loop", LOOP, "1.0", "1.3", own=SHARED),
    _time(2, ASYNC, "async 1000", "create_task", TASKS, "0.06", "0.1"),
    _time(2, f"{ASYNC}; {TOGETHER}", "async 1000", "create_task", TASKS, "0.06", "0.1", own=SHARED),
    _time(3, ASYNC, "async 1000", "Flet", "Flet", "1/120", "1/60"),
    _time(3, f"{ASYNC}; 20 sends in a burst", "burst 1000", "Flet", "Flet", "1/400", "1/200"),
    _time(4, SUSPENDING, "suspending 1000", "create_task", TASKS, "1.0", "1.2"),
    _time(5, EXECUTOR, "executor 1000", "Flet", "Flet", "1/200", "1/80"),
    _time(6, f"{SEND} awake", "send burst", "1 subscriber", "1 subscriber", "1.2", "2"),
    _time(6, f"{SEND} asleep", "send idle", "1 subscriber", "1 subscriber", "1.2", "2"),
    _time(7, f"{SEND} awake", "send burst", "empty method", METHOD, "8", "20"),
    _time(7, f"{SEND} asleep", "send idle", "empty method", METHOD, "8", "20"),
    _time(8, STALL, "stall 10000", "Flet", "Flet", "1/50", "1/20"),
    _time(9, MEMORY, "memory 100000", "Flet", "Flet", "1/4", "1/2"),
    _churn("churn topic 100000", "100,000", "a topic"),
    _churn("churn all 10000", "10,000", "everybody"),
    _time(11, SELECTIVITY, "selectivity 1000000", "nobody else", "nobody else", "1.1", "1.5"),
    *(_app(*app, "first", "0.1", "0.5") for app in APPS),
    *(_app(*app, "median", "0.5", "0.7") for app in APPS),
    *(_app(*app, "last", "0.85", "1.0") for app in APPS),
    _threads("inline", "sync handlers inside the send"),
    _threads("loop", "async handlers"),
    _link(15, "redis-py asyncio, pub/sub in pipelines", "redis-py asyncio", "10", "4"),
    _link(16, "channels_redis, its faster layer", "channels_redis pub/sub", "20", "8"),
    _link(16, "broadcaster", "broadcaster", "20", "8"),
    _time(17, IDLE, "link idle", "redis-py asyncio", "redis-py asyncio, pub/sub", "1.2", "2"),
    _time(
        *(17, f"{IDLE}; no event loop", "link idle", "redis-py, blocking"),
        *("redis-py, blocking, pub/sub", "1.2", "2"),
        own="pagebus, sync handler",
    ),
    _time(18, CROWDS, "link fan-out", SUM, "the handlers of one, and the way to it", "1.2", "2"),
    Goal(
        *(19, ELSEWHERE, "an idle node", Limit("1.0"), Limit("1.05"), "link elsewhere"),
        *(("pagebus", "time"), ("pagebus", "idle node")),
    ),
]
