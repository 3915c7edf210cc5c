"""Fork: a hub made before it works in parent and children, and each delivers its own messages."""

import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import python_programs
from pagebus import PubSub, PubSubHub

FORKS = int(os.environ.get("PAGEBUS_FORKS", "200"))
"""How often the program forks whose threads send meanwhile; more take longer."""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

PREAMBLE = """
import asyncio, gc, logging, os, selectors, signal, sys, threading, time, traceback, weakref
from concurrent.futures import ThreadPoolExecutor
from pagebus import PubSubHub

def new_loop():
    # Without a kernel object that both processes would share, as epoll's is.
    return asyncio.SelectorEventLoop(selectors.SelectSelector())

def running_loop():
    loop = new_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop

def disable_log():
    logging.getLogger("pagebus").disabled = True

def fork(body):
    pid = os.fork()
    if pid:
        return pid
    status = 1
    signal.alarm(30)  # A child that hangs ends, and not well.
    try:
        body()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)

def ended_well(pid):
    return os.waitpid(pid, 0)[1] == 0

class Got(list):
    def __init__(self):
        self.grew = threading.Condition()
    def record(self, message):
        with self.grew:
            self.append(message)
            self.grew.notify_all()
    async def record_async(self, message):
        await asyncio.sleep(0)
        self.record(message)
    def wait(self, count):
        with self.grew:
            assert self.grew.wait_for(lambda: len(self) >= count, 20), self
        return self

def refused(call, *words):
    try:
        call()
    except RuntimeError as error:
        assert all(word in str(error) for word in words), error
    else:
        raise AssertionError("not refused")

def run_until(loop, got, count):
    async def wait():
        while len(got) < count:
            await asyncio.sleep(0)
        for _ in range(20):  # For what should not come.
            await asyncio.sleep(0)
    loop.run_until_complete(asyncio.wait_for(wait(), 20))

got = Got()

# Programs whose messages do not come by themselves say how they come.
def wait_for(count):
    got.wait(count)

def begin(handler):
    hub.subscribe("ann", handler)
    hub.send_all("before")
    wait_for(1)

def use(messages):
    for message in messages:
        hub.send_all(message)
    wait_for(1 + len(messages))
    return got
"""


# That a fork with threads can go wrong is said by newer Pythons, and tested here. Nobody closes a
# loop that another process runs.
WARNINGS = ["-W", "error", "-W", "ignore::DeprecationWarning", "-W", "ignore::ResourceWarning"]


def ends_well(body: str, seconds: float = 60) -> None:
    program = PREAMBLE + textwrap.dedent(body)
    done = python_programs.run(program, *WARNINGS, seconds=seconds)
    assert done.stderr == "", done.stderr
    assert (done.returncode, done.stdout) == (0, "")


