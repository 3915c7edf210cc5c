"""A hub that has done a million of anything holds no more than before."""

import asyncio
import contextvars
import functools
import gc
import logging
import logging.handlers
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing
from statistics import median
from typing import Any

import psutil
import pytest

import parallel
from delivery_modes import ALL, Bus, collect_garbage, numbers
from pagebus import HandlerFailure, PubSub, PubSubHub

CHOSEN = {
    "async-hubs_loop-asyncio",
    "async-subscribers_loop-uvloop-suspends",
    "sync-executor-asyncio",
    "sync-inline",
}
MODES = [mode for mode in ALL if str(mode) in CHOSEN]
"""One of each way of delivering: what takes a million operations is not done in all of them."""

MILLION = 1_000_000
ROUNDS = 10
WARM_UP = 2
BYTES = 1.0
"""How much an operation may leave behind, in bytes: less than anything that can be allocated."""

NOTHING = {"pending": 0, "sessions": 0, "topics": 0, "subscriptions": 0}


@pytest.fixture(params=MODES, ids=str)
def some_bus(request: pytest.FixtureRequest, log: Any) -> Iterator[Bus]:
    yield from parallel.for_each_runner(request, lambda: closing(Bus(request.param)))


def handler_of(bus: Bus) -> Callable[..., Any]:
    """A handler that does nothing, of the kind that the mode is about."""

    def on_message(*message: Any) -> None:
        pass

    async def on_message_async(*message: Any) -> None:
        if bus.mode.suspends:
            await asyncio.sleep(0)

    return on_message_async if bus.mode.is_async else on_message


def slope(values: list[int]) -> float:
    """How much the values grow from one to the next: the median over all pairs of them.

    A spike, or memory given back late, moves it by little. One step that lasts moves it as
    well if it comes near the middle: it is between half of all pairs then.
    """
    pairs = [(i, j) for i in range(len(values)) for j in range(i + 1, len(values))]
    return median((values[j] - values[i]) / (j - i) for i, j in pairs)


def assert_stays_flat(
    bus: Bus, work: Callable[[int], None], count: int, end: Callable[[], None] = lambda: None
) -> None:
    """Do ``count`` operations in rounds, and see that neither memory nor objects grow.

    Where memory seems to grow, all of it goes on for longer: what leaks goes on growing, and what
    was one step is a step at the beginning of a longer series.
    """
    share = count // ROUNDS
    process, sizes, objects = psutil.Process(), list[int](), list[int]()

    def measure(rounds: int) -> None:
        for _ in range(rounds):
            work(share)
            bus.settle()
            collect_garbage()
            sizes.append(process.memory_info().rss)
            objects.append(len(gc.get_objects()))

    measure(WARM_UP)
    sizes.clear()
    objects.clear()
    measure(ROUNDS)
    if slope(sizes) >= BYTES * share:
        measure(2 * ROUNDS)
    end()
    bus.settle()

    assert slope(sizes) < BYTES * share, [size >> 10 for size in sizes]
    assert max(objects) - min(objects) < 100, objects
    left = numbers(bus.hub)
    assert {name: left[name] for name in NOTHING} == NOTHING
    assert left["dropped"] == left["failed"] == 0


