"""Streams and listeners: a session's messages for an `async for` loop, or for that of a thread."""

import asyncio
import contextlib
import itertools
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import python_programs
from delivery_modes import (
    DEADLINE,
    EXECUTOR,
    INLINE,
    LOOPS,
    Bus,
    Gate,
    LoopThread,
    NewLoop,
    Recorder,
    WatchedExecutor,
    collect_garbage,
    in_threads,
    inversions,
    numbers,
    turns_of_the_loop,
)
from pagebus import HubClosed, Listener, Overflow, PubSub, PubSubHub, Stream

NOTHING = {"pending": 0, "sessions": 0, "topics": 0, "subscriptions": 0}
END = "the end"
GOODBYES: dict[str, Callable[[PubSub], None]] = {
    "unsubscribe_topic": lambda ps: ps.unsubscribe_topic("news"),
    "unsubscribe_all": lambda ps: ps.unsubscribe_all(),
}


def what_is_left(hub: PubSubHub) -> dict[str, int]:
    counts = numbers(hub)
    return {name: counts[name] for name in NOTHING}


async def read_until_end(messages: Stream, got: Recorder) -> None:
    """Record what comes, and that the loop has ended."""
    async for message in messages:
        got.record(message)
        if message == END:
            break
    else:
        got.record("no more")


class Reading:
    """A task on a loop that reads a stream into a recorder, from before the next send on."""

    def __init__(self, loop: LoopThread, stream: Callable[[], Stream]) -> None:
        self.got, self.loop = Recorder(), loop
        self._entered = Recorder()
        self._task = asyncio.run_coroutine_threadsafe(self._read(stream), loop.loop)
        self._entered.wait(1)

    async def _read(self, stream: Callable[[], Stream]) -> None:
        async with stream() as messages:
            self._entered.record(None)
            await read_until_end(messages, self.got)

    def result(self) -> list[Any]:
        """What was read, when the task has ended."""
        self._task.result(DEADLINE)
        return list(self.got)


def patiently(messages: Listener) -> Any:
    """The next message, however often the listener says that none came in time."""
    while True:
        with contextlib.suppress(TimeoutError):
            return next(messages)


def loop_of(bus: Bus) -> LoopThread:
    assert bus.loop
    return bus.loop


@pytest.fixture(params=LOOPS)
def other_loop(request: pytest.FixtureRequest) -> Iterator[LoopThread]:
    loop = LoopThread(LOOPS[request.param])
    yield loop
    loop.close()


# ---- who gets it, and in which order ---------------------------------------------------------


def test_a_stream_gives_what_is_sent_on_its_topic_from_its_beginning_on(async_bus: Bus):
    ps = PubSub(async_bus.hub, "ann")
    async_bus.hub.send_all_on_topic("news", "too early")
    reading = Reading(loop_of(async_bus), lambda: ps.stream("news"))

    async_bus.hub.send_all("to all")
    async_bus.hub.send_all_on_topic("other", "elsewhere")
    for message in ["one", "two", END]:
        async_bus.hub.send_all_on_topic("news", message)

    assert reading.result() == ["one", "two", END]
    assert what_is_left(async_bus.hub) == NOTHING


def test_a_stream_without_a_topic_gives_what_is_sent_to_all(async_bus: Bus):
    reading = Reading(loop_of(async_bus), lambda: async_bus.hub.stream("ann"))

    async_bus.hub.send_all_on_topic("news", "on a topic")
    async_bus.hub.send_all("one")
    async_bus.hub.send_others("ann", "from ann herself")
    async_bus.hub.send_others("bob", END)

    assert reading.result() == ["one", END]


def test_a_listener_gives_what_is_sent_inside_of_its_block(bus: Bus):
    ps = PubSub(bus.hub, "ann")
    got = []
    with ps.listen("news") as messages:
        bus.hub.send_all("to all")
        ps.send_others_on_topic("news", "from ann herself")
        for message in ["one", "two", END]:
            bus.hub.send_all_on_topic("news", message)
        for message in messages:
            got.append(message)
            if message == END:
                break
    bus.hub.send_all_on_topic("news", "too late")

    assert got == ["one", "two", END]
    assert what_is_left(bus.hub) == NOTHING


@pytest.mark.parametrize(
    "message",
    [
        *((), (1, 2), (ValueError("x"), None), ValueError, None, [1]),
        *(StopIteration(1), StopAsyncIteration(), KeyError("x")),
    ],
    ids=repr,
)
def test_any_object_comes_as_it_was_sent_and_an_exception_is_not_raised(message: Any):
    async def main() -> Any:
        hub = PubSubHub(asyncio.get_running_loop())
        async with hub.stream("ann") as messages:
            hub.send_all(message)
            return await anext(messages)

    assert asyncio.run(main()) is message


def test_eight_threads_send_and_streams_and_handlers_see_one_order(async_bus: Bus):
    hub, heard = async_bus.hub, async_bus.recorder()
    async_bus.subscribe("a handler", heard.handler)
    readings = [
        Reading(loop_of(async_bus), lambda number=number: hub.stream(f"reader {number}"))
        for number in range(3)
    ]

    in_threads(*(lambda who=who: [hub.send_all((who, n)) for n in range(200)] for who in range(8)))
    hub.send_all(END)

    everything = list(heard.wait(1601))
    assert [reading.result() for reading in readings] == [everything] * 3
    for who in range(8):
        assert inversions([message for message in everything[:-1] if message[0] == who]) == 0


def test_eight_threads_send_and_a_listener_sees_the_order_of_a_handler(bus: Bus):
    hub, heard = bus.hub, Recorder()
    with hub.subscribe("a handler", heard.record), hub.listen("a reader") as messages:
        in_threads(
            *(lambda who=who: [hub.send_all((who, n)) for n in range(200)] for who in range(8))
        )
        hub.send_all(END)
        got = list(iter(messages.__next__, END))
        heard.wait(1601)

    assert [*got, END] == heard


# ---- the end ---------------------------------------------------------------------------------


def fail() -> None:
    raise ZeroDivisionError


