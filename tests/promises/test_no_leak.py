"""Promise 11: unsubscribe_all leaves nothing behind; cycles through handlers are collectable."""

import asyncio
import contextvars
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from delivery_modes import Bus, Recorder, collect_garbage, numbers
from pagebus import PubSub, PubSubHub

NOTHING = {"pending": 0, "sessions": 0, "topics": 0, "subscriptions": 0}


def what_is_left(hub: PubSubHub) -> dict[str, int]:
    counts = numbers(hub)
    return {name: counts[name] for name in NOTHING}


class Page:
    """A page as an app has it: its client knows the hub, which knows the page's methods."""

    def __init__(self, hub: PubSubHub, session_id: str, is_async: bool) -> None:
        self.pubsub = PubSub(hub, session_id)
        self.seen: list[Any] = []
        self._is_async = is_async

    def join(self, *topics: str) -> None:
        if self._is_async:
            self.pubsub.subscribe(self.on_message_async)
        else:
            self.pubsub.subscribe(self.on_message)
        for topic in topics:
            self.pubsub.subscribe_topic(
                topic, self.on_topic_async if self._is_async else self.on_topic
            )

    def on_message(self, message: Any) -> None:
        self.seen.append(message)

    def on_topic(self, topic: str, message: Any) -> None:
        self.seen.append(message)

    async def on_message_async(self, message: Any) -> None:
        await asyncio.sleep(0)
        self.seen.append(message)

    async def on_topic_async(self, topic: str, message: Any) -> None:
        self.seen.append(message)


def open_pages(bus: Bus, hub: PubSubHub, count: int) -> list[Page]:
    pages = [Page(hub, f"session {number}", bus.mode.is_async) for number in range(count)]
    bus.run(lambda: [page.join("lobby", f"room of {page.pubsub.session_id}") for page in pages])
    return pages


def is_gone(*references: weakref.ref[Any]) -> bool:
    collect_garbage()
    return all(reference() is None for reference in references)


def test_unsubscribe_all_leaves_nothing_of_a_page_behind(bus: Bus):
    pages = open_pages(bus, bus.hub, 100)
    references = [weakref.ref(page) for page in pages]
    bus.hub.send_all("hello")
    bus.hub.send_all_on_topic("lobby", "hello")
    bus.settle()
    assert what_is_left(bus.hub) == {
        "pending": 0,
        "sessions": 100,
        "topics": 101,
        "subscriptions": 300,
    }

    for page in pages:
        page.pubsub.unsubscribe_all()
    del page
    pages.clear()
    bus.settle()

    assert is_gone(*references)
    assert what_is_left(bus.hub) == NOTHING


@pytest.mark.thread_unsafe(reason="there is one garbage collector to switch off")
def test_unsubscribe_all_needs_no_garbage_collector(bus: Bus):
    (page,) = open_pages(bus, bus.hub, 1)
    reference = weakref.ref(page)
    bus.hub.send_all("hello")
    bus.settle()

    gc.disable()
    try:
        page.pubsub.unsubscribe_all()
        del page
        bus.settle()
        assert reference() is None
    finally:
        gc.enable()


def test_thousands_of_cycles_through_handlers_are_collected(bus: Bus):
    def make_cycles() -> list[weakref.ref[Page]]:
        references = []
        for _ in range(1000):
            hub = bus.new_hub()
            page = Page(hub, "ann", bus.mode.is_async)
            page.join("lobby")
            references.append(weakref.ref(page))
        return references

    references = bus.run(make_cycles)

    assert len(references) == 1000
    assert is_gone(*references)


def test_cycles_that_have_delivered_are_collected(bus: Bus):
    def make_cycles() -> list[weakref.ref[Page]]:
        hubs = [bus.new_hub() for _ in range(100)]
        pages = [Page(hub, "ann", bus.mode.is_async) for hub in hubs]
        for hub, page in zip(hubs, pages, strict=True):
            page.join("lobby")
            for message in range(20):
                hub.send_all(message)
                hub.send_all_on_topic("lobby", message)
        return [weakref.ref(page) for page in pages]

    references = bus.run(make_cycles)
    for _ in range(3):
        bus.settle()
        # Every round delivers another message to each handler that suspends.
        if bus.loop:
            bus.loop.spin(100)

    assert is_gone(*references)


