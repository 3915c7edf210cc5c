"""Reads bytes as calls of the API, makes them, and compares with the model what comes of it."""

from __future__ import annotations

import contextlib
import gc
import logging
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from fuzz.actors import (
    ASYNC,
    SYNC,
    Actor,
    AsyncActor,
    AsyncWatcher,
    Evil,
    Plain,
    SyncActor,
    Text,
    Twin,
    Value,
    Watcher,
)
from fuzz.model import Entry, HubModel, Watch
from fuzz.world import Bytes, HandExecutor, HandLoop, any_loop_runs
from pagebus import HubClosed, PubSub, PubSubHub

SESSIONS = ("ann", "bob", "", "c\udcffat", Text("ann"), Text("dan"))
TOPICS = ("lobby", "lobby", Text("lobby"), "", "\ud800\0", "x" * 70_000)
LIMITS = (10_000, 10_000, 10_000, 1, 2, 3)
HISTORIES = (0, 0, 2, 100)
DEPTH = 4
"""How deep handlers and hostile values may act inside each other."""

OPERATIONS = 400
PATIENCE = 3000
"""Turns after which what is still queued counts as stuck."""


class Machine:
    """One run: hubs, loops and executors, and the input that says what happens to them."""

    def __init__(self, data: bytes) -> None:
        self.bytes = Bytes(data)
        self.faults: list[str] = []
        self.trail: list[str] = []
        self.calls = self.messages = 0
        self.futures: list[Any] = []
        self.tasks: list[Any] = []
        self._depth = self._operations = 0
        self.loops = [HandLoop(), HandLoop()]
        self.executors = [HandExecutor(), HandExecutor()]
        self.models = [self._new_model() for _ in range(1 + self.bytes.below(3))]
        self.old: list[HubModel] = []

    # ---- what is wrong ----------------------------------------------------------------------

    def fault(self, what: str) -> None:
        """Note it: a hub would catch what a handler raises."""
        self.faults.append(f"{what} (after {len(self.trail)} operations)")

    def expect(self, holds: bool, what: str) -> None:
        """Note it, unless it holds."""
        if not holds:
            self.fault(f"not as expected: {what}")

    # ---- hubs -------------------------------------------------------------------------------

    def _new_model(self) -> HubModel:
        setup = self.bytes.below(16)
        open_loops = [n for n, loop in enumerate(self.loops) if loop.is_open]
        loop = open_loops[-1] if setup & 1 and open_loops else None
        ready = [n for n, executor in enumerate(self.executors) if not executor.is_shut_down]
        executor = ready[0] if setup & 2 and ready else None
        limit, history = self.bytes.chosen(LIMITS), self.bytes.chosen(HISTORIES)
        hook = self._hook if setup & 4 else None
        hub = PubSubHub(
            None if loop is None else self.loops[loop].loop,
            None if executor is None else self.executors[executor],
            max_pending=limit,
            on_error=hook,
            on_overflow=hook,
            history=history,
        )
        return HubModel(hub, loop, executor, limit, history)

    def _hook(self, _: object) -> None:
        self.poke()

    # ---- values -----------------------------------------------------------------------------

    def value(self) -> Any:
        """A message, or anything else that no one may look into."""
        return [Value(self), object(), [], None, "text", 0.5][self.bytes.below(6)]

    def _message(self) -> Any:
        return Value(self) if self.bytes.below(2) else Plain(self)

    def _actor(self, model: HubModel) -> Actor:
        dice = self.bytes.below(8)
        if dice < 3:
            actor: Actor = AsyncActor(self, model, self.bytes.chosen(ASYNC))
        elif dice < 6:
            actor = SyncActor(self, model, self.bytes.chosen(SYNC))
        else:
            actor = Twin(self, model, self.bytes.chosen(SYNC))
        actor.meddles = self.bytes.below(2) == 1
        return actor

    def poke(self) -> None:
        """A hostile value was touched."""
        if self._depth < DEPTH and self.bytes.below(2):
            self.act()
        elif self.bytes.below(2):
            raise Evil

    # ---- operations -------------------------------------------------------------------------

    def act(self) -> None:
        """Do whatever the next bytes say."""
        if self._depth >= DEPTH or self._operations >= OPERATIONS or not self.bytes:
            return
        self._operations += 1
        self._depth += 1
        try:
            model = self.bytes.chosen(self.models)
            operation = self.bytes.chosen(OPERATIONS_BY_BYTE)
            self.trail.append(operation.__name__)
            operation(self, model)
        except Evil:
            pass
        except Exception as error:
            self.fault(f"{self.trail[-1]} raised {error!r}")
        finally:
            self._depth -= 1

    def send(self, model: HubModel) -> None:
        """Send in one of four ways, by the hub or by a client."""
        session = self.bytes.chosen(SESSIONS)
        topic = self.bytes.chosen(TOPICS) if self.bytes.below(2) else None
        others, by_client = self.bytes.below(2), self.bytes.below(2)
        message = self._message()
        name = ("send_others" if others else "send_all") + ("" if topic is None else "_on_topic")
        arguments = [] if topic is None else [topic]
        if others and not by_client:
            arguments.insert(0, session)
        sender = PubSub(model.hub, session) if by_client else model.hub
        if not model.closed:
            model.send(plain(topic), plain(session) if others else None, message.number)
        self._call(model, partial(getattr(sender, name), *arguments, message))

    def send_to(self, model: HubModel) -> None:
        """Send to one session."""
        session, message = self.bytes.chosen(SESSIONS), self._message()
        if not model.closed:
            model.send_to(plain(session), message.number)
        self._call(model, lambda: model.hub.send_to(session, message))

    def _call(self, model: HubModel, way: Callable[[], Any]) -> Any:
        """Make a call that a closed hub refuses, and that a broken one may."""
        was_closed = model.closed
        try:
            result = way()
        except HubClosed:
            self.expect(model.closed, "the hub is closed")
        except RuntimeError:
            self.expect(model.broken, "the loop or the executor is gone")
        else:
            self.expect(not was_closed, "a closed hub refuses")
            return result

    def join(self, model: HubModel) -> None:
        """Subscribe something new, on a loop or on none."""
        actor = self._actor(model)
        actor.session = plain(self.bytes.chosen(SESSIONS))
        self._join(model, actor)

    def join_again(self, model: HubModel) -> None:
        """Subscribe a handler that is there: nothing changes."""
        if model.entries:
            entry = self.bytes.chosen(model.entries)
            self._join(model, entry.actor, entry.topic)

    def _join(self, model: HubModel, actor: Actor, topic: Any = ...) -> None:
        session = actor.session
        if topic is ...:
            topic = self.bytes.chosen(TOPICS) if self.bytes.below(2) else None
        overlaps = self.bytes.below(4) == 0
        here = self.bytes.below(3)
        client, handler = PubSub(model.hub, session), cast("Callable[..., object]", actor)

        def subscribe() -> Any:
            if topic is None:
                return client.subscribe(handler, concurrent=overlaps)
            return client.subscribe_topic(topic, handler, concurrent=overlaps)

        def enter() -> None:
            lacks_loop = actor.is_async and model.loop is None and not any_loop_runs()
            if lacks_loop:
                try:
                    subscribe()
                except (RuntimeError, Evil):
                    return
                self.expect(False, "an async handler needs a loop")
            model.joining += 1
            try:
                handle = self._call(model, subscribe)
            finally:
                model.joining -= 1
            if handle is not None:
                known = model.find(session, plain(topic), actor)
                if known is None:
                    actor.overlaps = overlaps
                entry = model.join(session, plain(topic), actor)
                entry.handle = handle
                self.expect(handle.active, "a new subscription is active")

        if here < 2:
            self.loops[here].run(enter)
        else:
            enter()

    def join_late(self, model: HubModel) -> None:
        """Subscribe something new that gets what was sent before."""
        is_async = self.bytes.below(2)
        actor = (
            AsyncActor(self, model, self.bytes.chosen(ASYNC))
            if is_async
            else SyncActor(self, model, self.bytes.chosen(SYNC))
        )
        actor.meddles = self.bytes.below(2) == 1
        actor.session = plain(self.bytes.chosen(SESSIONS))
        topic = self.bytes.chosen(TOPICS) if self.bytes.below(2) else None
        count = 1 + self.bytes.below(4)
        self._on_a_loop(model, actor.is_async, lambda: self._enter_late(model, actor, topic, count))

    def _enter_late(
        self, model: HubModel, actor: AsyncActor | SyncActor, topic: Any, count: int
    ) -> None:
        client, handler = PubSub(model.hub, actor.session), cast("Callable[..., object]", actor)

        def subscribe() -> Any:
            if topic is None:
                return client.subscribe(handler, replay=count)
            return client.subscribe_topic(topic, handler, replay=count)

        if not model.keeps(plain(topic)):
            try:
                subscribe()
            except (ValueError, RuntimeError):
                return
            self.expect(False, "what is not kept is not replayed")
        # The replay may come before the handle.
        entry = model.join(actor.session, plain(topic), actor)
        entry.due.extend(model.past(plain(topic), actor.session, count))
        handle = self._call(model, subscribe)
        if handle is None:
            model.leave([entry])
        elif entry in model.entries:
            entry.handle = handle

    def _on_a_loop(self, model: HubModel, is_async: bool, enter: Callable[[], None]) -> None:
        """Subscribe where there is a loop for it, on one of the loops or on none."""

        def with_a_loop() -> None:
            if not is_async or model.loop is not None or any_loop_runs():
                enter()

        here = self.bytes.below(3)
        if here < 2:
            self.loops[here].run(with_a_loop)
        else:
            with_a_loop()

    def watch(self, model: HubModel) -> None:
        """Subscribe to who is on a topic."""
        is_async = self.bytes.below(2) == 1
        watcher = AsyncWatcher(self, model) if is_async else Watcher(self, model)
        watcher.meddles = self.bytes.below(2) == 1
        session, topic = self.bytes.chosen(SESSIONS), self.bytes.chosen(TOPICS)
        watch = Watch(plain(session), plain(topic), watcher)

        def enter() -> None:
            # It is told at once who is there.
            model.watches.append(watch)
            subscribe = model.hub.subscribe_presence
            if self._call(model, lambda: subscribe(session, topic, watcher)) is None:
                model.unwatch([watch])

        self._on_a_loop(model, is_async, enter)

    def listen(self, model: HubModel) -> None:
        """Read what comes to a session of its own, without waiting."""
        topic = self.bytes.chosen(TOPICS) if self.bytes.below(2) else None
        messages = model.hub.listen("a reader", topic, timeout=0)
        if self._call(model, messages.__enter__) is None:
            return
        numbers: list[int] = []
        with contextlib.suppress(TimeoutError):
            for _ in range(1 + self.bytes.below(3)):
                self.act()
            numbers.extend(message.number for message in messages)
        model.delivered += len(numbers) + messages.dropped
        messages.__exit__(None, None, None)
        self.expect(numbers == sorted(numbers), "a reader gets what is sent in order")

    def keep(self, model: HubModel) -> None:
        """Say how much is kept of a topic."""
        topic = self.bytes.chosen(TOPICS) if self.bytes.below(2) else None
        messages = self.bytes.chosen((None, 0, 1, 3))
        model.keep(plain(topic), messages)
        model.hub.keep(topic, messages=messages)

    def identify(self, model: HubModel) -> None:
        """Say anything of a session."""
        PubSub(model.hub, self.bytes.chosen(SESSIONS)).identify(says=self.value())

    def cancel(self, model: HubModel) -> None:
        """End one subscription."""
        if model.entries:
            entry: Entry = self.bytes.chosen(model.entries)
            handle = entry.handle
            if handle:
                model.leave([entry])
                if self.bytes.below(2):
                    handle.cancel()
                else:
                    with handle:
                        pass
                self.expect(not handle.active, "a cancelled subscription is not active")

    def unsubscribe(self, model: HubModel) -> None:
        """End the broadcast handlers of a session."""
        session = self.bytes.chosen(SESSIONS)
        name = plain(session)
        model.leave([e for e in model.entries if e.session == name and e.topic is None])
        model.hub.unsubscribe(session)

    def unsubscribe_topic(self, model: HubModel) -> None:
        """End the handlers of a session on one topic."""
        session, topic = self.bytes.chosen(SESSIONS), self.bytes.chosen(TOPICS)
        names = plain(session), plain(topic)
        model.leave([e for e in model.entries if (e.session, e.topic) == names])
        PubSub(model.hub, session).unsubscribe_topic(topic)

    def unsubscribe_all(self, model: HubModel) -> None:
        """End everything of a session."""
        session = self.bytes.chosen(SESSIONS)
        name = plain(session)
        model.leave([e for e in model.entries if e.session == name])
        model.unwatch([w for w in model.watches if w.session == name])
        model.hub.unsubscribe_all(session)

    def mistake(self, model: HubModel) -> None:
        """Give it what it must refuse, or cannot know."""
        bad, hub = self.value(), model.hub
        if isinstance(bad, str):
            bad = 0.5
        before, operations = hub.stats().subscriptions, self._operations
        attempts: list[Callable[[], Any]] = [
            lambda: hub.send_others(bad, "text"),
            lambda: hub.send_all_on_topic(bad, "text"),
            lambda: hub.subscribe(bad, print),
            lambda: hub.subscribe_topic("ann", bad, print),
            lambda: hub.unsubscribe(bad),
            lambda: hub.unsubscribe_topic("ann", bad),
            lambda: hub.unsubscribe_all(bad),
            lambda: hub.subscribe("ann", takes_nothing),
            lambda: hub.subscribe_topic("ann", "lobby", takes_nothing),
            lambda: hub.send_to(bad, "text"),
            lambda: hub.subscribe("ann", print, replay=bad),
            lambda: hub.subscribe_presence(bad, "lobby", print),
            lambda: hub.subscribe_presence("ann", bad, print),
            lambda: hub.subscribe_presence("ann", "lobby", takes_nothing),
            lambda: hub.stream(bad),
            lambda: hub.listen("ann", timeout=cast("float", Value(self))),
            lambda: hub.keep("lobby", messages=cast("int", Value(self))),
            lambda: hub.subscriber_count(bad),
            lambda: PubSub(hub, bad),
            lambda: PubSub(bad, "ann"),
            lambda: hub.subscribe("ann", []),  # type: ignore[arg-type]
            lambda: hub.subscribe("ann", Evil.mro(), concurrent=bad),  # type: ignore[arg-type]
        ]
        try:
            self.bytes.chosen(attempts)()
        except (TypeError, HubClosed):
            pass
        else:
            self.fault("a mistake was accepted")
        # Unless what was given has used the hub when it was looked at.
        if self._operations == operations:
            self.expect(hub.stats().subscriptions == before, "a mistake changes nothing")

    def look(self, model: HubModel) -> None:
        """Ask for everything that can be asked for."""
        stats = model.hub.stats()
        self.expect(model.hub.closed == model.closed, "closed or not")
        self.expect(stats.published == model.published, "published")
        self.expect(bool(repr(stats)) and bool(repr(model.hub)), "shown")
        for topic in model.hub.topics():
            count = model.hub.subscriber_count(topic)
            self.expect(count == len(model.hub.sessions(topic)), "so many are on a topic")
        self.expect(len(model.hub.sessions()) == stats.sessions, "everybody is told")
        for entry in model.entries:
            handle = entry.handle
            if handle and not model.broken and not model.closed:
                self.expect(handle.active, "active")
                self.expect(handle.topic == entry.topic, "topic")
                self.expect(plain(handle.session_id) == entry.session, "session")

    def turn(self, model: HubModel) -> None:
        """Let a loop turn."""
        self.bytes.chosen(self.loops).turn()

    def turn_often(self, model: HubModel) -> None:
        """Let the loops turn."""
        for _ in range(8):
            for loop in self.loops:
                loop.turn()

    def step(self, model: HubModel) -> None:
        """Let a worker do a job."""
        self.bytes.chosen(self.executors).step()

    def resolve(self, model: HubModel) -> None:
        """Let a handler that waits go on, in one way or another."""
        if not self.futures:
            return
        future = self.futures.pop(self.bytes.below(len(self.futures)))
        how = self.bytes.below(3)
        if future.done() or future.get_loop().is_closed():
            return
        if how == 2:
            future.cancel()
        else:
            future.set_result(None)

    def cancel_task(self, model: HubModel) -> None:
        """Cancel the task of a handler that waits, or has waited."""
        if self.tasks:
            task = self.tasks.pop(self.bytes.below(len(self.tasks)))
            if not task.get_loop().is_closed():
                task.cancel()

    def collect(self, model: HubModel) -> None:
        """Collect garbage."""
        gc.collect(1)

    def close(self, model: HubModel) -> None:
        """Close a hub, now and then."""
        if self.bytes.below(4) == 0:
            is_waiting = self._is_waiting(model)
            model.closed = True
            model.hub.close(timeout=0)
            # Nobody has time here; but from inside a handler, what is queued is delivered later.
            if is_waiting and model.hub.stats().subscriptions == 0:
                model.broken = True

    def replace(self, model: HubModel) -> None:
        """Let go of a hub, with all that is queued, and make another one."""
        if self.bytes.below(4) == 0 and model in self.models:
            self.models[self.models.index(model)] = self._new_model()
            model.broken = True

    def break_loop(self, model: HubModel) -> None:
        """Close an event loop, now and then."""
        if self.bytes.below(8) == 0 and not any_loop_runs():
            which = self.bytes.below(2)
            for each in self.models:
                each.broken |= each.loop in (None, which)
            self.loops[which].close()

    def break_executor(self, model: HubModel) -> None:
        """Shut an executor down, now and then."""
        if self.bytes.below(8) == 0:
            which = self.bytes.below(2)
            for each in self.models:
                each.broken |= each.executor == which
            self.executors[which].shutdown(cancel_futures=self.bytes.below(2) == 1)

    # ---- a run ------------------------------------------------------------------------------

    def run(self) -> None:
        """Do all that the input says, then let everything come to an end."""
        while self.bytes and self._operations < OPERATIONS:
            self.act()
        self._drain()
        for model in self.models:
            self._check(model)
        self._end()

    def _drain(self) -> None:
        for _ in range(PATIENCE):
            for future in self.futures:
                if not future.done() and not future.get_loop().is_closed():
                    future.set_result(None)
            self.futures.clear()
            for loop in self.loops:
                loop.turn()
            worked = [executor.step() for executor in self.executors]
            if not any(worked) and not any(self._is_waiting(model) for model in self.models):
                break
        # Calls that have begun may still have something to do.
        for _ in range(5):
            for loop in self.loops:
                loop.turn()

    def _is_waiting(self, model: HubModel) -> bool:
        if model.broken:
            return False
        due = model.is_exact and any(entry.due for entry in model.entries)
        busy = any(entry.actor.busy for entry in model.entries)
        # A notice that some have been told is not pending any more.
        told = model.closed or all(w.watcher.there == model.on(w.topic) for w in model.watches)
        return due or busy or not told or model.hub.stats().pending > 0

    def _check(self, model: HubModel) -> None:
        stats = model.hub.stats()
        if model.broken:
            return
        self.expect(stats.pending == 0, f"nothing is pending, not {stats.pending}")
        if model.is_exact:
            lost = sum(len(entry.due) for entry in model.entries)
            self.expect(lost == 0, f"nothing is lost, not {lost}")
            self.expect(stats.dropped == 0, f"nothing is dropped, not {stats.dropped}")
        if model.closed:
            # A closed hub that has delivered everything has let everybody go.
            model.entries.clear()
            model.watches.clear()
        for watch in model.watches:
            there = model.on(watch.topic)
            self.expect(set(model.hub.sessions(watch.topic)) == there, "who is on a topic")
            self.expect(watch.watcher.there == there, "who watches knows who is there")
        for name, count in (
            ("published", model.published),
            ("delivered", model.delivered),
            ("failed", model.failed),
            ("subscriptions", len(model.entries) + len(model.watches)),
            ("sessions", len(model.sessions())),
            ("topics", len({entry.topic for entry in model.entries} - {None})),
        ):
            found = getattr(stats, name)
            self.expect(found == count, f"{count} {name}, not {found}")

    def _end(self) -> None:
        self._operations, self.bytes = OPERATIONS, Bytes(b"")
        errors = [error for loop in self.loops for error in loop.errors if loop.is_open]
        self.expect(not errors, f"no errors on the loops: {errors}")
        for model in self.models:
            for session in SESSIONS:
                model.leave([e for e in model.entries if e.session == plain(session)])
                model.unwatch([w for w in model.watches if w.session == plain(session)])
                model.hub.unsubscribe_all(session)
            self.expect(model.hub.stats().subscriptions == 0, "everybody has left")
        for loop in self.loops:
            loop.end()
        self.tasks.clear()


