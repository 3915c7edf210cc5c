"""Promise 7: a handler runs in a copy of the context of the code that subscribed it."""

import asyncio
import contextvars
import threading
import time
from typing import Any

from delivery_modes import DEADLINE, Bus, Recorder, WatchedExecutor
from pagebus import PubSubHub, Stream

LONGER_THAN_A_JOB = 0.06
"""Seconds in one handler after which its job hands over to another one."""

page: contextvars.ContextVar[str] = contextvars.ContextVar("page", default="nobody's page")


def in_page(name: str, fn: Any, *args: Any) -> Any:
    """Call ``fn`` in a context of its own, in which the current page is ``name``."""
    context = contextvars.copy_context()
    context.run(page.set, name)
    return context.run(fn, *args)


def test_a_handler_sees_the_page_of_who_subscribed_it(bus: Bus):
    got = Recorder()
    for name in ("ann", "bob", "cat"):
        handler = bus.handler(lambda *m, name=name: got.record((name, page.get())))
        in_page(f"{name}'s page", bus.subscribe, name, handler)
        in_page(f"{name}'s page", bus.subscribe_topic, name, "lobby", handler)

    in_page("the sender's page", bus.hub.send_all, "hello")
    in_page("the sender's page", bus.run, bus.hub.send_all_on_topic, "lobby", "hello")
    bus.settle()

    assert sorted(got) == sorted([(name, f"{name}'s page") for name in ("ann", "bob", "cat")] * 2)


def test_one_handler_subscribed_from_two_pages_sees_each(bus: Bus):
    got = Recorder()
    handler = bus.handler(lambda message: got.record(page.get()))
    in_page("ann's page", bus.subscribe, "ann", handler)
    in_page("bob's page", bus.subscribe, "bob", handler)

    bus.hub.send_all("hello")
    bus.settle()

    assert sorted(got) == ["ann's page", "bob's page"]


def test_who_subscribed_outside_any_page_sees_none(bus: Bus):
    got = Recorder()
    bus.subscribe("ann", bus.handler(lambda message: got.record(page.get())))

    in_page("the sender's page", bus.hub.send_all, "hello")
    bus.settle()

    assert got == ["nobody's page"]


def test_a_hook_sees_nothing_of_the_page_of_a_reader_that_loses_messages(bus: Bus, log: Any):
    seen = Recorder()
    bus.hub = bus.new_hub(max_pending=1, on_overflow=lambda _: seen.record(page.get()))

    async def enter(messages: Stream) -> Stream:
        return await messages.__aenter__()

    if bus.mode.is_async and bus.loop:
        in_page("a reader's page", bus.loop.run_async, enter(bus.hub.stream("ann")))
    else:
        in_page("a reader's page", bus.hub.listen("ann").__enter__)
    for message in range(3):
        bus.hub.send_all(message)
        if bus.executor:
            bus.executor.wait_idle()
        if bus.loop:
            bus.loop.spin()

    assert seen == ["nobody's page"]
    log.take(1)


def test_subscribing_an_equal_handler_again_keeps_the_first_context(bus: Bus):
    got = Recorder()
    handler = bus.handler(lambda message: got.record(page.get()))
    in_page("first", bus.subscribe, "ann", handler)
    in_page("second", bus.subscribe, "ann", handler)

    bus.hub.send_all("hello")
    bus.settle()

    assert got == ["first"]


def test_what_the_subscriber_changes_later_is_not_seen(bus: Bus):
    got = Recorder()

    def subscribe_and_move_on() -> None:
        page.set("then")
        bus.subscribe("ann", bus.handler(lambda message: got.record(page.get())))
        page.set("now")

    contextvars.copy_context().run(subscribe_and_move_on)
    bus.hub.send_all("hello")
    bus.settle()

    assert got == ["then"]


def test_what_a_handler_sets_is_seen_by_nobody_else(bus: Bus):
    got = Recorder()

    def note_and_change(message: Any) -> None:
        got.record(page.get())
        page.set("changed by a handler")

    def subscribe() -> None:
        for name in ("ann", "bob"):
            bus.subscribe(name, bus.handler(lambda message: note_and_change(message)))
        bus.subscribe("cat", bus.handler(lambda message: got.record(page.get())))

    in_page("the subscriber's page", subscribe)
    in_page("the sender's page", bus.hub.send_all, "hello")
    bus.settle()

    assert got == ["the subscriber's page"] * 3
    assert page.get() == "nobody's page"
    assert bus.run(page.get) == "nobody's page"


def test_the_token_of_a_change_is_worth_nothing_to_the_next_handler(bus: Bus):
    tokens, got = list[Any](), Recorder()

    def change_and_undo(message: Any) -> None:
        page.reset(page.set("changed and undone"))
        tokens.append(page.set("changed for good"))
        got.record("changed")

    def undo_somebody_elses(message: Any) -> None:
        try:
            page.reset(tokens[0])
        except ValueError as error:
            got.record("different Context" in str(error))

    def subscribe() -> None:
        bus.subscribe("ann", bus.handler(lambda message: change_and_undo(message)))
        bus.subscribe("ann", bus.handler(lambda message: undo_somebody_elses(message)))

    contextvars.Context().run(subscribe)
    bus.hub.send_all("hello")
    bus.settle()

    assert got == ["changed", True]


def test_what_a_hook_sets_is_seen_by_no_handler():
    got = Recorder()
    hub = PubSubHub(on_error=lambda failure: page.set("changed by the hook"))

    def subscribe() -> None:
        for name in ("ann", "bob", "cat"):
            hub.subscribe(name, lambda message: got.record(page.get()) or 1 / 0)

    in_page("the subscriber's page", subscribe)
    in_page("the sender's page", hub.send_all, "hello")

    assert got == ["the subscriber's page"] * 3


def test_the_senders_own_context_survives_an_inline_send(inline_bus: Bus):
    inline_bus.subscribe("ann", lambda message: page.set("changed by a handler"))

    def send_and_look() -> str:
        inline_bus.hub.send_all("hello")
        return page.get()

    assert in_page("the sender's page", send_and_look) == "the sender's page"


def test_a_context_lasts_through_every_suspension(async_bus: Bus):
    got = Recorder()

    async def handler(message: Any) -> None:
        seen = [page.get()]
        await asyncio.sleep(0)
        seen.append(page.get())
        await asyncio.sleep(0.001)
        seen.append(page.get())
        seen.append(await asyncio.create_task(in_a_task()))
        got.record(seen)

    async def in_a_task() -> str:
        return page.get()

    for name in ("ann", "bob"):
        in_page(name, async_bus.subscribe, name, handler)
    in_page("the sender's page", async_bus.hub.send_all, "hello")

    assert sorted(got.wait(2)) == [["ann"] * 4, ["bob"] * 4]


def test_a_variable_set_before_a_suspension_can_be_reset_after_it(async_bus: Bus):
    got = Recorder()

    async def handler(message: Any) -> None:
        token = page.set(f"while handling {message}")
        await asyncio.sleep(0)
        inside = page.get()
        page.reset(token)
        got.record((inside, page.get()))

    in_page("ann", async_bus.subscribe, "ann", handler)
    for message in range(5):
        async_bus.hub.send_all(message)

    assert got.wait(5) == [(f"while handling {message}", "ann") for message in range(5)]


def test_contexts_stay_apart_when_some_handlers_suspend_and_some_do_not(async_bus: Bus):
    got = Recorder()

    def make_handler(name: str, turns: int) -> Any:
        async def handler(message: Any) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            got.record((name, page.get()))

        return handler

    for number in range(60):
        handler = make_handler(f"page {number}", number % 3)
        in_page(f"page {number}", async_bus.subscribe, f"session {number}", handler)
    for message in range(3):
        in_page("the sender's page", async_bus.hub.send_all, message)

    assert all(name == seen for name, seen in got.wait(180))


def test_a_lambda_that_returns_a_coroutine_is_awaited_in_its_context(awaiting_bus: Bus):
    got = Recorder()

    async def work() -> None:
        first = page.get()
        await asyncio.sleep(0)
        got.record((first, page.get()))

    in_page("ann", awaiting_bus.subscribe, "ann", lambda message: work())
    in_page("the sender's page", awaiting_bus.hub.send_all, "hello")

    assert got.wait(1) == [("ann", "ann")]


def test_overlapping_calls_of_one_handler_share_no_context():
    executor, together, got = WatchedExecutor(4), threading.Barrier(3), Recorder()
    hub = PubSubHub(executor=executor)

    def handler(message: int) -> None:
        page.set(f"call {message}")
        together.wait(DEADLINE)
        got.record((message, page.get()))

    in_page("ann", lambda: hub.subscribe("ann", handler, concurrent=True))
    for message in range(3):
        hub.send_all(message)

    assert sorted(got.wait(3)) == [(message, f"call {message}") for message in range(3)]
    executor.shutdown()


def test_overlapping_calls_of_one_async_handler_share_no_context(async_bus: Bus):
    got = Recorder()

    async def handler(message: int) -> None:
        before = page.get()
        page.set(f"call {message}")
        await asyncio.sleep(0)
        got.record((message, before, page.get()))

    in_page("ann", lambda: async_bus.subscribe("ann", handler, concurrent=True))
    for message in range(20):
        async_bus.hub.send_all(message)

    assert sorted(got.wait(20)) == [(message, "ann", f"call {message}") for message in range(20)]


def test_every_call_starts_from_the_subscribers_context(bus: Bus):
    got = Recorder()

    def note_and_change(message: Any) -> None:
        got.record(page.get())
        page.set(f"changed by message {message}")

    in_page("ann", bus.subscribe, "ann", bus.handler(note_and_change))
    for message in range(3):
        bus.hub.send_all(message)
    bus.settle()

    assert got == ["ann"] * 3


class CarryingExecutor(WatchedExecutor):
    """Runs jobs in the context of whoever submits them, as many frameworks' executors do."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        submitters.append(page.get())
        return super().submit(contextvars.copy_context().run, fn, *args, **kwargs)


submitters: list[str] = []


def test_workers_hooks_and_executors_know_of_no_session():
    executor, hook_saw = CarryingExecutor(1), Recorder()
    hub = PubSubHub(executor=executor, on_error=lambda failure: hook_saw.record(page.get()))
    submitters.clear()

    def work_then_fail(message: Any) -> None:
        time.sleep(LONGER_THAN_A_JOB)
        raise ValueError

    for name in ("ann", "bob", "cat", "dan"):
        in_page(name, hub.subscribe, name, work_then_fail)
    hub.send_all("hello")

    assert hook_saw.wait(4) == ["nobody's page"] * 4
    assert set(submitters) == {"nobody's page"}
    executor.shutdown()
