"""Promise 12: bad input is refused by name, at the call that made the mistake; nothing changes."""

import asyncio
import functools
import itertools
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import pytest

from delivery_modes import (
    DEADLINE,
    LOOPS,
    Bus,
    Gate,
    LoopThread,
    Recorder,
    WatchedExecutor,
    collect_garbage,
    numbers,
    turns_of_the_loop,
)
from pagebus import HubClosed, PubSub, PubSubHub


def on_message(message: Any) -> None:
    """A good handler of broadcasts."""


def on_topic(topic: str, message: Any) -> None:
    """A good handler of a topic."""


async def on_message_async(message: Any) -> None:
    """A good async handler of broadcasts."""


async def on_topic_async(topic: str, message: Any) -> None:
    """A good async handler of a topic."""


def refused(hub: PubSubHub, error: type[Exception], match: str, call: Callable[[], object]) -> None:
    """The call raises that error, and the hub is as it was before."""
    before = numbers(hub)
    with pytest.raises(error, match=match):
        call()
    assert numbers(hub) == before


def hub_with_ann() -> PubSubHub:
    """A hub in which somebody is subscribed already."""
    hub = PubSubHub()
    hub.subscribe("ann", on_message)
    hub.subscribe_topic("ann", "lobby", on_topic)
    return hub


@pytest.fixture
def hub() -> PubSubHub:
    """What changes nothing may do so in several threads, on one hub."""
    return hub_with_ann()


@pytest.fixture(autouse=True)
def _nothing_unexpected_is_logged(log: Any) -> None:
    """Whatever is logged, the test has to take."""


# ---- names -----------------------------------------------------------------------------------

NOT_STRINGS = [None, 1, 1.5, b"ann", ["ann"], ("ann",), object(), str, True]

SESSION_CALLS: dict[str, tuple[str, Callable[[PubSubHub, Any], object]]] = {
    "send_others": ("except_session_id", lambda hub, bad: hub.send_others(bad, "hello")),
    "send_others_on_topic": (
        "except_session_id",
        lambda hub, bad: hub.send_others_on_topic(bad, "lobby", "hello"),
    ),
    "subscribe": ("session_id", lambda hub, bad: hub.subscribe(bad, on_message)),
    "subscribe_topic": ("session_id", lambda hub, bad: hub.subscribe_topic(bad, "x", on_topic)),
    "unsubscribe": ("session_id", lambda hub, bad: hub.unsubscribe(bad)),
    "unsubscribe_topic": ("session_id", lambda hub, bad: hub.unsubscribe_topic(bad, "lobby")),
    "unsubscribe_all": ("session_id", lambda hub, bad: hub.unsubscribe_all(bad)),
    "PubSub": ("session_id", lambda hub, bad: PubSub(hub, bad)),
}

TOPIC_CALLS: dict[str, Callable[[PubSubHub, Any], object]] = {
    "send_all_on_topic": lambda hub, bad: hub.send_all_on_topic(bad, "hello"),
    "send_others_on_topic": lambda hub, bad: hub.send_others_on_topic("ann", bad, "hello"),
    "subscribe_topic": lambda hub, bad: hub.subscribe_topic("ann", bad, on_topic),
    "unsubscribe_topic": lambda hub, bad: hub.unsubscribe_topic("ann", bad),
    "client.send_all_on_topic": lambda hub, bad: PubSub(hub, "ann").send_all_on_topic(bad, "x"),
    "client.send_others_on_topic": lambda hub, bad: PubSub(hub, "x").send_others_on_topic(bad, 1),
    "client.subscribe_topic": lambda hub, bad: PubSub(hub, "ann").subscribe_topic(bad, on_topic),
    "client.unsubscribe_topic": lambda hub, bad: PubSub(hub, "ann").unsubscribe_topic(bad),
}


@pytest.mark.parametrize("bad", NOT_STRINGS, ids=repr)
@pytest.mark.parametrize(("argument", "call"), SESSION_CALLS.values(), ids=SESSION_CALLS)
def test_a_session_id_is_a_string(hub: PubSubHub, argument: str, call: Any, bad: Any):
    refused(hub, TypeError, rf"{argument} must be a str", lambda: call(hub, bad))