def test_a_cycle_through_hooks_is_collected(bus: Bus):
    class App:
        def __init__(self) -> None:
            self.hub = bus.new_hub(on_error=self.on_report, on_overflow=self.on_report)

        def on_report(self, report: Any) -> None:
            pass

    references = [weakref.ref(App()) for _ in range(1000)]

    assert is_gone(*references)


def test_a_cycle_through_a_subscription_is_collected(bus: Bus):
    class App:
        def __init__(self) -> None:
            self.hub = bus.new_hub()
            handler = self.on_message_async if bus.mode.is_async else self.on_message
            self.subscription = self.hub.subscribe("ann", handler)

        def on_message(self, message: Any) -> None:
            pass

        async def on_message_async(self, message: Any) -> None:
            pass

    references = bus.run(lambda: [weakref.ref(App()) for _ in range(1000)])

    assert is_gone(*references)


def test_a_cycle_through_a_context_is_collected(bus: Bus):
    current: contextvars.ContextVar[Any] = contextvars.ContextVar("current")

    class App:
        def __init__(self) -> None:
            current.set(self)
            self.hub = bus.new_hub()
            self.hub.subscribe("ann", bus.handler(print))

    def make() -> list[weakref.ref[App]]:
        return [weakref.ref(App()) for _ in range(1000)]

    references = bus.run(lambda: contextvars.Context().run(make))

    assert is_gone(*references)


def test_a_kept_handle_keeps_neither_handler_nor_page_alive(bus: Bus):
    (page,) = open_pages(bus, bus.hub, 1)
    method = page.on_topic_async if bus.mode.is_async else page.on_topic
    handle = bus.subscribe_topic("ann", "attic", method)
    reference = weakref.ref(page)
    del method

    page.pubsub.unsubscribe_all()
    handle.cancel()
    del page
    bus.settle()

    assert is_gone(reference)
    assert not handle.active


def test_a_kept_handle_keeps_no_hub_alive(bus: Bus):
    class Message:
        pass

    hub, handler = bus.new_hub(), bus.handler(print)
    reference = weakref.ref(handler)
    handle = bus.run(hub.subscribe, "ann", handler)

    del hub, handler

    assert is_gone(reference)
    assert not handle.active
    handle.cancel()
    with handle:
        pass


def test_subscribing_leaves_a_function_as_small_as_it_was():
    def handler(topic: str, message: Any) -> None:
        pass

    hub, before = PubSubHub(), gc.get_referents(handler)
    hub.subscribe_topic("ann", "lobby", handler)

    # Not even a dictionary of attributes, which takes more memory than the subscription.
    assert gc.get_referents(handler) == before


def test_dropping_a_handle_ends_nothing(bus: Bus):
    got = bus.recorder()
    bus.subscribe("ann", got.handler)
    collect_garbage()

    bus.hub.send_all("hello")
    bus.settle()

    assert got == ["hello"]


class Message:
    """A message that can be watched going."""


def test_a_delivered_message_is_let_go(bus: Bus):
    pages = open_pages(bus, bus.hub, 10)
    message = Message()
    reference = weakref.ref(message)
    bus.hub.send_all(message)
    del message
    bus.settle()
    for page in pages:
        page.seen.clear()

    assert is_gone(reference)


def test_a_message_for_nobody_is_let_go(bus: Bus):
    message = Message()
    reference = weakref.ref(message)
    bus.hub.send_all(message)
    bus.hub.send_all_on_topic("lobby", message)
    del message

    assert is_gone(reference)


GOODBYES: dict[str, Callable[[PubSubHub, Any], None]] = {
    "unsubscribe": lambda hub, _: hub.unsubscribe("ann"),
    "unsubscribe_all": lambda hub, _: hub.unsubscribe_all("ann"),
    "cancel": lambda _, handle: handle.cancel(),
}


