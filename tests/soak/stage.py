"""Hubs of every kind, with the loops and the executor that deliver for them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from delivery_modes import LOOPS, LoopThread, WatchedExecutor
from pagebus import PubSubHub
from soak.audience import Seat, Send, Sender, Session, tick
from soak.plan import JOINS, SENDS, TOPICS, Size, Step

WORKERS = 4


def loop_threads() -> list[LoopThread]:
    """One of asyncio's own event loops, and uvloop's where it is installed."""
    try:
        import uvloop  # noqa: F401
    except ImportError:
        return [LoopThread(), LoopThread()]
    return [LoopThread(new_loop) for new_loop in LOOPS.values()]


class Stage:
    """One hub with everybody who listens to it."""

    def __init__(
        self,
        name: str,
        loops: list[LoopThread],
        executor: WatchedExecutor | None,
        size: Size,
        *,
        has_loop: bool = False,
    ) -> None:
        self.name, self.loops, self.executor = name, loops, executor
        self.has_loop = has_loop
        loop = loops[0].loop if has_loop else None
        # Nothing is to overflow: every message counts.
        self.hub = PubSubHub(loop=loop, executor=executor, max_pending=10_000_000)
        self.sessions = [Session(f"session {number}") for number in range(size.sessions)]
        self.seats: list[Seat] = []
        self.guests = itertools.count()
        self.witnesses = [self._witness(kind) for kind in self._lanes()]

    # ---- joining ----------------------------------------------------------------------------

    @property
    def takes_async(self) -> bool:
        """Whether async handlers can subscribe."""
        return bool(self.loops)

    def _lanes(self) -> list[str]:
        """A name for each way of delivering: what an event loop calls, and all the others."""
        return ["plain", *(f"async straight {n}" for n in range(len(self.loops)))]

    def _witness(self, lane: str) -> tuple[str, list[int]]:
        """A session that hears everything from the begin, in one record."""
        log: list[int] = []

        def on_message(*args: Any) -> None:
            log.append(args[-1])

        async def on_message_async(*args: Any) -> None:
            log.append(args[-1])

        handler = on_message_async if lane.startswith("async") else on_message
        number = int(lane.split()[-1]) if lane.startswith("async") else 0
        name = f"witness {lane}"

        def join() -> None:
            self.hub.subscribe(name, handler)
            for topic in TOPICS:
                self.hub.subscribe_topic(name, topic, handler)

        self._at(number, join)
        return name, log

    def _at(self, which: int, fn: Callable[[], Any]) -> Any:
        """Call ``fn`` on an event loop's thread, if there is one and the hub was given none."""
        if not self.loops or self.has_loop:
            return fn()
        return self.loops[which % len(self.loops)].run(fn)

    def _lacks_a_loop(self, kind: str) -> bool:
        return kind == "returns" and not self.loops

    def join(self, step: Step) -> Seat:
        """Subscribe a new handler."""
        kind = "plain" if self._lacks_a_loop(step.kind) else step.kind
        seat = Seat(self.hub, self.sessions[step.session], step.topic, kind, step.which)
        if kind == "invites":
            seat.invite = self._invite
        self._enter(seat)
        if step.what == "join twice" and not kind.endswith("leaves"):
            # The same handler again changes nothing, unless it has left meanwhile.
            self._at(step.which, lambda: self._subscribe(seat))
        return seat

    def _enter(self, seat: Seat) -> None:
        self.seats.append(seat)

        def enter() -> None:
            begin = tick()
            seat.handle = self._subscribe(seat)
            seat.joined = begin, tick()

        if seat.is_async or seat.kind == "returns":
            self._at(seat.number, enter)
        else:
            enter()

    def _subscribe(self, seat: Seat) -> Any:
        name, options = seat.session.name, {"concurrent": seat.overlaps}
        if seat.topic is None:
            return self.hub.subscribe(name, seat.handler, **options)
        return self.hub.subscribe_topic(name, seat.topic, seat.handler, **options)

    def _invite(self) -> Seat:
        """A guest, who joins from inside a handler and leaves from inside its own."""
        number = next(self.guests)
        seat = Seat(self.hub, Session(f"guest {number}"), None, "leaves", number)
        self._enter(seat)
        return seat

    # ---- leaving ----------------------------------------------------------------------------

    def leave(self, step: Step, own: list[Seat]) -> None:
        """Say goodbye for one of a session's seats, or for several."""
        name = self.sessions[step.session].name
        match step.what:
            case "cancel" | "cancel there":
                leaving = own[step.which % len(own) :][:1] if own else []
                goodbye = leaving[0].handle.cancel if leaving and leaving[0].handle else None
            case "unsubscribe":
                leaving = [seat for seat in own if seat.topic is None]
                goodbye = lambda: self.hub.unsubscribe(name)  # noqa: E731
            case "unsubscribe_topic":
                topic = step.topic or TOPICS[0]
                leaving = [seat for seat in own if seat.topic == topic]
                goodbye = lambda: self.hub.unsubscribe_topic(name, topic)  # noqa: E731
            case _:
                leaving, goodbye = own, lambda: self.hub.unsubscribe_all(name)
        if goodbye is None:
            return

        def go(seats: list[Seat], *, slack: int) -> None:
            goodbye()
            for seat in seats:
                seat.left(slack=WORKERS if seat.overlaps and not seat.is_async else slack)

        if step.what == "cancel there" and leaving and leaving[0].is_async:
            # On the handler's own thread: not even a call that has begun can be under way.
            loops = self.loops[:1] if self.has_loop else self.loops
            loops[leaving[0].number % len(loops)].run(lambda: go(leaving, slack=0))
        else:
            go(leaving, slack=1)

    # ---- a thread's work --------------------------------------------------------------------

    def settle_once(self) -> bool:
        """Let loops and workers do what they have; tell whether anything was left."""
        before = self.hub.stats().delivered
        for loop in self.loops:
            loop.spin(3)
        if self.executor:
            self.executor.wait_idle()
        stats = self.hub.stats()
        idle = all(seat.is_idle for seat in self.seats)
        return idle and stats.pending == 0 and stats.delivered == before