def test_a_block_that_fails_leaves_nothing_and_keeps_its_error(async_bus: Bus):
    async def main() -> None:
        async with async_bus.hub.stream("ann", "news") as messages:
            for number in range(10):
                async_bus.hub.send_all_on_topic("news", number)
            async for _ in messages:
                fail()

    with pytest.raises(ZeroDivisionError):
        loop_of(async_bus).run_async(main())

    assert what_is_left(async_bus.hub) == NOTHING


@pytest.mark.parametrize("topic", [None, "news"])
def test_a_listeners_block_that_fails_leaves_nothing_and_keeps_its_error(
    bus: Bus, topic: str | None
):
    def read() -> None:
        with bus.hub.listen("ann", topic) as messages:
            for number in range(10):
                bus.hub.send_all_on_topic("news", number)
                bus.hub.send_all(number)
            for _ in messages:
                fail()

    with pytest.raises(ZeroDivisionError):
        read()

    assert bus.hub.stats().subscriptions == 0
    bus.settle()
    assert what_is_left(bus.hub) == NOTHING


def test_a_task_that_is_cancelled_leaves_nothing(async_bus: Bus):
    async def main() -> int:
        waits = asyncio.Event()

        async def read() -> None:
            async with async_bus.hub.stream("ann", "news") as messages:
                waits.set()
                await anext(messages)

        task = asyncio.ensure_future(read())
        await waits.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return len(asyncio.all_tasks())

    assert loop_of(async_bus).run_async(main()) == 1
    assert what_is_left(async_bus.hub) == NOTHING


def test_a_block_that_ends_normally_leaves_no_reference(async_bus: Bus):
    class Message:
        pass

    async def main() -> list[weakref.ref[Any]]:
        read, unread = Message(), Message()
        async with async_bus.hub.stream("ann") as messages:
            async_bus.hub.send_all(read)
            async_bus.hub.send_all(unread)
            assert await anext(messages) is read
            return [weakref.ref(thing) for thing in (read, unread, messages)]

    references = loop_of(async_bus).run_async(main())
    async_bus.settle()

    assert [reference() for reference in references] == [None] * 3
    assert what_is_left(async_bus.hub) == NOTHING


@pytest.mark.parametrize("goodbye", GOODBYES.values(), ids=GOODBYES)
def test_a_goodbye_ends_a_stream_that_waits(async_bus: Bus, goodbye: Callable[[PubSub], None]):
    ps = PubSub(async_bus.hub, "ann")
    reading = Reading(loop_of(async_bus), lambda: ps.stream("news"))
    async_bus.hub.send_all_on_topic("news", "one")
    reading.got.wait(1)
    loop_of(async_bus).spin()

    goodbye(ps)
    async_bus.hub.send_all_on_topic("news", "two")

    assert reading.result() == ["one", "no more"]


@pytest.mark.parametrize("goodbye", [PubSub.unsubscribe, PubSub.unsubscribe_all])
def test_a_goodbye_to_broadcasts_ends_their_stream_that_waits(
    async_bus: Bus, goodbye: Callable[[PubSub], None]
):
    ps = PubSub(async_bus.hub, "ann")
    reading = Reading(loop_of(async_bus), ps.stream)
    async_bus.hub.send_all("one")
    reading.got.wait(1)
    loop_of(async_bus).spin()

    goodbye(ps)
    async_bus.hub.send_all("two")

    assert reading.result() == ["one", "no more"]
    assert what_is_left(async_bus.hub) == NOTHING


@pytest.mark.parametrize("goodbye", GOODBYES.values(), ids=GOODBYES)
def test_what_is_queued_at_a_goodbye_is_not_handed_out(
    async_bus: Bus, goodbye: Callable[[PubSub], None]
):
    ps = PubSub(async_bus.hub, "ann")

    async def main() -> list[Any]:
        async with ps.stream("news") as messages:
            for number in range(10):
                ps.send_all_on_topic("news", number)
            got = [await anext(messages)]
            goodbye(ps)
            assert what_is_left(async_bus.hub) == NOTHING
            return got + [message async for message in messages]

    assert loop_of(async_bus).run_async(main()) == [0]


def test_a_goodbye_to_broadcasts_leaves_the_streams_of_topics():
    hub = PubSubHub()
    with hub.listen("ann") as broadcasts, hub.listen("ann", "news", timeout=DEADLINE) as news:
        hub.unsubscribe("ann")
        hub.send_all_on_topic("news", "one")
        assert (next(broadcasts, None), next(news)) == (None, "one")


@pytest.mark.parametrize("goodbye", GOODBYES.values(), ids=GOODBYES)
def test_a_goodbye_ends_a_listener_that_waits(bus: Bus, goodbye: Callable[[PubSub], None]):
    ps = PubSub(bus.hub, "ann")
    with ps.listen("news") as messages:
        waits = threading.Timer(0.05, goodbye, [ps])
        waits.start()
        assert list(messages) == []
        waits.join()
        bus.hub.send_all_on_topic("news", "too late")
        assert list(messages) == []


def test_what_was_delivered_before_a_close_is_handed_out_and_then_the_loop_ends(async_bus: Bus):
    hub = async_bus.hub

    async def main() -> list[Any]:
        async with hub.stream("ann") as messages:
            for number in range(10):
                hub.send_all(number)
            await hub.aclose()
            return [message async for message in messages]

    assert loop_of(async_bus).run_async(main()) == list(range(10))
    assert what_is_left(hub) == NOTHING


def test_a_close_ends_a_stream_that_waits(async_bus: Bus):
    reading = Reading(loop_of(async_bus), lambda: async_bus.hub.stream("ann"))
    async_bus.hub.close()
    assert reading.result() == ["no more"]


def test_a_close_ends_a_listener_after_what_was_delivered(bus: Bus):
    hub = bus.hub
    with hub.listen("ann") as messages:
        for number in range(10):
            hub.send_all(number)
        hub.close()
        assert list(messages) == list(range(10))