@pytest.mark.parametrize("goodbye", GOODBYES.values(), ids=GOODBYES)
def test_what_was_queued_is_let_go_by_a_goodbye(queued_bus: Bus, goodbye: Callable[..., None]):
    gate = queued_bus.gate()
    handle = queued_bus.subscribe("ann", queued_bus.handler(lambda message: None, gate))
    queued_bus.hub.send_all("first")
    gate.arrivals.wait(1)

    def send() -> weakref.ref[Message]:
        message = Message()
        queued_bus.hub.send_all(message)
        return weakref.ref(message)

    references = [send() for _ in range(50)]
    queued_bus.wait_until_handed_on()
    goodbye(queued_bus.hub, handle)

    # While the handler is still busy with the first message.
    assert is_gone(*references)
    assert what_is_left(queued_bus.hub) == NOTHING
    gate.open()
    queued_bus.settle()


def test_a_page_that_leaves_while_its_handler_is_suspended_goes_when_that_ends(async_bus: Bus):
    gate = async_bus.gate()

    class Waiting:
        async def on_message(self, message: Any) -> None:
            await gate.passed()

    page = Waiting()
    reference = weakref.ref(page)
    async_bus.subscribe("ann", page.on_message)
    async_bus.hub.send_all("hello")
    gate.arrivals.wait(1)
    async_bus.hub.unsubscribe_all("ann")
    del page
    assert what_is_left(async_bus.hub) == NOTHING

    gate.open()
    async_bus.loop.spin()
    assert is_gone(reference)


def test_a_failed_call_keeps_nothing_alive_once_it_is_reported(bus: Bus, log: Any):
    log.keep_alone()
    references = Recorder()

    def fail(message: Any) -> None:
        local = Message()
        references.record(weakref.ref(local))
        raise ValueError("no")

    bus.subscribe("ann", bus.handler(fail))
    bus.hub.send_all("hello")
    references.wait(1)
    bus.settle()
    log.take(1).clear()

    assert is_gone(*references)
    assert bus.hub.stats().failed == 1


@pytest.mark.thread_unsafe(reason="who collects garbage reports it, whoever has left it")
def test_a_hub_that_is_dropped_with_messages_queued_leaves_no_noise(bus: Bus, log: Any):
    got, references = bus.recorder(), []

    def send_and_drop() -> None:
        hub = bus.new_hub()
        hub.subscribe("ann", got.handler)
        for _ in range(100):
            message = Message()
            references.append(weakref.ref(message))
            hub.send_all(message)

    bus.run(send_and_drop)
    if bus.executor:
        bus.executor.wait_idle()
    if bus.loop:
        bus.loop.spin(300)
    if bus.executor:
        bus.executor.wait_idle()
    got.clear()

    assert is_gone(*references)
    log.take_all()


@pytest.mark.thread_unsafe(reason="objects are counted for the whole process")
def test_ten_thousand_sessions_that_come_and_go_leave_no_objects(bus: Bus):
    handler = bus.handler(lambda *message: None)

    def come_and_go() -> None:
        for number in range(10_000):
            client = PubSub(bus.hub, f"session {number}")
            client.subscribe(handler)
            client.subscribe_topic(f"room {number}", handler)
            if number % 100 == 0:
                client.send_all("hello")
            client.unsubscribe_all()

    bus.run(come_and_go)
    bus.settle()
    collect_garbage()
    before = len(gc.get_objects())
    bus.run(come_and_go)
    bus.settle()
    collect_garbage()

    assert len(gc.get_objects()) - before < 100
    assert what_is_left(bus.hub) == NOTHING


def test_the_hub_shows_the_garbage_collector_what_it_holds(bus: Bus):
    page = bus.handler(print)
    bus.subscribe("ann", page)

    assert gc.is_tracked(bus.hub)
    assert reaches(bus.hub, page)


def reaches(start: Any, target: Any, depth: int = 3) -> bool:
    """Whether the garbage collector finds ``target`` from ``start``."""
    found = [start]
    for _ in range(depth):
        found = gc.get_referents(*found)
        if any(item is target for item in found):
            return True
    return False
