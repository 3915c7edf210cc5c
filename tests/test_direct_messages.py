"""Direct messages: to one session, whoever else listens."""

import functools

import pytest

from delivery_modes import EXECUTOR, Bus, Mode, in_threads
from pagebus import HubClosed, PubSub, PubSubHub


def test_a_direct_message_reaches_every_broadcast_handler_of_its_session_and_nobody_else(bus: Bus):
    first, second, topic, other = (bus.recorder() for _ in range(4))
    bus.subscribe("ann", first.handler)
    bus.subscribe("ann", second.handler)
    bus.subscribe_topic("ann", "lobby", topic.handler)
    bus.subscribe("bob", other.handler)

    PubSub(bus.hub, "bob").send_to("ann", "psst")
    bus.settle()

    assert (first, second, topic, other) == (["psst"], ["psst"], [], [])


def test_the_hub_sends_to_a_session_too(bus: Bus):
    got = bus.recorder()
    bus.subscribe("ann", got.handler)

    bus.hub.send_to("ann", "from the house")
    bus.settle()

    assert got == ["from the house"]


def test_a_session_may_write_to_itself(bus: Bus):
    got = bus.recorder()
    bus.subscribe("ann", got.handler)

    PubSub(bus.hub, "ann").send_to("ann", "note")
    bus.settle()

    assert got == ["note"]


def test_direct_messages_keep_their_place_among_all_others(bus: Bus):
    got = bus.recorder()
    bus.subscribe("ann", got.handler)
    bus.subscribe("bob", bus.recorder().handler)

    for number in range(0, 300, 3):
        bus.hub.send_all(number)
        bus.hub.send_to("ann", number + 1)
        bus.hub.send_others("bob", number + 2)
    bus.settle()

    assert got == list(range(300))


def test_a_message_to_a_session_that_is_not_there_goes_nowhere():
    hub = PubSubHub()
    hub.send_to("nobody", "hello")

    assert (hub.stats().published, hub.stats().pending) == (1, 0)


def test_a_session_that_came_later_does_not_get_what_was_sent_before(queued_bus: Bus):
    gate = queued_bus.gate()
    slow, late = queued_bus.recorder(gate), queued_bus.recorder()
    queued_bus.subscribe("ann", slow.handler)
    queued_bus.hub.send_to("ann", 1)
    queued_bus.hub.send_to("ann", 2)
    gate.arrivals.wait(1)

    queued_bus.subscribe("ann", late.handler)
    queued_bus.hub.send_to("ann", 3)
    gate.open()
    queued_bus.settle()

    assert (slow, late) == ([1, 2, 3], [3])


def test_a_goodbye_takes_back_direct_messages_that_wait(queued_bus: Bus):
    gate = queued_bus.gate()
    got = queued_bus.recorder(gate)
    queued_bus.subscribe("ann", got.handler)
    for number in range(10):
        queued_bus.hub.send_to("ann", number)
    gate.arrivals.wait(1)

    queued_bus.hub.unsubscribe_all("ann")
    gate.open()
    queued_bus.settle()

    assert got == [0]


def test_who_takes_the_place_of_a_session_that_left_does_not_get_its_messages(bus: Bus):
    bus.subscribe("ann", bus.recorder().handler)
    bus.hub.unsubscribe_all("ann")
    got = bus.recorder()
    bus.subscribe("bob", got.handler)

    bus.hub.send_to("ann", "for ann")
    bus.settle()

    assert got == []


def test_eight_threads_write_to_eight_sessions_and_each_gets_its_own_in_order(bus: Bus):
    got = [bus.recorder() for _ in range(8)]
    for number, recorder in enumerate(got):
        bus.subscribe(f"session {number}", recorder.handler)

    def write(thread: int) -> None:
        for number in range(400):
            bus.hub.send_to(f"session {(thread + number) % 8}", (thread, number))

    in_threads(*(functools.partial(write, thread) for thread in range(8)))
    bus.settle()

    for session, recorder in enumerate(got):
        assert len(recorder) == 400
        for thread in range(8):
            mine = [number for by, number in recorder if by == thread]
            assert mine == [n for n in range(400) if (thread + n) % 8 == session]


@pytest.mark.parametrize("mode", EXECUTOR, ids=str)
def test_a_hub_that_gives_up_counts_direct_messages_once_for_each_handler(mode: Mode):
    bus = Bus(mode, workers=1)
    gate = bus.gate()
    hub = bus.new_hub()
    bus.run(lambda: hub.subscribe("ann", bus.recorder(gate).handler))
    bus.run(lambda: hub.subscribe("ann", bus.recorder().handler))
    bus.run(lambda: hub.subscribe("bob", bus.recorder().handler))
    hub.send_to("ann", 0)
    gate.arrivals.wait(1)
    for number in range(5):
        hub.send_to("ann", number)

    hub.close(timeout=0)
    gate.open()
    bus.close()

    assert hub.stats().dropped + hub.stats().delivered == 12


def test_a_session_id_that_is_no_string_is_refused_by_name():
    hub = PubSubHub()
    with pytest.raises(TypeError, match="session_id must be a str, not int"):
        hub.send_to(1, "hello")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="session_id must be a str, not NoneType"):
        PubSub(hub, "ann").send_to(None, "hello")  # type: ignore[arg-type]


def test_a_closed_hub_sends_to_nobody():
    hub = PubSubHub()
    hub.close()
    with pytest.raises(HubClosed):
        hub.send_to("ann", "hello")