def test_a_goodbye_while_the_hub_closes_is_a_goodbye():
    async def main() -> list[list[Any]]:
        hub = PubSubHub(asyncio.get_running_loop())
        waits = asyncio.Event()

        async def handler(_: Any) -> None:
            await waits.wait()

        hub.subscribe("busy", handler)
        async with hub.stream("ann") as ann, hub.stream("bob") as bob:
            hub.send_all(1)
            await turns_of_the_loop(10)
            closing = asyncio.ensure_future(hub.aclose())
            await asyncio.sleep(0)
            hub.unsubscribe_all("ann")
            waits.set()
            await closing
            return [[m async for m in ann], [m async for m in bob]]

    assert asyncio.run(main()) == [[], [1]]


# ---- waiting ---------------------------------------------------------------------------------


def test_a_wait_that_is_cancelled_loses_no_message(async_bus: Bus):
    hub, count = async_bus.hub, 2_000
    loop = loop_of(async_bus)

    async def read() -> tuple[list[Any], int]:
        got, cancelled = [None], 0
        async with hub.stream("ann") as messages:
            entered.record(None)
            for attempt in itertools.count():
                if got[-1] == END:
                    break
                task = asyncio.ensure_future(anext(messages))
                for _ in range(attempt % 5):
                    await asyncio.sleep(0)
                if not task.done():
                    task.cancel()
                try:
                    got.append(await task)
                except asyncio.CancelledError:
                    cancelled += 1
        return got, cancelled

    entered = Recorder()
    reading = asyncio.run_coroutine_threadsafe(read(), loop.loop)
    entered.wait(1)
    for number in range(count):
        hub.send_all(number)
        if number % 50 == 0:
            loop.spin(3)
    hub.send_all(END)
    got, cancelled = reading.result(DEADLINE)

    assert got == [None, *range(count), END]
    assert cancelled > 0


def test_a_wait_that_times_out_can_be_begun_again(async_bus: Bus):
    async def main() -> Any:
        async with async_bus.hub.stream("ann") as messages:
            for _ in range(3):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(anext(messages), 0.01)
            async_bus.hub.send_all("hello")
            return await asyncio.wait_for(anext(messages), DEADLINE)

    assert loop_of(async_bus).run_async(main()) == "hello"


@pytest.mark.skipif(not hasattr(asyncio, "timeout"), reason="asyncio.timeout is of Python 3.11")
def test_a_time_limit_around_a_loop_ends_it_and_the_next_loop_goes_on(async_bus: Bus):
    got = Recorder()

    async def read(messages: Stream, seconds: float) -> None:
        async with asyncio.timeout(seconds):
            await read_until_end(messages, got)

    async def main() -> None:
        async with async_bus.hub.stream("ann") as messages:
            async_bus.hub.send_all("one")
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await read(messages, 0.01)
            async_bus.hub.send_all(END)
            await read(messages, DEADLINE)

    loop_of(async_bus).run_async(main())
    assert got == ["one", END]
    assert what_is_left(async_bus.hub) == NOTHING


@pytest.mark.skipif(not hasattr(asyncio, "timeout"), reason="asyncio.timeout is of Python 3.11")
def test_a_time_limit_around_a_block_ends_its_subscription(async_bus: Bus):
    async def main() -> None:
        async with asyncio.timeout(0.01), async_bus.hub.stream("ann") as messages:
            await anext(messages)

    with pytest.raises(TimeoutError):
        loop_of(async_bus).run_async(main())
    assert what_is_left(async_bus.hub) == NOTHING


def test_the_next_message_can_be_a_task_of_its_own(async_bus: Bus):
    async def main() -> Any:
        async with async_bus.hub.stream("ann") as messages:
            task = asyncio.create_task(messages.__anext__())
            await asyncio.sleep(0)
            assert "Stream.__anext__" in repr(task)
            async_bus.hub.send_all("hello")
            return await task

    assert loop_of(async_bus).run_async(main()) == "hello"


def test_a_second_task_that_waits_is_told_so_and_harms_nobody(async_bus: Bus):
    async def main() -> Any:
        async with async_bus.hub.stream("ann") as messages:
            first = asyncio.ensure_future(anext(messages))
            await asyncio.sleep(0)
            for _ in range(2):
                with pytest.raises(RuntimeError, match="another reader waits"):
                    await anext(messages)
            async_bus.hub.send_all("hello")
            return await first

    assert loop_of(async_bus).run_async(main()) == "hello"


def test_a_second_thread_that_waits_is_told_so():
    hub = PubSubHub()
    results = Recorder()
    with hub.listen("ann", timeout=DEADLINE) as messages:

        def read() -> None:
            try:
                results.record(next(messages))
            except RuntimeError as error:
                results.record(str(error))

        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        assert "another reader waits" in results.wait(1)[0]
        hub.send_all("hello")
        assert results.wait(2)[1] == "hello"
        for thread in threads:
            thread.join(DEADLINE)


def test_a_task_that_ends_the_block_ends_another_ones_wait(async_bus: Bus):
    async def main() -> str:
        async with async_bus.hub.stream("ann") as messages:
            waiting = asyncio.ensure_future(anext(messages, "ended"))
            await asyncio.sleep(0)
        return await waiting

    assert loop_of(async_bus).run_async(main()) == "ended"


def test_a_task_that_is_at_its_message_when_another_one_ends_the_block_ends_cleanly(async_bus: Bus):
    async def main() -> list[Any]:
        got, entered, goes_on = [], asyncio.Event(), asyncio.Event()

        async def read(messages: Stream) -> None:
            async for message in messages:
                got.append(message)
                entered.set()
                await goes_on.wait()

        async with async_bus.hub.stream("ann") as messages:
            reading = asyncio.ensure_future(read(messages))
            async_bus.hub.send_all("one")
            async_bus.hub.send_all("two")
            await entered.wait()
        goes_on.set()
        await reading
        return got

    assert loop_of(async_bus).run_async(main()) == ["one"]


def test_a_listener_waits_no_longer_than_it_was_told_and_can_go_on(bus: Bus):
    hub = bus.hub
    with hub.listen("ann", timeout=0.01) as messages:
        for _ in range(2):
            with pytest.raises(TimeoutError, match=r"within 0\.01 seconds"):
                next(messages)
        hub.send_all("hello")
        assert patiently(messages) == "hello"


def test_a_listener_with_a_timeout_of_zero_does_not_wait():
    hub = PubSubHub()
    with hub.listen("ann", timeout=0) as messages:
        with pytest.raises(TimeoutError):
            next(messages)
        hub.send_all("hello")
        assert next(messages) == "hello"