takes_nothing: Any = lambda: None  # noqa: E731 - a handler without a name


def plain(text: Any) -> Any:
    """The string that a string of somebody's own is."""
    return "".join(map(chr, map(ord, str.__iter__(text)))) if isinstance(text, Text) else text


OPERATIONS_BY_BYTE = (
    *[Machine.send] * 8,
    *[Machine.send_to] * 2,
    *[Machine.join] * 6,
    *[Machine.join_late] * 2,
    Machine.join_again,
    Machine.watch,
    Machine.listen,
    Machine.keep,
    Machine.identify,
    *[Machine.cancel] * 2,
    Machine.unsubscribe,
    Machine.unsubscribe_topic,
    Machine.unsubscribe_all,
    Machine.mistake,
    Machine.look,
    *[Machine.turn] * 4,
    Machine.turn_often,
    *[Machine.step] * 3,
    *[Machine.resolve] * 2,
    Machine.cancel_task,
    Machine.collect,
    Machine.close,
    Machine.replace,
    Machine.break_loop,
    Machine.break_executor,
)


def _is_meant(problem: Any) -> bool:
    # Where not even an error can be reported, the interpreter is told: of a hostile value's end.
    return isinstance(problem.exc_value, Evil)


def run(data: bytes) -> Machine:
    """Run the input; an ``AssertionError`` says what the hub did wrong."""
    logger = logging.getLogger("pagebus")
    kept = logger.handlers[:], logger.propagate
    logger.handlers[:], logger.propagate = [logging.NullHandler()], False
    was_enabled, hook = gc.isenabled(), sys.unraisablehook
    sys.unraisablehook = lambda problem: None if _is_meant(problem) else hook(problem)
    # Garbage goes when the input says so: the same input always does the same.
    gc.disable()
    try:
        machine = Machine(data)
        machine.run()
    finally:
        logger.handlers[:], logger.propagate = kept
        sys.unraisablehook = hook
        if was_enabled:
            gc.enable()
    if machine.faults:
        raise AssertionError("\n".join([*machine.faults[:5], "after: " + ", ".join(machine.trail)]))
    return machine
