"""The hub's numbers: what it has done, and what it holds now."""

import pytest

from delivery_modes import Bus, Recorder, in_threads, numbers
from pagebus import PubSubHub, Stats


def test_every_send_counts_whether_anybody_listens_or_not():
    hub = PubSubHub()
    hub.send_all(1)
    hub.send_all_on_topic("lobby", 2)
    hub.send_others("ann", 3)
    hub.send_others_on_topic("ann", "lobby", 4)

    assert (hub.stats().published, hub.stats().delivered) == (4, 0)


def test_every_call_counts_and_every_failed_one_too(bus: Bus, log):
    def fail(message: object) -> None:
        raise ValueError(message)

    bus.subscribe("ann", bus.recorder().handler)
    bus.subscribe("bob", bus.recorder().handler)
    bus.subscribe("bob", bus.handler(fail))
    for message in range(10):
        bus.hub.send_all(message)
    bus.settle()

    stats = bus.hub.stats()
    assert (stats.published, stats.delivered, stats.failed, stats.dropped) == (10, 30, 10, 0)
    log.take(10)


def test_nothing_is_missed_when_many_threads_send_at_once(bus: Bus, log):
    threads, sends, sessions = 8, 50, 4
    sent = threads * sends
    hub = bus.hub = bus.new_hub(max_pending=sent)

    def fail(message: object) -> None:
        raise ValueError(message)

    for number in range(sessions):
        bus.subscribe(f"session {number}", bus.recorder().handler)
    bus.subscribe("unlucky", bus.handler(fail))
    in_threads(*[lambda: [hub.send_all("hello") for _ in range(sends)]] * threads)
    bus.settle()

    stats = hub.stats()
    assert (stats.published, stats.delivered) == (sent, sent * (sessions + 1))
    assert (stats.failed, stats.dropped, stats.pending) == (sent, 0, 0)
    log.take(sent)


def test_what_waits_is_pending_until_it_is_delivered(queued_bus: Bus):
    gate = queued_bus.gate()
    got = queued_bus.recorder(gate)
    queued_bus.subscribe("ann", got.handler)
    queued_bus.hub.send_all("first")
    gate.arrivals.wait(1)
    for message in range(20):
        queued_bus.hub.send_all(message)

    assert queued_bus.hub.stats().pending == 20
    gate.open()
    queued_bus.settle()
    assert queued_bus.hub.stats().pending == 0


def test_sessions_topics_and_subscriptions_are_those_of_now():
    hub = PubSubHub()
    hub.subscribe("ann", print)
    hub.subscribe("ann", repr)
    hub.subscribe_topic("ann", "lobby", print)
    hub.subscribe_topic("bob", "lobby", print)
    handle = hub.subscribe_topic("bob", "attic", print)

    def held() -> tuple[int, int, int]:
        stats = hub.stats()
        return stats.sessions, stats.topics, stats.subscriptions

    assert held() == (2, 2, 5)
    handle.cancel()
    assert held() == (2, 1, 4)
    hub.unsubscribe_topic("bob", "lobby")
    assert held() == (1, 1, 3)
    hub.unsubscribe("ann")
    assert held() == (1, 1, 1)
    hub.unsubscribe_all("ann")
    assert held() == (0, 0, 0)


def test_numbers_once_taken_do_not_change():
    hub = PubSubHub()
    before = hub.stats()
    hub.subscribe("ann", Recorder().record)
    hub.send_all("hello")

    assert (before.published, before.delivered, before.subscriptions) == (0, 0, 0)
    assert set(numbers(PubSubHub()).values()) == {0}
    with pytest.raises(AttributeError):
        before.published = 7  # type: ignore[misc]


def test_numbers_come_from_a_hub_only_and_show_themselves():
    with pytest.raises(TypeError):
        Stats()  # type: ignore[call-arg]
    stats = PubSubHub().stats()
    fields = ", ".join(f"{name}={value!r}" for name, value in stats.asdict().items())
    assert repr(stats) == f"Stats({fields})"
    assert fields.startswith("published=0, ")
    assert fields.endswith(", outbox=0, unpublished=0, unreadable=0, gaps=0, reconnects=0")