@pytest.mark.parametrize("bad", NOT_STRINGS, ids=repr)
@pytest.mark.parametrize("call", TOPIC_CALLS.values(), ids=TOPIC_CALLS)
def test_a_topic_is_a_string(hub: PubSubHub, call: Any, bad: Any):
    refused(hub, TypeError, "topic must be a str", lambda: call(hub, bad))


def test_a_string_that_no_file_could_hold_is_still_a_name(bus: Bus):
    lone, other = "room \ud800", "room \udfff"
    got = bus.recorder()
    bus.subscribe_topic(lone, lone, got.handler)

    bus.hub.send_all_on_topic(lone, "hello")
    bus.hub.send_all_on_topic(other, "not for this one")
    bus.hub.send_others_on_topic(lone, lone, "not for oneself")
    bus.settle()

    assert got == [(lone, "hello")]
    bus.hub.unsubscribe_all(lone)
    assert bus.hub.stats().subscriptions == 0


class Room(str):
    """A name with a type of its own."""

    __slots__ = ()


def test_a_kind_of_string_is_the_string_that_it_equals(bus: Bus):
    got = bus.recorder()
    bus.subscribe_topic(Room("ann"), Room("lobby"), got.handler)

    bus.hub.send_all_on_topic("lobby", 1)
    bus.hub.send_all_on_topic(Room("lobby"), 2)
    bus.hub.send_others_on_topic(Room("ann"), "lobby", 3)
    bus.settle()

    assert got == [("lobby", 1), ("lobby", 2)]
    bus.hub.unsubscribe_topic("ann", "lobby")
    assert bus.hub.stats().subscriptions == 0


# ---- handlers --------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [None, 1, "print", [print], object(), {}], ids=repr)
def test_a_handler_is_callable(hub: PubSubHub, bad: Any):
    client = PubSub(hub, "ann")
    for call in (
        lambda: hub.subscribe("ann", bad),
        lambda: hub.subscribe_topic("ann", "lobby", bad),
        lambda: client.subscribe(bad),
        lambda: client.subscribe_topic("lobby", bad),
    ):
        refused(hub, TypeError, "handler must be callable", call)


class Unhashable:
    """Callable, but not hashable."""

    __hash__ = None  # type: ignore[assignment]

    def __call__(self, *message: Any) -> None:
        pass


def test_a_handler_is_hashable(hub: PubSubHub):
    match = "handler must be hashable"
    refused(hub, TypeError, match, lambda: hub.subscribe("x", Unhashable()))
    refused(hub, TypeError, match, lambda: hub.subscribe_topic("x", "lobby", Unhashable()))


class Page:
    """Somebody's page with methods of several shapes."""

    def nothing(self) -> None:
        pass

    def message(self, message: Any) -> None:
        pass

    def topic(self, topic: str, message: Any) -> None:
        pass

    async def nothing_async(self) -> None:
        pass

    @staticmethod
    def static(message: Any) -> None:
        pass

    @classmethod
    def class_method(cls, message: Any) -> None:
        pass


