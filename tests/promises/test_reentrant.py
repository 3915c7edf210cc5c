"""Promise 6: a handler may do anything with the hub, on any thread, in every delivery mode."""

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from delivery_modes import DEADLINE, Bus, Recorder, collect_garbage, in_threads, numbers
from pagebus import PubSub, PubSubHub, Subscription

# ---- inside a handler ------------------------------------------------------------------------


def test_a_handler_may_send_in_all_four_ways(bus: Bus):
    got = bus.recorder()

    def reply(message: Any) -> None:
        bus.hub.send_all_on_topic("replies", "all")
        bus.hub.send_others_on_topic("ann", "replies", "others")
        if message == "question":
            bus.hub.send_others("ann", "others")
            bus.hub.send_all("all")

    bus.subscribe("ann", bus.handler(reply))
    bus.subscribe("bob", got.handler)
    bus.subscribe_topic("bob", "replies", got.handler)

    bus.hub.send_all("question")
    bus.settle()

    assert [m for m in got if isinstance(m, str)] == ["question", "others", "all"]
    assert [m for m in got if isinstance(m, tuple)] == [
        ("replies", "all"),
        ("replies", "others"),
    ] * 2


def test_a_chain_of_ten_thousand_replies_needs_no_stack(bus: Bus):
    got = Recorder()

    def count_down(message: int) -> None:
        got.record(message)
        if message:
            bus.hub.send_all(message - 1)

    bus.subscribe("ann", bus.handler(count_down))
    bus.hub.send_all(10_000)

    assert got.wait(10_001) == list(range(10_000, -1, -1))


def test_two_sessions_may_play_ping_pong(bus: Bus):
    got = Recorder()

    def player(name: str) -> Callable[[str, int], None]:
        def play(topic: str, ball: int) -> None:
            got.record((name, ball))
            if ball < 100:
                bus.hub.send_others_on_topic(name, "ball", ball + 1)

        return play

    bus.subscribe_topic("ann", "ball", bus.handler(player("ann")))
    bus.subscribe_topic("bob", "ball", bus.handler(player("bob")))
    bus.hub.send_others_on_topic("ann", "ball", 1)

    got.wait(100)
    assert got == [("ann" if ball % 2 == 0 else "bob", ball) for ball in range(1, 101)]


GOODBYES: dict[str, Callable[[PubSubHub, Subscription], None]] = {
    "unsubscribe": lambda hub, _: hub.unsubscribe("ann"),
    "unsubscribe_all": lambda hub, _: hub.unsubscribe_all("ann"),
    "client.unsubscribe_all": lambda hub, _: PubSub(hub, "ann").unsubscribe_all(),
    "cancel": lambda _, subscription: subscription.cancel(),
}


@pytest.mark.parametrize("goodbye", GOODBYES.values(), ids=GOODBYES)
def test_a_handler_may_unsubscribe_itself(bus: Bus, goodbye: Callable[..., None]):
    subscriptions: list[Subscription] = []
    got, other = Recorder(), bus.recorder()

    def leave(message: Any) -> None:
        got.record(message)
        goodbye(bus.hub, subscriptions[0])

    subscriptions.append(bus.subscribe("ann", bus.handler(leave)))
    bus.subscribe("bob", other.handler)

    bus.hub.send_all(1)
    bus.hub.send_all(2)
    bus.settle()

    assert got == [1]
    assert other == [1, 2]
    assert not subscriptions[0].active


def test_a_handler_may_leave_the_topic_that_it_is_called_for(bus: Bus):
    got = Recorder()

    def leave(topic: str, message: Any) -> None:
        got.record(message)
        bus.hub.unsubscribe_topic("ann", topic)

    bus.subscribe_topic("ann", "lobby", bus.handler(leave))
    bus.hub.send_all_on_topic("lobby", 1)
    bus.hub.send_all_on_topic("lobby", 2)
    bus.settle()

    assert got == [1]
    assert bus.hub.stats().topics == 0


def test_a_handler_may_replace_itself(bus: Bus):
    got = Recorder()
    second = bus.handler(lambda message: got.record(("second", message)))

    def first(message: Any) -> None:
        got.record(("first", message))
        bus.hub.unsubscribe("ann")
        bus.subscribe("ann", second)

    bus.subscribe("ann", bus.handler(first))
    bus.hub.send_all(1)
    got.wait(1)
    bus.settle()
    bus.hub.send_all(2)
    bus.settle()

    assert got == [("first", 1), ("second", 2)]


