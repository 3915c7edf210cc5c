"""What is no ordinary exception: it ends what it would end without a hub, and nothing else."""

import asyncio
import sys
import textwrap
import types
from collections.abc import Callable, Generator
from typing import Any

import pytest

import python_programs
from delivery_modes import Bus, LoopThread, Recorder
from pagebus import PubSubHub

# KeyboardInterrupt and SystemExit: tests/promises/test_sender_never_waits.py and
# tests/delivery/test_inline.py hold what they do inline, on a loop and on a worker.

PREAMBLE = """
import asyncio, sys, threading
from concurrent.futures import ThreadPoolExecutor
from pagebus import PubSubHub

"""

QUITS = {
    "inline": """
        hub = PubSubHub()
        hub.subscribe("ann", lambda message: {quit})
        hub.send_all("hello")
        print("not reached")
    """,
    "on a loop": """
        async def main():
            hub = PubSubHub(asyncio.get_running_loop())
            async def handler(message):
                {quit}
            hub.subscribe("ann", handler)
            hub.send_all("hello")
            await asyncio.sleep(30)
            print("not reached")
        asyncio.run(main())
    """,
    "on a loop, after it was suspended": """
        async def main():
            hub = PubSubHub(asyncio.get_running_loop())
            async def handler(message):
                await asyncio.sleep(0)
                {quit}
            hub.subscribe("ann", handler)
            hub.send_all("hello")
            await asyncio.sleep(30)
            print("not reached")
        asyncio.run(main())
    """,
}


@pytest.mark.parametrize("way", QUITS.values(), ids=QUITS)
def test_sys_exit_in_a_handler_ends_the_program_with_its_status(way: str):
    done = python_programs.run(PREAMBLE + textwrap.dedent(way.replace("{quit}", "sys.exit(7)")))

    assert (done.returncode, done.stdout) == (7, ""), done.stderr


def test_sys_exit_on_a_worker_is_a_failure_and_not_the_end_of_the_program():
    done = python_programs.run(
        PREAMBLE
        + textwrap.dedent("""
        got = []
        hub = PubSubHub(executor=ThreadPoolExecutor(1), on_error=lambda f: got.append(f.exception))
        hub.subscribe("ann", lambda message: sys.exit(7))
        hub.subscribe("bob", got.append)
        hub.send_all("hello")
        """)
        + "\nimport atexit\n"
        "atexit.register(lambda: print([str(each) for each in got]))\n"
    )

    assert (done.returncode, done.stdout) == (0, "['7', 'hello']\n"), done.stderr


# ---- cancellation ----------------------------------------------------------------------------


def test_the_cancellation_of_one_handlers_task_touches_nobody_else(suspending_bus: Bus, log: Any):
    before, after, tasks = suspending_bus.recorder(), suspending_bus.recorder(), Recorder()
    own = Recorder()

    async def cancelled(message: int) -> None:
        if message == 1:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        own.record(message)
        await asyncio.sleep(0)
        tasks.record(message)

    suspending_bus.subscribe("ann", before.handler)
    suspending_bus.subscribe("bob", cancelled)
    suspending_bus.subscribe("cat", after.handler)
    for message in range(4):
        suspending_bus.hub.send_all(message)
    suspending_bus.settle()

    assert before == after == own == [0, 1, 2, 3]
    assert tasks == [0, 2, 3]
    assert suspending_bus.hub.stats().failed == 0


def test_a_cancelled_error_that_a_handler_raises_itself_touches_nobody_else(bus: Bus, log: Any):
    before, after = bus.recorder(), bus.recorder()

    def raises(message: int) -> None:
        if message == 1:
            raise asyncio.CancelledError

    bus.subscribe("ann", before.handler)
    bus.subscribe("bob", bus.handler(raises))
    bus.subscribe("cat", after.handler)
    for message in range(3):
        bus.run(bus.hub.send_all, message)
    bus.settle()

    assert before == after == [0, 1, 2]


# ---- other unusual exceptions ----------------------------------------------------------------


def recurse_for_ever(_: Any) -> None:
    recurse_for_ever(_)