class Called:
    """A callable object that takes the message alone."""

    def __call__(self, message: Any) -> None:
        pass


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    """What most decorators return: something that takes anything, and hands it on."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


TAKES_NOT_ONE: dict[str, Callable[..., Any]] = {
    "no parameter": lambda: None,
    "two parameters": lambda a, b: None,
    "a keyword-only parameter": lambda message, *, loud: None,
    "keywords only": lambda **message: None,
    "a method without parameter": Page().nothing,
    "an async method without parameter": Page().nothing_async,
    "a method for topics": Page().topic,
    "an unbound method": Page.message,
    "a partial with too much": functools.partial(on_message, "one"),
    "a partial with too little": functools.partial(on_topic),
    "a class without parameter": Page,
    "a built-in": [].clear,
    "a decorated function without parameter": decorated(lambda: None),
    "a default too little": lambda a, b, c=1: None,
}


@pytest.mark.parametrize("bad", TAKES_NOT_ONE.values(), ids=TAKES_NOT_ONE)
def test_a_broadcast_handler_takes_the_message(hub: PubSubHub, bad: Callable[..., Any]):
    refused(hub, TypeError, "handler.*message", lambda: hub.subscribe("ann", bad))
    refused(hub, TypeError, "handler.*message", lambda: PubSub(hub, "ann").subscribe(bad))


TAKES_NOT_TWO: dict[str, Callable[..., Any]] = {
    "no parameter": lambda: None,
    "one parameter": lambda message: None,
    "three parameters": lambda a, b, c: None,
    "a keyword-only parameter": lambda topic, message, *, loud: None,
    "a method for broadcasts": Page().message,
    "a static method for broadcasts": Page.static,
    "a class method for broadcasts": Page.class_method,
    "a callable object for broadcasts": Called(),
    "a partial with too much": functools.partial(on_topic, "one"),
    "a built-in": [].append,
}


@pytest.mark.parametrize("bad", TAKES_NOT_TWO.values(), ids=TAKES_NOT_TWO)
def test_a_topic_handler_takes_the_topic_and_the_message(hub: PubSubHub, bad: Callable[..., Any]):
    match = "handler.*topic.*message"
    refused(hub, TypeError, match, lambda: hub.subscribe_topic("ann", "lobby", bad))
    refused(hub, TypeError, match, lambda: PubSub(hub, "ann").subscribe_topic("lobby", bad))


TAKES_ONE_AND_TWO: dict[str, Callable[..., Any]] = {
    "any number": lambda *args: None,
    "any number and keywords": lambda *args, **kwargs: None,
    "a default": lambda a, b=None: None,
    "defaults only": lambda a=1, b=2, c=3: None,
    "a decorated function": decorated(lambda a, b=None: None),
    "an optional keyword": lambda a, b=None, *, loud=False: None,
    "a partial with a keyword": functools.partial(lambda a, b=1, *, loud: None, loud=True),
    "a built-in without signature": max,
    "print": print,
}


@pytest.mark.parametrize("good", TAKES_ONE_AND_TWO.values(), ids=TAKES_ONE_AND_TWO)
def test_whatever_can_be_called_so_is_a_handler(good: Callable[..., Any]):
    hub = PubSubHub()
    hub.subscribe("ann", good)
    hub.subscribe_topic("ann", "lobby", good)

    hub.send_all("hello")
    hub.send_all_on_topic("lobby", "hello")

    assert hub.stats().delivered == 2
    assert hub.stats().failed == 0


def test_a_method_of_a_builtin_is_a_handler(inline_bus: Bus):
    got: list[Any] = []
    inline_bus.subscribe("ann", got.append)
    inline_bus.subscribe("ann", got.append)

    inline_bus.hub.send_all("hello")

    assert got == ["hello"]


def test_what_has_no_honest_signature_is_given_the_benefit_of_the_doubt():
    hub = hub_with_ann()

    class Liar:
        __signature__ = "not a signature"

        def __call__(self, *args: Any) -> None:
            pass

    hub.subscribe("ann", Liar())
    hub.send_all("hello")

    assert hub.stats().delivered == 2


@pytest.mark.parametrize("handler", [on_message_async, functools.partial(on_message_async)])
def test_an_async_handler_without_any_loop_is_refused_with_what_to_do(handler: Any):
    for hub in (PubSubHub(), PubSubHub(executor=WatchedExecutor(1))):
        for subscribe in (
            lambda hub=hub: hub.subscribe("ann", handler),
            lambda hub=hub: hub.subscribe_topic("ann", "lobby", on_topic_async),
        ):
            refused(hub, RuntimeError, r"PubSubHub\(loop=", subscribe)
        assert hub.stats().sessions == hub.stats().topics == 0


# ---- arguments -------------------------------------------------------------------------------


def test_a_call_with_the_wrong_arguments_is_a_type_error(hub: PubSubHub):
    calls: list[Callable[[], object]] = [
        lambda: hub.send_all(),  # type: ignore[call-arg]
        lambda: hub.send_all("a", "b"),  # type: ignore[call-arg]
        lambda: hub.subscribe("ann"),  # type: ignore[call-arg]
        lambda: hub.subscribe("ann", print, True),  # type: ignore[misc]
        lambda: hub.subscribe("ann", print, overlap=True),  # type: ignore[call-arg]
        lambda: hub.unsubscribe(),  # type: ignore[call-arg]
        lambda: hub.send_all_on_topic("lobby"),  # type: ignore[call-arg]
        lambda: PubSubHub(None, None, 5),  # type: ignore[misc]
        lambda: PubSub(hub),  # type: ignore[call-arg]
    ]
    before = numbers(hub)
    for call in calls:
        with pytest.raises(TypeError):
            call()
    assert numbers(hub) == before


@pytest.mark.parametrize("bad", ["yes", 1, None, object()], ids=repr)
def test_concurrent_is_a_bool(hub: PubSubHub, bad: Any):
    refused(hub, TypeError, "concurrent", lambda: hub.subscribe("x", on_message, concurrent=bad))


@pytest.mark.parametrize("bad", [1, "loop", object(), asyncio, asyncio.SelectorEventLoop], ids=repr)
def test_a_loop_is_an_event_loop(bad: Any):
    with pytest.raises(TypeError, match="loop must be an event loop"):
        PubSubHub(bad)
    with pytest.raises(TypeError, match="loop must be an event loop"):
        PubSubHub(loop=bad)


@pytest.mark.parametrize("bad", [1, "executor", object(), ThreadPoolExecutor], ids=repr)
def test_an_executor_has_submit(bad: Any):
    with pytest.raises(TypeError, match="executor"):
        PubSubHub(executor=bad)


POSITIVE = ["max_pending", "max_outbox", "max_message_bytes"]
COUNTS = ["history", "max_history"]


@pytest.mark.parametrize("argument", [*POSITIVE, *COUNTS])
@pytest.mark.parametrize("bad", ["10", 1.5, object(), [10], True, None], ids=repr)
def test_a_limit_is_an_int(argument: str, bad: Any):
    with pytest.raises(TypeError, match=rf"^{argument} must be an int, not {type(bad).__name__}$"):
        PubSubHub(**{argument: bad})


@pytest.mark.parametrize("argument", POSITIVE)
@pytest.mark.parametrize("bad", [0, -1, -(10**30)])
def test_a_limit_of_what_may_wait_is_at_least_one(argument: str, bad: int):
    with pytest.raises(ValueError, match=rf"^{argument} must be at least 1, not {bad}$"):
        PubSubHub(**{argument: bad})


@pytest.mark.parametrize("argument", COUNTS)
def test_a_number_of_messages_to_keep_is_not_negative(argument: str):
    with pytest.raises(ValueError, match=rf"^{argument} must not be negative, but is -1$"):
        PubSubHub(**{argument: -1})


def test_a_number_that_python_does_not_write_is_refused_without_being_written(capfd: Any):
    with pytest.raises(ValueError, match=r"^max_pending must be at least 1, not "):
        PubSubHub(max_pending=-(10**5000))
    assert capfd.readouterr() == ("", "")


def test_what_has_a_default_is_not_none():
    with pytest.raises(TypeError, match="namespace must be a str, not NoneType"):
        PubSubHub(namespace=None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="presence must be a bool, not NoneType"):
        PubSubHub(presence=None)  # type: ignore[arg-type]


def test_a_rule_of_a_topic_says_how_many_messages(hub: PubSubHub):
    keep = functools.partial(hub.keep, "lobby")
    for bad in ("10", 1.5, True):
        refused(hub, TypeError, "messages must be an int", functools.partial(keep, messages=bad))
    refused(hub, ValueError, "messages must not be", lambda: keep(messages=-1))
    refused(hub, TypeError, "seconds must be a num", lambda: keep(messages=1, seconds="1"))  # type: ignore[arg-type]
    refused(hub, ValueError, "seconds must be more", lambda: keep(messages=1, seconds=0))
    refused(hub, ValueError, "seconds needs a num", lambda: keep(messages=None, seconds=1))


TIMEOUTS: dict[str, Callable[[PubSubHub, Any], object]] = {
    "close": lambda hub, timeout: hub.close(timeout),
    "aclose": lambda hub, timeout: hub.aclose(timeout),
    "listen": lambda hub, timeout: hub.listen("ann", timeout=timeout),
    "ready": lambda hub, timeout: hub.listen("ann").ready(timeout),
}
HUGE = 10**400


@pytest.mark.parametrize("call", TIMEOUTS.values(), ids=TIMEOUTS)
def test_a_timeout_is_a_number_of_seconds(hub: PubSubHub, call: Any):
    number = "timeout must be a number of seconds, or None, not"
    for bad in ("soon", True, object(), [1]):
        refused(hub, TypeError, f"{number} {type(bad).__name__}", lambda bad=bad: call(hub, bad))
    refused(hub, ValueError, f"{number} nan", lambda: call(hub, float("nan")))
    refused(hub, ValueError, "timeout must not be negative, but is -1", lambda: call(hub, -1))
    refused(hub, ValueError, "timeout must not be negative, but is -inf", lambda: call(hub, -HUGE))


def test_a_timeout_that_is_too_large_for_a_float_is_as_good_as_none():
    hub = PubSubHub()
    with hub.listen("ann", timeout=HUGE) as messages:
        messages.ready(HUGE)
        hub.send_all("hello")
        assert next(messages) == "hello"
    hub.close(HUGE)
    assert hub.closed


@pytest.mark.parametrize("bad", [None, 1, b"drop_oldest"], ids=repr)
def test_overflow_is_a_string(bad: Any):
    with pytest.raises(TypeError, match="overflow must be a str"):
        PubSubHub(overflow=bad)


@pytest.mark.parametrize("bad", ["", "drop", "DROP_OLDEST", "\ud800"], ids=ascii)
def test_overflow_is_one_of_three_words(bad: Any):
    with pytest.raises(ValueError, match="overflow must be 'drop_oldest', 'drop_newest' or"):
        PubSubHub(overflow=bad)


def test_a_huge_max_pending_is_as_good_as_none():
    hub, got = PubSubHub(max_pending=10**30), Recorder()
    hub.subscribe("ann", got.record)
    hub.send_all("hello")
    assert got == ["hello"]


@pytest.mark.parametrize("hook", ["on_error", "on_overflow"])
def test_a_hook_is_callable(hook: str):
    with pytest.raises(TypeError, match=f"{hook} must be callable"):
        PubSubHub(**{hook: "print"})


@pytest.mark.parametrize("bad", [None, "hub", PubSubHub, object()], ids=repr)
def test_a_client_needs_a_hub(bad: Any):
    with pytest.raises(TypeError, match=r"hub must be a pagebus\.PubSubHub"):
        PubSub(bad, "ann")


# ---- a closed hub ----------------------------------------------------------------------------


def test_a_closed_hub_refuses_sends_and_subscriptions_but_lets_go():
    hub = hub_with_ann()
    handle = hub.subscribe("bob", on_message)
    client = PubSub(hub, "ann")
    hub.close()

    for call in (
        lambda: hub.send_all("hello"),
        lambda: hub.send_all_on_topic("lobby", "hello"),
        lambda: hub.send_others("ann", "hello"),
        lambda: hub.send_others_on_topic("ann", "lobby", "hello"),
        lambda: hub.subscribe("cat", on_message),
        lambda: hub.subscribe("ann", on_message),
        lambda: hub.subscribe_topic("cat", "lobby", on_topic),
        lambda: client.send_all("hello"),
        lambda: client.subscribe(on_message),
    ):
        refused(hub, HubClosed, "closed", call)
    handle.cancel()
    hub.unsubscribe("ann")
    hub.unsubscribe_topic("ann", "lobby")
    hub.unsubscribe_all("ann")
    hub.close()

    assert hub.stats().subscriptions == 0


# ---- loops and executors that are gone -------------------------------------------------------


@pytest.mark.parametrize("kind", LOOPS)
def test_a_closed_loop_is_refused_by_the_constructor(kind: str):
    loop = LOOPS[kind]()
    loop.close()
    with pytest.raises(ValueError, match="loop is closed"):
        PubSubHub(loop)


@pytest.mark.parametrize("kind", LOOPS)
def test_a_loop_that_was_closed_is_an_error_at_subscribe_and_at_send(kind: str, log: Any):
    loop = LOOPS[kind]()
    hub = PubSubHub(loop)
    hub.subscribe("ann", on_message_async)
    hub.subscribe_topic("ann", "lobby", on_topic_async)
    loop.close()

    refused(hub, RuntimeError, "loop is closed", lambda: hub.subscribe("bob", on_message_async))
    for send in (
        lambda: hub.send_all("hello"),
        lambda: hub.send_all_on_topic("lobby", "hello"),
        lambda: hub.send_others("bob", "hello"),
        lambda: hub.send_others_on_topic("bob", "lobby", "hello"),
    ):
        with pytest.raises(RuntimeError, match="loop is closed"):
            send()
        with pytest.raises(RuntimeError, match="loop is closed"):
            send()
    hub.unsubscribe_all("ann")

    assert hub.stats().pending == hub.stats().subscriptions == 0
    log.take_all()


def test_sync_handlers_do_not_mind_a_closed_loop(log: Any):
    loop, got = asyncio.new_event_loop(), Recorder()
    hub = PubSubHub(loop)
    hub.subscribe("ann", got.record)
    loop.close()

    hub.send_all("hello")
    hub.subscribe("bob", got.record)

    assert got == ["hello"]


def test_a_closed_loop_does_not_keep_sync_handlers_from_their_message(log: Any):
    loop, got = asyncio.new_event_loop(), Recorder()
    hub = PubSubHub(loop)
    hub.subscribe("ann", on_message_async)
    hub.subscribe("bob", got.record)
    loop.close()

    with pytest.raises(RuntimeError, match="loop is closed"):
        hub.send_all("hello")

    assert got == ["hello"]
    log.take_all()


def test_a_shut_down_executor_is_refused_by_the_constructor():
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(ValueError, match="executor is shut down"):
        PubSubHub(executor=executor)


def test_an_executor_that_was_shut_down_is_an_error_at_subscribe_and_at_send(log: Any):
    executor, got = ThreadPoolExecutor(1), Recorder()
    hub = PubSubHub(executor=executor)
    hub.subscribe("ann", got.record)
    executor.shutdown()

    refused(hub, RuntimeError, "executor is shut down", lambda: hub.subscribe("bob", got.record))
    for _ in range(3):
        with pytest.raises(RuntimeError, match=r"executor is shut down|after shutdown"):
            hub.send_all("hello")
    hub.unsubscribe_all("ann")

    assert got == []
    assert hub.stats().pending == hub.stats().subscriptions == 0
    log.take_all()


class Refusing(Executor):
    """An executor of somebody's own that takes nothing, for a reason of its own."""

    def submit(self, *_: Any, **__: Any) -> Any:
        raise OSError("no threads today")


