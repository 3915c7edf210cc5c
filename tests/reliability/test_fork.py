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
        await asyncio.sleep(0.01)  # For what should not come.
    loop.run_until_complete(asyncio.wait_for(wait(), 20))

got = Got()
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
        hub.subscribe("ann", got.record)
        hub.send_all("before")

        def use(messages):
            for message in messages:
                hub.send_all(message)
            return got
    """,
    "on an executor": """
        hub = PubSubHub(executor=ThreadPoolExecutor(2))
        hub.subscribe("ann", got.record)
        hub.send_all("before")
        got.wait(1)

        def use(messages):
            for message in messages:
                hub.send_all(message)
            return got.wait(1 + len(messages))
    """,
    "on an executor of daemon threads": """
        class Daemons:
            def submit(self, job):
                threading.Thread(target=job, daemon=True).start()

        hub = PubSubHub(executor=Daemons())
        hub.subscribe("ann", got.record)
        hub.send_all("before")
        got.wait(1)

        def use(messages):
            for message in messages:
                hub.send_all(message)
            return got.wait(1 + len(messages))
    """,
    "on a loop that each process runs": """
        loop = new_loop()
        hub = PubSubHub(loop)
        hub.subscribe("ann", got.record_async)
        hub.send_all("before")
        run_until(loop, got, 1)

        def use(messages):
            for message in messages:
                hub.send_all(message)
            run_until(loop, got, 1 + len(messages))
            return got
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


QUEUED = {
    "for a busy worker": """
        inside, gate = threading.Event(), threading.Event()

        def slow(message):
            inside.set()
            gate.wait(20)
            got.record(message)

        hub = PubSubHub(executor=ThreadPoolExecutor(1))
        hub.subscribe("ann", slow)
        for message in range(5):
            hub.send_all(message)
        inside.wait(20)

        def go_on(count):
            gate.set()
            got.wait(count)
    """,
    "for a loop that does not run yet": """
        loop = new_loop()
        hub = PubSubHub(loop)
        hub.subscribe("ann", got.record_async)
        for message in range(5):
            hub.send_all(message)

        def go_on(count):
            run_until(loop, got, count)
    """,
    "for a handler that awaits something": """
        loop = new_loop()
        hub, gate = PubSubHub(loop), asyncio.Event()

        async def slow(message):
            if message == 0:
                got.record(message)
                await gate.wait()
            else:
                got.record(message)

        hub.subscribe("ann", slow)
        for message in range(5):
            hub.send_all(message)
        run_until(loop, got, 1)

        def go_on(count):
            gate.set()
            run_until(loop, got, count)
    """,
    "for an awaitable that a handler returned": """
        loop = new_loop()
        hub = PubSubHub(loop)
        hub.subscribe("ann", lambda message: got.record_async(message))
        for message in range(5):
            hub.send_all(message)

        def go_on(count):
            run_until(loop, got, count)
    """,
}


@pytest.mark.parametrize("queued", QUEUED.values(), ids=QUEUED)
def test_what_is_queued_at_a_fork_is_the_parents_to_deliver(queued: str):
    ends_well(
        textwrap.dedent(queued)
        + textwrap.dedent("""
        def child():
            before = list(got)
            hub.send_all("child")
            go_on(len(before) + 1)
            assert got == [*before, "child"], got
            assert (hub.stats().pending, hub.stats().dropped) == (0, 0), hub.stats()

        assert ended_well(fork(child))
        assert ended_well(fork(hub.stats))
        go_on(5)
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
            if os.fork() == 0:
                # Ends the child when nothing of it is left to do, or the alarm does.
                signal.alarm(20)
                message = b"child"
                threading.Timer(0.3, os._exit, [0]).start()
            os.write(writer, b"forked ")

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


def test_a_fork_while_eight_threads_send_leaves_every_child_a_hub_that_works():
    ends_well(
        f"""
        import logging
        logging.getLogger("pagebus").disabled = True  # Of messages that are dropped.
        loop = new_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()
        workers, inline = PubSubHub(loop, ThreadPoolExecutor(4)), PubSubHub()
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


# ---- what cannot come along ------------------------------------------------------------------


def test_a_loop_that_runs_in_the_parent_is_an_error_of_sends_and_subscriptions_in_the_child():
    ends_well("""
        import logging
        logging.getLogger("pagebus").disabled = True
        loop = new_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()
        hub = PubSubHub(loop)
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
        import logging
        logging.getLogger("pagebus").disabled = True

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
            # What the error says is logged, too.
            logging.disable()
            try:
                hub.send_all("too late")
            except RuntimeError:
                return
            raise AssertionError("it was taken")

        assert ended_well(fork(child))
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
