"""Handlers, messages, topics and ids whose every method fails, blocks or uses the hub."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from delivery_modes import DEADLINE, QUEUED, Bus, Recorder, collect_garbage, numbers
from pagebus import HubClosed, Listener, PubSub, PubSubHub


class Trouble(Exception):
    """What hostile values raise."""


class Others:
    """Other sessions, who must get everything whatever happens around them."""

    def __init__(self, bus: Bus) -> None:
        self.bus, self.sent = bus, 0
        self.recorders = [bus.recorder() for _ in range(3)]
        for number, recorder in enumerate(self.recorders):
            bus.subscribe(f"other {number}", recorder.handler)
            bus.subscribe_topic(f"other {number}", "lobby", recorder.handler)

    def send(self, count: int = 5) -> None:
        for _ in range(count):
            self.sent += 1
            self.bus.hub.send_all(f"to all {self.sent}")
            self.bus.hub.send_others_on_topic("somebody", "lobby", f"to the lobby {self.sent}")

    def got_everything(self) -> bool:
        """Whether each got every message of these, in order, whatever else it got."""
        expected: list[Any] = []
        for number in range(1, self.sent + 1):
            expected += [f"to all {number}", ("lobby", f"to the lobby {number}")]
        alone = []
        for recorder in self.recorders:
            flat = [m for m in recorder if isinstance(m, str | tuple)]
            alone.append([m for m in flat if isinstance(m, str) or m[0] == "lobby"])
        by_kind = [
            [[m for m in got if isinstance(m, kind)] for kind in (str, tuple)] for got in alone
        ]
        wanted = [[m for m in expected if isinstance(m, kind)] for kind in (str, tuple)]
        return all(got == wanted for got in by_kind)


Act = Callable[[], Any]

HANDLER_METHODS = (
    *("__eq__", "__hash__", "__repr__", "__str__", "__bool__", "__getattr__", "__class__"),
    *("__call__", "__iter__", "__await__", "__del__"),
)


def hostile_class(method: str, act: Act, *, is_async: bool) -> type:
    """A class of handlers of which one method does ``act``; all are equal, or try to be."""

    def is_armed(self: Any) -> bool:
        return "armed" in object.__getattribute__(self, "__dict__")

    def does(self: Any, *args: Any) -> Any:
        if is_armed(self):
            act()
        return RESULTS[method](*args)

    namespace: dict[str, Any] = {"__hash__": lambda self: 1, "__eq__": lambda self, other: False}
    if is_async:

        async def call(self: Any, *args: Any) -> None:
            if method == "__call__":
                act()

        namespace["__call__"] = call
    else:
        namespace["__call__"] = lambda self, *args: act() if method == "__call__" else None
    if method == "__class__":
        namespace[method] = property(does)
    elif method != "__call__":
        namespace[method] = does
    return type("Hostile", (), namespace)


def raise_attribute_error(name: str) -> None:
    raise AttributeError(name)


RESULTS: dict[str, Callable[..., Any]] = {
    "__eq__": lambda other: False,
    "__hash__": lambda: 1,
    "__repr__": lambda: "hostile",
    "__str__": lambda: "hostile",
    "__bool__": lambda: False,
    "__getattr__": raise_attribute_error,
    "__class__": lambda: Recorder,
    "__iter__": lambda: iter(()),
    "__await__": lambda: iter(()),
    "__del__": lambda: None,
}


def meet(bus: Bus, method: str, act: Act) -> None:
    """Bring a hostile handler to everything that a hub does with handlers."""
    kind = hostile_class(method, act, is_async=bus.mode.is_async)

    def join(join: Callable[..., Any], *args: Any) -> None:
        handler = kind()
        handler.armed = True
        if bus.hub.closed:
            return
        try:
            join("hostile", *args, handler)
        except HubClosed:
            # Closed by the method that was called, in the middle.
            assert bus.hub.closed
        except (Trouble, TypeError):
            assert method not in ("__repr__", "__str__", "__bool__", "__call__", "__iter__")

    for _ in range(2):
        join(bus.subscribe)
        join(bus.subscribe_topic, "lobby")


def part(bus: Bus) -> None:
    """Let the hostile handlers go."""
    bus.hub.unsubscribe_topic("hostile", "lobby")
    bus.hub.unsubscribe_all("hostile")
    bus.settle()


@pytest.mark.parametrize("method", HANDLER_METHODS)
def test_a_handler_whose_method_raises_harms_nobody_else(
    bus: Bus, method: str, log: Any, told: list[Any]
):
    others = Others(bus)

    def act() -> None:
        raise Trouble(method)

    meet(bus, method, act)
    others.send()
    bus.settle()
    part(bus)
    others.send()
    bus.settle()

    assert others.got_everything()
    assert bus.hub.stats().sessions == 3
    failures = log.take_all()
    assert bool(failures) == (method == "__call__")
    assert bus.hub.stats().failed == len(failures)
    assert all(isinstance(error, Trouble) for error in told)
    assert bool(told) == (method == "__del__")


CALLBACKS: dict[str, Callable[[PubSubHub], Any]] = {
    "send_all": lambda hub: hub.send_all(1),
    "send_all_on_topic": lambda hub: hub.send_all_on_topic("gossip", 1),
    "send_others": lambda hub: hub.send_others("other 0", 1),
    "send_others_on_topic": lambda hub: hub.send_others_on_topic("other 0", "gossip", 1),
    "subscribe": lambda hub: hub.subscribe("guest", print),
    "subscribe_topic": lambda hub: hub.subscribe_topic("guest", "gossip", Recorder().record),
    "unsubscribe": lambda hub: hub.unsubscribe("hostile"),
    "unsubscribe_topic": lambda hub: hub.unsubscribe_topic("hostile", "lobby"),
    "unsubscribe_all": lambda hub: hub.unsubscribe_all("hostile"),
    "send_to": lambda hub: hub.send_to("other 0", 1),
    "subscribe_presence": lambda hub: hub.subscribe_presence("guest", "lobby", Recorder().record),
    "listen": lambda hub: look_and_leave(hub.listen("guest", "lobby", timeout=0)),
    "stream": lambda hub: hub.stream("guest", "lobby").__aenter__().close(),
    "keep": lambda hub: hub.keep("gossip", messages=3),
    "replay": lambda hub: replay(hub, "gossip"),
    "identify": lambda hub: PubSub(hub, "hostile").identify(name="somebody else"),
    "sessions": lambda hub: (hub.sessions(), hub.sessions("lobby")),
    "topics": lambda hub: [hub.subscriber_count(topic) for topic in hub.topics()],
    "stats": lambda hub: hub.stats(),
    "close": lambda hub: hub.close(),
}


def look_and_leave(messages: Listener) -> None:
    with messages, contextlib.suppress(TimeoutError):
        next(messages)


def replay(hub: PubSubHub, topic: str) -> None:
    hub.keep(topic, messages=3)
    hub.send_all_on_topic(topic, 1)
    hub.subscribe_topic("guest", topic, Recorder().record, replay=3)


@pytest.mark.parametrize("callback", CALLBACKS)
def test_a_handler_whose_methods_use_the_hub_harms_nobody_else(bus: Bus, callback: str):
    others, calls, left = Others(bus), 0, 0
    inside = threading.local()

    def act() -> None:
        nonlocal calls, left
        # A method that is called by what it calls would not end, here or in any library; nor
        # would a handler that always answers itself.
        if getattr(inside, "now", False) or left <= 0:
            return
        inside.now, calls, left = True, calls + 1, left - 1
        try:
            CALLBACKS[callback](bus.hub)
        finally:
            inside.now = False

    others.send()
    for method in HANDLER_METHODS:
        left = 20
        meet(bus, method, act)
        if not bus.hub.closed:
            others.send()
        bus.settle()
        part(bus)
    bus.hub.unsubscribe_all("guest")
    bus.settle()

    assert calls
    assert others.got_everything()
    left = numbers(bus.hub)
    assert (left["pending"], left["failed"], left["dropped"]) == (0, 0, 0)
    assert bus.hub.closed == (callback == "close")
    assert left["sessions"] == (0 if bus.hub.closed else 3)


# Methods that the hub has to call, each with the operation that calls it.
BLOCKING = ("__eq__", "__hash__", "__getattr__", "__del__")


@pytest.mark.parametrize("method", BLOCKING)
def test_while_a_handlers_method_blocks_everybody_else_goes_on(bus: Bus, method: str):
    others, gate = Others(bus), bus.gate()
    thread = threading.current_thread()

    def act() -> None:
        if threading.current_thread() is not thread:
            gate.wait(method)

    # A sync one, so that it can be subscribed on any thread in every mode.
    kind = hostile_class(method, act, is_async=False)
    handlers = [kind(), kind()]
    for handler in handlers:
        handler.armed = True
    del handler
    bus.hub.subscribe("hostile", handlers[0])

    def meet_and_part() -> None:
        bus.hub.subscribe("hostile", handlers[1])
        handlers.clear()
        bus.hub.unsubscribe_all("hostile")

    blocked = threading.Thread(target=meet_and_part, daemon=True)
    blocked.start()
    gate.arrivals.wait(1)
    guest = bus.recorder()
    bus.subscribe("guest", guest.handler)
    others.send()
    for recorder in others.recorders:
        recorder.wait(10)
    guest.wait(5)
    bus.hub.unsubscribe_all("guest")
    assert bus.hub.stats().sessions in (3, 4)
    assert others.got_everything()

    gate.open()
    blocked.join(DEADLINE)
    bus.settle()
    assert not blocked.is_alive()
    assert bus.hub.stats().sessions == 3
    assert len(guest) == 5


def test_while_a_sync_handler_blocks_inside_a_send_other_threads_go_on_sending(inline_bus: Bus):
    gate, got = inline_bus.gate(), inline_bus.recorder()
    inline_bus.subscribe("hostile", lambda message: gate.wait(message))
    inline_bus.subscribe("other", got.handler)
    sender = threading.Thread(target=inline_bus.hub.send_all, args=(1,), daemon=True)
    sender.start()
    gate.arrivals.wait(1)

    for number in range(2, 100):
        inline_bus.hub.send_all(number)
    gate.open()
    sender.join(DEADLINE)

    assert got.wait(99) == list(range(1, 100))


# ---- messages ---------------------------------------------------------------------------------

MESSAGE_METHODS = (
    *("__eq__", "__ne__", "__hash__", "__repr__", "__str__", "__bool__", "__len__", "__iter__"),
    *("__next__", "__call__", "__await__", "__getattr__", "__getitem__", "__contains__", "__lt__"),
    *("__int__", "__index__", "__float__", "__enter__", "__exit__", "__copy__", "__deepcopy__"),
    *("__reduce_ex__", "__format__", "__sizeof__", "__get__", "__set__", "__buffer__"),
)


def untouchable(touched: list[str]) -> Any:
    """A message that notes it when it is looked at in any way, and raises."""

    def noting(name: str) -> Callable[..., Any]:
        def method(self: Any, *_: Any, **__: Any) -> Any:
            touched.append(name)
            raise Trouble(name)

        return method

    namespace = {name: noting(name) for name in MESSAGE_METHODS}
    namespace["__class__"] = property(noting("__class__"))  # type: ignore[assignment]
    return type("Untouchable", (), namespace)()


def test_the_hub_never_looks_into_a_message(bus: Bus, log: Any):
    touched: list[str] = []
    message, failures, got = untouchable(touched), Recorder(), []
    bus.hub = bus.new_hub(on_error=failures.record)

    def take(*args: Any) -> None:
        got.append(args)

    def fail(*args: Any) -> None:
        raise Trouble

    for name in ("ann", "bob"):
        for body in (take, fail):
            bus.subscribe(name, bus.handler(body))
            bus.subscribe_topic(name, "lobby", bus.handler(body))
    bus.hub.send_all(message)
    bus.hub.send_others("ann", message)
    bus.hub.send_all_on_topic("lobby", message)
    bus.hub.send_others_on_topic("ann", "lobby", message)
    bus.settle()

    assert touched == []
    assert len(got) == 6
    assert all(args[-1] is message for args in got)
    assert all(failure.message is message for failure in failures)
    assert len(failures) == len(log.take_all()) == 6


def test_messages_that_raise_when_they_go_harm_nobody(bus: Bus, told: list[Any]):

    class Dying:
        def __del__(self) -> None:
            raise Trouble

    others, gate = Others(bus), bus.gate() if bus.mode in QUEUED else None
    bus.subscribe("ann", bus.handler(lambda message: None, gate))
    for _ in range(20):
        bus.hub.send_all(Dying())
    others.send()
    # Some are delivered, and the goodbye throws away the others.
    bus.hub.unsubscribe_all("ann")
    if gate:
        gate.open()
        gate.arrivals.clear()
    bus.settle()
    for recorder in others.recorders:
        recorder[:] = [message for message in recorder if not isinstance(message, Dying)]
    if gate:
        gate.arrivals.clear()
    del recorder
    collect_garbage()

    assert others.got_everything()
    assert len(told) == 20
    assert all(isinstance(error, Trouble) for error in told)


# ---- what a handler returns ---------------------------------------------------------------------


@pytest.mark.parametrize("callback", [*CALLBACKS, "raise"])
def test_an_awaitable_whose_methods_use_the_hub_harms_nobody(
    awaiting_bus: Bus, callback: str, log: Any
):
    bus, begun = awaiting_bus, Recorder()
    others = Others(bus)

    class Returned:
        def __await__(self) -> Iterator[Any]:
            begun.record(1)
            if callback == "raise":
                raise Trouble
            if not bus.hub.closed:
                CALLBACKS[callback](bus.hub)
            return iter(())

        def _fail(self, *_: Any) -> Any:
            raise Trouble

        __repr__ = __str__ = __bool__ = __eq__ = __hash__ = _fail  # type: ignore[assignment]

    async def wait(topic: str, message: Any) -> None:
        await Returned()

    def give(topic: str, message: Any) -> Any:
        return Returned()

    handler = wait if bus.mode.is_async else give
    bus.subscribe_topic("hostile", "lobby", handler)
    count = 1 if callback == "close" else 5
    others.send(count)
    begun.wait(1)
    bus.settle()
    part(bus)
    bus.hub.unsubscribe_all("guest")
    bus.settle()

    assert others.got_everything()
    assert len(log.take_all()) == bus.hub.stats().failed == (count if callback == "raise" else 0)


# ---- topics and session ids ---------------------------------------------------------------------


class Text(str):
    """A string of somebody's own, of which every method raises."""

    __slots__ = ()

    def _fail(self, *_: Any, **__: Any) -> Any:
        raise Trouble

    __eq__ = __ne__ = __hash__ = __str__ = __repr__ = __len__ = __iter__ = _fail  # type: ignore[assignment]
    __bool__ = __getitem__ = __contains__ = __format__ = __lt__ = __add__ = _fail  # type: ignore[assignment]
    encode = join = split = _fail  # type: ignore[assignment]