@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize("timeout", [None, DEADLINE])
def test_a_listener_that_would_stop_an_event_loop_says_what_to_use_instead(
    new_loop: NewLoop, timeout: float | None
):
    hub, loop = PubSubHub(), new_loop()

    async def main() -> None:
        with hub.listen("ann", timeout=timeout) as messages:
            for _ in range(2):
                with pytest.raises(RuntimeError, match=r"stop the event loop .* use stream\(\)"):
                    next(messages)
            hub.send_all("hello")
            assert next(messages) == "hello"
            waiting = loop.run_in_executor(None, next, messages)
            loop.call_later(0.01, hub.send_all, "in a thread it may wait")
            assert await waiting == "in a thread it may wait"
            hub.unsubscribe_all("ann")
            assert list(messages) == []

    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    assert what_is_left(hub) == NOTHING


def test_an_event_loop_may_look_at_a_listener_that_never_waits():
    async def main() -> None:
        hub = PubSubHub()
        with hub.listen("ann", timeout=0) as messages:
            with pytest.raises(TimeoutError):
                next(messages)
            hub.send_all("hello")
            assert next(messages) == "hello"

    asyncio.run(main())


def test_no_wake_up_is_lost_between_a_stream_and_a_sender_that_wait_for_each_other(
    async_bus: Bus, other_loop: LoopThread
):
    hub, rounds = async_bus.hub, 1_000

    async def answer() -> None:
        async with hub.stream("bob", "questions") as questions:
            entered.record(None)
            async for number in questions:
                hub.send_all_on_topic("answers", number)
                if number == rounds - 1:
                    break

    async def ask() -> list[Any]:
        got = []
        async with hub.stream("ann", "answers") as answers:
            for number in range(rounds):
                hub.send_all_on_topic("questions", number)
                got.append(await anext(answers))
        return got

    entered = Recorder()
    answering = asyncio.run_coroutine_threadsafe(answer(), other_loop.loop)
    entered.wait(1)
    assert loop_of(async_bus).run_async(ask()) == list(range(rounds))
    answering.result(DEADLINE)


def test_no_wake_up_is_lost_between_two_threads_that_listen(bus: Bus):
    hub, rounds = bus.hub, 300
    with hub.listen("ann", "questions") as questions, hub.listen("bob", "answers") as answers:

        def ask() -> None:
            for number in range(rounds):
                hub.send_all_on_topic("questions", number)
                assert next(answers) == number

        def answer() -> None:
            for number in questions:
                hub.send_all_on_topic("answers", number)
                if number == rounds - 1:
                    break

        in_threads(ask, answer)


# ---- a loop that refuses a wake-up -----------------------------------------------------------


class Refusing(asyncio.SelectorEventLoop):
    """A loop that refuses so many wake-ups of a reader, as one does that gets no memory."""

    refusals = 0

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()
        self.gate.open()

    def call_soon_threadsafe(self, callback: Any, *args: Any, **kwargs: Any) -> asyncio.Handle:
        if self.refusals and getattr(callback, "__name__", "") == "resolve":
            self.refusals -= 1
            self.gate.wait()
            raise MemoryError
        return super().call_soon_threadsafe(callback, *args, **kwargs)


class OnRefusing:
    """Somebody who reads a stream on such a loop, and waits there."""

    def __init__(self) -> None:
        self.hubs, self.readers = LoopThread(), LoopThread(Refusing)
        assert isinstance(self.readers.loop, Refusing)
        self.loop = self.readers.loop
        self.hub = PubSubHub(self.hubs.loop)
        self.reading = Reading(self.readers, lambda: self.hub.stream("ann"))
        self.readers.spin()

    def refuse(self, count: int) -> None:
        self.loop.refusals = count

    def send(self, message: Any) -> None:
        """Send, and return when the hub is done with it."""
        self.hub.send_all(message)
        self.hubs.spin()

    def result(self) -> list[Any]:
        result = self.reading.result()
        for loop in (self.hubs, self.readers):
            loop.close()
        return result


def test_a_stream_whose_loop_refuses_a_wake_up_once_gets_its_message():
    ann = OnRefusing()
    ann.refuse(1)
    ann.send("one")
    ann.reading.got.wait(1)
    ann.send(END)
    assert ann.result() == ["one", END]


def test_a_stream_whose_loop_refuses_every_wake_up_for_a_while_gets_all_with_the_next_message(
    log: Any,
):
    ann = OnRefusing()
    ann.refuse(1_000)
    ann.send("one")
    [record] = log.take(1)
    assert "'ann' failed" in record.getMessage()
    assert record.exc_info[0] is MemoryError
    ann.refuse(0)
    ann.send(END)
    assert ann.result() == ["one", END]


@pytest.mark.parametrize("refusals", [0, 1])
def test_a_goodbye_reaches_a_stream_whose_loop_refused_a_wake_up(refusals: int, log: Any):
    ann = OnRefusing()
    ann.refuse(1_000)
    ann.send("one")
    log.take(1)
    ann.refuse(refusals)
    ann.hub.unsubscribe_all("ann")
    assert ann.result() == ["no more"]


def test_a_goodbye_that_a_loop_refuses_at_first_ends_the_stream():
    ann = OnRefusing()
    ann.refuse(1)
    ann.hub.unsubscribe_all("ann")
    assert ann.result() == ["no more"]


def test_a_goodbye_that_comes_while_a_loop_refuses_a_wake_up_ends_the_stream():
    ann = OnRefusing()
    ann.loop.gate = Gate()
    # As often as it is tried for the message, and then left to whoever comes next.
    ann.refuse(16)
    ann.hub.send_all("one")
    ann.loop.gate.arrivals.wait(1)
    ann.hub.unsubscribe_all("ann")
    ann.loop.gate.open()
    assert ann.result() == ["no more"]


# ---- where the reader runs -------------------------------------------------------------------


def test_a_stream_may_be_read_on_another_loop_than_the_hubs(async_bus: Bus, other_loop: LoopThread):
    reading = Reading(other_loop, lambda: async_bus.hub.stream("ann"))
    for number in range(500):
        async_bus.hub.send_all(number)
    async_bus.hub.send_all(END)
    assert reading.result() == [*range(500), END]


