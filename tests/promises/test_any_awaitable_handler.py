"""Promise 8: whatever a handler returns that can be awaited, is awaited, in a task of its own."""

import asyncio
import functools
import sys
import types
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import pytest

from delivery_modes import ASYNC, DEADLINE, Bus, LoopThread, Recorder
from pagebus import PubSubHub


def since(*version: int) -> Callable[[Any], Any]:
    """A test of what older Pythons do not have: there, it does not exist, and is not skipped."""
    return lambda test: test if sys.version_info >= version else None


# ---- what counts as async --------------------------------------------------------------------


class Page:
    """Somebody's page with handlers of several kinds."""

    def __init__(self, got: Recorder) -> None:
        self.got = got

    async def method(self, message: Any) -> None:
        await asyncio.sleep(0)
        self.got.record(message)

    @classmethod
    async def class_method(cls, got: Recorder, message: Any) -> None:
        await asyncio.sleep(0)
        got.record(message)

    @staticmethod
    async def static_method(got: Recorder, message: Any) -> None:
        await asyncio.sleep(0)
        got.record(message)


class AsyncCall:
    """An object that is called like an async function."""

    def __init__(self, got: Recorder) -> None:
        self.got = got

    async def __call__(self, *message: Any) -> None:
        await asyncio.sleep(0)
        self.got.record(message[-1])


class Work:
    """An awaitable that is no coroutine."""

    def __init__(self, got: Recorder, message: Any) -> None:
        self.got, self.message = got, message

    def __await__(self) -> Generator[Any, Any, None]:
        yield from asyncio.sleep(0).__await__()
        self.got.record(self.message)


