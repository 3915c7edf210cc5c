"""Promise 1: every handler subscribed at the moment of the send gets the message exactly once."""

import functools
from dataclasses import dataclass, field
from typing import Any

import pytest

from delivery_modes import Bus, Recorder
from pagebus import PubSubHub


def test_every_handler_of_every_session_gets_a_broadcast_once(bus: Bus):
    recorders = [bus.recorder() for _ in range(6)]
    for number, got in enumerate(recorders):
        bus.subscribe(f"session {number % 3}", got.handler)

    bus.hub.send_all("hello")
    bus.settle()

    assert recorders == [["hello"]] * 6


def test_a_thousand_sessions_get_every_message_once(bus: Bus):
    recorders = [bus.recorder() for _ in range(1000)]
    for number, got in enumerate(recorders):
        bus.subscribe(f"session {number}", got.handler)

    bus.run(bus.hub.send_all, 1)
    bus.run(bus.hub.send_all, 2)
    bus.settle()

    assert recorders == [[1, 2]] * 1000


def test_a_topic_reaches_its_own_handlers_with_its_name(bus: Bus):
    lobby, kitchen, broadcast = bus.recorder(), bus.recorder(), bus.recorder()
    bus.subscribe_topic("ann", "lobby", lobby.handler)
    bus.subscribe_topic("ann", "kitchen", kitchen.handler)
    bus.subscribe("ann", broadcast.handler)

    bus.hub.send_all_on_topic("lobby", "hello")
    bus.hub.send_all("everybody")
    bus.settle()

    assert (lobby, kitchen, broadcast) == ([("lobby", "hello")], [], ["everybody"])


def test_others_are_all_sessions_but_one(bus: Bus):
    ann, anns_second, bob = bus.recorder(), bus.recorder(), bus.recorder()
    bus.subscribe("ann", ann.handler)
    bus.subscribe("ann", anns_second.handler)
    bus.subscribe("bob", bob.handler)

    bus.hub.send_others("ann", "from ann")
    bus.hub.send_others("nobody", "from nobody")
    bus.settle()

    assert ann == anns_second == ["from nobody"]
    assert bob == ["from ann", "from nobody"]


def test_others_on_a_topic_are_its_sessions_but_one(bus: Bus):
    ann, bob, elsewhere = bus.recorder(), bus.recorder(), bus.recorder()
    bus.subscribe_topic("ann", "lobby", ann.handler)
    bus.subscribe_topic("bob", "lobby", bob.handler)
    bus.subscribe_topic("cat", "kitchen", elsewhere.handler)

    bus.hub.send_others_on_topic("ann", "lobby", "from ann")
    bus.settle()

    assert (ann, bob, elsewhere) == ([], [("lobby", "from ann")], [])


def test_a_message_that_nobody_listens_for_goes_nowhere(bus: Bus):
    got = bus.recorder()
    bus.hub.send_all("too early")
    bus.subscribe_topic("ann", "lobby", got.handler)

    bus.hub.send_all("to nobody")
    bus.hub.send_all_on_topic("attic", "to nobody")
    bus.hub.send_others("ann", "to nobody")
    bus.hub.send_others_on_topic("ann", "lobby", "to nobody")
    bus.settle()

    assert got == []


def test_the_same_handler_counts_once_per_session_and_topic(bus: Bus):
    got = bus.recorder()
    for _ in range(3):
        bus.subscribe("ann", got.handler)
        bus.subscribe_topic("ann", "lobby", got.handler)

    bus.hub.send_all("all")
    bus.hub.send_all_on_topic("lobby", "topic")
    bus.settle()

    assert got == ["all", ("lobby", "topic")]


def test_the_same_handler_of_two_sessions_gets_it_for_each(bus: Bus):
    got = bus.recorder()
    bus.subscribe("ann", got.handler)
    bus.subscribe("bob", got.handler)

    bus.hub.send_all("hello")
    bus.settle()

    assert got == ["hello", "hello"]


class Page:
    """Somebody's page, whose methods are handlers."""

    def __init__(self) -> None:
        self.got = Recorder()

    def on_message(self, message: Any) -> None:
        self.got.record(message)

    async def on_message_async(self, message: Any) -> None:
        self.got.record(message)


def test_a_bound_method_is_itself_each_time_it_is_looked_up(bus: Bus):
    page = Page()
    for _ in range(3):
        method = page.on_message_async if bus.mode.is_async else page.on_message
        bus.subscribe("ann", method)

    bus.hub.send_all("hello")
    bus.settle()

    assert page.got == ["hello"]


def test_methods_of_two_pages_are_two_handlers(bus: Bus):
    pages = [Page(), Page()]
    for page in pages:
        bus.subscribe("ann", page.on_message_async if bus.mode.is_async else page.on_message)

    bus.hub.send_all("hello")
    bus.settle()

    assert [page.got for page in pages] == [["hello"], ["hello"]]


