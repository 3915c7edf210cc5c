"""The handle that a subscription returns: it ends one handler's subscription, and no other."""

import pytest

from delivery_modes import Bus, Recorder
from pagebus import PubSub, PubSubHub, Subscription


def test_a_handle_knows_whose_it_is_and_for_what():
    hub = PubSubHub()
    broadcast = hub.subscribe("ann", print)
    topic = PubSub(hub, "bob").subscribe_topic("lobby", print)

    assert (broadcast.session_id, broadcast.topic, broadcast.active) == ("ann", None, True)
    assert (topic.session_id, topic.topic, topic.active) == ("bob", "lobby", True)
    assert "Subscription" in repr(topic)


def test_cancel_ends_one_handler_and_leaves_the_sessions_others(bus: Bus):
    goes, stays, topic = bus.recorder(), bus.recorder(), bus.recorder()
    handle = bus.subscribe("ann", goes.handler)
    bus.subscribe("ann", stays.handler)
    bus.subscribe_topic("ann", "lobby", topic.handler)

    handle.cancel()
    bus.hub.send_all("hello")
    bus.hub.send_all_on_topic("lobby", "hello")
    bus.settle()

    assert (goes, stays, topic) == ([], ["hello"], [("lobby", "hello")])
    assert not handle.active


def test_cancelling_again_changes_nothing():
    hub = PubSubHub()
    handle = hub.subscribe("ann", print)
    handle.cancel()
    handle.cancel()

    assert not handle.active
    assert hub.stats().subscriptions == 0


@pytest.mark.parametrize("goodbye", ["unsubscribe", "unsubscribe_all"])
def test_a_goodbye_of_the_session_ends_the_handle_too(goodbye: str):
    hub = PubSubHub()
    handle = hub.subscribe("ann", print)

    getattr(hub, goodbye)("ann")

    assert not handle.active
    handle.cancel()


def test_a_block_ends_with_the_subscription(bus: Bus):
    got = bus.recorder()
    with bus.subscribe("ann", got.handler) as handle:
        assert handle.active
        bus.hub.send_all("inside")
        bus.settle()
    bus.hub.send_all("outside")
    bus.settle()

    assert got == ["inside"]
    assert not handle.active


def test_a_block_that_fails_ends_the_subscription_and_keeps_its_error():
    hub = PubSubHub()
    with pytest.raises(ZeroDivisionError), hub.subscribe("ann", print) as handle:
        raise ZeroDivisionError

    assert not handle.active


def test_subscribing_an_equal_handler_gives_a_handle_on_the_one_that_exists(bus: Bus):
    got = bus.recorder()
    first = bus.subscribe("ann", got.handler)
    second = bus.subscribe("ann", got.handler)

    second.cancel()
    bus.hub.send_all("hello")
    bus.settle()

    assert got == []
    assert not first.active


def test_an_old_handle_does_not_end_a_new_subscription(bus: Bus):
    got = bus.recorder()
    old = bus.subscribe("ann", got.handler)
    bus.hub.unsubscribe("ann")
    new = bus.subscribe("ann", got.handler)

    old.cancel()
    assert (old.active, new.active) == (False, True)
    bus.hub.send_all("hello")
    bus.settle()

    assert got == ["hello"]


def test_a_dropped_handle_ends_nothing():
    hub, got = PubSubHub(), Recorder()
    hub.subscribe("ann", got.record)
    hub.send_all("hello")

    assert got == ["hello"]


def test_a_handle_comes_from_subscribe_only_and_cannot_be_changed():
    with pytest.raises(TypeError):
        Subscription()  # type: ignore[call-arg]
    handle = PubSubHub().subscribe("ann", print)
    with pytest.raises(AttributeError):
        handle.active = True  # type: ignore[misc]
    with pytest.raises(AttributeError):
        handle.session_id = "bob"  # type: ignore[misc]
