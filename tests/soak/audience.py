"""Those who listen: handlers of every kind, each with a record of what it got and when it left."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from pagebus import PubSubHub, Subscription

tick = itertools.count(1).__next__
"""The time, as far as it tells what happened before what: one step, which no thread divides."""


class Failure(Exception):
    """What a handler raises that is meant to."""


class Message(int):
    """A message: a number. It is noticed when the last reference to one goes."""

    made = itertools.count()
    gone = itertools.count()

    def __del__(self) -> None:
        next(self.gone)

    @classmethod
    def make(cls, number: int) -> Message:
        """A new one."""
        next(cls.made)
        return cls(number)

    @classmethod
    def alive(cls) -> int:
        """How many there are, when nobody makes any."""
        return next(cls.made) - next(cls.gone)


class Send(NamedTuple):
    """A message that was sent: its number, when the send began and when it had returned."""

    number: int
    begin: int
    end: int
    topic: str | None
    excluded: str | None


class Departure(NamedTuple):
    """A goodbye that has returned: when, what had come by then, and what may still come.

    Where a handler and a goodbye run on two threads, a call may have begun and not recorded
    anything when the goodbye returns.
    """

    end: int
    received: int
    slack: int


class Sender:
    """Somebody who sends, one message at a time, and keeps a record of it."""

    numbers = itertools.count(1)

    def __init__(self, hub: PubSubHub) -> None:
        self.hub = hub
        self.sent: list[Send] = []

    def send(self, topic: str | None, excluded: str | None, *, is_reply: bool = False) -> None:
        """Send a new message. The numbers of replies are negative: nobody answers them."""
        number = next(self.numbers) * (-1 if is_reply else 1)
        begin, hub, message = tick(), self.hub, Message.make(number)
        match topic, excluded:
            case None, None:
                hub.send_all(message)
            case None, str():
                hub.send_others(excluded, message)
            case str(), None:
                hub.send_all_on_topic(topic, message)
            case str(), str():
                hub.send_others_on_topic(excluded, topic, message)
        self.sent.append(Send(number, begin, tick(), topic, excluded))


@dataclass
class Session:
    """One session: its sync handlers never run at the same time."""

    name: str
    calls: int = 0


class Seat:
    """One subscription. Handlers append to its log first of all, in the order of their calls."""

    def __init__(
        self, hub: PubSubHub, session: Session, topic: str | None, kind: str, number: int
    ) -> None:
        self.session, self.topic, self.kind, self.number = session, topic, kind, number
        self.is_async = kind.startswith("async ")
        self.overlaps = kind.endswith("overlaps")
        self.log: list[int] = []
        self.ended: list[int] = []
        self.failures = 0
        self.faults: list[str] = []
        self.joined: tuple[int, int] | None = None
        self.departures: list[Departure] = []
        self.handle: Subscription | None = None
        self.sender = Sender(hub)
        self.patience = 3 + number % 5
        self.guest: Seat | None = None
        self.invite: Callable[[], Seat] | None = None
        self._busy = False
        self.handler = self._handler()

    def __str__(self) -> str:
        on = "" if self.topic is None else f" on {self.topic!a}"
        return f"{self.session.name}{on}, {self.kind!r}"

    @property
    def is_there(self) -> bool:
        """Whether nobody has said goodbye for it."""
        return not self.departures

    @property
    def is_idle(self) -> bool:
        """Whether none of its calls goes on."""
        return self.kind == "appends" or len(self.ended) == len(self.log)

    def left(self, *, slack: int) -> None:
        """A goodbye has returned just now."""
        received = len(self.log)
        if self.kind == "appends":
            # Nothing lies between the begin of such a call and its record.
            slack = 0
        self.departures.append(Departure(tick(), received, slack))

    # ---- handlers ---------------------------------------------------------------------------

    def _handler(self) -> Callable[..., Any]:
        if self.kind == "appends":
            self.topic = None
            return self.log.append
        if self.is_async:
            return self._on_message_async
        return self._on_message_returning if self.kind == "returns" else self._on_message

    def _on_message(self, *args: Any) -> None:
        message = args[-1]
        self._begin(message, args)
        self._check_alone(1)
        try:
            self._act(message)
        finally:
            self._check_alone(-1)
            self._end(message)

    def _on_message_returning(self, *args: Any) -> Any:
        message = args[-1]
        self._begin(message, args)
        return self._finish(message)

    async def _finish(self, message: int) -> None:
        await asyncio.sleep(0)
        self._end(message)

    async def _on_message_async(self, *args: Any) -> None:
        message = args[-1]
        self._begin(message, args)
        try:
            match self.kind:
                case "async suspends" | "async overlaps":
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                case "async sleeps":
                    await asyncio.sleep(0.001 if message % 16 == 0 else 0)
                case "async fails late":
                    await asyncio.sleep(0)
            self._act(message)
        finally:
            self._end(message)

    def _begin(self, message: int, args: tuple[Any, ...]) -> None:
        self.log.append(message)
        if (args[0] if len(args) == 2 else None) != self.topic:
            self.faults.append(f"called with {args!a}")
        if not self.overlaps:
            if self._busy:
                self.faults.append(f"called with {message} while it was busy")
            self._busy = True

    def _end(self, message: int) -> None:
        self._busy = False
        self.ended.append(message)

    def _check_alone(self, change: int) -> None:
        if not self.overlaps:
            self.session.calls += change
            if self.session.calls != (change > 0):
                self.faults.append("another sync handler of the session ran at the same time")

    def _act(self, message: int) -> None:
        match self.kind.removeprefix("async "):
            case "leaves" if len(self.log) >= self.patience and self.handle and self.is_there:
                self.handle.cancel()
                self.left(slack=0)
            case "replies" if message > 0 and message % 61 == 0:
                topic = None if message % 2 else "lobby"
                self.sender.send(topic, self.session.name if message % 3 else None, is_reply=True)
            case "fails" | "fails late" if message % 23 == 0:
                self.failures += 1
                raise Failure
            case "invites" if self.invite and (self.guest is None or not self.guest.is_there):
                self.guest = self.invite()