def test_an_executor_that_takes_nothing_is_the_senders_error_and_loses_what_it_says(log: Any):
    hub, got = PubSubHub(executor=Refusing()), Recorder()
    hub.subscribe("ann", got.record)

    for _ in range(2):
        with pytest.raises((OSError, RuntimeError), match=r"no threads today|executor"):
            hub.send_all("hello")

    assert hub.stats().pending == 0
    log.take_all()


# ---- gone while messages are queued ----------------------------------------------------------


def counted(log: Any) -> int:
    """The sum of the counts in the log lines about what could not be delivered."""
    lines = [record.getMessage() for record in log.take_all()]
    assert lines, "nothing was logged"
    return sum(int(word) for line in lines for word in line.split() if word.isdigit())


@pytest.mark.thread_unsafe(reason="who collects garbage reports it, whoever has left it")
@pytest.mark.parametrize("kind", LOOPS)
def test_messages_that_a_closing_loop_leaves_behind_are_counted_in_the_log(kind: str, log: Any):
    loop, got = LOOPS[kind](), Recorder()
    hub = PubSubHub(loop)
    hub.subscribe("ann", got.record_async)
    loop.run_until_complete(turns_of_the_loop(2))
    for message in range(50):
        hub.send_all(message)

    loop.close()
    collect_garbage()

    assert counted(log) == 50
    assert got == []
    assert (hub.stats().pending, hub.stats().dropped) == (0, 50)
    with pytest.raises(RuntimeError, match="loop is closed"):
        hub.send_all("too late")
    log.take_all()


