"""Presence: who is on a topic, and who comes and goes."""

import functools
import random
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from delivery_modes import (
    ALL,
    AWAITING,
    DEADLINE,
    Bus,
    Gate,
    LoopThread,
    Mode,
    Recorder,
    collect_garbage,
    in_threads,
)
from pagebus import HubClosed, Presence, PubSub, PubSubHub


class Room(dict[str, Any]):
    """Who is there, as one who heard all changes knows it."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = Recorder()

    def hear(self, presence: Presence) -> None:
        self.heard.record(presence)
        for session_id in presence.left:
            del self[session_id]
        self.update(presence.joined)


def ignore(*_: object) -> None:
    """Hear a message, and do nothing."""


async def ignore_async(*_: object) -> None:
    """The same."""


def test_who_watches_first_hears_who_is_there_and_then_who_comes_and_goes(bus: Bus):
    room = Room()
    bus.subscribe_topic("ann", "room/1", bus.handler(ignore))
    bus.subscribe_presence("bob", "room/1", room.hear)
    room.heard.wait(1)
    bus.subscribe_topic("cid", "room/1", bus.handler(ignore))
    room.heard.wait(2)
    bus.hub.unsubscribe_all("ann")
    room.heard.wait(3)

    told = [(p.topic, list(p.joined), list(p.left)) for p in room.heard]
    assert told == [
        ("room/1", ["ann"], []),
        ("room/1", ["cid"], []),
        ("room/1", [], ["ann"]),
    ]


def test_who_watches_an_empty_room_hears_that_it_is_empty(bus: Bus):
    room = Room()
    bus.subscribe_presence("bob", "room/1", room.hear)

    [presence] = room.heard.wait(1)
    assert (presence.topic, presence.joined, presence.left) == ("room/1", {}, {})


def test_a_session_joins_with_its_first_handler_and_leaves_with_its_last():
    hub, room = PubSubHub(), Room()
    hub.subscribe_presence("bob", "room", room.hear)
    first = hub.subscribe_topic("ann", "room", lambda topic, message: None)
    second = hub.subscribe_topic("ann", "room", lambda topic, message: None)
    assert list(room) == ["ann"]

    first.cancel()
    assert list(room) == ["ann"]
    second.cancel()

    assert list(room) == []
    assert len(room.heard) == 3


@pytest.mark.parametrize("goodbye", ["unsubscribe_all", "unsubscribe_topic", "cancel", "with"])
def test_every_way_to_leave_is_told(goodbye: str):
    hub, room = PubSubHub(), Room()
    hub.subscribe_presence("bob", "room", room.hear)
    handle = hub.subscribe_topic("ann", "room", ignore)

    if goodbye == "unsubscribe_all":
        hub.unsubscribe_all("ann")
    elif goodbye == "unsubscribe_topic":
        hub.unsubscribe_topic("ann", "room")
    elif goodbye == "cancel":
        handle.cancel()
    else:
        with handle:
            pass

    assert [list(p.left) for p in room.heard] == [[], [], ["ann"]]


def test_a_handler_that_is_cut_off_leaves_too(executor_bus: Bus, log: Any):
    bus, room = executor_bus, Room()
    bus.hub = bus.new_hub(max_pending=1, overflow="unsubscribe")
    gate = bus.gate()
    bus.subscribe_presence("bob", "room", room.hear)
    bus.subscribe_topic("ann", "room", bus.handler(ignore, gate))
    for number in range(3):
        bus.hub.send_all_on_topic("room", number)
        gate.arrivals.wait(1)
        bus.wait_until_handed_on()

    room.heard.wait(3)
    gate.open()

    assert list(room) == []
    assert "unsubscribed it" in log.take(1)[0].getMessage()


def test_those_who_watch_are_not_on_the_topic():
    hub, room = PubSubHub(), Room()
    hub.subscribe_presence("bob", "room", room.hear)

    assert hub.sessions("room") == {}
    assert hub.topics() == []
    assert hub.subscriber_count("room") == 0
    assert (hub.stats().topics, hub.stats().subscriptions) == (0, 1)


def test_who_watches_hears_of_its_own_session_too():
    hub, room = PubSubHub(), Room()
    hub.subscribe_presence("ann", "room", room.hear)
    hub.subscribe_topic("ann", "room", ignore)

    assert list(room) == ["ann"]


def test_to_leave_a_topic_is_not_to_stop_watching_it():
    hub, room = PubSubHub(), Room()
    watch = hub.subscribe_presence("ann", "room", room.hear)
    hub.subscribe_topic("ann", "room", ignore)
    hub.unsubscribe_topic("ann", "room")

    assert watch.active
    assert list(room) == []
    watch.cancel()
    hub.subscribe_topic("bob", "room", ignore)
    assert len(room.heard) == 3


def test_unsubscribe_all_stops_watching():
    hub, room = PubSubHub(), Room()
    watch = PubSub(hub, "ann").subscribe_presence("room", room.hear)
    hub.unsubscribe_all("ann")
    hub.subscribe_topic("bob", "room", ignore)

    assert not watch.active
    assert len(room.heard) == 1


def test_the_handle_of_a_watch_knows_its_topic():
    hub = PubSubHub()
    watch = hub.subscribe_presence("ann", "room", ignore)

    assert (watch.session_id, watch.topic, watch.active) == ("ann", "room", True)


def test_the_same_handler_watches_once():
    hub, room = PubSubHub(), Room()
    hub.subscribe_presence("ann", "room", room.hear)
    hub.subscribe_presence("ann", "room", room.hear)
    hub.subscribe_topic("bob", "room", ignore)

    assert len(room.heard) == 2


def test_one_handler_may_watch_a_topic_and_hear_it():
    hub, got = PubSubHub(), Recorder()
    hub.subscribe_presence("ann", "room", got.record)
    hub.subscribe_topic("ann", "room", got.record)
    hub.send_all_on_topic("room", "hello")

    assert got[-1] == ("room", "hello")


# ---- what sessions say of themselves --------------------------------------------------------


def test_others_see_what_a_session_says_of_itself():
    hub, room = PubSubHub(), Room()
    ann = PubSub(hub, "ann")
    ann.identify(name="Ann", colour="blue")
    hub.subscribe_presence("bob", "room", room.hear)
    ann.subscribe_topic("room", ignore)

    assert room == {"ann": {"name": "Ann", "colour": "blue"}}
    assert hub.sessions("room") == room
    assert hub.sessions()["ann"] == {"name": "Ann", "colour": "blue"}
    assert hub.sessions()["bob"] == {}


def test_who_says_something_else_of_itself_is_told_as_joined_again():
    hub, room = PubSubHub(), Room()
    ann = PubSub(hub, "ann")
    ann.subscribe_topic("room", ignore)
    ann.subscribe_topic("elsewhere", ignore)
    hub.subscribe_presence("bob", "room", room.hear)

    ann.identify(name="Ann")
    ann.identify(name="Anna")
    ann.identify()

    assert [dict(p.joined) for p in room.heard] == [
        {"ann": {}},
        {"ann": {"name": "Ann"}},
        {"ann": {"name": "Anna"}},
        {"ann": {}},
    ]
    assert room == hub.sessions("room")


def test_who_leaves_is_told_with_what_it_said_of_itself():
    hub, room = PubSubHub(), Room()
    ann = PubSub(hub, "ann")
    ann.identify(name="Ann")
    ann.subscribe_topic("room", ignore)
    hub.subscribe_presence("bob", "room", room.hear)
    ann.unsubscribe_all()

    assert room.heard[-1].left == {"ann": {"name": "Ann"}}


def test_a_session_that_comes_back_is_still_who_it_was():
    hub = PubSubHub()
    ann = PubSub(hub, "ann")
    ann.identify(name="Ann")
    for _ in range(2):
        ann.subscribe_topic("room", ignore)
        assert hub.sessions("room") == {"ann": {"name": "Ann"}}
        ann.unsubscribe_all()


def test_a_loop_over_messages_begins_with_what_its_session_says_by_then():
    hub, room = PubSubHub(), Room()
    ann = PubSub(hub, "ann")
    hub.subscribe_presence("bob", "room", room.hear)
    ann.identify(name="Ann")
    early = ann.listen("room")
    ann.identify(name="Anna")

    with early:
        assert room == hub.sessions("room") == {"ann": {"name": "Anna"}}


class Last:
    """Closes a hub when nobody refers to it any more."""

    def __init__(self, hub: PubSubHub) -> None:
        self.hub = hub

    def __call__(self, *_: object) -> None:
        pass

    def __del__(self) -> None:
        self.hub.close()


def test_who_leaves_is_told_before_anything_of_it_is_destroyed():
    hub, room = PubSubHub(), Room()
    hub.subscribe_presence("bob", "room", room.hear)
    hub.subscribe_topic("ann", "room", Last(hub))

    hub.unsubscribe_all("ann")

    assert hub.closed
    assert list(room.heard[-1].left) == ["ann"]


def test_what_a_session_says_is_told_before_what_it_said_is_destroyed():
    hub, told = PubSubHub(), Recorder()
    hub.subscribe_presence("bob", "room", lambda p: told.record(list(p.joined.get("ann", ()))))
    ann = PubSub(hub, "ann")
    ann.identify(last=Last(hub))
    ann.subscribe_topic("room", ignore)
    del ann

    PubSub(hub, "ann").identify(name="Ann")

    assert hub.closed
    assert told == [[], ["last"], ["name"]]


def test_nobody_can_change_what_a_session_says_of_itself():
    hub = PubSubHub()
    ann = PubSub(hub, "ann")
    ann.identify(name="Ann")
    ann.subscribe_topic("room", ignore)

    with pytest.raises(TypeError):
        hub.sessions()["ann"]["name"] = "Eve"  # type: ignore[index]
    assert hub.sessions() == {"ann": {"name": "Ann"}}


def test_nothing_stays_of_what_a_session_said_of_itself():
    class Picture:
        pass

    hub, picture = PubSubHub(), Picture()
    seen = weakref.ref(picture)
    ann = PubSub(hub, "ann")
    ann.identify(picture=picture)
    ann.subscribe_topic("room", ignore)
    hub.subscribe_presence("bob", "room", ignore)
    del picture
    ann.unsubscribe_all()
    assert seen() is not None
    del ann

    collect_garbage()

    assert seen() is None


def test_a_session_that_says_its_own_client_of_itself_is_collected():
    hub = PubSubHub()
    ann = PubSub(hub, "ann")
    ann.identify(client=ann)
    ann.subscribe_topic("room", ignore)
    seen = weakref.ref(ann)
    del ann, hub

    collect_garbage()

    assert seen() is None


# ---- asking ---------------------------------------------------------------------------------


def test_the_hub_knows_its_sessions_and_topics():
    hub = PubSubHub()
    hub.subscribe("ann", ignore)
    hub.subscribe_topic("bob", "news", ignore)
    hub.subscribe_topic("cid", "news", ignore)
    hub.subscribe_topic("cid", "news", print)
    hub.subscribe_topic("cid", "lobby", ignore)

    assert set(hub.sessions()) == {"ann", "bob", "cid"}
    assert list(hub.sessions("news")) == ["bob", "cid"]
    assert hub.sessions("nowhere") == {}
    assert sorted(hub.topics()) == ["lobby", "news"]
    assert hub.subscriber_count("news") == 2
    assert hub.subscriber_count("nowhere") == 0

    hub.unsubscribe_all("cid")
    assert (hub.topics(), hub.subscriber_count("news")) == (["news"], 1)


def test_a_topic_of_lone_surrogates_is_told_as_it_was_named():
    hub, room = PubSubHub(), Room()
    hub.subscribe_presence("bob", "\ud800", room.hear)
    hub.subscribe_topic("\udfff", "\ud800", ignore)

    assert hub.topics() == ["\ud800"]
    assert (room.heard[-1].topic, list(room)) == ("\ud800", ["\udfff"])


# ---- exactness ------------------------------------------------------------------------------


def test_whoever_began_to_watch_whenever_knows_exactly_who_is_there(bus: Bus):
    rooms = [Room() for _ in range(6)]

    def come_and_go(thread: int) -> None:
        dice = random.Random(thread)
        clients = [PubSub(bus.hub, f"{thread}/{number}") for number in range(20)]
        guest = bus.handler(ignore)
        for number in range(300):
            client = dice.choice(clients)
            if dice.random() < 0.2:
                client.identify(number=number)
            if dice.random() < 0.5:
                bus.run(client.subscribe_topic, "room", guest)
            else:
                client.unsubscribe_topic("room")

    def watch() -> None:
        for number, room in enumerate(rooms):
            bus.subscribe_presence(f"watch {number}", "room", room.hear)

    in_threads(watch, *(functools.partial(come_and_go, thread) for thread in range(4)))
    bus.settle()

    there = bus.hub.sessions("room")
    assert bus.hub.subscriber_count("room") == len(there)
    assert [room == there for room in rooms] == [True] * 6


POLICIES = ["drop_oldest", "drop_newest", "unsubscribe"]


class Awaiting:
    """A handler that returns at once what is to be awaited."""

    def __init__(self, room: Room, gate: Gate) -> None:
        self.room, self.gate = room, gate

    def __call__(self, presence: Presence) -> Coroutine[Any, Any, None]:
        return self.hear(presence)

    async def hear(self, presence: Presence) -> None:
        await self.gate.passed(presence)
        self.room.hear(presence)


@contextmanager
def one_who_is_busy(bus: Bus, handler: Callable[[Presence], object], gate: Gate) -> Iterator[None]:
    """Somebody who watches, and is busy with the first record until the block ends."""

    def watch() -> None:
        bus.hub.subscribe_presence("watcher", "room", handler)

    # Where the sender delivers, it waits for a handler that blocks.
    is_inline = not bus.executor and not bus.mode.is_async
    waits = is_inline and not isinstance(handler, Awaiting)
    watching = threading.Thread(target=watch) if waits else None
    if watching:
        watching.start()
    else:
        bus.run(watch)
    gate.arrivals.wait(1)
    yield
    gate.open()
    if watching:
        watching.join(DEADLINE)
    bus.settle()


def a_crowd_comes_and_goes(bus: Bus) -> None:
    """Each of a hundred comes, and every other one leaves; every change goes its way alone."""
    guest = bus.handler(ignore)
    for number in range(100):
        bus.subscribe_topic(f"session {number}", "room", guest)
        bus.wait_until_handed_on()
        if number % 2:
            bus.hub.unsubscribe_all(f"session {number - 1}")
            bus.wait_until_handed_on()


def is_told_everything(hub: PubSubHub, room: Room) -> None:
    stats = hub.stats()
    assert (stats.dropped, stats.failed, stats.pending) == (0, 0, 0)
    assert "watcher" in hub.sessions()
    assert len(hub.sessions("room")) == 50
    assert room == hub.sessions("room")
    assert len(room.heard) <= 3


@pytest.mark.parametrize("overflow", POLICIES)
@pytest.mark.parametrize("max_pending", [1, 50])
def test_who_is_busy_while_a_crowd_comes_and_goes_knows_afterwards_who_is_there(
    bus: Bus, max_pending: int, overflow: Any
):
    bus.hub = bus.new_hub(max_pending=max_pending, overflow=overflow)
    room, gate = Room(), bus.gate()

    with one_who_is_busy(bus, bus.handler(room.hear, gate), gate):
        a_crowd_comes_and_goes(bus)

    is_told_everything(bus.hub, room)


@pytest.mark.parametrize("overflow", POLICIES)
@pytest.mark.parametrize("mode", AWAITING, ids=str)
def test_who_awaits_something_while_a_crowd_comes_and_goes_knows_afterwards_who_is_there(
    mode: Mode, overflow: Any
):
    bus = Bus(mode)
    bus.hub = bus.new_hub(max_pending=1, overflow=overflow)
    room, gate = Room(), bus.gate()

    with one_who_is_busy(bus, Awaiting(room, gate), gate):
        a_crowd_comes_and_goes(bus)

    is_told_everything(bus.hub, room)
    bus.close()


@pytest.mark.parametrize("overflow", POLICIES)
def test_messages_for_who_is_busy_take_no_room_from_those_who_come_and_go(
    executor_bus: Bus, overflow: Any
):
    bus, room, got = executor_bus, Room(), Recorder()
    bus.hub = bus.new_hub(max_pending=1, overflow=overflow)
    gate = bus.gate()
    bus.subscribe("watcher", got.record)

    with one_who_is_busy(bus, bus.handler(room.hear, gate), gate):
        bus.hub.send_all("hello")
        a_crowd_comes_and_goes(bus)

    assert got == ["hello"]
    is_told_everything(bus.hub, room)


def test_who_is_busy_is_not_told_of_one_who_comes_and_goes_meanwhile(bus: Bus):
    room, gate, guest = Room(), bus.gate(), bus.handler(ignore)

    with one_who_is_busy(bus, bus.handler(room.hear, gate), gate):
        bus.subscribe_topic("ann", "room", guest)
        bus.wait_until_handed_on()
        bus.hub.unsubscribe_all("ann")
        bus.wait_until_handed_on()

    assert [(p.joined, p.left) for p in room.heard] == [({}, {})]


def test_who_is_busy_is_told_once_of_one_who_leaves_and_comes_back_as_somebody_else(bus: Bus):
    room, gate, guest = Room(), bus.gate(), bus.handler(ignore)
    ann = PubSub(bus.hub, "ann")
    ann.identify(name="Ann")
    bus.run(ann.subscribe_topic, "room", guest)

    with one_who_is_busy(bus, bus.handler(room.hear, gate), gate):
        ann.unsubscribe_all()
        bus.wait_until_handed_on()
        ann.identify(name="Anna")
        bus.run(ann.subscribe_topic, "room", guest)
        bus.wait_until_handed_on()
        ann.identify(name="Annabel")
        bus.wait_until_handed_on()

    told = [({who: p.joined[who]["name"] for who in p.joined}, dict(p.left)) for p in room.heard]
    assert told == [({"ann": "Ann"}, {}), ({"ann": "Annabel"}, {})]


@pytest.mark.parametrize("overflow", POLICIES)
def test_however_slow_those_who_watch_they_know_in_the_end_who_is_there(bus: Bus, overflow: Any):
    bus.hub = bus.new_hub(max_pending=1, overflow=overflow)
    rooms, gates = [Room() for _ in range(4)], [bus.gate() for _ in range(4)]
    changes = Recorder()

    def come_and_go(thread: int) -> None:
        dice = random.Random(thread)
        clients = [PubSub(bus.hub, f"{thread}/{number}") for number in range(20)]
        guest = bus.handler(ignore)
        for number in range(200):
            client = dice.choice(clients)
            if dice.random() < 0.2:
                client.identify(number=number)
            if dice.random() < 0.5:
                client.unsubscribe_topic("room")
            elif bus.mode.is_async:
                bus.run(client.subscribe_topic, "room", guest)
            else:
                client.subscribe_topic("room", guest)
            changes.record(number)

    def watch() -> None:
        for number, (room, gate) in enumerate(zip(rooms, gates, strict=True)):
            handler = bus.handler(room.hear, gate)
            watch = functools.partial(
                bus.hub.subscribe_presence, f"watch {number}", "room", handler
            )
            bus.run(watch) if bus.mode.is_async else watch()

    def open_gates() -> None:
        # One who comes or goes may be delivering, and wait at a gate.
        for number, gate in enumerate(gates):
            changes.wait(100 * (number + 1))
            gate.open()

    in_threads(watch, open_gates, *(functools.partial(come_and_go, thread) for thread in range(4)))
    bus.settle()

    there = bus.hub.sessions("room")
    assert [room == there for room in rooms] == [True] * 4
    assert (bus.hub.stats().dropped, bus.hub.stats().failed) == (0, 0)


def test_a_crowd_that_comes_at_once_is_told_whole_however_small_the_queues(async_bus: Bus):
    hub = async_bus.hub = async_bus.new_hub(max_pending=5)
    room = Room()

    def crowd() -> None:
        hub.subscribe_presence("bob", "room", async_bus.handler(room.hear))
        for number in range(10_000):
            hub.subscribe_topic(f"session {number}", "room", async_bus.handler(ignore))
            hub.send_all_on_topic("elsewhere", number)

    async_bus.run(crowd)
    async_bus.settle()

    assert len(room) == 10_000
    assert hub.stats().dropped == 0
    assert len(room.heard) <= 3


def test_who_comes_and_goes_before_anybody_could_be_told_is_not_told(async_bus: Bus):
    room = Room()

    def visit() -> None:
        async_bus.hub.subscribe_presence("bob", "room", async_bus.handler(room.hear))
        for _ in range(10):
            async_bus.hub.subscribe_topic("ann", "room", async_bus.handler(ignore)).cancel()

    async_bus.run(visit)
    async_bus.settle()

    assert [(p.joined, p.left) for p in room.heard] == [({}, {})]


def test_a_handler_that_joins_and_leaves_in_answer_is_told_in_order(bus: Bus):
    room = Room()
    guest = bus.handler(ignore)

    def hear(presence: Presence) -> None:
        room.hear(presence)
        if "ann" in presence.joined:
            bus.hub.unsubscribe_all("ann")

    bus.subscribe_presence("bob", "room", hear)
    room.heard.wait(1)
    bus.subscribe_topic("ann", "room", guest)
    room.heard.wait(3)
    bus.settle()

    assert [(list(p.joined), list(p.left)) for p in room.heard] == [
        ([], []),
        (["ann"], []),
        ([], ["ann"]),
    ]


def test_a_join_is_told_before_what_is_sent_after_it(bus: Bus):
    got = Recorder()
    bus.subscribe_presence("bob", "room", got.record)
    bus.subscribe("bob", bus.handler(got.record))
    got.wait(1)

    bus.subscribe_topic("ann", "room", bus.handler(ignore))
    bus.hub.send_all("after")
    bus.settle()

    assert [list(what.joined) if isinstance(what, Presence) else what for what in got[1:]] == [
        ["ann"],
        "after",
    ]


def test_a_hub_that_closes_tells_nobody_that_everybody_leaves(bus: Bus):
    room = Room()
    bus.subscribe_topic("ann", "room", bus.handler(ignore))
    bus.subscribe_presence("bob", "room", room.hear)

    bus.hub.close()

    assert [list(p.joined) for p in room.heard] == [["ann"]]
    assert bus.hub.stats().pending == 0


def test_nobody_watches_a_closed_hub():
    hub = PubSubHub()
    hub.close()
    with pytest.raises(HubClosed):
        hub.subscribe_presence("ann", "room", ignore)


@pytest.mark.parametrize("mode", ALL, ids=str)
def test_a_handler_that_fails_is_reported_with_the_topic_it_watches(mode: Mode, log: Any):
    bus = Bus(mode)
    failures = Recorder()
    hub = bus.hub = bus.new_hub(on_error=failures.record)

    def fail(presence: Presence) -> None:
        raise ValueError(presence)

    bus.run(lambda: hub.subscribe_presence("ann", "room", bus.handler(fail)))
    bus.settle()
    bus.close()

    [failure] = failures
    assert (failure.session_id, failure.topic) == ("ann", "room")
    assert isinstance(failure.message, Presence)
    assert "'room'" in log.take(1)[0].getMessage()


# ---- mistakes -------------------------------------------------------------------------------


def test_a_mistake_in_a_call_is_named_and_changes_nothing():
    hub = PubSubHub()
    ann = PubSub(hub, "ann")
    for call, message in [
        (lambda: hub.sessions(1), "topic must be a str, not int"),  # type: ignore[arg-type]
        (lambda: hub.subscriber_count(None), "topic must be a str, not NoneType"),  # type: ignore[arg-type]
        (lambda: ann.subscribe_presence(1, ignore), "topic must be a str, not int"),  # type: ignore[arg-type]
        (lambda: hub.subscribe_presence(1, "t", ignore), "session_id must be a str, not int"),  # type: ignore[arg-type]
        (lambda: ann.subscribe_presence("t", "x"), "handler must be callable, not str"),  # type: ignore[arg-type]
        (
            lambda: ann.subscribe_presence("t", lambda a, b: None),
            "handler must take one argument: presence",
        ),  # type: ignore[arg-type, misc]
        (lambda: ann.identify("Ann"), "positional"),  # type: ignore[call-arg, misc]
    ]:
        with pytest.raises(TypeError, match=message):
            call()

    assert hub.stats().subscriptions == 0


def test_one_handler_cannot_change_what_the_next_is_told():
    hub, room = PubSubHub(), Room()

    def meddle(presence: Presence) -> None:
        with pytest.raises(AttributeError):
            presence.joined.clear()  # type: ignore[attr-defined]

    hub.subscribe_presence("eve", "room", meddle)
    hub.subscribe_presence("bob", "room", room.hear)
    hub.subscribe_topic("ann", "room", ignore)

    assert room == {"ann": {}}


def test_a_record_comes_from_the_hub_only_and_cannot_be_changed():
    with pytest.raises(TypeError):
        Presence()  # type: ignore[call-arg]
    room = Room()
    PubSubHub().subscribe_presence("ann", "room", room.hear)
    with pytest.raises(AttributeError):
        room.heard[0].topic = "elsewhere"
    assert repr(room.heard[0]) == "<Presence on topic 'room': 0 joined, 0 left>"


def test_sessions_may_leave_when_the_loop_of_those_who_watch_is_closed(
    log: Any, told: list[BaseException | None]
):
    thread = LoopThread()
    hub = PubSubHub(thread.loop)
    hub.subscribe_presence("watch", "room/1", ignore_async)
    for name in ("ann", "bob", "cid"):
        hub.subscribe_topic(name, "room/1", ignore_async)
    thread.spin()
    thread.close()
    for name in ("ann", "bob", "cid"):
        hub.unsubscribe_all(name)
    assert hub.sessions("room/1") == {}
    # Once, however many leave.
    log.take(1)
    assert told == []
