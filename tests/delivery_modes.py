"""The ways in which a hub delivers, and what a test needs to subscribe, wait and settle in each."""

import asyncio
import gc
import itertools
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pytest

from pagebus import PubSubHub, Subscription

DEADLINE = 30.0 * float(os.environ.get("PAGEBUS_PATIENCE", "1"))
"""Seconds after which something that should have happened counts as never happening.

Where everything is slow, as under valgrind, PAGEBUS_PATIENCE says by how much."""

NewLoop = Callable[[], asyncio.AbstractEventLoop]


def new_uvloop() -> asyncio.AbstractEventLoop:
    return pytest.importorskip("uvloop").new_event_loop()


LOOPS: dict[str, NewLoop] = {"asyncio": asyncio.new_event_loop, "uvloop": new_uvloop}


@dataclass(frozen=True)
class Mode:
    """One way to set up a hub, and the kind of handler that is subscribed to it."""

    name: str
    is_async: bool = False
    suspends: bool = False
    new_loop: NewLoop | None = None
    hub_has_loop: bool = False
    has_executor: bool = False

    def __str__(self) -> str:
        return self.name


def _async_modes() -> Iterable[Mode]:
    for owner, hub_has_loop in (("hub", True), ("subscriber", False)):
        for kind, new_loop in LOOPS.items():
            yield Mode(
                f"async-{owner}s_loop-{kind}",
                is_async=True,
                new_loop=new_loop,
                hub_has_loop=hub_has_loop,
            )


def _with_hub_loop(mode: Mode, kind: str) -> Mode:
    return replace(mode, name=f"{mode.name}-{kind}", new_loop=LOOPS[kind], hub_has_loop=True)


_EXECUTOR = Mode("sync-executor", has_executor=True)
_INLINE = Mode("sync-inline")

ASYNC = list(_async_modes())
"""Async handlers, on the hub's loop or on the one that ran at subscribe."""

SUSPENDING = [replace(mode, name=f"{mode.name}-suspends", suspends=True) for mode in ASYNC]
"""The same, with handlers that give the loop a turn before and after they do their work."""

EXECUTOR = [
    _EXECUTOR,
    _with_hub_loop(_EXECUTOR, "asyncio"),
    _with_hub_loop(_EXECUTOR, "uvloop"),
]
"""Sync handlers on an executor, without and with a loop beside it."""

INLINE = [_INLINE, _with_hub_loop(_INLINE, "asyncio")]
"""Sync handlers inside the send, without and with a loop beside it."""

QUEUED = ASYNC + SUSPENDING + EXECUTOR
"""Where a message waits while its handler is busy, and the sender goes on."""

ALL = QUEUED + INLINE

AWAITING = [
    *ASYNC,
    *(mode for mode in EXECUTOR + INLINE if mode.hub_has_loop),
    replace(_EXECUTOR, name="sync-executor-subscribers_loop", new_loop=asyncio.new_event_loop),
    replace(_INLINE, name="sync-inline-subscribers_loop", new_loop=asyncio.new_event_loop),
]
"""Where there is a loop on which an awaitable can be awaited, whoever calls the handler."""


