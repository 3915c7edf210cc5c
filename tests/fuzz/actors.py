"""Handlers and values that meddle: whatever Python calls of theirs may fail or use the hub."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator

    from fuzz.machine import Machine
    from fuzz.model import Entry, HubModel
    from pagebus import Presence

ASYNC = ("straight", "suspends", "waits", "fails", "fails late", "cancels itself", "nonsense")
SYNC = ("plain", "fails", "returns a coroutine", "returns junk")


class Evil(Exception):
    """What a hostile value raises."""


class Nonsense:
    """An awaitable that asks the loop for what no loop has."""

    def __await__(self) -> Generator[Any, Any, None]:
        yield 42


class Actor:
    """A handler that checks that each call is one that the model expects."""

    def __init__(self, machine: Machine, model: HubModel, kind: str) -> None:
        self.machine, self.model, self.kind = machine, model, kind
        self.is_async = False
        self.entry: Entry | None = None
        self.session = ""
        self.overlaps = False
        self.meddles = False
        self.under_way = [0]

    def is_like(self, other: Actor) -> bool:
        """Whether Python says that they are equal."""
        return self is other

    @property
    def busy(self) -> bool:
        """Whether a call goes on that its subscription made."""
        return self.under_way[0] > 0

    def joined(self, entry: Entry) -> None:
        """A new subscription knows nothing of calls that an earlier one has begun."""
        self.entry, self.under_way = entry, [0]

    def _begin(self, args: tuple[Any, ...]) -> None:
        machine, model, entry = self.machine, self.model, self.entry
        number = args[-1].number
        model.delivered += 1
        machine.calls += 1
        if entry is None:
            machine.fault("called after its goodbye")
            return
        machine.expect(len(args) == (1 if entry.topic is None else 2), "called with the topic")
        if not self._expects(number):
            machine.fault("got a message out of turn")
            return
        is_free = model.broken or self.overlaps or not self.busy
        machine.expect(is_free, "called while it is busy")

    def _expects(self, number: int) -> bool:
        """Whether the message is the next one. It counts as delivered then."""
        assert self.entry
        due = self.entry.due
        if self.overlaps and not self.is_async:
            # Several workers begin such calls, which are in order one by one only.
            is_due = number in due
            if is_due:
                due.remove(number)
            return is_due
        while due and due[0] != number and not self.model.is_exact:
            due.popleft()
        return bool(due) and due.popleft() == number

    def _meddle(self) -> None:
        if self.meddles:
            self.machine.act()

    def _failed(self) -> Evil:
        self.model.failed += 1
        return Evil(self.kind)


class SyncActor(Actor):
    """A sync handler."""

    def __call__(self, *args: Any) -> Any:
        self._begin(args)
        running = self.model.running
        alone = self.overlaps or not running.get(self.session)
        self.machine.expect(alone, "another sync handler of the session is running")
        running[self.session] = running.get(self.session, 0) + (not self.overlaps)
        under_way, done = self.under_way, True
        under_way[0] += 1
        try:
            self._meddle()
            match self.kind:
                case "fails":
                    raise self._failed()
                case "returns a coroutine" if self.model.loop is not None:
                    done = False
                    return self._finish(under_way)
                case "returns junk":
                    junk = self.machine.value()
                    # It looks as if it could be awaited, until somebody tries.
                    self.model.failed += isinstance(junk, Value)
                    return junk
        finally:
            running[self.session] -= not self.overlaps
            under_way[0] -= done
        return None

    async def _finish(self, under_way: list[int]) -> None:
        try:
            await asyncio.sleep(0)
            self._meddle()
        finally:
            under_way[0] -= 1


class AsyncActor(Actor):
    """An async handler."""

    def __init__(self, machine: Machine, model: HubModel, kind: str) -> None:
        super().__init__(machine, model, kind)
        self.is_async = True

    async def __call__(self, *args: Any) -> None:
        self._begin(args)
        under_way = self.under_way
        under_way[0] += 1
        try:
            self._meddle()
            await self._work()
        finally:
            under_way[0] -= 1

    async def _work(self) -> None:
        match self.kind:
            case "suspends" | "fails late":
                await asyncio.sleep(0)
                self._meddle()
                await asyncio.sleep(0)
            case "waits":
                future = asyncio.get_running_loop().create_future()
                self.machine.futures.append(future)
                self.machine.tasks.append(asyncio.current_task())
                await future
            case "cancels itself":
                task = asyncio.current_task()
                if task:
                    task.cancel()
                await asyncio.sleep(0)
            case "nonsense":
                # The loop answers with an error, which the handler lets through.
                self.model.failed += 1
                await Nonsense()
        if self.kind.startswith("fails"):
            raise self._failed()


class Twin(SyncActor):
    """Equal to every twin of its name. Looking at it has consequences."""

    def __init__(self, machine: Machine, model: HubModel, kind: str) -> None:
        self.name = machine.bytes.below(3)
        self.hostility = machine.bytes.below(16)
        super().__init__(machine, model, kind)

    def is_like(self, other: Actor) -> bool:
        return self is other or (isinstance(other, Twin) and self.name == other.name)

    def _poke(self, which: int) -> None:
        if self.hostility == which:
            self.machine.poke()

    def __eq__(self, other: object) -> bool:
        self._poke(1)
        return isinstance(other, Twin) and self.name == other.name

    def __hash__(self) -> int:
        self._poke(2)
        return 7

    def __repr__(self) -> str:
        self._poke(3)
        return "Twin"

    def __bool__(self) -> bool:
        self._poke(4)
        raise Evil

    def __getattr__(self, name: str) -> Any:
        if "machine" in self.__dict__:
            self._poke(5)
        raise AttributeError(name)

    def __del__(self) -> None:
        self._poke(6)


class Watcher:
    """A handler that is told who comes and goes, and keeps the list."""

    def __init__(self, machine: Machine, model: HubModel) -> None:
        self.machine, self.model = machine, model
        self.there: set[str] | None = None
        """Who is there: ``None`` before anything was told."""
        self.left = self.meddles = False

    def __call__(self, presence: Presence) -> None:
        self._note(presence)

    def _note(self, presence: Presence) -> None:
        self.model.delivered += 1
        self.machine.calls += 1
        self.machine.expect(not self.left, "nobody is told after his goodbye")
        self.there = (self.there or set()) - set(presence.left) | set(presence.joined)
        if self.meddles and not self.model.joining:
            self.machine.act()


class AsyncWatcher(Watcher):
    """The same, async."""

    async def __call__(self, presence: Presence) -> None:  # type: ignore[override]
        self._note(presence)
        await asyncio.sleep(0)


class Plain:
    """A message. The model knows its number: the hub alone is to hold the message itself."""

    def __init__(self, machine: Machine) -> None:
        machine.messages += 1
        self.number = machine.messages


class Value(Plain):
    """A message of which everything may fail or use the hub, its end included."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.machine, self.hostility = machine, machine.bytes.below(4)

    def _poke(self, *_: Any) -> Any:
        if self.hostility == 1:
            self.machine.poke()
        raise Evil

    __eq__ = __hash__ = __repr__ = __str__ = __bool__ = __iter__ = __len__ = _poke
    __await__ = __call__ = __lt__ = __contains__ = __index__ = __int__ = __float__ = _poke
    __enter__ = __exit__ = __next__ = __getitem__ = _poke

    def __getattr__(self, name: str) -> Any:
        raise Evil(name)

    def __del__(self) -> None:
        if self.hostility == 2:
            self.machine.poke()


class Text(str):
    """A string of somebody's own, which is still the string that it is."""

    __slots__ = ()

    def _fail(self, *_: Any) -> Any:
        raise Evil

    __eq__ = __hash__ = __str__ = __repr__ = __len__ = __iter__ = __bool__ = _fail
    encode = __getitem__ = __contains__ = __format__ = _fail  # type: ignore[assignment]