WAYS = {
    "inline": """
        hub = PubSubHub()
        begin(got.record)
    """,
    "on an executor": """
        hub = PubSubHub(executor=ThreadPoolExecutor(2))
        begin(got.record)
    """,
    "on an executor of daemon threads": """
        class Daemons:
            def submit(self, job):
                threading.Thread(target=job, daemon=True).start()

        hub = PubSubHub(executor=Daemons())
        begin(got.record)
    """,
    "on a loop that each process runs": """
        loop = new_loop()
        hub = PubSubHub(loop)

        def wait_for(count):
            run_until(loop, got, count)

        begin(got.record_async)
    """,
    "on a loop of each process's own": """
        hub = PubSubHub()
        got.record("before")

        async def chat(messages):
            hub.subscribe("ann", got.record_async)
            for message in messages:
                hub.send_all(message)
            while len(got) < 1 + len(messages):
                await asyncio.sleep(0)

        def use(messages):
            asyncio.run(asyncio.wait_for(chat(messages), 20))
            return got
    """,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_parent_and_children_deliver_their_own_messages_once(way: str):
    ends_well(
        textwrap.dedent(way)
        + textwrap.dedent("""
        def child():
            assert use(["child", "too"]) == ["before", "child", "too"], got
            assert hub.stats().pending == 0

            del got[1:]
            assert ended_well(fork(lambda: use(["grandchild"])))
            assert got == ["before"]

        children = [fork(child) for _ in range(2)]
        assert use(["parent"]) == ["before", "parent"], got
        assert all(map(ended_well, children))
        assert got == ["before", "parent"], got
    """)
    )


ON_A_LOOP = """
        loop = new_loop()
        hub = PubSubHub(loop)

        def wait_for(count):
            run_until(loop, got, count)
"""

QUEUED = {
    "for a busy worker": """
        inside, gate = threading.Event(), threading.Event()

        def handler(message):
            inside.set()
            gate.wait(20)
            got.record(message)

        hub = PubSubHub(executor=ThreadPoolExecutor(1))
        begun, go_on = inside.wait, gate.set
    """,
    "for a loop that does not run yet": f"""{ON_A_LOOP}
        handler, begun, go_on = got.record_async, tuple, tuple
    """,
    "for a handler that awaits something": f"""{ON_A_LOOP}
        gate = asyncio.Event()

        async def handler(message):
            got.record(message)
            if message == 0:
                await gate.wait()

        begun, go_on = lambda: wait_for(1), gate.set
    """,
    "for an awaitable that a handler returned": f"""{ON_A_LOOP}
        def handler(message):
            return got.record_async(message)

        begun, go_on = tuple, tuple
    """,
}


@pytest.mark.parametrize("queued", QUEUED.values(), ids=QUEUED)
def test_what_is_queued_at_a_fork_is_the_parents_to_deliver(queued: str):
    ends_well(
        textwrap.dedent(queued)
        + textwrap.dedent("""
        hub.subscribe("ann", handler)
        for message in range(5):
            hub.send_all(message)
        begun()

        def child():
            before = list(got)
            hub.send_all("child")
            go_on()
            wait_for(len(before) + 1)
            assert got == [*before, "child"], got
            assert (hub.stats().pending, hub.stats().dropped) == (0, 0), hub.stats()

        assert ended_well(fork(child))
        assert ended_well(fork(hub.stats))
        go_on()
        wait_for(5)
        assert got == list(range(5)), got
    """)
    )


FORKING = {
    "inline": """
        hub = PubSubHub()
    """,
    "on an executor": """
        hub = PubSubHub(executor=ThreadPoolExecutor(1))
    """,
    "on a loop": """
        loop = new_loop()
        hub = PubSubHub(loop)
    """,
}


@pytest.mark.parametrize("way", FORKING.values(), ids=FORKING)
def test_a_handler_that_forks_goes_on_in_both_and_the_others_get_the_message_once(way: str):
    ends_well(
        textwrap.dedent(way)
        + textwrap.dedent("""
        reader, writer = os.pipe()

        def tell(message):
            os.write(writer, b"%s " % message)

        def forks(message):
            child = os.fork()
            os.write(writer, b"forked ")
            if child == 0:
                # Ends the child when nothing of it is left to do, or the alarm does.
                signal.alarm(20)
                message = b"child"
                threading.Timer(0.3, os._exit, [0]).start()

        def is_async(handler):
            async def call(message):
                handler(message)
            return call

        for number, handler in enumerate([tell, forks, tell, tell]):
            hub.subscribe(str(number), is_async(handler) if "loop" in globals() else handler)
        parent = os.getpid()
        hub.send_all(b"hello")
        if "loop" in globals():
            loop.run_until_complete(asyncio.sleep(0.1))
        if os.getpid() != parent:
            threading.Event().wait(20)
        told = b""
        while len(told.split()) < 5:
            told += os.read(reader, 1000)
        os.wait()
        os.close(writer)
        while piece := os.read(reader, 1000):
            told += piece
        assert sorted(told.split()) == [b"forked"] * 2 + [b"hello"] * 3, told
    """)
    )


def test_what_a_child_sends_inside_the_handler_that_forked_it_is_delivered_there():
    ends_well("""
        hub = PubSubHub()

        def forks(message):
            if message == "hello":
                def child():
                    hub.send_all("child")
                    assert got == ["hello", "child"], got
                assert ended_well(fork(child))

        hub.subscribe("ann", got.record)
        hub.subscribe("bob", forks)
        hub.send_all("hello")
        hub.send_all("again")
        assert got == ["hello", "again"], got
    """)


@pytest.mark.timeout(60 + FORKS)
def test_a_fork_while_eight_threads_send_leaves_every_child_a_hub_that_works():
    ends_well(
        f"""
        disable_log()  # Of messages that are dropped.
        workers, inline = PubSubHub(running_loop(), ThreadPoolExecutor(4)), PubSubHub()
        at_inline, mine = Got(), threading.local()

        for number in range(4):
            workers.subscribe(str(number), got.record)
        workers.subscribe("async", got.record_async)
        inline.subscribe("ann", at_inline.record)

        def send():
            while True:
                workers.send_all_on_topic("nobody", "parent")
                workers.send_all("parent")
                inline.send_all("parent")
                time.sleep(0.0002)

        def child():
            got.grew, at_inline.grew = threading.Condition(), threading.Condition()
            del got[:], at_inline[:]
            fresh = Got()
            for number in range(4):
                workers.unsubscribe_all(str(number))
                workers.subscribe(f"fresh {{number}}", fresh.record)
            workers.unsubscribe_all("async")
            inline.unsubscribe_all("ann")
            inline.subscribe("bob", at_inline.record)
            for message in range(10):
                workers.send_all(message)
                inline.send_all(message)
            assert sorted(fresh.wait(40)) == sorted([*range(10)] * 4), fresh
            assert at_inline == [*range(10)], at_inline
            assert got == []
            assert workers.stats().pending == 0

        for _ in range(8):
            threading.Thread(target=send, daemon=True).start()
        for _ in range({FORKS}):
            assert ended_well(fork(child))
            del got[:], at_inline[:]
        os._exit(0)
        """,
        seconds=30 + FORKS,
    )


@pytest.mark.timeout(60 + FORKS)
def test_a_fork_while_threads_subscribe_close_and_stream_leaves_every_child_hubs_that_work():
    ends_well(
        f"""
        disable_log()  # Of messages that are dropped.
        executor = ThreadPoolExecutor(2)
        hubs = [PubSubHub(history=3), PubSubHub(executor=executor, history=3)]
        closing = [PubSubHub()]

        def for_ever(body):
            def run():
                number = 0
                while True:
                    body(number := number + 1)
                    time.sleep(0.0005)
            threading.Thread(target=run, daemon=True).start()

        def come_and_go(number):
            for hub in hubs:
                hub.subscribe("ann", lambda message: None)
                hub.subscribe_topic("ann", f"room {{number}}", lambda topic, message: None)
                hub.send_all_on_topic(f"room {{number}}", number)
                hub.unsubscribe_all("ann")

        def close(number):
            closing[0] = hub = PubSubHub(executor=executor)
            hub.subscribe("ann", lambda message: None)
            hub.send_all(number)
            hub.close(timeout=1)

        def listen(number):
            for hub in hubs:
                with hub.listen("bob", timeout=1) as messages:
                    hub.send_to("bob", number)
                    next(messages)

        def stream(number):
            async def read(hub):
                async with hub.stream("cat", "news", replay=1) as messages:
                    hub.send_all_on_topic("news", number)
                    await asyncio.wait_for(anext(messages), 20)
            for hub in hubs:
                asyncio.run(read(hub))

        def works(hub):
            fresh = Got()
            hub.subscribe("fresh", fresh.record)
            for message in range(3):
                hub.send_to("fresh", message)
            assert fresh.wait(3) == [0, 1, 2], fresh
            with hub.listen("reader", timeout=20) as messages:
                hub.send_to("reader", "hello")
                assert next(messages) == "hello"

            async def read():
                async with hub.stream("reader", "own") as messages:
                    hub.send_all_on_topic("own", "hello")
                    assert await asyncio.wait_for(anext(messages), 20) == "hello"

            asyncio.run(read())
            hub.close(timeout=20)
            assert hub.closed
            assert hub.stats().subscriptions == 0, hub.stats()

        def child():
            for hub in hubs:
                works(hub)
            closing[0].close(timeout=20)
            assert closing[0].closed
            works(PubSubHub())

        for body in (come_and_go, come_and_go, close, listen, stream):
            for_ever(body)
        for _ in range({FORKS} // 2):
            assert ended_well(fork(child))
        os._exit(0)
        """,
        seconds=30 + FORKS,
    )


def test_a_loss_that_is_being_reported_at_a_fork_does_not_keep_the_child_from_reporting_its_own():
    ends_well("""
        disable_log()
        told, reporting, go_on = Got(), threading.Event(), threading.Event()
        inside, gate = threading.Event(), threading.Event()

        def report(overflow):
            told.record(overflow.dropped)
            reporting.set()
            go_on.wait(20)

        def blocked(message):
            inside.set()
            gate.wait(20)

        def overflow():
            # Bob has every message before the next is sent, and Ann does not get beyond the first.
            for message in range(4):
                hub.send_all(message)
                got.wait(message + 1)
                inside.wait(20)

        hub = PubSubHub(executor=ThreadPoolExecutor(4), max_pending=1, on_overflow=report)
        hub.subscribe("ann", blocked)
        hub.subscribe("bob", got.record)
        overflow()
        reporting.wait(20)

        def child():
            for each in (told, got):
                each.grew = threading.Condition()
                del each[:]
            inside.clear()
            go_on.set()
            overflow()
            gate.set()
            assert told.wait(2) == [1, 2], told

        assert ended_well(fork(child))
        go_on.set()
        gate.set()
        assert told.wait(2) == [1, 2], told
    """)


# ---- what cannot come along ------------------------------------------------------------------


def test_a_loop_that_runs_in_the_parent_is_an_error_of_sends_and_subscriptions_in_the_child():
    ends_well("""
        disable_log()
        hub = PubSubHub(running_loop())
        hub.subscribe("ann", got.record_async)
        hub.send_all("before")
        got.wait(1)

        def child():
            refused(lambda: hub.send_all("child"), "event loop", "fork")
            refused(lambda: hub.subscribe("bob", got.record_async), "event loop", "fork")
            assert hub.stats().pending == 0
            assert got == ["before"]
            # Sync handlers need no loop.
            sync = Got()
            hub.unsubscribe_all("ann")
            hub.subscribe("cat", sync.record)
            hub.send_all("sync")
            assert sync == ["sync"]

        assert ended_well(fork(child))
        hub.send_all("parent")
        assert got.wait(2) == ["before", "parent"]
    """)


def test_subscriptions_on_a_loop_that_was_found_running_end_in_the_child():
    ends_well("""
        hub = PubSubHub()

        async def main():
            subscription = hub.subscribe("ann", got.record_async)
            hub.subscribe("bob", got.record)

            def child():
                hub.send_all("child")
                assert got == ["child"], got
                assert not subscription.active
                assert hub.stats().subscriptions == 1

            assert ended_well(fork(child))
            hub.send_all("parent")
            while len(got) < 2:
                await asyncio.sleep(0)
            assert subscription.active

        asyncio.run(asyncio.wait_for(main(), 20))
        assert got == ["parent", "parent"]
    """)


def test_an_executor_of_a_class_of_its_own_is_an_error_in_the_child_if_it_has_threads():
    ends_well("""
        disable_log()

        class Own(ThreadPoolExecutor):
            def __init__(self, greeting):
                super().__init__(1)

        fresh, used = PubSubHub(executor=Own("hi")), PubSubHub(executor=Own("hi"))
        for hub in (fresh, used):
            hub.subscribe("ann", got.record)
        used.send_all("before")
        got.wait(1)

        def child():
            refused(lambda: used.send_all("child"), "executor", "fork")
            refused(lambda: used.subscribe("bob", print), "executor", "fork")
            fresh.send_all("child")
            assert got.wait(2) == ["before", "child"]

        assert ended_well(fork(child))
        used.send_all("parent")
        assert got.wait(2) == ["before", "parent"]
    """)


def test_the_workers_of_a_child_begin_as_those_of_the_parent_do():
    ends_well("""
        begun = Got()
        executor = ThreadPoolExecutor(3, "chat", begun.record, ("hi",))
        hub = PubSubHub(executor=executor)
        hub.subscribe("ann", lambda message: got.record(threading.current_thread().name))
        hub.send_all("before")
        got.wait(1)

        def child():
            begun.grew, got.grew = threading.Condition(), threading.Condition()
            del begun[:], got[:]
            hub.send_all("child")
            assert got.wait(1)[0].startswith("chat")
            assert begun == ["hi"]

        assert ended_well(fork(child))
    """)


def test_an_executor_that_is_shut_down_is_so_in_the_child_too():
    ends_well("""
        executor = ThreadPoolExecutor(1)
        hub = PubSubHub(executor=executor)
        hub.subscribe("ann", got.record)
        executor.shutdown()

        def child():
            disable_log()  # What the error says is logged, too.
            refused(lambda: hub.send_all("too late"))

        assert ended_well(fork(child))
    """)


def test_a_hook_that_forks_leaves_the_call_that_it_comes_before_to_the_parent():
    ends_well("""
        forked, gate, children = threading.Event(), threading.Event(), []
        logging.disable()  # Of the losses.

        class Pool(ThreadPoolExecutor):
            def submit(self, job):
                future = super().submit(job)
                # A child's copy of the worker ends its process once it has nothing more to do.
                future.add_done_callback(lambda _: forked.is_set() and os._exit(len(got) - 1))
                return future

        def tell(overflow):
            if overflow.dropped > 1:
                child = os.fork()
                if child == 0:
                    signal.alarm(30)
                    forked.set()
                else:
                    children.append(child)

        def handler(message):
            got.record(message)
            gate.wait()

        other = Got()
        executor = Pool(2)
        hub = PubSubHub(executor=executor, max_pending=1, on_overflow=tell)
        hub.subscribe("ann", handler)
        hub.subscribe("bob", other.record)
        for message in range(4):
            hub.send_all(message)
            other.wait(message + 1)
            got.wait(1)
        gate.set()
        got.wait(2)
        executor.shutdown()

        assert got == [0, 3]
        assert [ended_well(child) for child in children] == [True]
    """)


def test_nobody_is_told_in_a_child_of_the_end_that_the_parent_waits_for():
    ends_well("""
        told, gate, asleep = Got(), threading.Event(), threading.Event()

        class Loop(asyncio.SelectorEventLoop):
            def call_soon_threadsafe(self, *args, **kwargs):
                told.record(os.getpid())
                return super().call_soon_threadsafe(*args, **kwargs)

        loop = Loop(selectors.SelectSelector())
        ending = lambda: loop.run_until_complete(hub.aclose(timeout=None))
        waits = threading.Thread(target=ending, daemon=True)
        executor = ThreadPoolExecutor(1)
        hub = PubSubHub(executor=executor)
        hub.subscribe("ann", lambda message: (got.record(message), gate.wait()))
        hub.send_all("hello")
        got.wait(1)
        waits.start()
        loop.call_soon_threadsafe(asleep.set)
        asleep.wait(20)

        def child():
            assert hub.closed
            assert told == [os.getppid()], "it is the parent's loop"

        well = ended_well(fork(child))
        gate.set()
        waits.join(20)
        assert well
        assert told == [os.getpid()] * 2
        executor.shutdown()
        loop.close()
    """)


@pytest.mark.parametrize("name", ["PubSubHub", "PubSub", "Subscription"])
def test_what_belongs_to_a_process_says_so_when_it_is_pickled(name: str):
    hub = PubSubHub()
    things = {
        "PubSubHub": hub,
        "PubSub": PubSub(hub, "ann"),
        "Subscription": hub.subscribe("ann", print),
    }

    with pytest.raises(TypeError, match=f"cannot pickle 'pagebus.{name}' object"):
        pickle.dumps(things[name])


# ---- multiprocessing and servers -------------------------------------------------------------

POOL = """
import multiprocessing, sys
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from pagebus import PubSubHub

hub, workers, got = PubSubHub(), PubSubHub(executor=ThreadPoolExecutor(2)), SimpleQueue()
for each in (hub, workers):
    each.subscribe("ann", got.put)

def use(message):
    hub.send_all(message)
    first = got.get(timeout=20)
    workers.send_all((message, "too"))
    return first, got.get(timeout=20), got.qsize()

if __name__ == "__main__":
    assert use("parent") == ("parent", ("parent", "too"), 0)
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        assert pool.map(use, range(20)) == [(n, (n, "too"), 0) for n in range(20)]
    assert use("parent") == ("parent", ("parent", "too"), 0)
"""


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_processes_of_multiprocessing_deliver_however_they_were_started(
    tmp_path: Path, method: str
):
    program = tmp_path / "pool.py"
    program.write_text(POOL)

    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", str(program), method],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
