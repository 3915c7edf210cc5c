"""History: the last messages are kept for those who come later."""

import functools
import weakref
from typing import Any

import pytest

from delivery_modes import Bus, Recorder, collect_garbage, in_threads
from pagebus import PubSub, PubSubHub


def test_a_topic_is_kept_as_the_others_again_once_that_is_said(bus: Bus):
    hub = bus.hub = bus.new_hub(history=2)
    for topic in ("a", "b"):
        hub.keep(topic, messages=5, seconds=3600)
        for number in range(5):
            hub.send_all_on_topic(topic, number)
    hub.keep("b", messages=0)
    for topic in ("a", "b"):
        hub.keep(topic, messages=None)
        hub.send_all_on_topic(topic, 5)
    got, other = bus.recorder(), bus.recorder()

    bus.subscribe_topic("ann", "a", got.handler, replay=10)
    bus.subscribe_topic("ann", "b", other.handler, replay=10)
    bus.settle()

    assert got == [("a", 4), ("a", 5)]
    assert other == [("b", 5)]


def test_where_nothing_else_was_said_to_keep_as_the_others_is_to_keep_nothing():
    hub = PubSubHub()
    hub.keep(None, messages=3)
    hub.subscribe("ann", print, replay=1)
    hub.keep(None, messages=None)
    with pytest.raises(ValueError, match="replay needs messages that are kept"):
        hub.subscribe("bob", print, replay=1)


class Note:
    """A message that can be seen to go."""


def test_who_comes_later_first_gets_the_last_messages_and_then_the_live_ones(bus: Bus):
    hub = bus.hub = bus.new_hub(history=100)
    for number in range(50):
        hub.send_all_on_topic("room/1", number)
    got = bus.recorder()

    bus.subscribe_topic("ann", "room/1", got.handler, replay=20)
    for number in range(50, 60):
        hub.send_all_on_topic("room/1", number)
    bus.settle()

    assert got == [("room/1", number) for number in range(30, 60)]


def test_what_is_sent_to_all_is_kept_too(bus: Bus):
    hub = bus.hub = bus.new_hub(history=10)
    hub.send_all("hello")
    hub.send_all_on_topic("lobby", "elsewhere")
    got = bus.recorder()

    bus.subscribe("ann", got.handler, replay=5)
    bus.settle()

    assert got == ["hello"]


def test_replay_asks_for_no_more_than_there_is(bus: Bus):
    hub = bus.hub = bus.new_hub(history=3)
    for number in range(10):
        hub.send_all(number)
    got, none = bus.recorder(), bus.recorder()

    bus.subscribe("ann", got.handler, replay=1000)
    bus.subscribe("bob", none.handler)
    bus.settle()

    assert (got, none) == ([7, 8, 9], [])


def test_no_gap_and_no_double_while_eight_threads_send(bus: Bus):
    hub = bus.hub = bus.new_hub(history=100_000)
    first = bus.recorder()
    bus.subscribe_topic("first", "room", first.handler)

    def send(thread: int) -> None:
        for number in range(250):
            hub.send_all_on_topic("room", (thread, number))

    late = [bus.recorder() for _ in range(20)]

    def come() -> None:
        for number, recorder in enumerate(late):
            bus.subscribe_topic(f"late {number}", "room", recorder.handler, replay=10_000)

    in_threads(come, *(functools.partial(send, thread) for thread in range(8)))
    first.wait(2000)
    bus.settle()

    assert len(first) == 2000
    assert [recorder == first for recorder in late] == [True] * 20


def test_a_handler_that_is_busy_with_its_replay_gets_the_live_messages_after_it(queued_bus: Bus):
    hub = queued_bus.hub = queued_bus.new_hub(history=10)
    for number in range(10):
        hub.send_all(number)
    gate = queued_bus.gate()
    got = queued_bus.recorder(gate)

    queued_bus.subscribe("ann", got.handler, replay=10)
    gate.arrivals.wait(1)
    for number in range(10, 20):
        hub.send_all(number)
    gate.open()
    queued_bus.settle()

    assert got == list(range(20))


def test_a_goodbye_ends_a_replay(queued_bus: Bus):
    hub = queued_bus.hub = queued_bus.new_hub(history=10)
    for number in range(10):
        hub.send_all(number)
    gate = queued_bus.gate()
    got = queued_bus.recorder(gate)
    handle = queued_bus.subscribe("ann", got.handler, replay=10)
    gate.arrivals.wait(1)

    handle.cancel()
    gate.open()
    queued_bus.settle()

    assert got == [0]
    assert hub.stats().pending == 0