@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
def test_a_reader_whose_loop_is_closed_does_not_hurt_the_sender(
    async_bus: Bus, new_loop: NewLoop, log: Any
):
    loop = new_loop()
    messages = async_bus.hub.stream("ann")
    heard = async_bus.recorder()
    async_bus.subscribe("bob", heard.handler)

    async def wait_for_ever() -> None:
        await messages.__aenter__()
        await anext(messages)

    task = loop.create_task(wait_for_ever())
    for _ in range(3):
        loop.run_until_complete(asyncio.sleep(0))
    loop.close()

    async_bus.hub.send_all("one")
    async_bus.hub.send_all("two")
    async_bus.settle()

    assert heard == ["one", "two"]
    assert numbers(async_bus.hub)["subscriptions"] == 1
    # Where the closed loop is the one that delivers, the hub may report that, as for handlers.
    lines = told_by(log)
    if async_bus.mode.hub_has_loop:
        assert ["the event loop of a stream's reader is closed" in line for line in lines] == [True]
        assert async_bus.hub.stats().dropped == 1
    # asyncio complains of tasks that are destroyed while they wait.
    task._log_destroy_pending = False  # type: ignore[attr-defined]


class ReaderOnAClosedLoop:
    """A stream, and somebody who waits there on a loop that was closed.

    Whoever is about to find out that the loop is closed waits at a gate.
    """

    def __init__(self) -> None:
        self.thread, self.gate = LoopThread(), (gate := Gate())

        class Closing(asyncio.SelectorEventLoop):
            def call_soon_threadsafe(self, callback: Any, *args: Any, **kwargs: Any) -> Any:
                if self.is_closed():
                    gate.wait()
                return super().call_soon_threadsafe(callback, *args, **kwargs)

        self.hub = PubSubHub(self.thread.loop)
        self.stream = self.hub.stream("ann")
        loop = Closing()
        loop.run_until_complete(self.stream.__aenter__())
        self.next_message = self.stream.__anext__()
        self.task = loop.create_task(self.next_message)
        loop.run_until_complete(turns_of_the_loop(3))
        loop.close()
        # asyncio complains of tasks that are destroyed while they wait.
        self.task._log_destroy_pending = False  # type: ignore[attr-defined]

    async def read_on(self) -> list[Any]:
        got = Recorder()
        await read_until_end(self.stream, got)
        return list(got)


@pytest.mark.parametrize(
    "end",
    [
        lambda hub: hub.send_all("one"),
        lambda hub: hub.unsubscribe_all("ann"),
        lambda hub: hub.close(),
    ],
    ids=["a message", "a goodbye", "a close"],
)
def test_a_loop_over_a_stream_whose_last_reader_was_on_a_closed_loop_ends(end: Any, log: Any):
    dead = ReaderOnAClosedLoop()
    dead.gate.open()
    end(dead.hub)
    dead.thread.spin()

    assert asyncio.run(dead.read_on()) == ["no more"]
    assert dead.hub.stats().subscriptions == 0
    assert all("reader is closed" in line for line in told_by(log))
    dead.thread.close()


def test_a_reader_that_takes_the_place_of_one_on_a_closed_loop_keeps_its_subscription():
    dead, other = ReaderOnAClosedLoop(), LoopThread()
    dead.hub.send_all("one")
    dead.gate.arrivals.wait(1)
    dead.next_message.close()
    reading = asyncio.run_coroutine_threadsafe(dead.read_on(), other.loop)
    # It has taken the message, and waits for the next.
    other.spin()
    dead.gate.open()
    dead.thread.spin()
    dead.hub.send_all(END)

    assert reading.result(DEADLINE) == ["one", END]
    for thread in (dead.thread, other):
        thread.close()


def test_streams_work_beside_an_executor(executor_bus: Bus):
    hub = executor_bus.hub
    loop = LoopThread()
    try:
        reading = Reading(executor_bus.loop or loop, lambda: hub.stream("ann"))
        for message in [1, 2, END]:
            hub.send_all(message)
        assert reading.result() == [1, 2, END]
    finally:
        loop.close()


class Senders:
    """Eight threads that send as many messages to all as are asked for."""

    def __init__(self, hub: PubSubHub) -> None:
        self.hub, self.is_over = hub, False
        self._wanted = threading.Semaphore(0)

    def ask_for(self, count: int) -> None:
        self._wanted.release(count)

    def end(self) -> None:
        self.is_over = True
        self.ask_for(8)

    def bodies(self) -> list[Callable[[], None]]:
        return [lambda who=who: self._send(who) for who in range(8)]

    def _send(self, who: int) -> None:
        for number in itertools.count():
            assert self._wanted.acquire(timeout=DEADLINE), "nobody wants anything"
            if self.is_over:
                return
            self.hub.send_all((who, number))


def assert_without_a_gap(visits: list[list[Any]], whole: list[Any]) -> None:
    order = {message: place for place, message in enumerate(whole)}
    for got in visits:
        places = [order[message] for message in got]
        assert places == list(range(places[0], places[0] + len(places)))


def test_eight_threads_send_while_streams_come_and_go(async_bus: Bus):
    hub, loop, senders = async_bus.hub, loop_of(async_bus), Senders(async_bus.hub)
    whole = Reading(loop, lambda: hub.stream("whole"))
    visits: list[list[Any]] = []

    async def come_and_go(who: int) -> None:
        for visit in range(40):
            got: list[Any] = []
            async with hub.stream(f"visitor {who}") as messages:
                senders.ask_for(visit % 4 + 1)
                async for message in messages:
                    got.append(message)
                    if len(got) > visit % 4:
                        break
            visits.append(got)

    async def visit() -> None:
        try:
            await asyncio.gather(*(come_and_go(who) for who in range(8)))
        finally:
            senders.end()

    in_threads(lambda: loop.run_async(visit()), *senders.bodies())
    hub.send_all(END)

    assert_without_a_gap(visits, whole.result())
    async_bus.settle()
    assert what_is_left(hub) == NOTHING