@pytest.mark.parametrize("name", ["lobby", "", "\ud800", "\0", "ß" * 100])
def test_a_string_of_somebodys_own_is_the_string_that_it_is(bus: Bus, name: str, log: Any):
    by_plain, by_text = Recorder(), Recorder()
    plain = bus.handler(lambda topic, message: by_plain.record(message))
    text = bus.handler(lambda topic, message: by_text.record(message))
    handle = bus.subscribe_topic(Text(name), Text(name), text)
    bus.subscribe_topic("other", name, plain)
    bus.subscribe_topic("other", Text(name), plain)
    assert bus.hub.stats().subscriptions == 2

    bus.hub.send_all_on_topic(Text(name), 1)
    bus.hub.send_all_on_topic(name, 2)
    bus.hub.send_others_on_topic(Text("other"), Text(name), 3)
    bus.hub.send_others_on_topic(name, Text(name), 4)
    PubSub(bus.hub, Text("other")).send_others_on_topic(name, 5)
    bus.settle()

    assert by_text == [1, 2, 3, 5]
    assert by_plain == [1, 2, 4]
    assert type(handle.topic) is Text
    bus.hub.unsubscribe_topic(Text("other"), Text(name))
    bus.hub.unsubscribe_all(Text(name))
    assert bus.hub.stats().subscriptions == 0


