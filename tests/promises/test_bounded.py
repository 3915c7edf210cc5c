"""Promise 9: every queue has a limit; what gives way is counted, logged and given to a hook."""

import asyncio
import logging
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from delivery_modes import (
    ASYNC,
    DEADLINE,
    EXECUTOR,
    Bus,
    Gate,
    LoopThread,
    Recorder,
    WatchedExecutor,
    collect_garbage,
    numbers,
)
from pagebus import Overflow, PubSubHub

LIMIT = 10

BURST = 1
"""Warnings about one burst of losses: that it begins. That it is over is for those who log more."""


def bounded(bus: Bus, **options: Any) -> Recorder:
    """Give the bus a hub with a small limit; returns what its overflow hook is told."""
    overflows = Recorder()
    bus.hub = bus.new_hub(max_pending=LIMIT, on_overflow=overflows.record, **options)
    return overflows


def busy_with_first(bus: Bus, gate: Gate) -> Recorder:
    """A handler of Ann's that is busy with a first message until the gate opens."""
    got = bus.recorder(gate)
    bus.subscribe("ann", got.handler)
    bus.hub.send_all("first")
    gate.arrivals.wait(1)
    return got


class Pace:
    """Sends no faster than a quick neighbour reads, so that only who is slow falls behind."""

    def __init__(self, bus: Bus, topic: str | None = None) -> None:
        self._bus, self._topic, self._sent = bus, topic, 0
        self.neighbour = bus.recorder()
        if topic is None:
            bus.subscribe("a neighbour", self.neighbour.handler)
        else:
            bus.subscribe_topic("a neighbour", topic, self.neighbour.handler)

    def send(self, message: Any) -> None:
        if self._topic is None:
            self._bus.hub.send_all(message)
        else:
            self._bus.hub.send_all_on_topic(self._topic, message)
        self._sent += 1
        self.neighbour.wait(self._sent)


@pytest.mark.parametrize("count", [LIMIT - 1, LIMIT, LIMIT + 1, LIMIT * 5])
def test_a_blocked_handler_gets_the_newest_messages_in_order(queued_bus: Bus, log: Any, count: int):
    bounded(queued_bus)
    gate = queued_bus.gate()
    got, pace = busy_with_first(queued_bus, gate), Pace(queued_bus)

    for message in range(count):
        pace.send(message)
    gate.open()
    queued_bus.settle()

    assert got == ["first", *range(max(0, count - LIMIT), count)]
    assert pace.neighbour == list(range(count))
    assert queued_bus.hub.stats().dropped == max(0, count - LIMIT)
    log.take(BURST if count > LIMIT else 0)


@pytest.mark.parametrize("count", [LIMIT, LIMIT + 1, LIMIT * 5, LIMIT * 100])
def test_a_blocked_handler_gets_the_newest_however_fast_they_are_sent(
    queued_bus: Bus, log: Any, count: int
):
    bounded(queued_bus)
    gate = queued_bus.gate()
    got, neighbour = busy_with_first(queued_bus, gate), Pace(queued_bus).neighbour

    for message in range(count):
        queued_bus.hub.send_all(message)
        # One queue for what is sent to all, and one for each of the two handlers.
        assert queued_bus.hub.stats().pending <= 3 * LIMIT
    neighbour.wait_for(count - 1)
    gate.open()
    queued_bus.settle()

    assert got == ["first", *range(count - LIMIT, count)]
    log.take_all()


@pytest.mark.parametrize("count", [LIMIT, LIMIT + 1, LIMIT * 5])
def test_the_limit_holds_while_the_sender_itself_blocks_the_loop(
    async_bus: Bus, log: Any, count: int
):
    bounded(async_bus)
    got = async_bus.recorder()
    async_bus.subscribe("ann", got.handler)

    def send() -> int:
        for message in range(count):
            async_bus.hub.send_all(message)
        return async_bus.hub.stats().pending

    assert async_bus.run(send) == LIMIT
    async_bus.settle()

    assert got == list(range(count - LIMIT, count))
    assert async_bus.hub.stats().dropped == count - LIMIT
    log.take(BURST if count > LIMIT else 0)


def test_the_limit_holds_while_all_workers_are_busy_with_something_else(log: Any):
    executor, busy, got = WatchedExecutor(2), Gate(), Recorder()
    for _ in range(2):
        executor.submit(busy.wait)
    hub = PubSubHub(executor=executor, max_pending=LIMIT)
    hub.subscribe("ann", got.record)

    for message in range(LIMIT * 5):
        hub.send_all(message)
    assert hub.stats().pending == LIMIT
    busy.open()
    executor.wait_idle()
    executor.shutdown()

    assert got == list(range(LIMIT * 4, LIMIT * 5))
    log.take(BURST)


def test_the_limit_holds_inline_for_what_a_handler_sends(inline_bus: Bus, log: Any):
    overflows, got = bounded(inline_bus), Recorder()

    def handler(message: Any) -> None:
        got.record(message)
        if message == "first":
            for number in range(LIMIT * 5):
                inline_bus.hub.send_all(number)

    inline_bus.subscribe("ann", handler)
    inline_bus.hub.send_all("first")

    assert got == ["first", *range(LIMIT * 4, LIMIT * 5)]
    assert [overflow.dropped for overflow in overflows] == [1, LIMIT * 4]
    log.take(BURST)


def test_the_limit_holds_inline_for_what_other_threads_send(inline_bus: Bus, log: Any):
    bounded(inline_bus)
    gate = inline_bus.gate()
    got = inline_bus.recorder(gate)
    inline_bus.subscribe("ann", got.handler)
    delivering = threading.Thread(target=inline_bus.hub.send_all, args=("first",))
    delivering.start()
    gate.arrivals.wait(1)

    for message in range(LIMIT * 5):
        inline_bus.hub.send_all(message)
    gate.open()
    delivering.join(DEADLINE)

    assert got == ["first", *range(LIMIT * 4, LIMIT * 5)]
    log.take(BURST)


def test_a_limit_of_one_keeps_the_newest(queued_bus: Bus, log: Any):
    queued_bus.hub = queued_bus.new_hub(max_pending=1)
    gate = queued_bus.gate()
    got, pace = busy_with_first(queued_bus, gate), Pace(queued_bus)

    for message in range(100):
        pace.send(message)
    gate.open()
    queued_bus.settle()

    assert got == ["first", 99]
    assert queued_bus.hub.stats().dropped == 99
    log.take(BURST)


def test_the_limit_is_each_subscriptions_own(queued_bus: Bus, log: Any):
    bounded(queued_bus)
    gate = queued_bus.gate()
    broadcast, topic = queued_bus.recorder(gate), queued_bus.recorder(gate)
    queued_bus.subscribe("ann", broadcast.handler)
    queued_bus.subscribe_topic("ann", "lobby", topic.handler)
    queued_bus.hub.send_all("first")
    gate.arrivals.wait(1)

    for message in range(LIMIT):
        queued_bus.hub.send_all(message)
        queued_bus.hub.send_all_on_topic("lobby", message)
    gate.open()
    queued_bus.settle()

    assert broadcast == ["first", *range(LIMIT)]
    assert topic == [("lobby", message) for message in range(LIMIT)]
    assert queued_bus.hub.stats().dropped == 0


def test_messages_for_others_take_no_room(queued_bus: Bus):
    bounded(queued_bus)
    gate = queued_bus.gate()
    ann = busy_with_first(queued_bus, gate)
    bob = queued_bus.recorder()
    queued_bus.subscribe("bob", bob.handler)

    for message in range(LIMIT):
        queued_bus.hub.send_all(message)
    bob.wait(LIMIT)
    for message in range(LIMIT):
        queued_bus.hub.send_others("ann", "not for ann")
        bob.wait(LIMIT + message + 1)
    gate.open()
    queued_bus.settle()

    assert ann == ["first", *range(LIMIT)]
    assert queued_bus.hub.stats().dropped == 0