def test_eight_threads_send_while_listeners_come_and_go(bus: Bus):
    hub, senders, visits = bus.hub, Senders(bus.hub), Recorder()
    visitors = 4
    gone = threading.Semaphore(0)

    def come_and_go(who: int) -> None:
        try:
            for visit in range(40):
                with hub.listen(f"visitor {who}", timeout=DEADLINE) as messages:
                    senders.ask_for(visit % 4 + 1)
                    visits.record([next(messages) for _ in range(visit % 4 + 1)])
        finally:
            gone.release()

    def wait_for_visitors() -> None:
        for _ in range(visitors):
            assert gone.acquire(timeout=DEADLINE)
        senders.end()

    with hub.listen("whole") as whole:
        in_threads(
            *(lambda who=who: come_and_go(who) for who in range(visitors)),
            *senders.bodies(),
            wait_for_visitors,
        )
        hub.send_all(END)
        assert_without_a_gap(visits, list(iter(whole.__next__, END)))
    bus.settle()
    assert what_is_left(hub) == NOTHING


# ---- limits ----------------------------------------------------------------------------------


def told_by(log: Any) -> list[str]:
    return [record.getMessage() for record in log.take_all()]


@pytest.mark.parametrize(
    ("overflow", "kept"), [("drop_oldest", [7, 8, 9]), ("drop_newest", [0, 1, 2])]
)
def test_a_reader_that_does_not_keep_up_loses_messages_and_is_named(
    overflow: Any, kept: list[int], log: Any
):
    told: list[Overflow] = []
    hub = PubSubHub(max_pending=3, overflow=overflow, on_overflow=told.append)
    with hub.listen("ann", "news") as messages:
        for number in range(10):
            hub.send_all_on_topic("news", number)
        assert (messages.dropped, hub.stats().dropped, hub.stats().pending) == (7, 7, 3)
        got = [next(messages) for _ in range(3)]
        hub.send_all_on_topic("news", 10)
        got.append(next(messages))

    assert got == [*kept, 10]
    assert [(t.session_id, t.topic, t.handler, t.dropped) for t in told] == [
        ("ann", "news", messages, 1),
        ("ann", "news", messages, 7),
    ]
    [line] = told_by(log)
    assert "'ann' on topic 'news' does not keep up" in line


def test_each_burst_of_losses_of_a_stream_is_told_once(log: Any):
    told: list[Overflow] = []

    async def main() -> int:
        hub = PubSubHub(asyncio.get_running_loop(), max_pending=2, on_overflow=told.append)
        async with hub.stream("ann") as messages:
            for burst in range(2):
                for number in range(5):
                    hub.send_all((burst, number))
                    await turns_of_the_loop(10)
                assert [await anext(messages), await anext(messages)] == [(burst, 3), (burst, 4)]
            return messages.dropped

    assert asyncio.run(main()) == 6
    assert [t.dropped for t in told] == [1, 3, 1, 3]
    assert len(told_by(log)) == 2


@pytest.mark.parametrize("bus", [*EXECUTOR, *INLINE], indirect=True, ids=str)
def test_the_end_of_a_listeners_burst_is_told_after_its_beginning_however_long_that_takes(
    bus: Bus, log: Any
):
    report, told = bus.gate(), Recorder()

    def tell(overflow: Overflow) -> None:
        if threading.current_thread() is not reader:
            report.wait()
        told.record((overflow.handler, overflow.dropped))

    reader = threading.current_thread()
    hub = bus.new_hub(max_pending=1, on_overflow=tell)
    with hub.listen("ann") as messages:
        hub.send_all("lost")
        if bus.executor:
            bus.executor.wait_idle()
        sender = threading.Thread(target=hub.send_all, args=["kept"])
        sender.start()
        report.arrivals.wait(1)
        # It catches up, while its first loss is still being told.
        assert next(messages) == "kept"
        assert told == []
        report.open()
        sender.join(DEADLINE)
        assert told.wait(2) == [(messages, 1), (messages, 1)]
    bus.settle()
    log.take(1)


def test_the_end_of_a_streams_burst_is_told_after_its_beginning_however_long_that_takes(
    async_bus: Bus, log: Any
):
    report, told = async_bus.gate(), Recorder()

    def tell(overflow: Overflow) -> None:
        if threading.current_thread() is not reader:
            report.wait()
        told.record((overflow.handler, overflow.dropped))

    reader, loop = threading.current_thread(), loop_of(async_bus)
    hub = async_bus.new_hub(max_pending=1, on_overflow=tell)
    messages = hub.stream("ann")
    loop.run_async(messages.__aenter__())
    hub.send_all("lost")
    loop.spin()
    hub.send_all("kept")
    report.arrivals.wait(1)
    # It is read elsewhere, while its first loss is still being told.
    assert asyncio.run(messages.__anext__()) == "kept"
    assert told == []
    report.open()
    assert told.wait(2) == [(messages, 1), (messages, 1)]
    loop.run_async(messages.__aexit__(None, None, None))
    log.take(1)


def test_a_hub_that_closes_waits_until_what_a_reader_lost_is_told(log: Any):
    report, told = Gate(), Recorder()

    def tell(overflow: Overflow) -> None:
        if threading.current_thread() is reading:
            report.wait()
        told.record(overflow.dropped)

    async def close() -> None:
        closing = asyncio.ensure_future(hub.aclose(timeout=DEADLINE))
        await turns_of_the_loop(10)
        assert not closing.done()
        report.open()
        await closing
        assert told == [1, 1]

    hub = PubSubHub(max_pending=1, on_overflow=tell)
    with hub.listen("ann") as messages:
        reading = threading.Thread(target=next, args=[messages])
        for message in ("lost", "kept"):
            hub.send_all(message)
        reading.start()
        report.arrivals.wait(1)
        asyncio.run(close())
        reading.join(DEADLINE)
    log.take(1)


def test_a_reader_that_does_not_keep_up_can_lose_its_subscription(log: Any):
    told: list[Overflow] = []
    hub = PubSubHub(max_pending=3, overflow="unsubscribe", on_overflow=told.append)
    with hub.listen("ann", "news") as messages:
        for number in range(10):
            hub.send_all_on_topic("news", number)
        assert list(messages) == []
        assert what_is_left(hub) == NOTHING
        assert (messages.dropped, hub.stats().dropped) == (4, 4)

    assert [(t.handler, t.dropped) for t in told] == [(messages, 4)]
    [line] = told_by(log)
    assert "unsubscribed it and dropped 4 messages" in line


