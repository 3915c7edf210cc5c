"""What a hub should do, as plainly as it can be said: a list of subscriptions."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pagebus import PubSubHub, Subscription

if TYPE_CHECKING:
    from fuzz.actors import Actor, Watcher


@dataclass(eq=False)
class Entry:
    """One subscription, and the numbers of the messages that it is still to get."""

    session: str
    topic: str | None
    actor: Actor
    handle: Subscription | None = None
    due: deque[int] = field(default_factory=deque)


@dataclass(eq=False)
class Watch:
    """One subscription to who is on a topic."""

    session: str
    topic: str
    watcher: Watcher


@dataclass(eq=False)
class HubModel:
    """One hub beside what is known of it."""

    hub: PubSubHub
    loop: int | None
    executor: int | None
    limit: int
    history: int
    """How many messages of a topic are kept, where nothing else was said of it."""
    rules: dict[str | None, int] = field(default_factory=dict)
    kept: dict[str | None, list[tuple[int, str | None]]] = field(default_factory=dict)
    """Messages that are kept, each with the session that is not to get it."""
    entries: list[Entry] = field(default_factory=list)
    watches: list[Watch] = field(default_factory=list)
    closed: bool = False
    broken: bool = False
    """Its loop or executor is gone, or messages give way: some will be lost."""
    joining: int = 0
    """Subscriptions that are being made: some may be entered that are not among the entries yet."""
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
        self.kept.setdefault(topic, []).append((message, excluded))
        self._trim(topic)

    def send_to(self, session: str, message: int) -> None:
        """A message goes to one session."""
        self.published += 1
        for entry in self.entries:
            if entry.topic is None and entry.session == session:
                entry.due.append(message)

    def keeps(self, topic: str | None) -> int:
        """How many messages of a topic are kept."""
        return self.rules.get(topic, self.history)

    def keep(self, topic: str | None, messages: int | None) -> None:
        """So many are kept from now on, or as many as of the others."""
        self.rules.pop(topic, None)
        if messages is not None:
            self.rules[topic] = messages
        self._trim(topic)

    def _trim(self, topic: str | None) -> None:
        kept = self.kept.get(topic, [])
        del kept[: max(0, len(kept) - self.keeps(topic))]

    def past(self, topic: str | None, session: str, count: int) -> list[int]:
        """What a new subscription gets first."""
        kept = [number for number, excluded in self.kept.get(topic, []) if excluded != session]
        return kept[-min(count, self.limit) :]

    def on(self, topic: str) -> set[str]:
        """The sessions that are on a topic."""
        return {entry.session for entry in self.entries if entry.topic == topic}

    def sessions(self) -> set[str]:
        """The sessions that have a subscription."""
        return {e.session for e in self.entries} | {w.session for w in self.watches}

    def unwatch(self, leaving: list[Watch]) -> None:
        """Nobody is told any more."""
        for watch in leaving:
            watch.watcher.left = True
            if watch in self.watches:
                self.watches.remove(watch)

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