def test_a_handler_may_subscribe_a_thousand_others(bus: Bus):
    recorders = [bus.recorder() for _ in range(1000)]

    def invite(message: Any) -> None:
        for number, got in enumerate(recorders):
            bus.subscribe(f"session {number}", got.handler)

    bus.subscribe_topic("ann", "invite", bus.handler(lambda topic, message: invite(message)))
    bus.run(bus.hub.send_all_on_topic, "invite", "come in")
    bus.settle()
    bus.hub.send_all("hello")
    bus.settle()

    assert recorders == [["hello"]] * 1000


def test_a_handler_may_close_the_hub_and_what_was_queued_still_arrives(bus: Bus):
    got = bus.recorder()
    bus.subscribe("bob", got.handler)
    bus.subscribe_topic("ann", "admin", bus.handler(lambda topic, message: bus.hub.close()))

    def close_between() -> None:
        bus.hub.send_all("before")
        bus.hub.send_all_on_topic("admin", "close")

    bus.run(close_between)
    bus.settle()

    assert bus.hub.closed
    assert got == ["before"]


def test_a_handler_may_ask_for_the_numbers(bus: Bus):
    got = Recorder()
    bus.subscribe("ann", bus.handler(lambda message: got.record(numbers(bus.hub))))

    bus.hub.send_all("hello")

    (seen,) = got.wait(1)
    assert (seen["published"], seen["sessions"], seen["subscriptions"]) == (1, 1, 1)


def test_a_handler_may_drop_the_last_reference_to_the_hub(bus: Bus):
    got = Recorder()

    def forget(message: Any) -> None:
        bus.hub = None
        collect_garbage()
        got.record(message)

    bus.hub = bus.new_hub()
    bus.subscribe("ann", bus.handler(forget))
    bus.hub.send_all("hello")

    assert got.wait(1) == ["hello"]
    if bus.executor:
        bus.executor.wait_idle()
    if bus.loop:
        bus.loop.spin()


def on_another_thread(body: Callable[[], object]) -> None:
    """Run ``body`` on a thread of its own and wait for it, as no handler should but some do."""
    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join(DEADLINE)
    assert not thread.is_alive(), "the thread never ends"


def test_a_handler_may_wait_for_a_thread_that_uses_the_hub(bus: Bus):
    got, ends = bus.recorder(), Recorder()

    def use_the_hub() -> None:
        bus.hub.send_all_on_topic("lobby", "from the thread")
        bus.hub.unsubscribe("ann")
        bus.hub.stats()
        if not bus.mode.is_async or bus.mode.hub_has_loop:
            bus.hub.subscribe("cat", bus.handler(got.record))

    def wait(message: Any) -> None:
        on_another_thread(use_the_hub)
        ends.record(message)

    bus.subscribe("ann", bus.handler(wait))
    bus.subscribe_topic("bob", "lobby", got.handler)
    bus.hub.send_all("hello")
    ends.wait(1)
    bus.settle()

    assert got == [("lobby", "from the thread")]


# ---- inside a handler's own methods ----------------------------------------------------------


class Meddler:
    """A handler that uses the hub whenever it is hashed, compared, looked at or deleted."""

    busy = threading.local()

    def __init__(self, hub: PubSubHub, name: str, got: Recorder) -> None:
        self.hub, self.name, self.got = hub, name, got

    def meddle(self) -> None:
        if getattr(self.busy, "now", False):
            return
        self.busy.now = True
        try:
            self.hub.stats()
            self.hub.send_all_on_topic("gossip", self.name)
            self.hub.subscribe_topic("meddler", self.name, print)
            self.hub.unsubscribe_all("meddler")
        finally:
            self.busy.now = False

    def __call__(self, message: Any) -> None:
        self.meddle()
        self.got.record((self.name, message))

    def __hash__(self) -> int:
        self.meddle()
        return 1

    def __eq__(self, other: object) -> bool:
        self.meddle()
        return isinstance(other, Meddler) and self.name == other.name

    def __repr__(self) -> str:
        self.meddle()
        return "Meddler"

    def __getattr__(self, name: str) -> Any:
        # Not before __init__ has given it a hub.
        if "hub" in self.__dict__:
            self.meddle()
        raise AttributeError(name)

    def __del__(self) -> None:
        self.meddle()


