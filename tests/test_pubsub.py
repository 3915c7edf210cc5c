"""A session's client: the nine operations without the session id."""

import inspect

import flet.pubsub.pubsub_client
import pytest

import pagebus
from delivery_modes import Bus, Recorder
from pagebus import PubSub, PubSubHub


@pytest.mark.parametrize(
    "operation",
    [
        "send_all",
        "send_all_on_topic",
        "send_others",
        "send_others_on_topic",
        "subscribe",
        "subscribe_topic",
        "unsubscribe",
        "unsubscribe_topic",
        "unsubscribe_all",
    ],
)
def test_every_operation_takes_what_flets_takes_under_the_same_names(operation: str):
    flets = inspect.signature(getattr(flet.pubsub.pubsub_client.PubSubClient, operation))
    ours = inspect.signature(getattr(PubSub, operation))
    names = list(flets.parameters)

    assert list(ours.parameters)[: len(names)] == names
    for name in list(ours.parameters)[len(names) :]:
        assert ours.parameters[name].kind is inspect.Parameter.KEYWORD_ONLY


def test_flets_name_is_the_same_class():
    assert pagebus.PubSubClient is PubSub


def test_a_client_subscribes_and_sends_for_its_session(bus: Bus):
    ann, bob = PubSub(bus.hub, "ann"), PubSub(bus.hub, "bob")
    anns, bobs = bus.recorder(), bus.recorder()
    for client, got in ((ann, anns), (bob, bobs)):
        bus.run(client.subscribe, got.handler)
        bus.run(client.subscribe_topic, "lobby", got.handler)

    ann.send_all("to all")
    ann.send_others("to others")
    ann.send_all_on_topic("lobby", "to the lobby")
    ann.send_others_on_topic("lobby", "to others in the lobby")
    bus.settle()

    assert sorted(anns, key=str) == sorted(["to all", ("lobby", "to the lobby")], key=str)
    assert sorted(bobs, key=str) == sorted(
        ["to all", "to others", ("lobby", "to the lobby"), ("lobby", "to others in the lobby")],
        key=str,
    )


def test_a_client_says_goodbye_for_its_session_only(bus: Bus):
    clients = [PubSub(bus.hub, name) for name in ("ann", "bob")]
    recorders = [bus.recorder() for _ in clients]
    for client, got in zip(clients, recorders, strict=True):
        bus.run(client.subscribe, got.handler)
        bus.run(client.subscribe_topic, "lobby", got.handler)
        bus.run(client.subscribe_topic, "attic", got.handler)
    ann = clients[0]

    def send() -> None:
        clients[1].send_all("all")
        clients[1].send_all_on_topic("lobby", "lobby")
        clients[1].send_all_on_topic("attic", "attic")
        bus.settle()

    ann.unsubscribe_topic("lobby")
    send()
    ann.unsubscribe()
    send()
    ann.unsubscribe_all()
    send()

    assert sorted(recorders[0], key=str) == sorted(
        ["all", ("attic", "attic"), ("attic", "attic")], key=str
    )
    assert len(recorders[1]) == 9


def test_two_clients_of_one_session_are_one_session(bus: Bus):
    one, two = PubSub(bus.hub, "ann"), PubSub(bus.hub, "ann")
    got = bus.recorder()
    bus.run(one.subscribe, got.handler)
    bus.run(two.subscribe, got.handler)

    one.send_others("not to oneself")
    bus.hub.send_all("hello")
    bus.settle()
    two.unsubscribe()
    bus.hub.send_all("nobody is here")
    bus.settle()

    assert got == ["hello"]


def test_a_client_knows_its_hub_and_its_session():
    hub = PubSubHub()
    client = PubSub(hub, "ann")

    assert client.hub is hub
    assert client.session_id == "ann"
    assert "ann" in repr(client)
    with pytest.raises(AttributeError):
        client.session_id = "bob"  # type: ignore[misc]


def test_a_client_takes_its_arguments_by_name():
    client = PubSub(hub=PubSubHub(), session_id="ann")
    got = Recorder()

    client.subscribe(handler=got.record, concurrent=False)
    client.subscribe_topic(topic="lobby", handler=got.record, concurrent=False)
    client.send_all(message=1)
    client.send_all_on_topic(topic="lobby", message=2)
    client.send_others(message=3)
    client.send_others_on_topic(topic="lobby", message=4)
    client.unsubscribe_topic(topic="lobby")

    assert got == [1, ("lobby", 2)]


def test_a_client_keeps_its_hub_alive():
    got = Recorder()
    client = PubSub(PubSubHub(), "ann")
    client.subscribe(got.record)
    client.send_all("hello")

    assert got == ["hello"]