def test_a_failure_on_a_hostile_topic_of_a_hostile_session_is_reported(bus: Bus, log: Any):
    failures = Recorder()
    bus.hub = bus.new_hub(on_error=failures.record)

    def fail(topic: str, message: Any) -> None:
        raise Trouble

    bus.subscribe_topic(Text("ann"), Text("lobby"), bus.handler(fail))
    bus.hub.send_all_on_topic(Text("lobby"), "hello")
    failures.wait(1)
    bus.settle()

    (record,) = log.take_all()
    assert "'ann'" in record.getMessage()
    assert failures[0].session_id == "ann"


@pytest.mark.parametrize("callback", [*CALLBACKS, "raise"])
def test_names_that_do_something_when_they_go_or_are_asked_for_more_harm_nobody(
    bus: Bus, callback: str, log: Any, told: list[Any]
):
    others, gone, asked, left = Others(bus), 0, list[str](), 20
    inside = threading.local()

    class Name(str):
        def __del__(self) -> None:
            nonlocal gone, left
            gone += 1
            if callback == "raise":
                raise Trouble
            if getattr(inside, "now", False) or left <= 0 or bus.hub.closed:
                return
            inside.now, left = True, left - 1
            try:
                CALLBACKS[callback](bus.hub)
            finally:
                inside.now = False

        def __getattr__(self, name: str) -> Any:
            asked.append(name)
            raise Trouble

    def meet_and_part(round_: int) -> None:
        handler = bus.handler(lambda *message: None)
        client = PubSub(bus.hub, Name(f"client {round_}"))
        client.subscribe(handler)
        client.subscribe_topic(Name("gossip"), handler)
        bus.subscribe(Name("hostile"), handler)
        bus.subscribe_topic(Name("hostile"), Name(f"room {round_}"), handler)
        bus.hub.send_all_on_topic(Name("gossip"), round_)
        bus.hub.send_others(Name("hostile"), round_)
        bus.hub.send_others_on_topic(Name("hostile"), Name(f"room {round_}"), round_)
        bus.hub.unsubscribe_topic(Name("hostile"), Name(f"room {round_}"))
        bus.hub.unsubscribe(Name("hostile"))
        bus.hub.unsubscribe_all(Name(f"client {round_}"))
        # An error that is told refers to whoever called what went wrong, and to what that has.
        del client

    others.send()
    bus.settle()
    for round_ in range(5):
        with contextlib.suppress(HubClosed):
            bus.run(meet_and_part, round_)
        bus.settle()
    if not bus.hub.closed:
        others.send()
    bus.settle()
    bus.hub.unsubscribe_all("guest")
    bus.settle()
    sessions = 0 if bus.hub.closed else 3
    assert bus.hub.stats().sessions == sessions
    # What the hub remembers of them goes with it.
    bus.hub, left = bus.new_hub(), 0
    collect_garbage()

    assert others.got_everything()
    assert gone
    assert asked == []
    assert all(isinstance(error, Trouble) for error in told)
    assert len(told) == (gone if callback == "raise" else 0)