def test_handlers_may_use_the_hub_when_hashed_compared_and_deleted(inline_bus: Bus):
    hub, got, gossip = inline_bus.hub, Recorder(), Recorder()
    inline_bus.subscribe_topic("listener", "gossip", gossip.record)
    for name in "abcabc":
        inline_bus.subscribe("ann", Meddler(hub, name, got))
        inline_bus.subscribe_topic("ann", "lobby", lambda topic, message: None)

    hub.send_all("hello")
    assert sorted(got) == [("a", "hello"), ("b", "hello"), ("c", "hello")]

    hub.unsubscribe("ann")
    hub.unsubscribe_all("ann")
    collect_garbage()
    hub.send_all("nobody")
    assert len(got) == 3
    assert gossip
    assert hub.stats().subscriptions == 1


def test_handlers_may_use_the_hub_when_hashed_and_deleted_on_the_executor(executor_bus: Bus):
    hub, got = executor_bus.hub, Recorder()
    for name in "abcabc":
        executor_bus.subscribe("ann", Meddler(hub, name, got))

    for message in range(10):
        hub.send_all(message)
    executor_bus.settle()
    hub.unsubscribe_all("ann")
    executor_bus.settle()
    collect_garbage()

    assert sorted(got) == sorted((name, message) for name in "abc" for message in range(10))
    assert hub.stats().subscriptions == 0


class TurnsCoat:
    """A handler that ends its session's subscriptions when it is compared."""

    def __init__(self, hub: PubSubHub) -> None:
        self.hub = hub

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        self.hub.unsubscribe_all("ann")
        return self is other

    def __call__(self, message: Any) -> None:
        pass


def test_a_comparison_may_take_away_what_is_being_compared(inline_bus: Bus):
    hub = inline_bus.hub
    handlers = [TurnsCoat(hub) for _ in range(5)]
    for handler in handlers + handlers:
        inline_bus.subscribe("ann", handler)
        assert hub.stats().subscriptions <= 1 + len(handlers)

    hub.unsubscribe_all("ann")
    assert hub.stats().subscriptions == 0


class Twin:
    """Equal to every twin; while compared, it subscribes one more."""

    def __init__(self, hub: PubSubHub, depth: int) -> None:
        self.hub, self.depth = hub, depth

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        if self.depth:
            self.depth -= 1
            self.hub.subscribe("ann", Twin(self.hub, self.depth))
        return isinstance(other, Twin)

    def __call__(self, message: Any) -> None:
        pass


def test_a_comparison_that_subscribes_an_equal_handler_does_not_double_it(inline_bus: Bus):
    for _ in range(3):
        inline_bus.subscribe("ann", Twin(inline_bus.hub, 3))

    assert inline_bus.hub.stats().subscriptions == 1


class Incomparable:
    """A handler that is hashed and compared as told."""

    def __init__(self, hash_: Callable[[], int], equals: Callable[[], bool]) -> None:
        self.hash, self.equals = hash_, equals

    def __hash__(self) -> int:
        return self.hash()

    def __eq__(self, other: object) -> bool:
        return self.equals()

    def __call__(self, message: Any) -> None:
        pass


def test_a_handler_that_cannot_be_hashed_or_compared_is_refused_with_its_own_error(
    inline_bus: Bus,
):
    def fail() -> Any:
        raise ZeroDivisionError

    hub = inline_bus.hub
    hub.subscribe("ann", Incomparable(lambda: 1, fail))
    before = numbers(hub)

    with pytest.raises(ZeroDivisionError):
        hub.subscribe("ann", Incomparable(lambda: 1, fail))
    with pytest.raises(ZeroDivisionError):
        hub.subscribe("ann", Incomparable(fail, lambda: False))

    assert numbers(hub) == before
    hub.subscribe("ann", Incomparable(lambda: 2, fail))
    assert hub.stats().subscriptions == 2


class LastWords:
    """A message that uses the hub when it goes."""

    def __init__(self, hub: PubSubHub, heard: Recorder) -> None:
        self.hub, self.heard = hub, heard

    def __del__(self) -> None:
        self.heard.record("gone")
        self.hub.send_all_on_topic("obituaries", "gone")
        self.hub.stats()
        self.hub.unsubscribe_all("nobody")


