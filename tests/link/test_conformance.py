"""What linked hubs promise, whatever the broker and wherever the hubs are."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from brokers import Broker
from link_tools import Linked, Log, until
from member import Elsewhere, Member

pytestmark = pytest.mark.link

# How many hubs there are in this process, and how many others have one each.
PLACEMENTS = {"two hubs": (2, 0), "two processes": (1, 1), "three processes": (1, 2)}

Hubs = Callable[..., list[Any]]


@pytest.fixture(params=PLACEMENTS)
def hubs(request: pytest.FixtureRequest, broker: Broker) -> Iterator[Hubs]:
    """Make hubs that are linked with each other; they are closed at the end."""
    here, elsewhere = PLACEMENTS[request.param]
    members: list[Any] = []

    def make(**arguments: Any) -> list[Any]:
        new = [Member(broker.url, **arguments) for _ in range(here)]
        new += [Elsewhere(broker.url, **arguments) for _ in range(elsewhere)]
        members.extend(new)
        return new

    yield make
    for member in members:
        if isinstance(member, Elsewhere):
            member.end()
        else:
            member.call("close", 0)


def everybody_follows(hubs: list[Any], *topics: str) -> None:
    for place, hub in enumerate(hubs):
        hub.follow(f"session {place}", *topics)


def all_hear(hubs: list[Any], count: int) -> list[list[Any]]:
    return [hub.wait(f"session {place}", count) for place, hub in enumerate(hubs)]


def test_a_message_to_all_reaches_the_sessions_of_every_hub(hubs: Hubs):
    members = hubs()
    everybody_follows(members)
    members[0].call("send_all", "hello")
    assert all_hear(members, 1) == [[[None, "hello"]]] * len(members)


def test_a_message_on_a_topic_reaches_its_subscribers_wherever_they_are(hubs: Hubs):
    first, *_, last = members = hubs()
    everybody_follows(members, "news")
    last.follow("bob", "news", "sports")
    first.call("send_all_on_topic", "sports", "one to nil")
    last.call("send_all_on_topic", "news", "it rains")
    assert sorted(last.wait("bob", 2)) == [["news", "it rains"], ["sports", "one to nil"]]
    assert all_hear(members, 1) == [[["news", "it rains"]]] * len(members)


def test_the_excluded_session_is_left_out_on_whatever_hub_it_is(hubs: Hubs):
    first, *_, last = hubs()
    first.follow("ann", "news")
    last.follow("bob", "news")
    first.call("send_others", "bob", 1)
    first.call("send_others_on_topic", "bob", "news", 2)
    last.call("send_others", "ann", 3)
    last.call("send_others_on_topic", "ann", "news", 4)
    # Who is last on a channel is heard last there.
    until(lambda: first.outbox() == last.outbox() == 0, "it is not published")
    first.call("send_all", 5)
    first.call("send_all_on_topic", "news", 6)
    assert sorted(first.wait("ann", 4), key=repr) == [
        ["news", 2],
        ["news", 6],
        [None, 1],
        [None, 5],
    ]
    assert sorted(last.wait("bob", 4), key=repr) == [["news", 4], ["news", 6], [None, 3], [None, 5]]


def test_a_direct_message_reaches_its_session_and_nobody_else(hubs: Hubs):
    first, *_, last = hubs()
    first.follow("ann")
    last.follow("bob")
    first.call("send_to", "bob", "psst")
    last.wait_for("bob", "psst")
    last.call("send_all", "last")
    assert first.wait("ann", 1) == [[None, "last"]]
    assert last.wait("bob", 2) == [[None, "psst"], [None, "last"]]


def test_all_sessions_get_what_several_hubs_send_in_one_order_and_once(hubs: Hubs):
    members = hubs()
    everybody_follows(members, "news")
    senders = [
        threading.Thread(target=hub.send_many, args=("news", place, 300))
        for place, hub in enumerate(members)
    ]
    for sender in senders:
        sender.start()
    orders = all_hear(members, 300 * len(members))
    for sender in senders:
        sender.join()
    assert all(order == orders[0] for order in orders)
    for name in range(len(members)):
        numbers = [number for _, (sender, number) in orders[0] if sender == name]
        assert numbers == list(range(300))


def test_what_is_sent_on_many_topics_comes_once_and_in_order(hubs: Hubs):
    first, *_, last = hubs()
    topics = [f"topic {number}" for number in range(50)]
    last.follow("bob", *topics)
    for topic in topics:
        first.send_many(topic, topic, 20)
    heard = last.wait("bob", 1000)
    for topic in topics:
        assert [message for on, message in heard if on == topic] == [[topic, n] for n in range(20)]


def test_hubs_of_another_namespace_hear_nothing(hubs: Hubs):
    chat, shop = hubs(namespace="chat"), hubs(namespace="shop")
    everybody_follows(chat, "news")
    everybody_follows(shop, "news")
    shop[0].call("send_all_on_topic", "news", "in the shop")
    chat[-1].call("send_all_on_topic", "news", "in the chat")
    assert all_hear(chat, 1) == [[["news", "in the chat"]]] * len(chat)
    assert all_hear(shop, 1) == [[["news", "in the shop"]]] * len(shop)


def test_any_text_is_a_topic(hubs: Hubs):
    first, *_, last = hubs(namespace="a{b}%")
    for topic in ["", "{", "}", "a}b{c", "%7D", "room/1", "日本", "\ud800", "x" * 10_000]:
        last.follow("bob", topic)
        first.call("send_all_on_topic", topic, "hello")
        assert last.wait("bob", 1) == [[topic, "hello"]]


def test_who_unsubscribed_hears_nothing_more_and_may_come_back(hubs: Hubs):
    first, *_, last = hubs()
    last.follow("bob", "news")
    last.follow("cat", "news")
    last.call("unsubscribe_all", "bob")
    first.call("send_all_on_topic", "news", "missed")
    last.wait("cat", 1)
    assert last.heard("bob") == []
    last.follow("bob", "news")
    first.call("send_all_on_topic", "news", "heard")
    assert last.wait("bob", 1) == [["news", "heard"]]


def test_who_is_ready_misses_nothing_however_often_it_comes_and_goes(hubs: Hubs):
    first, *_, last = hubs()
    for number in range(30):
        last.follow("bob", "news")
        first.call("send_all_on_topic", "news", number)
        assert last.wait_for("bob", number)[-1] == ["news", number]
        last.call("unsubscribe_all", "bob")


def test_who_subscribes_and_sends_at_once_hears_it_however_many_do(linked: Linked, broker: Broker):
    hub, log = linked(link=broker.url), Log()
    until(lambda: hub.link_state == "connected", "no connection")
    for number in range(1000):
        hub.subscribe_topic("ann", f"news/{number}", log.add)
        hub.send_all_on_topic(f"news/{number}", number)
        if number % 10 == 0:
            until(lambda: hub.stats().outbox == 0, "it is not published")
    assert sorted(message for _, message in log.wait(1000)) == list(range(1000))


def test_who_comes_as_the_last_one_leaves_and_sends_at_once_hears_it(
    linked: Linked, broker: Broker
):
    hub, log = linked(link=broker.url), Log()

    async def come_and_go() -> None:
        # As when a page is loaded again.
        for number in range(200):
            subscription = hub.subscribe_topic("ann", "news", lambda topic, message: None)
            await asyncio.wait_for(subscription.ready(), 30)
            hub.unsubscribe_all("ann")
            hub.subscribe_topic("bob", "news", log.add)
            hub.send_all_on_topic("news", number)
            log.wait_for(number)
            hub.unsubscribe_all("bob")

    asyncio.run(come_and_go())


def test_a_hub_gets_no_traffic_of_topics_without_subscribers(hubs: Hubs, broker: Broker):
    first, *_, last = hubs()
    last.follow("bob", "news")
    assert broker.listeners("pagebus:{default:tnews}") == 1
    first.call("send_all_on_topic", "sports", "nobody listens")
    first.call("send_all_on_topic", "news", "it rains")
    assert last.wait("bob", 1) == [["news", "it rains"]]
    assert broker.listeners("pagebus:{default:tsports}") == 0
    last.call("unsubscribe_all", "bob")
    until(lambda: broker.listeners("pagebus:{default:tnews}") == 0, "it does not leave")


def test_what_is_sent_before_close_still_reaches_the_others(hubs: Hubs):
    first, *_, last = hubs()
    last.follow("bob", "news")
    first.send_many("news", 0, 1000)
    assert first.close() == 0
    assert last.wait("bob", 1000) == [["news", [0, number]] for number in range(1000)]
    assert first.states()[-1] == "closed"


def test_entries_that_the_broker_keeps_no_longer_are_told_as_a_gap(hubs: Hubs, broker: Broker):
    first, *_, last = hubs()
    last.follow("bob", "news")
    first.call("send_all_on_topic", "news", 0)
    last.wait("bob", 1)
    # As if three more had been published, not pushed, and trimmed.
    channel = "pagebus:{default:tnews}"
    assert broker.ask(channel, "HINCRBY", "{}:state", "n", "3") == b":4\r\n"
    assert broker.ask(channel, "XTRIM", "{}:log", "MAXLEN", "0") == b":1\r\n"
    first.call("send_all_on_topic", "news", 4)
    assert last.wait("bob", 2) == [["news", 0], ["news", 4]]
    assert last.gaps() == [["news", 3]]


def test_a_broker_that_fails_and_recovers_loses_and_doubles_nothing(hubs: Hubs, broker: Broker):
    members = hubs(max_outbox=1_000_000)
    # On each of several servers, if there are several.
    topics = [f"news {number}" for number in range(6)]
    everybody_follows(members, *topics)
    stop, sent = threading.Event(), [0] * len(members)

    def send(place: int) -> None:
        while not stop.wait(0.005):
            for topic in topics:
                members[place].call("send_all_on_topic", topic, [place, sent[place]])
            members[place].call("send_all", [place, sent[place]])
            sent[place] += 1

    senders = [threading.Thread(target=send, args=(place,)) for place in range(len(members))]
    for sender in senders:
        sender.start()
    all_hear(members, 100)
    broker.fail()
    # While it is away, too.
    before = sent[0]
    until(lambda: sent[0] > before + 20, "nobody sends")
    broker.recover()
    stop.set()
    for sender in senders:
        sender.join()
    heard = all_hear(members, sum(sent) * (len(topics) + 1))
    for topic in [*topics, None]:
        orders = [[message for on, message in log if on == topic] for log in heard]
        assert all(order == orders[0] for order in orders)
        for place, count in enumerate(sent):
            numbers = [number for sender, number in orders[0] if sender == place]
            assert numbers == list(range(count))
    assert [hub.gaps() for hub in members] == [[]] * len(members)