@dataclass(frozen=True)
class Named:
    """A handler that equals every other of its name."""

    name: str
    got: Recorder = field(compare=False)

    def __call__(self, message: Any) -> None:
        self.got.record((self.name, message))


def test_handlers_that_are_equal_count_once_and_the_first_one_stays(inline_bus: Bus):
    first, second = Recorder(), Recorder()
    inline_bus.subscribe("ann", Named("same", first))
    inline_bus.subscribe("ann", Named("same", second))

    inline_bus.hub.send_all("hello")

    assert (first, second) == ([("same", "hello")], [])


class SameHash:
    """A handler whose hash is that of all others, and which equals itself only."""

    def __init__(self, got: Recorder) -> None:
        self.got = got

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        return self is other

    def __call__(self, message: Any) -> None:
        self.got.record(message)


def test_handlers_that_share_a_hash_are_still_told_apart(inline_bus: Bus):
    recorders = [Recorder() for _ in range(20)]
    handlers = [SameHash(got) for got in recorders]
    for handler in handlers + handlers:
        inline_bus.subscribe("ann", handler)

    inline_bus.hub.send_all("hello")

    assert recorders == [["hello"]] * 20


def test_two_partials_of_one_function_are_two_handlers_as_python_says(inline_bus: Bus):
    got = Recorder()
    for _ in range(2):
        inline_bus.subscribe("ann", functools.partial(got.record))

    inline_bus.hub.send_all("hello")

    assert got == ["hello", "hello"]


def test_who_subscribes_after_the_send_does_not_get_it(queued_bus: Bus):
    gate = queued_bus.gate()
    ann, late = queued_bus.recorder(gate), queued_bus.recorder()
    queued_bus.subscribe("ann", ann.handler)
    for message in range(5):
        queued_bus.hub.send_all(message)
    queued_bus.subscribe("bob", late.handler)
    queued_bus.subscribe("ann", late.handler)

    gate.open()
    queued_bus.hub.send_all("after")
    queued_bus.settle()

    assert ann == [0, 1, 2, 3, 4, "after"]
    assert late == ["after", "after"]


def test_who_subscribes_while_a_message_is_handled_gets_the_next_one(bus: Bus):
    late = bus.recorder()

    def invite(message: Any) -> None:
        if message == "first":
            bus.hub.subscribe("bob", late.handler)

    if bus.mode.is_async and not bus.mode.hub_has_loop:
        late.handler = bus.handler(late.record)
    bus.subscribe("ann", bus.handler(invite))

    bus.hub.send_all("first")
    bus.settle()
    bus.hub.send_all("second")
    bus.settle()

    assert late == ["second"]


def test_the_message_is_the_very_object_that_was_sent(bus: Bus):
    messages = [None, (), "text", {"a": [1]}, object(), Exception("as a value"), b"", 10**30]
    got = bus.recorder()
    bus.subscribe("ann", got.handler)

    for message in messages:
        bus.hub.send_all(message)
    bus.settle()

    assert len(got) == len(messages)
    assert all(mine is sent for mine, sent in zip(got, messages, strict=True))


def test_names_are_any_text_even_none_at_all(bus: Bus):
    names = ["", " ", "lobby\0", "grüße", "日本", "🚌", "x" * 10_000]
    got = bus.recorder()
    for name in names:
        bus.subscribe_topic(name, name, got.handler)

    for name in names:
        bus.hub.send_others_on_topic(name, name, "not to oneself")
        bus.hub.send_all_on_topic(name, "hello")
    bus.settle()

    assert sorted(got) == sorted((name, "hello") for name in names)


def test_two_hubs_do_not_hear_each_other(bus: Bus):
    other_hub, mine, theirs = bus.new_hub(), bus.recorder(), bus.recorder()
    bus.subscribe("ann", mine.handler)
    bus.run(other_hub.subscribe, "ann", theirs.handler)

    bus.hub.send_all("here")
    other_hub.send_all("there")
    mine.wait(1)
    theirs.wait(1)
    bus.settle()

    assert (mine, theirs) == (["here"], ["there"])


@pytest.mark.parametrize("stranger", [1, 65_536, 2**32, -2])
def test_handlers_with_other_hashes_are_never_compared(stranger: int):
    @dataclass(eq=False)
    class Handler:
        number: int

        def __hash__(self) -> int:
            return self.number

        def __eq__(self, other: object) -> bool:
            raise AssertionError("not the same, as the hashes tell")

        def __call__(self, message: Any) -> None:
            got.record(self.number)

    hub, got = PubSubHub(), Recorder()
    for number in (0, 7, stranger):
        hub.subscribe("ann", Handler(number))

    hub.send_all("hello")

    assert got == [0, 7, stranger]