def test_a_handler_that_fails_in_its_replay_gets_the_rest_of_it(bus: Bus, log: Any):
    hub = bus.hub = bus.new_hub(history=10)
    for number in range(3):
        hub.send_all(number)
    got = Recorder()

    def body(message: int) -> None:
        got.record(message)
        if message == 1:
            raise ValueError(message)

    bus.subscribe("ann", bus.handler(body), replay=10)
    bus.settle()

    assert got == [0, 1, 2]
    [failure] = log.take(1)
    assert "failed" in failure.getMessage()


def test_a_session_does_not_get_later_what_it_was_excluded_from(bus: Bus):
    hub = bus.hub = bus.new_hub(history=10)
    PubSub(hub, "ann").send_others("from ann")
    hub.send_all("from the house")
    again, other = bus.recorder(), bus.recorder()

    bus.subscribe("bob", other.handler, replay=10)
    bus.subscribe("ann", again.handler, replay=10)
    bus.settle()

    assert other == ["from ann", "from the house"]
    assert again == ["from the house"]


def test_who_takes_the_place_of_an_excluded_session_gets_what_that_did_not(bus: Bus):
    hub = bus.hub = bus.new_hub(history=10)
    bus.subscribe("ann", bus.recorder().handler)
    hub.send_others("ann", "about ann")
    hub.unsubscribe_all("ann")
    got = bus.recorder()

    bus.subscribe("bob", got.handler, replay=10)
    bus.settle()

    assert got == ["about ann"]


def test_direct_messages_are_not_kept(bus: Bus):
    hub = bus.hub = bus.new_hub(history=10)
    bus.subscribe("ann", bus.recorder().handler)
    hub.send_to("ann", "secret")
    got = bus.recorder()

    bus.subscribe("bob", got.handler, replay=10)
    bus.subscribe("ann", got.handler, replay=10)
    bus.settle()

    assert got == []


def test_one_topic_can_be_kept_and_the_others_not(bus: Bus):
    bus.hub.keep("room/1", messages=2)
    for number in range(5):
        bus.hub.send_all_on_topic("room/1", number)
    got = bus.recorder()

    bus.subscribe_topic("ann", "room/1", got.handler, replay=10)
    bus.settle()

    assert got == [("room/1", 3), ("room/1", 4)]
    with pytest.raises(ValueError, match="replay needs messages that are kept"):
        bus.hub.subscribe_topic("ann", "room/2", print, replay=1)


def test_what_is_sent_to_all_can_be_kept_alone():
    hub, got = PubSubHub(), Recorder()
    hub.keep(None, messages=5)
    hub.send_all("hello")

    hub.subscribe("ann", got.record, replay=5)

    assert got == ["hello"]


def test_a_rule_for_a_topic_comes_before_the_hubs():
    hub, got = PubSubHub(history=100), Recorder()
    hub.keep("secret", messages=0)
    hub.keep("short", messages=1)
    for number in range(3):
        hub.send_all_on_topic("short", number)
        hub.send_all_on_topic("secret", number)

    hub.subscribe_topic("ann", "short", got.record, replay=10)

    assert got == [("short", 2)]
    with pytest.raises(ValueError, match="replay needs messages that are kept"):
        hub.subscribe_topic("ann", "secret", print, replay=10)


def test_a_shorter_rule_lets_go_of_what_is_too_much_at_once():
    hub = PubSubHub(history=100)
    notes = [Note() for _ in range(10)]
    seen = [weakref.ref(note) for note in notes]
    for note in notes:
        hub.send_all_on_topic("room", note)
    del note, notes

    hub.keep("room", messages=3)

    assert [ref() is not None for ref in seen] == [False] * 7 + [True] * 3


def test_messages_that_are_too_old_are_not_replayed():
    hub, got = PubSubHub(), Recorder()
    hub.keep("room", messages=10, seconds=1e-9)
    hub.send_all_on_topic("room", "long ago")

    hub.subscribe_topic("ann", "room", got.record, replay=10)

    assert got == []


def test_all_topics_together_keep_no_more_than_the_limit_and_the_least_recent_goes_first():
    hub = PubSubHub(history=10, max_history=25)
    for topic in ("a", "b", "c"):
        for number in range(10):
            hub.send_all_on_topic(topic, number)
    got = {topic: Recorder() for topic in "abc"}

    for topic, recorder in got.items():
        hub.subscribe_topic("ann", topic, recorder.record, replay=10)

    assert [len(got[topic]) for topic in "abc"] == [0, 10, 10]