@pytest.mark.thread_unsafe(reason="who collects garbage reports it, whoever has left it")
@pytest.mark.parametrize("kind", LOOPS)
def test_messages_behind_a_suspended_handler_of_a_closing_loop_are_counted_too(kind: str, log: Any):
    loop, begun = LOOPS[kind](), Recorder()
    # asyncio tells about a task that was destroyed; that is the closing program's doing.
    loop.set_exception_handler(lambda _, context: None)
    hub = PubSubHub(loop)

    async def waits(message: Any) -> None:
        begun.record(message)
        await asyncio.get_running_loop().create_future()

    hub.subscribe("ann", waits)
    for message in range(50):
        hub.send_all(message)
    loop.run_until_complete(turns_of_the_loop(10))
    assert begun == [0]

    loop.close()
    collect_garbage()

    # The one that had begun was delivered.
    assert counted(log) == 49
    assert hub.stats().pending == 0
    assert hub.stats().dropped == 49


def test_a_loop_that_subscribers_brought_along_and_that_closes_hurts_no_other_loop(log: Any):
    hub, stays, goes = PubSubHub(), LoopThread(), LoopThread()
    here, there = Recorder(), Recorder()
    stays.run(hub.subscribe, "ann", here.record_async)
    goes.run(hub.subscribe, "bob", there.record_async)
    hub.send_all(1)
    there.wait(1)
    goes.close()

    hub.send_all(2)
    hub.send_all(3)

    assert here.wait(3) == [1, 2, 3]
    assert there == [1]
    assert hub.stats().subscriptions == 1
    stays.close()
    log.take_all()