class Recorder(list[Any]):
    """A list that is a handler: it keeps what it was called with and can be waited for.

    A broadcast is kept as the message, a topic message as ``(topic, message)``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.handler: Callable[..., object] = self.record
        self._grew = threading.Condition()

    def record(self, *args: Any) -> None:
        with self._grew:
            self.append(args[0] if len(args) == 1 else args)
            self._grew.notify_all()

    async def record_async(self, *args: Any) -> None:
        self.record(*args)

    def wait(self, count: int) -> "Recorder":
        """Return when at least ``count`` messages are here."""
        with self._grew:
            came = self._grew.wait_for(lambda: len(self) >= count, DEADLINE)
            assert came, f"{len(self)} of {count} messages came: {list(self)[:20]}"
        return self

    def wait_for(self, message: Any) -> None:
        """Return when ``message`` is here, whatever came before it."""
        with self._grew:
            assert self._grew.wait_for(lambda: message in self, DEADLINE), f"{message} never came"


class Gate:
    """A door that handlers wait at, on a thread or on a loop, until the test opens it."""

    def __init__(self) -> None:
        self._opened: Future[None] = Future()
        self.arrivals = Recorder()

    def open(self) -> None:
        if not self._opened.done():
            self._opened.set_result(None)

    def wait(self, who: Any = None) -> None:
        self.arrivals.record(who)
        self._opened.result(DEADLINE)

    async def passed(self, who: Any = None) -> None:
        # Looked at first: wrapping an open gate's future would still cost a turn of the loop.
        self.arrivals.record(who)
        if not self._opened.done():
            await asyncio.shield(asyncio.wrap_future(self._opened))


class WatchedExecutor(ThreadPoolExecutor):
    """A thread pool that knows whether anything is submitted and not yet done."""

    def __init__(self, max_workers: int) -> None:
        super().__init__(max_workers)
        self._changed = threading.Condition()
        self._unfinished = 0
        self.submitted = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        with self._changed:
            self._unfinished += 1
            self.submitted += 1
        try:
            future = super().submit(fn, *args, **kwargs)
        except BaseException:
            self._finished()
            raise
        future.add_done_callback(self._finished)
        return future

    def _finished(self, _: object = None) -> None:
        with self._changed:
            self._unfinished -= 1
            self._changed.notify_all()

    def wait_idle(self) -> None:
        with self._changed:
            idle = self._changed.wait_for(lambda: not self._unfinished, DEADLINE)
            assert idle, "the workers are busy"


class LoopThread:
    """An event loop on a thread of its own. What reaches its exception handler is an error."""

    def __init__(self, new_loop: NewLoop = asyncio.new_event_loop) -> None:
        self.loop = new_loop()
        self.errors: list[str] = []
        # The message alone: what else there is would keep the task alive that it is about.
        self.loop.set_exception_handler(lambda _, context: self.errors.append(context["message"]))
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.run(bool)

    def run(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Call ``fn`` on the loop's thread, in the caller's context, and return its result."""
        if threading.current_thread() is self._thread:
            return fn(*args)
        result: Future[Any] = Future()

        def call() -> None:
            try:
                result.set_result(fn(*args))
            except BaseException as error:
                result.set_exception(error)

        self.loop.call_soon_threadsafe(call)
        return result.result(DEADLINE)

    def run_async(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(DEADLINE)

    def spin(self, turns: int = 10) -> None:
        """Let the loop turn a few times, so that what was scheduled on it has run."""
        self.run_async(turns_of_the_loop(turns))

    def stop(self) -> None:
        """Stop turning; the loop stays open and keeps what is scheduled on it."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), "the loop does not stop"

    def close(self) -> None:
        if not self.loop.is_closed():
            if self._thread.is_alive():
                self.run_async(cancel_other_tasks())
                self.stop()
            self.loop.close()
        assert self.errors == []


async def turns_of_the_loop(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def cancel_other_tasks() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class Bus:
    """A hub in one mode, with the loop and the executor that belong to it."""

    def __init__(self, mode: Mode, workers: int = 4) -> None:
        self.mode, self.workers = mode, workers
        self.loop = LoopThread(mode.new_loop) if mode.new_loop else None
        self.executor = WatchedExecutor(workers) if mode.has_executor else None
        self.hub = self.new_hub()
        self._gates: list[Gate] = []
        self._running = 0
        self._count = threading.Lock()

    def new_hub(self, **options: Any) -> PubSubHub:
        loop = self.loop.loop if self.loop and self.mode.hub_has_loop else None
        return PubSubHub(loop=loop, executor=self.executor, **options)

    # ---- what subscribes -------------------------------------------------------------------

    def recorder(self, gate: Gate | None = None) -> Recorder:
        """A recorder whose ``handler`` is one of this mode, and waits at ``gate`` first."""
        recorder = Recorder()
        recorder.handler = self.handler(recorder.record, gate)
        return recorder

    def gate(self) -> Gate:
        """A closed gate; it is opened when the test ends, so that nothing waits for ever."""
        self._gates.append(Gate())
        return self._gates[-1]

    def handler(self, body: Callable[..., Any], gate: Gate | None = None) -> Callable[..., Any]:
        """``body`` as a handler of this mode, which waits at ``gate`` before it does its work."""
        if self.mode.is_async:
            return self._async_handler(body, gate)
        return self._sync_handler(body, gate)

    def _sync_handler(self, body: Callable[..., Any], gate: Gate | None) -> Callable[..., Any]:
        def handler(*args: Any) -> None:
            self._started()
            try:
                if gate:
                    gate.wait(args[-1])
                body(*args)
            finally:
                self._ended()

        return handler

    def _async_handler(self, body: Callable[..., Any], gate: Gate | None) -> Callable[..., Any]:
        async def handler(*args: Any) -> None:
            self._started()
            try:
                if gate:
                    await gate.passed(args[-1])
                if self.mode.suspends:
                    await asyncio.sleep(0)
                body(*args)
                if self.mode.suspends:
                    await asyncio.sleep(0)
            finally:
                self._ended()

        return handler

    def _started(self) -> None:
        with self._count:
            self._running += 1

    def _ended(self) -> None:
        with self._count:
            self._running -= 1

    # ---- where the app's code runs ---------------------------------------------------------

    def run(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Call ``fn`` where an app would: on the loop's thread, or on this one without a loop."""
        return self.loop.run(fn, *args) if self.loop else fn(*args)

    def subscribe(
        self, session_id: str, handler: Callable[..., Any], **options: Any
    ) -> Subscription:
        return self.run(lambda: self.hub.subscribe(session_id, handler, **options))

    def subscribe_topic(
        self, session_id: str, topic: str, handler: Callable[..., Any], **options: Any
    ) -> Subscription:
        return self.run(lambda: self.hub.subscribe_topic(session_id, topic, handler, **options))

    def subscribe_presence(
        self, session_id: str, topic: str, body: Callable[..., Any]
    ) -> Subscription:
        handler = self.handler(body)
        return self.run(lambda: self.hub.subscribe_presence(session_id, topic, handler))

    # ---- how a test waits ------------------------------------------------------------------

    def settle(self) -> None:
        """Return when the hub has nothing left to deliver and no handler is running."""
        deadline = time.monotonic() + DEADLINE
        while not self._is_settled():
            assert time.monotonic() < deadline, f"never settles: {numbers(self.hub)}"

    def wait_until_handed_on(self) -> None:
        """Return when what was sent has reached the queues of the handlers that it is for.

        One handler at most may be blocked meanwhile.
        """
        if self.executor:
            # As many jobs as there are other workers, which end only when all of them run.
            others = self.workers - 1
            meeting = threading.Barrier(others)
            for job in [self.executor.submit(meeting.wait, DEADLINE) for _ in range(others)]:
                job.result(DEADLINE)
        if self.loop:
            self.loop.spin()

    def _is_settled(self) -> bool:
        before = self.hub.stats().delivered
        if self.executor:
            self.executor.wait_idle()
        if self.loop:
            self.loop.spin()
        if self.executor:
            self.executor.wait_idle()
        now = self.hub.stats()
        return not self._running and now.pending == 0 and now.delivered == before

    def close(self) -> None:
        for gate in self._gates:
            gate.open()
        if self.executor:
            self.executor.shutdown(wait=True)
        if self.loop:
            self.loop.close()


COUNTS = ("published", "delivered", "failed", "dropped", "pending")
SIZES = ("sessions", "topics", "subscriptions")


def numbers(hub: PubSubHub) -> dict[str, int]:
    """Everything that the hub counts."""
    stats = hub.stats()
    return {name: getattr(stats, name) for name in COUNTS + SIZES}


def collect_garbage() -> None:
    """Collect all garbage on this thread, which leaves none that another thread is collecting."""
    own, collected = threading.get_ident(), list[int]()

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "stop" and info["generation"] == 2 and threading.get_ident() == own:
            collected.append(info["collected"])

    gc.callbacks.append(note)
    try:
        # While another thread collects, this does nothing.
        while not collected:
            gc.collect()
    finally:
        gc.callbacks.remove(note)


def alive(references: Iterable["weakref.ref[Any]"], expected: int) -> int:
    """How many of these are alive, once that many are, or after a while.

    ``asyncio.run`` on another thread holds the tasks of all loops for a moment.
    """
    deadline = time.monotonic() + DEADLINE
    while True:
        collect_garbage()
        count = sum(reference() is not None for reference in references)
        if count == expected or time.monotonic() > deadline:
            return count
        time.sleep(0.01)


def inversions(messages: list[Any]) -> int:
    """How many neighbours stand in the wrong order."""
    return sum(before > after for before, after in itertools.pairwise(messages))


def in_threads(*bodies: Callable[[], object]) -> None:
    """Run the bodies at the same time, each on a thread of its own, and wait for all of them."""
    start = threading.Barrier(len(bodies))
    errors = Recorder()

    def run(body: Callable[[], object]) -> None:
        start.wait(DEADLINE)
        try:
            body()
        except BaseException as error:
            errors.record(error)

    threads = [threading.Thread(target=run, args=(body,), daemon=True) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive(), "a thread never ends"
    assert errors == [], repr(errors[0])