def logged(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator like many: a sync wrapper around whatever it is given."""

    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return wrapper


def async_function(got: Recorder) -> Callable[..., Any]:
    async def handler(message: Any) -> None:
        await asyncio.sleep(0)
        got.record(message)

    return handler


def straight_function(got: Recorder) -> Callable[..., Any]:
    async def handler(message: Any) -> None:
        got.record(message)

    return handler


def generator_based(got: Recorder) -> Callable[..., Any]:
    @types.coroutine
    def handler(message: Any) -> Generator[Any, Any, None]:
        yield from asyncio.sleep(0).__await__()
        got.record(message)

    return handler


def returning_a_task(got: Recorder) -> Callable[..., Any]:
    fn = async_function(got)
    return lambda message: asyncio.get_running_loop().create_task(fn(message))


KINDS: dict[str, Callable[[Recorder], Callable[..., Any]]] = {
    "a coroutine function": async_function,
    "a coroutine function that never suspends": straight_function,
    "a bound method": lambda got: Page(got).method,
    "a class method": lambda got: functools.partial(Page.class_method, got),
    "a static method": lambda got: functools.partial(Page.static_method, got),
    "a partial": lambda got: functools.partial(async_function(got)),
    "a partial of a partial": lambda got: functools.partial(
        functools.partial(lambda a, b, m: async_function(got)(m), 1), 2
    ),
    "an object with async __call__": AsyncCall,
    "a bound __call__": lambda got: AsyncCall(got).__call__,
    "a partial of an object with async __call__": lambda got: functools.partial(AsyncCall(got), 1),
    "a lambda returning a coroutine": lambda got: lambda message: async_function(got)(message),
    "a decorated coroutine function": lambda got: logged(async_function(got)),
    "a generator-based coroutine": generator_based,
    "a lambda returning an awaitable": lambda got: lambda message: Work(got, message),
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_it_is_awaited_once_for_each_message_in_order(
    awaiting_bus: Bus, make: Callable[[Recorder], Callable[..., Any]]
):
    got = Recorder()
    awaiting_bus.subscribe("ann", make(got))

    for message in range(20):
        awaiting_bus.hub.send_all(message)
    got.wait(20)
    awaiting_bus.settle()

    assert got == list(range(20))


def test_a_task_or_future_that_a_handler_returns_is_awaited(async_bus: Bus):
    got = Recorder()
    handler = returning_a_task(got)

    # Async by what it says, so that it is called on the loop, where tasks can be made.
    async def on_the_loop(message: Any) -> None:
        await handler(message)

    async_bus.subscribe("ann", on_the_loop)
    for message in range(20):
        async_bus.hub.send_all(message)

    assert got.wait(20) == list(range(20))


def test_a_future_returned_by_an_inline_handler_keeps_the_next_message_waiting():
    thread, got, futures = LoopThread(), Recorder(), list[asyncio.Future[None]]()
    hub = PubSubHub(loop=thread.loop)

    def handler(message: Any) -> Awaitable[None]:
        futures.append(thread.loop.create_future())
        got.record(message)
        return futures[-1]

    hub.subscribe("ann", handler)
    thread.run(lambda: [hub.send_all(message) for message in range(3)])
    thread.spin()
    assert got == [0]

    thread.run(futures[0].set_result, None)
    got.wait(2)
    thread.spin()
    assert got == [0, 1]
    thread.run(futures[1].set_result, None)
    got.wait(3)
    thread.run(futures[2].set_result, None)
    thread.close()


def test_messages_for_a_lambda_never_overlap(awaiting_bus: Bus):
    inside, got = [0], Recorder()

    async def work(message: int) -> None:
        inside[0] += 1
        await asyncio.sleep(0)
        await asyncio.sleep(0.001 * (message % 3))
        got.record((message, inside[0]))
        inside[0] -= 1

    awaiting_bus.subscribe("ann", lambda message: work(message))
    for message in range(50):
        awaiting_bus.hub.send_all(message)

    assert got.wait(50) == [(message, 1) for message in range(50)]


def test_nothing_that_a_lambda_still_has_to_do_holds_up_others(awaiting_bus: Bus):
    gate, got = awaiting_bus.gate(), awaiting_bus.recorder()
    awaiting_bus.subscribe("ann", lambda message: gate.passed(message))
    awaiting_bus.subscribe("bob", got.handler)

    for message in range(10):
        awaiting_bus.hub.send_all(message)

    assert got.wait(10) == list(range(10))
    gate.open()
    assert gate.arrivals.wait(10) == list(range(10))
    awaiting_bus.settle()


def test_without_any_loop_a_returned_coroutine_is_a_failure_that_says_so(log: Any):
    hub, got = PubSubHub(), Recorder()

    async def work() -> None:
        got.record("never")

    hub.subscribe("ann", lambda message: work())
    hub.subscribe("bob", got.record)
    hub.send_all("hello")

    assert got == ["hello"]
    text = log.text(log.take(1)[0])
    assert "ann" in text
    assert "loop" in text


def test_what_cannot_be_awaited_is_ignored(bus: Bus):
    got = bus.recorder()
    values = [None, 0, "text", [], object(), (n for n in "abc"), lambda: None, NotImplemented]

    def returns(message: int) -> Any:
        return values[message]

    async def returns_async(message: int) -> Any:
        return values[message]

    bus.subscribe("ann", returns_async if bus.mode.is_async else returns)
    bus.subscribe("bob", got.handler)
    for message in range(len(values)):
        bus.hub.send_all(message)
    bus.settle()

    assert len(got) == len(values)
    assert bus.hub.stats().failed == 0


# ---- tasks -----------------------------------------------------------------------------------


def neighbours(bus: Bus, count: int = 10) -> list[Recorder]:
    """Handlers that suspend and handlers that do not, in turn, each of its own session."""
    recorders = [Recorder() for _ in range(count)]
    for number, got in enumerate(recorders):
        make = async_function if number % 2 else straight_function
        bus.subscribe(f"neighbour {bus.hub.stats().sessions}", make(got))
    return recorders


def between_neighbours(bus: Bus, *handlers: Callable[..., Any]) -> list[Recorder]:
    """Subscribe the handlers with neighbours before, between and after them."""
    recorders = neighbours(bus)
    for number, handler in enumerate(handlers):
        bus.subscribe(f"session {number}", handler)
        recorders += neighbours(bus)
    return recorders


def test_a_handler_has_a_task_that_stays_its_own(async_bus: Bus):
    got = Recorder()

    async def handler(message: Any) -> None:
        before = asyncio.current_task()
        await asyncio.sleep(0)
        listed = asyncio.current_task() in asyncio.all_tasks()
        await asyncio.sleep(0.001)
        got.record((before is not None, before is asyncio.current_task(), listed))

    recorders = between_neighbours(async_bus, handler, handler)
    async_bus.hub.send_all("hello")

    assert got.wait(2) == [(True, True, True)] * 2
    assert [recorder.wait(1) for recorder in recorders] == [["hello"]] * len(recorders)


def test_handlers_that_are_suspended_at_once_have_different_tasks(async_bus: Bus):
    gate, tasks = async_bus.gate(), Recorder()

    async def handler(message: Any) -> None:
        await gate.passed()
        tasks.record(asyncio.current_task())

    for number in range(20):
        async_bus.subscribe(f"session {number}", handler)
    async_bus.hub.send_all("hello")
    gate.arrivals.wait(20)
    gate.open()

    assert len(set(tasks.wait(20))) == 20


async def cancel_before_the_first_suspension() -> None:
    asyncio.current_task().cancel()
    await asyncio.sleep(0)


async def cancel_after_a_suspension() -> None:
    await asyncio.sleep(0)
    asyncio.current_task().cancel()
    await asyncio.sleep(0)


async def cancel_long_after() -> None:
    for _ in range(5):
        await asyncio.sleep(0)
    await asyncio.sleep(0.001)
    asyncio.current_task().cancel()
    await asyncio.get_running_loop().create_future()


SELF_CANCELLATIONS = [
    cancel_before_the_first_suspension,
    cancel_after_a_suspension,
    cancel_long_after,
]


@pytest.mark.parametrize("cancel", SELF_CANCELLATIONS, ids=lambda fn: fn.__name__)
def test_a_handler_that_cancels_itself_stops_there_and_hits_nobody_else(
    async_bus: Bus, log: Any, cancel: Callable[[], Awaitable[None]]
):
    begun, survived = Recorder(), Recorder()

    async def handler(message: Any) -> None:
        begun.record(message)
        await cancel()
        survived.record(message)

    recorders = between_neighbours(async_bus, handler)
    for message in range(5):
        async_bus.hub.send_all(message)
    for recorder in recorders:
        assert recorder.wait(5) == [0, 1, 2, 3, 4]
    begun.wait(5)
    async_bus.settle()

    assert begun == [0, 1, 2, 3, 4]
    assert survived == []
    log.take_all()


def test_a_handler_that_cancels_itself_and_never_suspends_hits_nobody_else(
    async_bus: Bus, log: Any
):
    ended = Recorder()

    async def handler(message: Any) -> None:
        asyncio.current_task().cancel()
        ended.record(message)

    recorders = between_neighbours(async_bus, handler, handler, handler)
    for message in range(5):
        async_bus.hub.send_all(message)

    for recorder in recorders:
        assert recorder.wait(5) == [0, 1, 2, 3, 4]
    assert sorted(ended.wait(15)) == sorted([0, 1, 2, 3, 4] * 3)
    async_bus.settle()
    log.take_all()


def test_a_handler_that_cancels_itself_and_then_fails_hits_nobody_else(async_bus: Bus, log: Any):
    async def handler(message: Any) -> None:
        asyncio.current_task().cancel()
        raise ValueError(message)

    recorders = between_neighbours(async_bus, handler)
    for message in range(3):
        async_bus.hub.send_all(message)

    for recorder in recorders:
        assert recorder.wait(3) == [0, 1, 2]
    async_bus.settle()
    log.take(3)


def test_a_handler_may_shrug_off_its_cancellation(async_bus: Bus):
    got = Recorder()

    async def stubborn(message: Any) -> None:
        asyncio.current_task().cancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            got.record(("cancelled", message))
        await asyncio.sleep(0)
        got.record(("went on", message))

    recorders = between_neighbours(async_bus, stubborn)
    async_bus.hub.send_all(1)
    async_bus.hub.send_all(2)

    assert got.wait(4) == [("cancelled", 1), ("went on", 1), ("cancelled", 2), ("went on", 2)]
    assert [recorder.wait(2) for recorder in recorders] == [[1, 2]] * len(recorders)


def test_a_task_kept_by_a_handler_and_cancelled_later_hits_no_other_handler(
    async_bus: Bus, log: Any
):
    gate, kept = async_bus.gate(), Recorder()
    finished = [Recorder() for _ in range(10)]

    async def keeps_its_task(message: Any) -> None:
        kept.record(asyncio.current_task())

    for number, got in enumerate(finished):

        async def waits(message: Any, got: Recorder = got) -> None:
            await gate.passed()
            got.record(message)

        async_bus.subscribe(f"keeper {number}", keeps_its_task)
        async_bus.subscribe(f"waiter {number}", waits)
    async_bus.hub.send_all("first")
    gate.arrivals.wait(10)
    kept.wait(10)

    async_bus.run(lambda: [task.cancel() for task in kept])
    async_bus.loop.spin()
    gate.open()
    async_bus.hub.send_all("second")

    assert [got.wait(2) for got in finished] == [["first", "second"]] * 10
    assert len(kept.wait(20)) == 20
    async_bus.settle()
    log.take_all()


def test_a_task_kept_by_a_handler_that_had_suspended_hits_no_other_handler(
    async_bus: Bus, log: Any
):
    gate, kept, finished = async_bus.gate(), Recorder(), Recorder()

    async def keeps_its_task(message: Any) -> None:
        await asyncio.sleep(0)
        kept.record(asyncio.current_task())

    async def waits(message: Any) -> None:
        await gate.passed()
        finished.record(message)

    for number in range(10):
        async_bus.subscribe(f"keeper {number}", keeps_its_task)
        async_bus.subscribe(f"waiter {number}", waits)
    async_bus.hub.send_all("first")
    kept.wait(10)
    gate.arrivals.wait(10)
    async_bus.loop.spin()

    async_bus.run(lambda: [task.cancel() for task in kept])
    async_bus.loop.spin()
    gate.open()

    assert finished.wait(10) == ["first"] * 10
    async_bus.settle()
    log.take_all()


def test_cancelling_a_suspended_handler_from_outside_stops_that_call_only(async_bus: Bus, log: Any):
    tasks, outcome = Recorder(), Recorder()

    async def waits(message: Any) -> None:
        tasks.record(asyncio.current_task())
        if message == "first":
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                outcome.record("cancelled")
        outcome.record(message)

    recorders = between_neighbours(async_bus, waits)
    async_bus.hub.send_all("first")
    async_bus.hub.send_all("second")
    tasks.wait(1)
    for recorder in recorders:
        recorder.wait(2)
    async_bus.loop.spin()

    async_bus.run(tasks[0].cancel)

    assert outcome.wait(2) == ["cancelled", "second"]
    assert recorders == [["first", "second"]] * len(recorders)
    async_bus.settle()
    log.take_all()


def test_wait_for_in_a_handler_times_out_alone(async_bus: Bus):
    got = Recorder()

    async def handler(message: Any) -> None:
        try:
            await asyncio.wait_for(asyncio.get_running_loop().create_future(), 0.005)
        except asyncio.TimeoutError:
            got.record("timeout")

    recorders = between_neighbours(async_bus, handler, handler)
    async_bus.hub.send_all("hello")

    assert got.wait(2) == ["timeout"] * 2
    assert [recorder.wait(1) for recorder in recorders] == [["hello"]] * len(recorders)


@since(3, 11)
@pytest.mark.parametrize("seconds", [0, 0.005])
def test_a_timeout_in_a_handler_ends_what_is_inside_it_and_nothing_else(
    async_bus: Bus, seconds: float
):
    got = Recorder()

    async def handler(message: Any) -> None:
        try:
            async with asyncio.timeout(seconds):
                await asyncio.get_running_loop().create_future()
        except TimeoutError:
            got.record(("timeout", message))
        await asyncio.sleep(0)
        got.record(("went on", message))

    recorders = between_neighbours(async_bus, handler)
    async_bus.hub.send_all(1)
    async_bus.hub.send_all(2)

    assert got.wait(4) == [("timeout", 1), ("went on", 1), ("timeout", 2), ("went on", 2)]
    assert [recorder.wait(2) for recorder in recorders] == [[1, 2]] * len(recorders)


@since(3, 11)
def test_a_timeout_that_is_not_needed_leaves_nothing_behind(async_bus: Bus):
    got = Recorder()

    async def in_time(message: Any) -> None:
        async with asyncio.timeout(0.001):  # noqa: ASYNC100 - that it never waits is the case
            got.record(message)

    async def suspends_in_time(message: Any) -> None:
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
        got.record(message)

    recorders = between_neighbours(async_bus, in_time, suspends_in_time, in_time)
    for message in range(3):
        async_bus.hub.send_all(message)
    got.wait(9)
    async_bus.loop.run_async(asyncio.sleep(0.005))
    async_bus.hub.send_all(3)

    assert len(got.wait(12)) == 12
    assert [recorder.wait(4) for recorder in recorders] == [[0, 1, 2, 3]] * len(recorders)


@since(3, 11)
def test_a_timeout_around_a_whole_handler_reports_a_timeout_error(async_bus: Bus, log: Any):
    async def handler(message: Any) -> None:
        async with asyncio.timeout(0.005):
            await asyncio.get_running_loop().create_future()

    recorders = between_neighbours(async_bus, handler)
    async_bus.hub.send_all("hello")

    assert log.take(1)[0].exc_info[0] is TimeoutError
    assert [recorder.wait(1) for recorder in recorders] == [["hello"]] * len(recorders)


@since(3, 11)
def test_a_task_group_in_a_handler_works(async_bus: Bus):
    got = Recorder()

    async def child(value: int) -> int:
        await asyncio.sleep(0.001 * value)
        return value

    async def handler(message: Any) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(child(value)) for value in range(3)]
        async with asyncio.TaskGroup():
            pass
        got.record([task.result() for task in tasks])

    recorders = between_neighbours(async_bus, handler)
    async_bus.hub.send_all(1)
    async_bus.hub.send_all(2)

    assert got.wait(2) == [[0, 1, 2]] * 2
    assert [recorder.wait(2) for recorder in recorders] == [[1, 2]] * len(recorders)


@since(3, 11)
def test_a_task_group_whose_child_fails_cancels_its_own_handler_only(async_bus: Bus, log: Any):
    steps = Recorder()

    async def fails() -> None:
        raise ValueError("child")

    async def handler(message: Any) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fails())
                await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)
            steps.record(message)

    recorders = between_neighbours(async_bus, handler)
    async_bus.hub.send_all(1)
    async_bus.hub.send_all(2)

    assert steps.wait(2) == [1, 2]
    assert [recorder.wait(2) for recorder in recorders] == [[1, 2]] * len(recorders)
    for record in log.take(2):
        assert "ValueError: child" in log.text(record)


def test_locks_queues_and_threads_of_asyncio_work_in_handlers(async_bus: Bus):
    lock = async_bus.run(asyncio.Lock)
    queue: asyncio.Queue[Any] = async_bus.run(asyncio.Queue)
    got = Recorder()

    async def producer(message: Any) -> None:
        async with lock:
            await asyncio.gather(asyncio.sleep(0), asyncio.to_thread(bool))
            await queue.put(message)

    async def consumer(message: Any) -> None:
        got.record(await asyncio.wait_for(queue.get(), DEADLINE))

    for number in range(5):
        async_bus.subscribe(f"producer {number}", producer)
    for number in range(5):
        async_bus.subscribe(f"consumer {number}", consumer)
    async_bus.hub.send_all("hello")

    assert got.wait(5) == ["hello"] * 5


def test_everything_works_on_a_loop_in_debug_mode(async_bus: Bus):
    async_bus.run(async_bus.loop.loop.set_debug, True)
    recorders = neighbours(async_bus)

    for message in range(20):
        async_bus.hub.send_all(message)
        async_bus.run(async_bus.hub.send_all, message)

    for recorder in recorders:
        assert len(recorder.wait(40)) == 40


def test_everything_works_on_a_loop_with_a_task_factory_of_its_own(async_bus: Bus):
    class MyTask(asyncio.Task):
        pass

    def factory(loop: Any, coroutine: Any, **kwargs: Any) -> asyncio.Task[Any]:
        return MyTask(coroutine, loop=loop, **kwargs)

    async_bus.run(async_bus.loop.loop.set_task_factory, factory)
    recorders = neighbours(async_bus)
    for message in range(20):
        async_bus.hub.send_all(message)

    for recorder in recorders:
        assert recorder.wait(20) == list(range(20))


@since(3, 12)
def test_everything_works_on_a_loop_with_eager_tasks(async_bus: Bus):
    # Other loops may refuse what asyncio's own factory asks of them; then there is nothing to see.
    if isinstance(async_bus.loop.loop, asyncio.BaseEventLoop):
        async_bus.run(async_bus.loop.loop.set_task_factory, asyncio.eager_task_factory)
    recorders = neighbours(async_bus)
    for message in range(20):
        async_bus.hub.send_all(message)
        async_bus.run(async_bus.hub.send_all, message)

    for recorder in recorders:
        assert len(recorder.wait(40)) == 40


@pytest.mark.parametrize("mode", ASYNC, ids=str)
def test_a_program_under_asyncio_run_may_end_while_a_handler_is_suspended(mode: Any):
    events: list[str] = []
    loop = mode.new_loop()

    async def waits(message: Any) -> None:
        events.append("started")
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            events.append("cancelled")
            raise

    async def main() -> PubSubHub:
        hub = PubSubHub(loop=loop if mode.hub_has_loop else None)
        hub.subscribe("ann", waits)
        hub.send_all("hello")
        while not events:
            await asyncio.sleep(0)
        return hub

    # What asyncio.run does at the end, on a loop of either kind.
    hub = loop.run_until_complete(main())
    others = asyncio.all_tasks(loop)
    for task in others:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*others, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()

    assert events == ["started", "cancelled"]
    assert hub.stats().delivered == 1