@pytest.mark.heavy
@pytest.mark.timeout(600)
@pytest.mark.thread_unsafe(reason="memory and objects are counted for the whole process")
def test_a_million_subscriptions_leave_nothing_behind(some_bus: Bus):
    hub, handlers = some_bus.hub, [handler_of(some_bus) for _ in range(3)]
    client = PubSub(hub, "ann")

    def come_and_go(count: int) -> None:
        for number in range(count // 10):
            # One in ten of its own topic, one in ten with a new client; in all ways of leaving.
            with hub.subscribe("ann", handlers[0]):
                hub.subscribe("bob", handlers[1])
                hub.subscribe_topic("bob", "lobby", handlers[1])
                hub.subscribe_topic("bob", f"room {number}", handlers[2])
                client.subscribe(handlers[1])
                client.subscribe_topic("lobby", handlers[0], concurrent=True)
                PubSub(hub, f"session {number}").subscribe(handlers[0]).cancel()
                for handler in handlers:
                    hub.subscribe("cat", handler)
            hub.unsubscribe("cat")
            hub.unsubscribe_all("bob")
            client.unsubscribe_topic("lobby")
            client.unsubscribe()

    assert_stays_flat(some_bus, lambda count: some_bus.run(come_and_go, count), MILLION)


@pytest.mark.heavy
@pytest.mark.timeout(600)
@pytest.mark.thread_unsafe(reason="memory and objects are counted for the whole process")
def test_a_hundred_thousand_sessions_that_come_talk_and_go_leave_nothing_behind(some_bus: Bus):
    class Page:
        def __init__(self, number: int) -> None:
            self.client = PubSub(some_bus.hub, f"session {number}")
            handler = handler_of(some_bus)
            self.client.subscribe(handler)
            self.client.subscribe_topic("lobby", handler)
            self.client.subscribe_topic(f"room {number}", self.on_message)
            self.client.send_all_on_topic(f"room {number}", self)
            self.client.send_others_on_topic("lobby", {"from": self})
            if number % 10 == 0:
                self.client.send_all([self])

        def on_message(self, topic: str, message: Any) -> None:
            self.last = message

    def come_and_go(first: int) -> None:
        pages = [Page(first + number) for number in range(50)]
        for page in pages:
            page.client.unsubscribe_all()

    def work(count: int) -> None:
        for first in range(0, count, 50):
            some_bus.run(come_and_go, first)
            # What waits for a busy machine takes memory that the allocator keeps.
            some_bus.settle()

    assert_stays_flat(some_bus, work, 100_000)


@pytest.mark.heavy
@pytest.mark.timeout(600)
@pytest.mark.thread_unsafe(reason="memory and objects are counted for the whole process")
def test_a_million_messages_leave_nothing_behind(some_bus: Bus):
    hub = some_bus.hub
    for number in range(3):
        some_bus.subscribe(f"session {number}", handler_of(some_bus))
        some_bus.subscribe_topic(f"session {number}", "lobby", handler_of(some_bus))

    def send(first: int) -> None:
        for number in range(first, first + 2000):
            hub.send_all({"number": number})
            hub.send_all_on_topic("lobby", [number])
            hub.send_others("session 0", (number, "text"))
            hub.send_others_on_topic("session 1", "lobby", f"text {number}")

    def work(count: int) -> None:
        for first in range(0, count, 8000):
            some_bus.run(send, first)
            # More must not wait than a queue holds.
            some_bus.settle()

    def go() -> None:
        for number in range(3):
            hub.unsubscribe_all(f"session {number}")

    assert_stays_flat(some_bus, work, MILLION, go)


@pytest.mark.heavy
def test_ten_thousand_cyclic_pages_are_collected(some_bus: Bus):
    class Page:
        def __init__(self, number: int) -> None:
            self.pubsub = PubSub(some_bus.new_hub(), f"session {number}")
            self.handle = self.pubsub.subscribe(self.on_message)
            self.handler = functools.partial(handler_of(some_bus), self)
            self.pubsub.subscribe_topic("lobby", self.handler)
            self.pubsub.send_all(self)

        def on_message(self, message: Any) -> None:
            self.last = message

    def make() -> list[weakref.ref[Page]]:
        return [weakref.ref(Page(number)) for number in range(10_000)]

    references = some_bus.run(make)
    if some_bus.executor:
        some_bus.executor.wait_idle()
    if some_bus.loop:
        some_bus.loop.spin()
    collect_garbage()

    assert sum(reference() is not None for reference in references) == 0


# ---- nothing of a closed session is reachable -------------------------------------------------


class Thing:
    """Something that belongs to a session, and that can be watched going."""


def reachable_from(start: Any) -> Iterator[Any]:
    """Everything that the garbage collector finds from an object, short of modules and types."""
    seen, found = {id(start)}, [start]
    while found:
        following = []
        for item in gc.get_referents(*found):
            if id(item) not in seen and not isinstance(item, type | type(sys)):
                seen.add(id(item))
                following.append(item)
                yield item
        found = following


@pytest.mark.thread_unsafe(reason="who looks through everything has references to all of it")
def test_nobody_refers_to_anything_of_a_session_that_has_gone(bus: Bus):
    current: contextvars.ContextVar[Any] = contextvars.ContextVar("current")
    handler = bus.handler(lambda *message: None)
    handler_on_topic = bus.handler(lambda *message: None)
    session_id, topic = "".join(["a", "nn"]), "".join(["lob", "by"])
    page, message = Thing(), Thing()
    things = [handler, handler_on_topic, session_id, topic, page, message]
    before = [sys.getrefcount(thing) for thing in things]

    def come() -> None:
        current.set(page)
        bus.hub.subscribe(session_id, handler)
        bus.hub.subscribe_topic(session_id, topic, handler_on_topic)
        bus.hub.send_all(message)
        bus.hub.send_all_on_topic(topic, message)

    bus.run(lambda: contextvars.copy_context().run(come))
    bus.settle()
    assert any(item is handler for item in reachable_from(bus.hub))
    bus.hub.unsubscribe_all(session_id)
    bus.settle()
    collect_garbage()

    found = {id(item) for item in reachable_from(bus.hub)}
    assert not found & set(map(id, things))
    # References that the garbage collector cannot see count as well.
    assert [sys.getrefcount(thing) for thing in things] == before
    # This function's own: its variables, their cells, and the list of all.
    cells = type((lambda: things).__closure__[0])  # type: ignore[index]
    others = [*gc.get_referrers(page), *gc.get_referrers(message)]
    own = [things, sys._getframe()]
    assert [r for r in others if not isinstance(r, cells) and r not in own] == []


# ---- errors that somebody keeps ---------------------------------------------------------------


def fail(*message: Any) -> None:
    raise ValueError("no")


async def fail_async(*message: Any) -> None:
    await asyncio.sleep(0)
    raise ValueError("no")


def failing_handler(bus: Bus, owner: Any) -> Callable[..., Any]:
    """A handler that belongs to ``owner``, and whose code knows nothing of it."""
    handler = functools.partial(fail_async if bus.mode.is_async else fail)
    handler.owner = owner  # type: ignore[attr-defined]
    return handler


def frames_of(error: BaseException) -> list[str]:
    """The functions in an exception's traceback."""
    names, traceback = [], error.__traceback__
    while traceback:
        names.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    return names


def test_a_kept_log_record_keeps_no_handler_page_or_session(bus: Bus, log: Any):
    log.keep_alone()
    page = Thing()
    handler = failing_handler(bus, page)
    references = [weakref.ref(page), weakref.ref(handler)]
    bus.subscribe("ann", handler)
    bus.hub.send_all("hello")
    bus.settle()
    bus.hub.unsubscribe_all("ann")
    del page, handler
    bus.settle()
    collect_garbage()

    (record,) = log.take(1)
    assert [reference() for reference in references] == [None, None]
    assert record.exc_info
    assert frames_of(record.exc_info[1]) == [fail_async.__name__ if bus.mode.is_async else "fail"]


def test_a_kept_exception_knows_nothing_of_the_hub_and_of_other_sessions(bus: Bus, log: Any):
    """Each fails by itself: what happened to one is no context of what happens to the next."""
    log.keep_alone()
    for number in range(5):
        bus.subscribe(f"session {number}", failing_handler(bus, None))
    try:
        {}["the sender's own trouble"]
    except KeyError as own:
        bus.hub.send_all("hello")
        bus.settle()
        trouble = own

    errors = [record.exc_info[1] for record in log.take(5) if record.exc_info]
    assert len(errors) == 5
    for error in errors:
        assert isinstance(error, ValueError)
        assert error.__cause__ is None
        # Inline, the handler runs inside the sender's except block, as any call does.
        assert error.__context__ in (None, trouble)


def test_the_hub_and_its_loop_can_go_while_an_exception_is_kept(bus: Bus, log: Any):
    log.keep_alone()
    hub = bus.new_hub()
    reference = weakref.ref(hub)
    bus.run(hub.subscribe, "ann", failing_handler(bus, None))
    hub.send_all("hello")
    bus.hub, hub = hub, bus.hub
    bus.settle()
    bus.hub, hub = hub, bus.hub
    del hub
    if bus.loop:
        bus.loop.spin()
    collect_garbage()

    assert reference() is None
    assert len(log.take(1)) == 1


def test_a_log_that_keeps_the_last_ten_records_keeps_ten_pages_at_the_most(bus: Bus, log: Any):
    kept = log.keep_alone()

    class Page:
        def on_message(self, message: Any) -> None:
            raise ValueError("no")

        async def on_message_async(self, message: Any) -> None:
            raise ValueError("no")

    references = []

    def come(number: int) -> None:
        page = Page()
        references.append(weakref.ref(page))
        bus.subscribe(
            f"session {number}", page.on_message_async if bus.mode.is_async else page.on_message
        )

    for number in range(200):
        come(number)
        bus.hub.send_all("hello")
        bus.settle()
        bus.hub.unsubscribe_all(f"session {number}")
        # What a traceback shows is kept with it: the variables of the page's own method.
        del kept[:-10]
    bus.settle()
    collect_garbage()

    assert len(kept) == 10
    assert sum(reference() is not None for reference in references) == 10
    kept.clear()
    collect_garbage()
    assert [reference() for reference in references] == [None] * 200


def test_a_hook_that_keeps_exceptions_keeps_no_session(bus: Bus, log: Any):
    log.keep_alone()
    exceptions: list[BaseException] = []
    failures: list[weakref.ref[HandlerFailure]] = []

    def on_error(failure: HandlerFailure) -> None:
        exceptions.append(failure.exception)
        failures.append(weakref.ref(failure))

    bus.hub = bus.new_hub(on_error=on_error)
    page = Thing()
    handler = failing_handler(bus, page)
    references = [weakref.ref(page), weakref.ref(handler)]
    bus.subscribe("ann", handler)
    bus.hub.send_all("hello")
    bus.settle()
    bus.hub.unsubscribe_all("ann")
    del page, handler
    bus.settle()
    log.take(1).clear()
    collect_garbage()

    assert len(exceptions) == len(failures) == 1
    assert [reference() for reference in references + failures] == [None] * 3


def test_a_page_that_keeps_its_own_failures_is_still_collected(bus: Bus, log: Any):
    kept = log.keep_alone()

    class Page:
        def __init__(self) -> None:
            self.hub = bus.new_hub(on_error=self.on_error)
            self.failures: list[Any] = []
            self.hub.subscribe(
                "ann", self.on_message_async if bus.mode.is_async else self.on_message
            )

        def on_message(self, message: Any) -> None:
            raise ValueError("no")

        async def on_message_async(self, message: Any) -> None:
            await asyncio.sleep(0)
            raise ValueError("no")

        def on_error(self, failure: HandlerFailure) -> None:
            self.failures += [failure, failure.exception]

    def make() -> list[weakref.ref[Page]]:
        pages = [Page() for _ in range(50)]
        for page in pages:
            page.hub.send_all(page)
        return [weakref.ref(page) for page in pages]

    references = bus.run(make)
    if bus.executor:
        bus.executor.wait_idle()
    if bus.loop:
        bus.loop.spin(20)
    if bus.executor:
        bus.executor.wait_idle()
    assert len(kept) == 50
    kept.clear()
    collect_garbage()

    assert [reference() for reference in references] == [None] * 50


def test_a_memory_handler_of_pythons_own_keeps_a_page_until_it_is_flushed(
    inline_bus: Bus, log: Any
):
    log.keep_alone()

    class Page:
        def on_message(self, message: Any) -> None:
            raise ValueError("no")

    memory = logging.handlers.MemoryHandler(1000, logging.CRITICAL, logging.NullHandler())
    page = Page()
    reference = weakref.ref(page)
    inline_bus.subscribe("ann", page.on_message)
    with log.beside(memory):
        inline_bus.hub.send_all("hello")
    inline_bus.hub.unsubscribe_all("ann")
    log.take(1).clear()
    del page

    assert reference() is not None
    memory.flush()
    collect_garbage()
    assert reference() is None


def test_an_error_at_subscribe_keeps_neither_hub_nor_session():
    hub = PubSubHub()
    reference = weakref.ref(hub)
    with pytest.raises(TypeError) as raised:
        hub.subscribe("ann", lambda: None)  # type: ignore[misc,arg-type]
    error = raised.value
    del raised, hub
    # What pytest shows of this test's own frame aside.
    error.__traceback__ = None
    collect_garbage()

    assert str(error)
    assert reference() is None