def test_messages_may_use_the_hub_when_they_go(bus: Bus, log: Any):
    heard, got = Recorder(), bus.recorder()
    bus.hub = bus.new_hub(max_pending=5)
    is_queued = bus.mode.is_async or bus.mode.has_executor
    gate = bus.gate() if is_queued else None
    bus.subscribe("ann", bus.handler(lambda message: None, gate))
    bus.subscribe_topic("bob", "obituaries", got.handler)

    # Some overflow, the goodbye throws away some, and one is delivered (inline: all are).
    for _ in range(20):
        bus.hub.send_all(LastWords(bus.hub, heard))
    bus.hub.unsubscribe_all("ann")
    if gate:
        gate.open()
    bus.settle()
    if gate:
        gate.arrivals.clear()
    collect_garbage()
    bus.settle()

    assert len(heard) == 20
    assert bus.hub.stats().pending == 0
    log.take_all()


@contextmanager
def garbage_collected_all_the_time() -> Iterator[None]:
    thresholds = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        collect_garbage()


class Garbage:
    """A cycle whose collection uses the hub."""

    def __init__(self, hub: PubSubHub) -> None:
        self.me, self.hub = self, hub

    def __del__(self) -> None:
        self.hub.stats()
        self.hub.send_all_on_topic("rubbish", "collected")
        self.hub.unsubscribe_topic("nobody", "rubbish")


@pytest.mark.thread_unsafe(reason="there is one threshold of the garbage collector")
def test_garbage_collected_in_the_middle_of_any_operation_may_use_the_hub(bus: Bus):
    collected = bus.recorder()
    bus.subscribe_topic("dustman", "rubbish", collected.handler)

    def operate() -> None:
        hub = bus.hub
        client = PubSub(hub, "ann")
        for _ in range(30):
            for operation in (
                lambda: bus.subscribe("ann", bus.handler(lambda message: None)),
                lambda: bus.subscribe_topic("ann", "lobby", bus.handler(lambda *m: None)),
                lambda: client.send_all({"a": 1}),
                lambda: client.send_all_on_topic("lobby", [1]),
                lambda: client.send_others(("a", [1])),
                lambda: client.send_others_on_topic("lobby", [1]),
                lambda: client.unsubscribe_topic("lobby"),
                lambda: client.unsubscribe(),
                lambda: client.unsubscribe_all(),
                lambda: bus.new_hub().send_all("x"),
                hub.stats,
            ):
                Garbage(hub)
                operation()

    with garbage_collected_all_the_time():
        bus.run(operate)
    bus.settle()

    assert len(collected) == 30 * 11
    assert bus.hub.stats().subscriptions == 1


# ---- all at once -----------------------------------------------------------------------------


def test_many_threads_may_do_everything_at_once(bus: Bus):
    def handler() -> Callable[..., Any]:
        def meddle(*message: Any) -> None:
            if message[-1] % 7 == 0:
                bus.hub.unsubscribe_topic("ann", "lobby")
            if message[-1] % 11 == 0:
                bus.hub.send_others("ann", message[-1] + 1)

        return bus.handler(meddle)

    def use(name: str) -> None:
        client = PubSub(bus.hub, name)
        for round_ in range(60):
            with bus.subscribe(name, handler()):
                bus.subscribe_topic(name, "lobby", handler())
                client.send_all(round_)
                client.send_all_on_topic("lobby", round_)
                client.send_others_on_topic("lobby", round_)
                if round_ % 3 == 0:
                    client.unsubscribe_topic("lobby")
                bus.hub.stats()
        client.unsubscribe_all()

    in_threads(*(lambda name=name: use(name) for name in ("ann", "bob", "cat", "dan")))
    bus.hub.unsubscribe_all("ann")
    bus.settle()

    left = numbers(bus.hub)
    assert (left["sessions"], left["topics"], left["subscriptions"], left["pending"]) == (0,) * 4


@pytest.mark.thread_unsafe(reason="there is one switch interval")
def test_switching_threads_at_every_turn_changes_nothing(bus: Bus):
    got = [bus.recorder() for _ in range(4)]
    for number, recorder in enumerate(got):
        bus.subscribe(f"session {number}", recorder.handler)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        in_threads(*[lambda: [bus.hub.send_all(n) for n in range(100)] for _ in range(4)])
        bus.settle()
    finally:
        sys.setswitchinterval(interval)

    assert all(recorder == got[0] for recorder in got)
    assert len(got[0]) == 400
