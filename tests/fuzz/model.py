"""What a hub should do, as plainly as it can be said: a list of subscriptions."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pagebus import PubSubHub, Subscription

if TYPE_CHECKING:
    from fuzz.actors import Actor


@dataclass(eq=False)
class Entry:
    """One subscription, and the numbers of the messages that it is still to get."""

    session: str
    topic: str | None
    actor: Actor
    handle: Subscription | None = None
    due: deque[int] = field(default_factory=deque)


@dataclass(eq=False)
class HubModel:
    """One hub beside what is known of it."""

    hub: PubSubHub
    loop: int | None
    executor: int | None
    limit: int
    entries: list[Entry] = field(default_factory=list)
    closed: bool = False
    broken: bool = False
    """Its loop or executor is gone, or messages give way: some will be lost."""
    published: int = 0
    delivered: int = 0
    failed: int = 0
    running: dict[str, int] = field(default_factory=dict)
    """Sync handlers that run now, by session."""

    def find(self, session: str, topic: str | None, actor: Actor) -> Entry | None:
        """The subscription of an equal handler."""
        for entry in self.entries:
            if (entry.session, entry.topic) == (session, topic) and actor.is_like(entry.actor):
                return entry
        return None

    def join(self, session: str, topic: str | None, actor: Actor) -> Entry:
        """A subscription has been entered."""
        entry = self.find(session, topic, actor)
        if entry is None:
            entry = Entry(session, topic, actor)
            actor.joined(entry)
            self.entries.append(entry)
        return entry

    def send(self, topic: str | None, excluded: str | None, message: int) -> None:
        """A message goes to everybody who is there."""
        self.published += 1
        for entry in self.entries:
            if entry.topic == topic and entry.session != excluded:
                entry.due.append(message)

    def leave(self, leaving: list[Entry]) -> None:
        """Subscriptions end, with all that is queued for them."""
        for entry in leaving:
            if entry in self.entries:
                self.entries.remove(entry)
            if entry.actor.entry is entry:
                entry.actor.entry = None
            entry.due.clear()

    @property
    def is_exact(self) -> bool:
        """Whether nothing may be lost."""
        return not self.broken and self.limit > 1000