def raise_memory_error(_: Any) -> None:
    raise MemoryError


def raise_generator_exit(_: Any) -> None:
    raise GeneratorExit


class Rare(BaseException):
    """An exception that is meant for nobody in particular."""


def raise_rare(_: Any) -> None:
    raise Rare


@pytest.mark.parametrize(
    "fault", [recurse_for_ever, raise_memory_error, raise_generator_exit, raise_rare]
)
def test_a_rare_exception_is_reported_like_any_other(
    bus: Bus, log: Any, fault: Callable[[Any], None]
):
    before, after, failures = bus.recorder(), bus.recorder(), Recorder()
    hub = bus.hub = bus.new_hub(on_error=failures.record)

    bus.subscribe("ann", before.handler)
    bus.subscribe("bob", bus.handler(fault))
    bus.subscribe("cat", after.handler)
    for message in range(3):
        bus.run(hub.send_all, message)
    before.wait(3)
    after.wait(3)
    failures.wait(3)
    bus.settle()

    assert before == after == [0, 1, 2]
    assert [failure.message for failure in failures] == [0, 1, 2]
    log.take(3)


RECURSION = """
import time

async def use():
    global hub, refused
    hub, got, refused = make(), [], 0

    def sync(message):
        got.append(message)

    async def on_loop(message):
        got.append(message)

    hub.subscribe("ann", on_loop if is_async else sync)

    def dig(depth):
        try:
            dig(depth + 1)
        finally:
            try:
                hub.send_all(depth)
            except RecursionError:
                global refused
                refused += 1

    try:
        dig(0)
    except RecursionError:
        pass
    hub.send_all("last")
    end = time.monotonic() + 20
    while "last" not in got and time.monotonic() < end:
        await asyncio.sleep(0)
    stats = hub.stats()
    assert got[-1] == "last", (len(got), stats)
    assert stats.pending == 0, stats
    # Every send was delivered or refused, and who was delivered came in order.
    assert stats.delivered + refused >= stats.published, (stats, refused)
    numbers = [message for message in got if message != "last"]
    assert numbers == sorted(numbers, reverse=True)
    assert len(numbers) > 500
    print("well")

asyncio.run(use())
"""

RECURSING = {
    "inline": "is_async, make = False, PubSubHub",
    "on a loop": "is_async, make = True, lambda: PubSubHub(asyncio.get_running_loop())",
    # Its thread runs already: a pool that cannot finish starting one never lets the program end.
    "on an executor": "is_async, pool = False, ThreadPoolExecutor(1); pool.submit(int).result()\n"
    "make = lambda: PubSubHub(executor=pool)",
}


@pytest.mark.parametrize("way", RECURSING.values(), ids=RECURSING)
def test_a_send_at_the_limit_of_recursion_is_delivered_or_refused_and_the_hub_goes_on(way: str):
    done = python_programs.run(PREAMBLE + way + RECURSION)

    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr[-2000:]


def test_a_generator_that_is_left_suspended_ends_with_its_loop_and_holds_up_nobody(log: Any):
    thread, got, ended = LoopThread(), Recorder(), Recorder()
    hub, future = PubSubHub(thread.loop), thread.run(thread.loop.create_future)

    @types.coroutine
    def waits(message: int) -> Generator[Any, None, None]:
        try:
            yield from future
        finally:
            ended.record(message)

    hub.subscribe("ann", waits)
    hub.subscribe("bob", got.record_async)
    for message in range(3):
        hub.send_all(message)
    assert got.wait(3) == [0, 1, 2]
    thread.spin()
    assert (ended, hub.stats().pending) == ([], 2)

    thread.close()

    assert ended.wait(1)[0] == 0
    log.take_all()


def test_a_generator_whose_close_is_refused_hurts_nobody(log: Any):
    loop, got = asyncio.new_event_loop(), Recorder()
    hub = PubSubHub(loop)

    class Stubborn:
        def __await__(self) -> Generator[Any, None, None]:
            yield None
            raise GeneratorExit

    async def stubborn(message: int) -> None:
        await Stubborn()

    hub.subscribe("ann", stubborn)
    hub.subscribe("bob", got.record_async)
    for message in range(3):
        hub.send_all(message)
    for _ in range(20):
        loop.run_until_complete(asyncio.sleep(0))
    loop.close()

    assert got == [0, 1, 2]
    assert (hub.stats().failed, hub.stats().pending) == (3, 0)
    log.take(3)