def test_other_sessions_lose_nothing(queued_bus: Bus, log: Any):
    bounded(queued_bus)
    gate = queued_bus.gate()
    others = [queued_bus.recorder() for _ in range(5)]
    for number, got in enumerate(others):
        queued_bus.subscribe(f"session {number}", got.handler)
    slow = busy_with_first(queued_bus, gate)

    # Never more at once than the limit, so that only the blocked one falls behind.
    for message in range(LIMIT * 5):
        queued_bus.hub.send_all(message)
        for got in others:
            got.wait(message + 2)
    # The others come first: the last message may still be on its way to the blocked one.
    queued_bus.wait_until_handed_on()
    gate.open()
    queued_bus.settle()

    assert others == [["first", *range(LIMIT * 5)]] * 5
    assert slow == ["first", *range(LIMIT * 4, LIMIT * 5)]
    log.take(BURST)


def test_the_hook_is_told_when_a_burst_begins_and_when_it_is_over(queued_bus: Bus, log: Any):
    overflows, gate = bounded(queued_bus), queued_bus.gate()
    got, pace = busy_with_first(queued_bus, gate), Pace(queued_bus)

    for message in range(LIMIT):
        pace.send(message)
    assert overflows == []
    for message in range(25):
        pace.send(message)
    overflows.wait(1)
    assert [overflow.dropped for overflow in overflows] == [1]
    gate.open()
    queued_bus.settle()

    first, last = overflows.wait(2)
    assert (first.dropped, last.dropped) == (1, 25)
    for overflow in (first, last):
        assert (overflow.session_id, overflow.topic) == ("ann", None)
        assert overflow.handler is got.handler
    log.take(BURST)


def test_when_the_loop_does_not_keep_up_the_hook_is_told_for_the_whole_topic(
    async_bus: Bus, log: Any
):
    overflows, recorders = bounded(async_bus), [async_bus.recorder() for _ in range(3)]
    for number, got in enumerate(recorders):
        async_bus.subscribe_topic(f"session {number}", "lobby", got.handler)

    def send() -> None:
        for message in range(LIMIT + 25):
            async_bus.hub.send_all_on_topic("lobby", message)

    async_bus.run(send)
    async_bus.settle()

    first, last = overflows.wait(2)
    assert (first.dropped, last.dropped) == (1, 25)
    for overflow in (first, last):
        assert (overflow.session_id, overflow.topic, overflow.handler) == (None, "lobby", None)
    assert recorders == [[("lobby", message) for message in range(25, 25 + LIMIT)]] * 3
    assert async_bus.hub.stats().dropped == 3 * 25
    for record in log.take(BURST):
        assert record.levelno == logging.WARNING
        assert "lobby" in record.getMessage()


def test_one_handler_may_have_several_bursts(queued_bus: Bus, log: Any):
    overflows, got, pace = bounded(queued_bus), Recorder(), Pace(queued_bus)
    gates: list[Gate] = []

    def gate_of(message: Any) -> Gate | None:
        return gates[int(message[5:])] if str(message).startswith("first") else None

    def sync_handler(message: Any) -> None:
        if gate := gate_of(message):
            gate.wait()
        got.record(message)

    async def async_handler(message: Any) -> None:
        if gate := gate_of(message):
            await gate.passed()
        got.record(message)

    queued_bus.subscribe("ann", async_handler if queued_bus.mode.is_async else sync_handler)
    for round_ in range(3):
        gates.append(queued_bus.gate())
        pace.send(f"first{round_}")
        gates[-1].arrivals.wait(1)
        for message in range(LIMIT + round_ + 1):
            pace.send(message)
        queued_bus.wait_until_handed_on()
        gates[-1].open()
        overflows.wait(2 * round_ + 2)
        queued_bus.settle()
        log.take(BURST)

    assert [overflow.dropped for overflow in overflows] == [1, 1, 1, 2, 1, 3]
    assert queued_bus.hub.stats().dropped == 6


def test_ten_thousand_losses_are_not_ten_thousand_log_lines(queued_bus: Bus, log: Any):
    overflows, gate = bounded(queued_bus), queued_bus.gate()
    got, neighbour = busy_with_first(queued_bus, gate), Pace(queued_bus).neighbour

    for message in range(10_000):
        queued_bus.hub.send_all(message)
    neighbour.wait_for(9_999)
    gate.open()
    queued_bus.settle()

    assert got == ["first", *range(10_000 - LIMIT, 10_000)]
    # The hook is told of the end of each burst, too.
    assert BURST <= len(log.take_all()) == len(overflows) / 2 < 1000


@pytest.fixture
def _information_is_logged() -> Iterator[None]:
    logger = logging.getLogger("pagebus")
    logger.setLevel(logging.INFO)
    yield
    logger.setLevel(logging.NOTSET)


@pytest.mark.usefixtures("_information_is_logged")
def test_who_logs_more_is_told_when_a_burst_is_over(queued_bus: Bus, log: Any):
    log.setLevel(logging.INFO)
    bounded(queued_bus)
    gate = queued_bus.gate()
    busy_with_first(queued_bus, gate)
    pace = Pace(queued_bus)

    for message in range(LIMIT + 7):
        pace.send(message)
    gate.open()
    queued_bus.settle()

    begin, end = log.take(2 * BURST)
    assert (begin.levelno, end.levelno) == (logging.WARNING, logging.INFO)
    assert "dropped 7 messages" in end.getMessage()


def test_the_log_line_names_session_topic_and_handler(queued_bus: Bus, log: Any):
    gate, got = queued_bus.gate(), Recorder()
    queued_bus.hub = queued_bus.new_hub(max_pending=1)

    def slow_reader(topic: str, message: Any) -> None:
        gate.wait()
        got.record(message)

    async def slow_reader_async(topic: str, message: Any) -> None:
        await gate.passed()
        got.record(message)

    handler = slow_reader_async if queued_bus.mode.is_async else slow_reader
    queued_bus.subscribe_topic("session of ann", "room with a view", handler)
    pace = Pace(queued_bus, "room with a view")
    for message in range(10):
        pace.send(message)
        gate.arrivals.wait(1)
    gate.open()
    queued_bus.settle()

    for record in log.take(BURST):
        assert record.levelno == logging.WARNING
        for part in ("session of ann", "room with a view", "slow_reader"):
            assert part in record.getMessage()


def test_a_hook_may_use_the_hub_and_may_fail(queued_bus: Bus, log: Any):
    gate, told = queued_bus.gate(), Recorder()

    def evict(overflow: Overflow) -> None:
        queued_bus.hub.unsubscribe_all(overflow.session_id)
        queued_bus.hub.send_all_on_topic("admin", f"{overflow.session_id} is too slow")
        raise RuntimeError("the hook is broken")

    queued_bus.hub = queued_bus.new_hub(max_pending=LIMIT, on_overflow=evict)
    queued_bus.subscribe_topic("admin", "admin", queued_bus.handler(told.record))
    slow, pace = busy_with_first(queued_bus, gate), Pace(queued_bus)
    for message in range(LIMIT * 3):
        pace.send(message)
    told.wait(1)
    gate.open()
    queued_bus.settle()

    assert set(told) == {("admin", "ann is too slow")}
    assert slow == ["first"]
    text = "\n".join(log.text(record) for record in log.take_all())
    assert "the hook is broken" in text


class Message:
    """A message that can be watched going."""


def test_what_gives_way_is_not_kept(queued_bus: Bus, log: Any):
    bounded(queued_bus)
    gate, seen = queued_bus.gate(), Recorder()
    busy_with_first(queued_bus, gate)
    # A neighbour that keeps no message, to know when all of them have been handed on.
    queued_bus.subscribe("bob", queued_bus.handler(lambda m: seen.record(str(m))))

    def send() -> weakref.ref[Message]:
        message = Message()
        queued_bus.hub.send_all(message)
        return weakref.ref(message)

    sent = [send() for _ in range(LIMIT * 50)]
    queued_bus.hub.send_all("last")
    seen.wait_for("last")
    if queued_bus.loop:
        queued_bus.loop.spin()
    collect_garbage()
    # What gave way in the middle of a queue may stay until it has doubled the queue's length.
    assert sum(message() is not None for message in sent) <= 3 * LIMIT

    gate.open()
    queued_bus.settle()
    log.take_all()


def test_twenty_thousand_sends_to_a_slow_handler_make_no_heap_of_tasks(async_bus: Bus, log: Any):
    gate = async_bus.gate()
    slow = async_bus.recorder(gate)
    async_bus.subscribe("ann", slow.handler)
    async_bus.hub.send_all("first")
    gate.arrivals.wait(1)

    def send(batch: int) -> None:
        for message in range(batch * 1000, (batch + 1) * 1000):
            async_bus.hub.send_all(message)

    for batch in range(20):
        async_bus.run(send, batch)
        async_bus.loop.spin()

    assert async_bus.run(lambda: len(asyncio.all_tasks())) <= 3
    assert numbers(async_bus.hub)["pending"] == 10_000
    gate.open()
    async_bus.settle()
    assert slow == ["first", *range(10_000, 20_000)]
    log.take(BURST)


def test_delivered_dropped_and_thrown_away_add_up(queued_bus: Bus, log: Any):
    bounded(queued_bus)
    gate = queued_bus.gate()
    recorders = [queued_bus.recorder(gate) for _ in range(3)]
    for number, got in enumerate(recorders):
        queued_bus.subscribe(f"session {number}", got.handler)

    for message in range(100):
        queued_bus.hub.send_all(message)
    gate.open()
    queued_bus.settle()

    stats = queued_bus.hub.stats()
    assert stats.delivered + stats.dropped == 300
    assert stats.delivered == sum(len(got) for got in recorders)
    assert log.take_all()


@pytest.mark.parametrize("late", [0, 5, 15])
def test_who_joins_a_blocked_loop_late_is_not_charged_for_what_came_before(
    async_bus: Bus, log: Any, late: int
):
    bounded(async_bus)
    early, newcomer = async_bus.recorder(), async_bus.recorder()
    async_bus.subscribe("ann", early.handler)

    def send() -> None:
        for message in range(25):
            if message == late:
                async_bus.hub.subscribe("bob", newcomer.handler)
            async_bus.hub.send_all(message)

    async_bus.run(send)
    async_bus.settle()
    log.take_all()

    assert early == list(range(15, 25))
    assert newcomer == list(range(15, 25))
    stats = async_bus.hub.stats()
    assert stats.delivered == 20
    assert stats.dropped == 15 + (15 - late)


def test_a_concurrent_handler_that_never_ends_has_a_limit_too(log: Any):
    thread, gate, overflows = LoopThread(), Gate(), Recorder()
    hub = PubSubHub(thread.loop, max_pending=LIMIT, on_overflow=overflows.record)

    async def handler(message: Any) -> None:
        await gate.passed(message)

    hub.subscribe("ann", handler, concurrent=True)
    for message in range(LIMIT * 20):
        hub.send_all(message)
        thread.spin(2)

    # However many may overlap, what is begun and what waits is less than what was sent.
    assert thread.run(lambda: len(asyncio.all_tasks())) < LIMIT * 20
    gate.open()
    thread.spin()
    thread.close()
    log.take_all()


def test_losses_of_a_handler_that_leaves_meanwhile_are_told_with_its_own_topic():
    thread, gate, told = LoopThread(), Gate(), Recorder()
    hub = PubSubHub(thread.loop, max_pending=1, on_overflow=told.record)

    async def leave(topic: str, message: int) -> None:
        await gate.passed(message)
        news.cancel()
        hub.subscribe_topic("bob", "somebody else's topic", lambda topic, message: None)

    news = hub.subscribe_topic("ann", "news", leave)
    for message in range(5):
        hub.send_all_on_topic("news", message)
        thread.spin()
    gate.open()
    told.wait(2)

    assert {overflow.topic for overflow in told} == {"news"}
    thread.close()


# ---- other policies than that the oldest gives way -------------------------------------------


@pytest.mark.parametrize("count", [LIMIT - 1, LIMIT, LIMIT + 1, LIMIT * 5])
def test_with_drop_newest_a_blocked_handler_gets_the_oldest_messages_in_order(
    queued_bus: Bus, log: Any, count: int
):
    overflows = bounded(queued_bus, overflow="drop_newest")
    gate = queued_bus.gate()
    got, pace = busy_with_first(queued_bus, gate), Pace(queued_bus)

    for message in range(count):
        pace.send(message)
    gate.open()
    queued_bus.settle()
    queued_bus.hub.send_all("last")
    queued_bus.settle()

    lost = max(0, count - LIMIT)
    assert got == ["first", *range(count - lost), "last"]
    assert pace.neighbour == [*range(count), "last"]
    assert queued_bus.hub.stats().dropped == lost
    assert [overflow.dropped for overflow in overflows] == ([1, lost] if lost else [])
    for record in log.take(BURST if lost else 0):
        assert "dropping its newest messages" in record.getMessage()


def test_with_drop_newest_the_limit_holds_while_the_sender_itself_blocks_the_loop(
    async_bus: Bus, log: Any
):
    bounded(async_bus, overflow="drop_newest")
    got = async_bus.recorder()
    async_bus.subscribe("ann", got.handler)

    def send() -> int:
        for message in range(LIMIT * 5):
            async_bus.hub.send_all(message)
        return async_bus.hub.stats().pending

    assert async_bus.run(send) == LIMIT
    async_bus.settle()

    assert got == list(range(LIMIT))
    assert async_bus.hub.stats().dropped == LIMIT * 4
    log.take(BURST)


def test_with_unsubscribe_a_handler_that_does_not_keep_up_is_unsubscribed(
    queued_bus: Bus, log: Any
):
    overflows = bounded(queued_bus, overflow="unsubscribe")
    gate, other = queued_bus.gate(), queued_bus.recorder()
    slow = queued_bus.recorder(gate)
    subscription = queued_bus.subscribe("ann", slow.handler)
    queued_bus.subscribe_topic("ann", "lobby", other.handler)
    queued_bus.hub.send_all("first")
    gate.arrivals.wait(1)
    pace = Pace(queued_bus)

    for message in range(LIMIT):
        pace.send(message)
    assert subscription.active
    for message in range(LIMIT * 3):
        pace.send(message)
    assert not subscription.active
    gate.open()
    queued_bus.hub.send_all_on_topic("lobby", "still here")
    queued_bus.settle()

    # What it had begun, and nothing else; the session's other handler and the neighbour stay.
    assert slow == ["first"]
    assert other == [("lobby", "still here")]
    assert len(pace.neighbour) == LIMIT * 4
    (overflow,) = overflows
    assert (overflow.session_id, overflow.handler) == ("ann", slow.handler)
    assert overflow.dropped == queued_bus.hub.stats().dropped == LIMIT + 1
    (record,) = log.take(1)
    assert f"unsubscribed it and dropped {LIMIT + 1} messages" in record.getMessage()


def test_with_unsubscribe_a_busy_event_loop_costs_nobody_the_subscription(async_bus: Bus, log: Any):
    bounded(async_bus, overflow="unsubscribe")
    got = async_bus.recorder()
    subscription = async_bus.subscribe("ann", got.handler)

    def send() -> None:
        for message in range(LIMIT * 5):
            async_bus.hub.send_all(message)

    async_bus.run(send)
    async_bus.settle()

    assert subscription.active
    assert got == list(range(LIMIT * 4, LIMIT * 5))
    log.take(BURST)


@pytest.mark.heavy
@pytest.mark.parametrize("queued_bus", [ASYNC[0], EXECUTOR[1]], indirect=True, ids=str)
def test_a_million_sends_to_a_handler_that_blocks_stay_within_the_bound(queued_bus: Bus, log: Any):
    gate, seen, process = queued_bus.gate(), Recorder(), psutil.Process()
    got = Recorder()
    blocked = queued_bus.handler(lambda message: got.record(message[0]), gate)
    queued_bus.subscribe("ann", blocked)
    queued_bus.subscribe("bob", queued_bus.handler(lambda message: seen.record(message[0])))
    pending, before = 0, process.memory_info().rss

    for number in range(1_000_000):
        queued_bus.hub.send_all((number, bytes(1000)))
        if number % 1000 == 999:
            seen.wait(number + 1)
            pending = max(pending, queued_bus.hub.stats().pending)
    grown = process.memory_info().rss - before
    gate.open()
    queued_bus.settle()

    # A thousand megabytes were sent; ten at a time may wait.
    assert pending <= 11_000
    assert grown < 150e6
    assert got == [0, *range(990_000, 1_000_000)]
    assert seen == list(range(1_000_000))
    log.take(BURST)