def test_however_many_topics_there_are_no_more_than_the_limit_is_kept():
    hub = PubSubHub(history=5, max_history=100)
    notes = []
    for number in range(10_000):
        note = Note()
        notes.append(weakref.ref(note))
        hub.send_all_on_topic(f"topic {number}", note)
    del note

    assert sum(note() is not None for note in notes) == 100


def test_a_replay_is_not_longer_than_a_queue_may_be(bus: Bus):
    hub = bus.hub = bus.new_hub(history=100, max_pending=5)
    for number in range(20):
        hub.send_all(number)
    got = bus.recorder()

    bus.subscribe("ann", got.handler, replay=20)
    bus.settle()

    assert got == [15, 16, 17, 18, 19]


def test_a_closed_hub_lets_go_of_what_it_kept():
    hub, note = PubSubHub(history=10), Note()
    seen = weakref.ref(note)
    hub.send_all(note)
    del note
    assert seen() is not None

    hub.close()

    assert seen() is None


def test_a_hub_that_is_kept_by_its_own_messages_is_collected():
    hub, note = PubSubHub(history=10), Note()
    note.hub = hub  # type: ignore[attr-defined]
    hub.send_all(note)
    seen = weakref.ref(note)
    del hub, note

    collect_garbage()

    assert seen() is None


def test_closing_waits_for_replays(queued_bus: Bus):
    hub = queued_bus.hub = queued_bus.new_hub(history=100)
    for number in range(100):
        hub.send_all(number)
    got = queued_bus.recorder()
    queued_bus.subscribe("ann", got.handler, replay=100)

    hub.close()

    assert got == list(range(100))


def test_a_message_that_is_only_kept_is_published_and_not_pending():
    hub = PubSubHub(history=10)
    hub.send_all("hello")

    assert (hub.stats().published, hub.stats().pending) == (1, 0)


@pytest.mark.parametrize("name", ["history", "max_history"])
def test_a_number_of_messages_is_a_whole_number_and_not_negative(name: str):
    with pytest.raises(TypeError, match=f"{name} must be an int, not str"):
        PubSubHub(**{name: "many"})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=f"{name} must be an int, not bool"):
        PubSubHub(**{name: True})
    with pytest.raises(ValueError, match=f"{name} must not be negative, but is -1"):
        PubSubHub(**{name: -1})


def test_who_cannot_be_given_what_came_before_is_not_subscribed(log: Any):
    class Refusing:
        def submit(self, *_: object) -> None:
            raise RuntimeError("no room")

    executor: Any = Refusing()
    hub = PubSubHub(executor=executor, history=1)
    hub.send_all("hello")
    attempts = (
        lambda: hub.subscribe("ann", print, replay=1),
        lambda: hub.subscribe_presence("ann", "room", print),
        lambda: hub.listen("ann", replay=1).__enter__(),
    )

    for attempt in attempts:
        with pytest.raises(RuntimeError, match="no room"):
            attempt()
        assert hub.sessions() == {}
    log.take(3)


def test_keep_says_which_of_its_arguments_is_wrong():
    hub = PubSubHub()
    for arguments, message in [
        ({"topic": 1, "messages": 1}, "topic must be a str, not int"),
        ({"topic": "t", "messages": "1"}, "messages must be an int, not str"),
        ({"topic": "t", "messages": 1, "seconds": "1"}, "seconds must be a number, not str"),
    ]:
        with pytest.raises(TypeError, match=message):
            hub.keep(**arguments)  # type: ignore[arg-type]
    for seconds in (0, -1.5, float("nan"), -(10**400)):
        with pytest.raises(ValueError, match="seconds must be more than 0"):
            hub.keep("t", messages=1, seconds=seconds)
    with pytest.raises(ValueError, match="replay needs messages that are kept"):
        hub.subscribe_topic("ann", "t", print, replay=1)


def test_a_replay_that_makes_no_sense_subscribes_nobody():
    hub = PubSubHub(history=10)
    with pytest.raises(TypeError, match="replay must be an int, not str"):
        hub.subscribe("ann", print, replay="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="replay must not be negative, but is -1"):
        PubSub(hub, "ann").subscribe_topic("room", print, replay=-1)

    assert hub.stats().subscriptions == 0


def test_a_huge_number_means_all_of_them():
    hub, got = PubSubHub(history=10**30, max_history=10**30), Recorder()
    hub.keep("room", messages=10**30, seconds=1e300)
    hub.send_all_on_topic("room", 1)

    hub.subscribe_topic("ann", "room", got.record, replay=10**30)

    assert got == [("room", 1)]