@pytest.mark.thread_unsafe(reason="who collects garbage reports it, whoever has left it")
def test_messages_that_a_cancelled_executor_leaves_behind_are_counted_in_the_log(log: Any):
    executor, busy, got = WatchedExecutor(1), Gate(), Recorder()
    executor.submit(busy.wait)
    hub = PubSubHub(executor=executor)
    hub.subscribe("ann", got.record)
    for message in range(50):
        hub.send_all(message)

    executor.shutdown(wait=False, cancel_futures=True)
    busy.open()
    executor.shutdown()
    collect_garbage()

    assert got == []
    assert counted(log) == 50
    assert (hub.stats().pending, hub.stats().dropped) == (0, 50)


def test_what_a_shut_down_executor_still_delivers_and_what_it_does_not_add_up(log: Any):
    executor, gate, got = WatchedExecutor(2), Gate(), Recorder()
    hub = PubSubHub(executor=executor)

    def handler(message: int) -> None:
        gate.wait(message)
        got.record(message)

    for number in range(4):
        hub.subscribe(f"session {number}", handler)
    for message in range(500):
        hub.send_all(message)
    gate.arrivals.wait(2)
    executor.shutdown(wait=False)
    gate.open()
    executor.shutdown()

    stats = hub.stats()
    assert stats.delivered == len(got)
    assert stats.delivered + stats.dropped == 2000
    assert stats.pending == 0
    assert (counted(log) if stats.dropped else 0) == stats.dropped


@pytest.mark.thread_unsafe(reason="who collects garbage reports it, whoever has left it")
def test_a_send_to_a_loop_that_closes_at_the_same_time_never_hangs(log: Any):
    for _ in range(20):
        thread = LoopThread()
        hub = PubSubHub(thread.loop)
        hub.subscribe("ann", on_message_async)
        sender = LoopThread()

        def send_for_ever(hub: PubSubHub = hub) -> None:
            for message in itertools.count():
                hub.send_all(message)

        def send_until_refused() -> None:
            with pytest.raises(RuntimeError, match="loop is closed"):
                send_for_ever()

        done = sender.loop.run_in_executor(None, send_until_refused)
        thread.stop()
        thread.loop.close()
        sender.run_async(asyncio.wait_for(done, DEADLINE))
        sender.run_async(sender.loop.shutdown_default_executor())
        sender.close()
        collect_garbage()
        assert hub.stats().pending == 0
        log.take_all()
