"""Promise 3: once a goodbye has returned, no new call of the handler begins."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from delivery_modes import Bus, Gate, LoopThread, Recorder, WatchedExecutor, in_threads
from pagebus import PubSub, PubSubHub, Subscription

Goodbye = Callable[[PubSubHub, Subscription], None]


def _leave_the_block(hub: PubSubHub, subscription: Subscription) -> None:
    with subscription:
        pass


BROADCAST_GOODBYES: dict[str, Goodbye] = {
    "hub.unsubscribe": lambda hub, _: hub.unsubscribe("ann"),
    "hub.unsubscribe_all": lambda hub, _: hub.unsubscribe_all("ann"),
    "client.unsubscribe": lambda hub, _: PubSub(hub, "ann").unsubscribe(),
    "client.unsubscribe_all": lambda hub, _: PubSub(hub, "ann").unsubscribe_all(),
    "subscription.cancel": lambda _, subscription: subscription.cancel(),
    "with subscription": _leave_the_block,
}

TOPIC_GOODBYES: dict[str, Goodbye] = {
    "hub.unsubscribe_topic": lambda hub, _: hub.unsubscribe_topic("ann", "lobby"),
    "hub.unsubscribe_all": lambda hub, _: hub.unsubscribe_all("ann"),
    "client.unsubscribe_topic": lambda hub, _: PubSub(hub, "ann").unsubscribe_topic("lobby"),
    "client.unsubscribe_all": lambda hub, _: PubSub(hub, "ann").unsubscribe_all(),
    "subscription.cancel": lambda _, subscription: subscription.cancel(),
    "with subscription": _leave_the_block,
}


def first_and_500_queued(bus: Bus, gate: Gate, send: Callable[[Any], None]) -> None:
    """Send one message that its handler is busy with, and 500 that wait behind it."""
    send("first")
    gate.arrivals.wait(1)
    for message in range(500):
        send(message)


@pytest.mark.parametrize("goodbye", BROADCAST_GOODBYES.values(), ids=BROADCAST_GOODBYES)
def test_none_of_500_queued_broadcasts_arrives_after(queued_bus: Bus, goodbye: Goodbye):
    gate = queued_bus.gate()
    got = queued_bus.recorder(gate)
    subscription = queued_bus.subscribe("ann", got.handler)
    first_and_500_queued(queued_bus, gate, queued_bus.hub.send_all)

    goodbye(queued_bus.hub, subscription)
    gate.open()
    queued_bus.settle()

    assert got == gate.arrivals == ["first"]
    assert queued_bus.hub.stats().delivered == 1


@pytest.mark.parametrize("goodbye", TOPIC_GOODBYES.values(), ids=TOPIC_GOODBYES)
def test_none_of_500_queued_topic_messages_arrives_after(queued_bus: Bus, goodbye: Goodbye):
    gate = queued_bus.gate()
    got = queued_bus.recorder(gate)
    subscription = queued_bus.subscribe_topic("ann", "lobby", got.handler)
    first_and_500_queued(
        queued_bus, gate, lambda message: queued_bus.hub.send_all_on_topic("lobby", message)
    )

    goodbye(queued_bus.hub, subscription)
    gate.open()
    queued_bus.settle()

    assert got == [("lobby", "first")]
    assert queued_bus.hub.stats().delivered == 1


def test_none_of_500_arrives_when_the_loop_had_no_turn_between_send_and_goodbye(async_bus: Bus):
    got = async_bus.recorder()
    async_bus.subscribe("ann", got.handler)

    def send_and_leave() -> None:
        for message in range(500):
            async_bus.hub.send_all(message)
        async_bus.hub.unsubscribe("ann")

    async_bus.run(send_and_leave)
    async_bus.settle()

    assert got == []


def test_none_of_500_arrives_when_all_workers_were_busy_until_the_goodbye():
    executor, busy = WatchedExecutor(2), Gate()
    for _ in range(2):
        executor.submit(busy.wait)
    hub, got = PubSubHub(executor=executor), Recorder()
    hub.subscribe("ann", got.record)
    for message in range(500):
        hub.send_all(message)

    hub.unsubscribe("ann")
    busy.open()
    executor.shutdown()

    assert got == []


def test_none_of_500_arrives_inline_when_another_thread_was_delivering(inline_bus: Bus):
    gate = inline_bus.gate()
    busy, got = inline_bus.recorder(gate), inline_bus.recorder()
    inline_bus.subscribe_topic("bob", "slow", busy.handler)
    subscription = inline_bus.subscribe("ann", got.handler)
    inline_bus.subscribe_topic("ann", "lobby", got.handler)
    sender = threading.Thread(target=inline_bus.hub.send_all_on_topic, args=("slow", "first"))
    sender.start()
    gate.arrivals.wait(1)
    for message in range(500):
        inline_bus.hub.send_all(message)
        inline_bus.hub.send_all_on_topic("lobby", message)

    subscription.cancel()
    inline_bus.hub.unsubscribe_topic("ann", "lobby")
    gate.open()
    sender.join()
    inline_bus.settle()

    assert got == []
    assert busy == [("slow", "first")]


def test_goodbye_to_one_topic_leaves_what_waits_for_the_others(queued_bus: Bus):
    gate = queued_bus.gate()
    lobby, kitchen, everything = (queued_bus.recorder(gate) for _ in range(3))
    queued_bus.subscribe_topic("ann", "lobby", lobby.handler)
    queued_bus.subscribe_topic("ann", "kitchen", kitchen.handler)
    queued_bus.subscribe("ann", everything.handler)
    for message in range(20):
        queued_bus.hub.send_all_on_topic("kitchen", message)
        queued_bus.hub.send_all_on_topic("lobby", message)
        queued_bus.hub.send_all(message)
    gate.arrivals.wait(1)

    queued_bus.hub.unsubscribe_topic("ann", "lobby")
    gate.open()
    queued_bus.settle()

    assert kitchen == [("kitchen", message) for message in range(20)]
    assert everything == list(range(20))
    assert len(lobby) <= 1


def test_goodbye_to_broadcasts_leaves_the_topics(queued_bus: Bus):
    gate = queued_bus.gate()
    topic, broadcast = queued_bus.recorder(gate), queued_bus.recorder(gate)
    queued_bus.subscribe_topic("ann", "lobby", topic.handler)
    queued_bus.subscribe("ann", broadcast.handler)
    for message in range(20):
        queued_bus.hub.send_all_on_topic("lobby", message)
        queued_bus.hub.send_all(message)
    gate.arrivals.wait(1)

    queued_bus.hub.unsubscribe("ann")
    gate.open()
    queued_bus.settle()

    assert topic == [("lobby", message) for message in range(20)]
    assert len(broadcast) <= 1


def test_one_sessions_goodbye_leaves_what_waits_for_another(queued_bus: Bus):
    gate = queued_bus.gate()
    ann, bob = queued_bus.recorder(gate), queued_bus.recorder(gate)
    queued_bus.subscribe("ann", ann.handler)
    queued_bus.subscribe("bob", bob.handler)
    for message in range(20):
        queued_bus.hub.send_all(message)
    gate.arrivals.wait(2)

    queued_bus.hub.unsubscribe_all("ann")
    gate.open()
    queued_bus.settle()

    assert ann == [0]
    assert bob == list(range(20))


def test_who_comes_back_gets_only_what_is_sent_from_then_on(queued_bus: Bus):
    gate = queued_bus.gate()
    got = queued_bus.recorder(gate)
    queued_bus.subscribe("ann", got.handler)
    first_and_500_queued(queued_bus, gate, queued_bus.hub.send_all)

    queued_bus.hub.unsubscribe("ann")
    queued_bus.subscribe("ann", got.handler)
    queued_bus.hub.send_all("welcome back")
    gate.open()
    queued_bus.settle()

    assert sorted(got) == ["first", "welcome back"]


def test_a_call_that_has_begun_is_allowed_to_end(queued_bus: Bus):
    gate = queued_bus.gate()
    got = queued_bus.recorder(gate)
    subscription = queued_bus.subscribe("ann", got.handler)
    queued_bus.hub.send_all("first")
    gate.arrivals.wait(1)

    subscription.cancel()
    assert got == []
    gate.open()

    assert got.wait(1) == ["first"]


def test_a_handler_may_say_goodbye_for_a_session_that_has_yet_to_be_called(bus: Bus):
    executor = WatchedExecutor(1) if bus.executor else None
    hub = PubSubHub(executor=executor) if executor else bus.hub
    got = Recorder()

    def first_come(me: str, other: str) -> Callable[[Any], None]:
        def handler(message: Any) -> None:
            hub.unsubscribe(other)
            got.record(me)

        return handler

    def straight(body: Callable[[Any], None]) -> Callable[[Any], Any]:
        async def handler(message: Any) -> None:
            body(message)

        return handler if bus.mode.is_async else body

    bus.run(hub.subscribe, "ann", straight(first_come("ann", "bob")))
    bus.run(hub.subscribe, "bob", straight(first_come("bob", "ann")))

    bus.run(hub.send_all, "who is first")
    if executor:
        executor.shutdown()
    bus.settle()

    assert len(got) == 1


def test_a_handler_that_says_goodbye_is_not_called_with_what_waits_for_it(bus: Bus):
    got = bus.recorder()
    subscriptions: list[Subscription] = []

    def once(message: Any) -> None:
        got.record(message)
        subscriptions[0].cancel()

    subscriptions.append(bus.subscribe("ann", bus.handler(once)))
    bus.run(lambda: [bus.hub.send_all(message) for message in range(50)])
    bus.settle()

    assert got == [0]


def test_no_call_begins_after_a_goodbye_however_many_threads_are_sending(async_bus: Bus):
    after: list[int] = []

    def sit_down_and_leave(round_: int) -> None:
        here = [True]

        async def handler(message: Any) -> None:
            if not here[0]:
                after.append(round_)

        async_bus.run(async_bus.hub.subscribe, "ann", handler)
        async_bus.loop.spin(2)

        def leave() -> None:
            async_bus.hub.unsubscribe("ann")
            here[0] = False

        async_bus.run(leave)

    done = threading.Event()

    def send_until_done() -> None:
        while not done.is_set():
            async_bus.hub.send_all("chatter")
            async_bus.loop.spin(1)

    def come_and_go() -> None:
        try:
            for round_ in range(100):
                sit_down_and_leave(round_)
        finally:
            done.set()

    in_threads(send_until_done, send_until_done, come_and_go)
    async_bus.settle()

    assert after == []


def test_a_goodbye_from_another_thread_holds_on_every_loop():
    hub, gate = PubSubHub(), Gate()
    loops, recorders = [LoopThread(), LoopThread()], [Recorder(), Recorder()]
    for loop, got in zip(loops, recorders, strict=True):

        async def handler(message: Any, got: Recorder = got) -> None:
            got.record(message)
            await gate.passed()

        loop.run(hub.subscribe, "ann", handler)
    for message in range(500):
        hub.send_all(message)
    gate.arrivals.wait(2)

    hub.unsubscribe_all("ann")
    gate.open()
    for loop in loops:
        loop.spin()
        loop.close()

    assert recorders == [[0], [0]]


def test_a_session_with_very_many_topics_leaves_them_some_at_a_time_and_others_go_on():
    hub, got, late = PubSubHub(), Recorder(), Recorder()
    left: list[int] = []

    class Handler:
        def __call__(self, topic: str, message: Any) -> None: ...

        def __del__(self) -> None:
            if not left:
                left.append(hub.stats().subscriptions)
                hub.send_all("meanwhile")
                hub.subscribe_topic("ann", "topic 49999", late.record)

    for number in range(50_000):
        hub.subscribe_topic("ann", f"topic {number}", Handler())
    hub.subscribe("bob", got.record)
    hub.unsubscribe_all("ann")
    hub.send_all_on_topic("topic 49999", "afterwards")

    assert 10_000 < left[0] < 50_000
    assert got == ["meanwhile"]
    # Who comes while the others leave stays.
    assert late == [("topic 49999", "afterwards")]
    assert hub.stats().subscriptions == 2