def test_topics_that_differ_by_a_lone_surrogate_are_different_topics(bus: Bus):
    topics = ["\ud800", "\udbff", "\udc00", "\udfff", "\ud800\udc00", "\U00010000", "\udc00\ud800"]
    topics += ["?", "\ufffd", "", "\ud800x", "x\ud800", "\\ud800", "\xed\xa0\x80"]
    recorders = [bus.recorder() for _ in topics]
    for topic, recorder in zip(topics, recorders, strict=True):
        bus.subscribe_topic(f"session {topic}", topic, recorder.handler)
    assert bus.hub.stats().topics == bus.hub.stats().sessions == len(topics)

    for topic in topics:
        bus.hub.send_all_on_topic(topic, "all")
        bus.hub.send_others_on_topic(f"session {topic}", topic, "nobody")
    bus.settle()

    assert recorders == [[(topic, "all")] for topic in topics]
    for topic in topics:
        bus.hub.unsubscribe_topic(f"session {topic}", topic)
    assert bus.hub.stats().topics == 0


def test_a_topic_may_be_as_long_as_a_book(bus: Bus, log: Any):
    book, other = "a" * 2**20, "a" * (2**20 - 1) + "b"
    got, failures = bus.recorder(), Recorder()

    def fail(topic: str, message: Any) -> None:
        raise Trouble

    bus.hub = bus.new_hub(on_error=failures.record)
    bus.subscribe_topic(book, book, got.handler)
    bus.subscribe_topic(book, book, bus.handler(fail))
    for number in range(20):
        bus.hub.send_all_on_topic(book, number)
        bus.hub.send_all_on_topic(other, number)
        bus.hub.send_others_on_topic(book, book, number)
    bus.settle()

    assert [message for _, message in got] == list(range(20))
    assert all(topic is book for topic, _ in got)
    assert [failure.session_id == failure.topic == book for failure in failures] == [True] * 20
    # Twenty lines of the log, not forty MiB of it.
    lines = [record.getMessage() for record in log.take_all()]
    assert len(lines) == 20
    shown = "'" + "a" * 199 + "..."
    assert all(f"of session {shown} on topic {shown} failed" in line for line in lines)
    bus.hub.unsubscribe_all(book)
    assert bus.hub.stats().topics == 0