def test_a_listener_whose_session_is_busy_can_lose_its_subscription_and_reads_what_it_had(
    log: Any,
):
    gate, busy = Gate(), Recorder()
    executor = WatchedExecutor(2)
    hub = PubSubHub(executor=executor, max_pending=2, overflow="unsubscribe")

    def handler(message: Any) -> None:
        busy.record(message)
        if message == "wait":
            gate.wait()

    hub.subscribe_topic("ann", "gate", lambda _, message: handler(message))
    with hub.listen("ann", timeout=DEADLINE) as messages:
        hub.send_all("read")
        executor.wait_idle()
        hub.send_all_on_topic("gate", "wait")
        gate.arrivals.wait(1)
        for number in range(3):
            hub.send_all(number)
        lines = [record.getMessage() for record in log.take(1)]
        assert list(messages) == ["read"]
        assert hub.stats().dropped == 3
        gate.open()
    executor.shutdown()
    assert "unsubscribed it and dropped 3 messages" in lines[0]


def test_one_reader_that_does_not_keep_up_costs_nobody_else_a_message(log: Any):
    hub = PubSubHub(max_pending=3)
    with hub.listen("ann") as slow, hub.listen("bob") as quick:
        got = []
        for number in range(10):
            hub.send_all(number)
            got.append(next(quick))
        assert got == list(range(10))
        assert (slow.dropped, quick.dropped) == (7, 0)
    assert len(told_by(log)) == 1


def test_what_waits_for_a_reader_is_pending():
    hub = PubSubHub()
    with hub.listen("ann") as messages:
        for number in range(5):
            hub.send_all(number)
        assert hub.stats().pending == 5
        assert "pending=5" in repr(hub)
        next(messages)
        assert hub.stats().pending == 4
    assert hub.stats().pending == 0


# ---- mistakes --------------------------------------------------------------------------------


def test_a_stream_outside_of_its_block_says_where_it_belongs():
    async def main() -> None:
        hub = PubSubHub(asyncio.get_running_loop())
        messages = hub.stream("ann")
        with pytest.raises(RuntimeError, match="inside of `async with`"):
            await anext(messages)
        async with messages:
            with pytest.raises(RuntimeError, match="a Stream is entered once"):
                await messages.__aenter__()
        with pytest.raises(RuntimeError, match="inside of `async with`"):
            async for _ in messages:
                pass
        with pytest.raises(RuntimeError, match="a Stream is entered once"):
            await messages.__aenter__()
        assert what_is_left(hub) == NOTHING

    asyncio.run(main())


def test_a_listener_outside_of_its_block_says_where_it_belongs():
    hub = PubSubHub()
    messages = hub.listen("ann")
    with pytest.raises(RuntimeError, match="inside of `with`"):
        next(messages)
    with messages, pytest.raises(RuntimeError, match="a Listener is entered once"):
        messages.__enter__()
    with pytest.raises(RuntimeError, match="inside of `with`"):
        list(messages)
    assert what_is_left(hub) == NOTHING


@pytest.mark.parametrize("method", ["stream", "listen"])
def test_a_mistake_shows_where_it_is_made(method: str):
    hub = PubSubHub()
    with pytest.raises(TypeError, match="topic must be a str, not int"):
        getattr(PubSub(hub, "ann"), method)(7)
    with pytest.raises(TypeError, match="session_id must be a str, not int"):
        getattr(hub, method)(7)
    with pytest.raises(TypeError, match="topic must be a str, not bytes"):
        getattr(hub, method)("ann", b"news")


def test_a_wrong_timeout_is_refused():
    hub = PubSubHub()
    with pytest.raises(TypeError, match="timeout must be a number"):
        hub.listen("ann", timeout="soon")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="timeout must not be negative"):
        PubSub(hub, "ann").listen(timeout=-1)


def test_readers_are_ready_inside_of_their_blocks():
    async def main() -> None:
        hub = PubSubHub(asyncio.get_running_loop())
        stream, listener = hub.stream("ann"), hub.listen("ann")
        with pytest.raises(RuntimeError, match="inside of `async with`"):
            await stream.ready()
        with pytest.raises(RuntimeError, match="inside of `with`"):
            listener.ready()
        async with stream:
            await stream.ready()
            hub.unsubscribe_all("ann")
            await stream.ready()
        with listener:
            listener.ready()
            listener.ready(timeout=0)
        with pytest.raises(RuntimeError, match="inside of `async with`"):
            await stream.ready()

    asyncio.run(main())


def test_a_block_on_a_closed_hub_does_not_begin():
    hub = PubSubHub()
    messages = hub.listen("ann")
    hub.close()
    with pytest.raises(HubClosed), messages:
        pass
    assert what_is_left(hub) == NOTHING


def test_readers_come_from_a_hub_only_and_are_no_handlers():
    hub = PubSubHub()
    for kind in (Stream, Listener):
        with pytest.raises(TypeError):
            kind()
    for reader in (hub.stream("ann"), hub.listen("ann")):
        with pytest.raises(TypeError, match="handler must be callable"):
            hub.subscribe("ann", reader)  # type: ignore[arg-type]


def test_readers_know_whose_they_are_and_for_what():
    ps = PubSub(PubSubHub(), "ann")
    stream, listener = ps.stream("news"), ps.listen()
    assert (stream.session_id, stream.topic, stream.dropped) == ("ann", "news", 0)
    assert (listener.session_id, listener.topic, listener.dropped) == ("ann", None, 0)
    assert repr(stream) == "<Stream of session 'ann' on topic 'news'>"
    assert repr(listener) == "<Listener of session 'ann'>"


# ---- garbage ---------------------------------------------------------------------------------

collects = pytest.mark.thread_unsafe(reason="garbage is collected by one thread at a time")