def stages(loops: list[LoopThread], executor: WatchedExecutor, size: Size) -> list[Stage]:
    """Every way of delivering, alone and together."""
    return [
        Stage("loop and executor", loops[:1], executor, size, has_loop=True),
        Stage("loop and inline", loops[1:], None, size, has_loop=True),
        Stage("subscribers' loops and inline", loops, None, size),
        Stage("executor", [], executor, size),
        Stage("inline", [], None, size),
    ]


class Worker:
    """One thread's view of the hubs: what it sends, and whom it looks after."""

    def __init__(self, stages: list[Stage]) -> None:
        self.stages = stages
        self.senders = [Sender(stage.hub) for stage in stages]
        self.own: dict[tuple[int, int], list[Seat]] = {}
        self.joins = 0

    def do(self, step: Step) -> None:
        """Do as the plan says."""
        stage = self.stages[step.hub]
        seats = self.own.setdefault((step.hub, step.session), [])
        seats[:] = [seat for seat in seats if seat.is_there]
        if step.what in SENDS:
            excluded = stage.sessions[step.session].name if step.what == "send_others" else None
            self.senders[step.hub].send(step.topic, excluded)
        elif step.what in JOINS:
            if len(seats) < 3:
                seats.append(stage.join(step))
                self.joins += 1
        else:
            stage.leave(step, list(seats))

    def forget(self) -> None:
        """Let go of those who have left."""
        self.own = {
            place: [seat for seat in seats if seat.is_there] for place, seats in self.own.items()
        }

    def take_sent(self, hub: int) -> list[Send]:
        """What it has sent since it was asked last."""
        sent, self.senders[hub].sent = self.senders[hub].sent, []
        return sent