@pytest.mark.heavy
def test_a_session_may_have_a_million_topics():
    hub, got, count = PubSubHub(), Recorder(), 1_000_000
    for number in range(count):
        hub.subscribe_topic("ann", f"room {number}", got.record)
    assert hub.stats().topics == hub.stats().subscriptions == count
    bob = hub.subscribe_topic("bob", "room 77", got.record)

    for number in (0, 77, count - 1):
        hub.send_all_on_topic(f"room {number}", number)
    assert got == [("room 0", 0), ("room 77", 77), ("room 77", 77), ("room 999999", 999_999)]
    hub.unsubscribe_topic("ann", "room 77")
    hub.send_all_on_topic("room 77", "bob only")
    hub.unsubscribe_all("ann")
    hub.send_all_on_topic("room 0", "nobody")

    assert got[4:] == [("room 77", "bob only")]
    assert (hub.stats().topics, hub.stats().subscriptions) == (1, 1)
    bob.cancel()
    assert hub.stats().topics == 0


def test_two_clients_of_one_session_are_one_session(bus: Bus):
    tab, window = PubSub(bus.hub, "ann"), PubSub(bus.hub, "ann")
    at_tab, at_window, at_both, other = (bus.recorder() for _ in range(4))
    bus.run(tab.subscribe, at_tab.handler)
    bus.run(window.subscribe, at_window.handler)
    handles = [bus.run(client.subscribe, at_both.handler) for client in (tab, window)]
    bus.run(window.subscribe_topic, "lobby", at_window.handler)
    bus.subscribe("bob", other.handler)
    assert bus.hub.stats().subscriptions == 5

    tab.send_all("all")
    tab.send_others("not to ann")
    window.send_others_on_topic("lobby", "not to ann")
    tab.send_all_on_topic("lobby", "all")
    bus.settle()
    assert (at_tab, at_both, other) == (["all"], ["all"], ["all", "not to ann"])
    assert sorted(map(str, at_window)) == ["('lobby', 'all')", "all"]

    handles[0].cancel()
    assert not handles[1].active
    tab.unsubscribe()
    window.send_all("bob only")
    tab.unsubscribe_topic("lobby")
    bus.settle()
    assert (at_tab, at_both) == (["all"], ["all"])
    assert len(at_window) == 2
    assert bus.hub.stats().sessions == 1