@collects
def test_a_generator_that_listens_and_is_dropped_leaves_nothing():
    hub = PubSubHub()

    def news() -> Iterator[Any]:
        with hub.listen("ann", "news") as messages:
            yield "ready"
            yield from messages

    reader = news()
    next(reader)
    assert hub.stats().subscriptions == 1
    del reader
    collect_garbage()
    assert what_is_left(hub) == NOTHING


@collects
def test_an_async_generator_that_is_left_half_way_leaves_nothing(async_bus: Bus):
    async def news() -> AsyncIterator[Any]:
        async with async_bus.hub.stream("ann", "news") as messages:
            async for message in messages:
                yield message

    async def main() -> Any:
        reader = news()
        first = asyncio.ensure_future(anext(reader))
        await asyncio.sleep(0)
        async_bus.hub.send_all_on_topic("news", "hello")
        return await first

    assert loop_of(async_bus).run_async(main()) == "hello"
    collect_garbage()
    loop_of(async_bus).spin()
    assert what_is_left(async_bus.hub) == NOTHING


@collects
def test_a_coroutine_that_is_collected_in_its_block_leaves_nothing():
    async def main() -> None:
        hub = PubSubHub(asyncio.get_running_loop())

        async def read() -> None:
            async with hub.stream("ann") as messages:
                await anext(messages)

        coroutine = read()
        coroutine.send(None)
        assert hub.stats().subscriptions == 1
        del coroutine
        collect_garbage()
        assert what_is_left(hub) == NOTHING

    asyncio.run(main())


@collects
def test_a_hub_that_is_forgotten_with_its_readers_is_collected():
    class Message:
        def __init__(self, *things: Any) -> None:
            self.things = things

    async def main() -> list[weakref.ref[Any]]:
        hub = PubSubHub(asyncio.get_running_loop())
        listener, stream = hub.listen("ann"), hub.stream("bob")
        listener.__enter__()
        await stream.__aenter__()
        waits = stream.__anext__()
        waits.send(None)
        message = Message(hub, listener, stream, waits)
        hub.send_all(message)
        await turns_of_the_loop(10)
        return [weakref.ref(thing) for thing in (hub, listener, stream, message)]

    references = asyncio.run(main())
    collect_garbage()
    assert [reference() for reference in references] == [None] * 4


@collects
def test_thousands_of_readers_in_cycles_leave_no_reference():
    hub = PubSubHub()

    class Page:
        def __init__(self, number: int) -> None:
            self.messages = hub.listen(str(number), "news")
            self.messages.__enter__()

    pages = [Page(number) for number in range(2_000)]
    for page in pages:
        hub.send_all_on_topic("news", page)
        hub.unsubscribe_all(page.messages.session_id)
    references = [weakref.ref(page) for page in pages]
    del pages, page
    collect_garbage()
    assert sum(reference() is not None for reference in references) == 0
    assert what_is_left(hub) == NOTHING


# ---- processes -------------------------------------------------------------------------------


def test_ctrl_c_ends_a_listeners_wait_and_it_can_go_on():
    done = python_programs.run("""
        import os, signal, threading
        from pagebus import PubSubHub

        hub, begins, came, handled = PubSubHub(), threading.Event(), [], threading.Semaphore(0)

        def on_signal(*_):
            handled.release()
            if len(came) < 3:
                came.append("a signal")
                if len(came) == 3:
                    raise KeyboardInterrupt

        def interrupt():
            # Each when the one before was handled: the last hits the wait, which goes on till then.
            begins.wait()
            while len(came) < 3:
                os.kill(os.getpid(), signal.SIGINT)
                # CPython overlooks one at the very moment at which a thread begins to wait.
                handled.acquire(timeout=1)

        signal.signal(signal.SIGINT, on_signal)
        with hub.listen("ann") as messages:
            threading.Thread(target=interrupt).start()
            begins.set()
            try:
                next(messages)
            except KeyboardInterrupt:
                came.append("to the listener")
            assert came == ["a signal"] * 3 + ["to the listener"], came
            threading.Timer(0.1, hub.send_all, ["hello"]).start()
            assert next(messages) == "hello"
        assert hub.stats().subscriptions == 0
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_handler_of_a_signal_may_send_to_the_listener_that_it_interrupts():
    done = python_programs.run("""
        import os, signal, threading
        from pagebus import PubSubHub

        hub, came = PubSubHub(), threading.Event()
        signal.signal(signal.SIGINT, lambda *_: hub.send_all("from the handler"))

        def interrupt():
            # CPython overlooks one at the very moment at which a thread begins to wait.
            while not came.wait(0.1):
                os.kill(os.getpid(), signal.SIGINT)

        with hub.listen("ann") as messages:
            interrupter = threading.Thread(target=interrupt)
            interrupter.start()
            assert next(messages) == "from the handler"
            came.set()
            interrupter.join()
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_process_ends_while_daemon_threads_listen():
    done = python_programs.run("""
        import threading, time
        from pagebus import PubSubHub

        hub, ready = PubSubHub(), threading.Barrier(5)

        def listen(number):
            with hub.listen(str(number), timeout=None if number else 0.001) as messages:
                ready.wait()
                while True:
                    try:
                        next(messages)
                    except TimeoutError:
                        pass

        for number in range(4):
            threading.Thread(target=listen, args=[number], daemon=True).start()
        ready.wait()
        for number in range(100):
            hub.send_all(number)
        print("ends")
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ends\n", "")


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="there is no fork here")
def test_a_child_process_reads_what_is_sent_in_it_and_nothing_else():
    done = python_programs.run("""
        import os, threading
        from pagebus import PubSubHub

        hub = PubSubHub()
        with hub.listen("ann", timeout=30) as messages, hub.listen("bob", timeout=30) as waited_for:
            threading.Thread(target=lambda: next(waited_for), daemon=True).start()
            for number in range(5):
                hub.send_all(number)
            if child := os.fork():
                assert os.waitpid(child, 0)[1] == 0
                assert [next(messages) for _ in range(5)] == list(range(5))
            else:
                assert hub.stats().pending == 0, hub.stats()
                hub.send_all("in the child")
                assert hub.stats().pending == 2, hub.stats()
                assert [next(messages), next(waited_for)] == ["in the child"] * 2
        assert hub.stats().pending == 0, hub.stats()
        assert hub.stats().subscriptions == 0
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