# ---- memory that is really gone --------------------------------------------------------------

OUT_OF_MEMORY = """
        import ctypes, logging, resource
        logging.disable(logging.CRITICAL)

        FOR_EVER = resource.RLIM_INFINITY
        got = []

        def handler(message):
            got.append(len(message))

        async def handler_on_loop(message):
            got.append(len(message))

        {make}
        hub.subscribe("ann", handler_on_loop if "loop" in globals() else handler)
        hub.send_all(b"first")

        def limit_memory(limit):
            resource.setrlimit(resource.RLIMIT_AS, (limit, FOR_EVER))
"""

LARGE_MESSAGES = """
        limit_memory(400 * 2**20)
        hoard, failed, size = [], 0, 2**20
        while size > 256:
            try:
                message = bytes(size)
                hub.send_all(message)
                hoard.append(message)
            except MemoryError:
                failed += 1
                size //= 2
        limit_memory(FOR_EVER)
        count = len(hoard) + 1
        hoard.clear()
        hub.send_all(b"last")
        hub.close()
        assert failed > 5 and got[0] == 5 and got[-1] == 4, (failed, got[:3], got[-3:])
        stats = hub.stats()
        assert stats.pending == 0, stats
        assert stats.delivered + stats.dropped >= count, (stats, count)
        print("well")
"""

NOT_A_BYTE = """
        libc = ctypes.CDLL(None)
        libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
        blocks, names = [0] * 2**20, [f"session {number}" for number in range(100)]
        free_slots = iter(range(len(blocks)))
        # The interpreter keeps the room of its own small objects: this script needs some.
        spare = [bytearray(16) for _ in range(100_000)]
        for index in range(len(spare)):
            spare[index] = None
        limit_memory(2**20)
        # Of all sizes, which an allocator keeps apart; again, for what was given back meanwhile.
        for size in [2**16, *range(4096, 0, -16)] * 3:
            for slot, block in zip(free_slots, iter(lambda: libc.malloc(size), None)):
                blocks[slot] = block
        sent, refused = 1, 0
        for name in names:
            try:
                hub.subscribe(name, lambda message: None)
            except MemoryError:
                refused += 1
            try:
                hub.send_all(b"")
                sent += 1
            except MemoryError:
                refused += 1
        limit_memory(FOR_EVER)
        for block in blocks:
            libc.free(block or None)
        later = []
        hub.subscribe("bob", later.append)
        hub.send_all(b"last")
        hub.close()
        assert refused > 100, refused
        assert got == [5] + [0] * (sent - 1) + [4], (sent, got)
        assert later == [b"last"], later
        print("well")
"""

MEMORY_WAYS = {
    "inline": "hub = PubSubHub()",
    "on an executor": "hub = PubSubHub(executor=ThreadPoolExecutor(1))",
    "on a loop": """
        loop = asyncio.new_event_loop()

        def run():
            while not loop.is_closed():
                try:
                    loop.run_forever()
                except MemoryError:
                    # asyncio's own: who runs a loop decides whether it goes on.
                    pass

        threading.Thread(target=run, daemon=True).start()
        hub = PubSubHub(loop)
    """,
}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's addresses so")
@pytest.mark.parametrize("make", MEMORY_WAYS.values(), ids=MEMORY_WAYS)
@pytest.mark.parametrize(
    "story", [LARGE_MESSAGES, NOT_A_BYTE], ids=["large messages", "not a byte left"]
)
def test_a_program_that_runs_out_of_memory_while_it_sends_goes_on_afterwards(make: str, story: str):
    program = OUT_OF_MEMORY.replace("{make}", make.strip()) + story

    done = python_programs.run(PREAMBLE + textwrap.dedent(program))

    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr
