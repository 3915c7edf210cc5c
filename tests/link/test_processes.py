"""Linked hubs in the life of a process: forks, exits, and hubs that are dropped."""

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading
import weakref
from pathlib import Path

import psutil
import pytest
from link_tools import PATIENCE, Json, Linked, Log, follow, until
from proxy import Proxy
from redis_server import RedisServer

from delivery_modes import collect_garbage
from pagebus import HubClosed, PubSubHub

pytestmark = [
    pytest.mark.link,
    pytest.mark.thread_unsafe(reason="it is about other processes"),
]

# asyncio's debug mode also says what is slow, which a busy machine is.
PREAMBLE = """
import asyncio, logging, os, sys, threading
logging.getLogger("asyncio").setLevel(logging.ERROR)
sys.path.insert(0, {tools!r})
from link_tools import PATIENCE, Json, Log, follow, until
from pagebus import PubSubHub
hub = PubSubHub(link={url!r}, codec=Json)
"""


def run(redis: RedisServer | Proxy, program: str) -> "subprocess.CompletedProcess[str]":
    preamble = PREAMBLE.format(tools=str(Path(__file__).parent), url=redis.url)
    return subprocess.run(
        [sys.executable, "-X", "dev", "-c", preamble + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
@pytest.mark.parametrize("when", ["before it connects", "after it has connected"])
def test_a_linked_hub_that_is_forked_works_in_parent_and_child(redis: RedisServer, when: str):
    done = run(
        redis,
        f"""
        if {when == "after it has connected"}:
            asyncio.run(follow(hub, "both", "news"))
            hub.send_all_on_topic("news", "before")
        read, write = os.pipe()
        if not (child := os.fork()):
            log = asyncio.run(follow(hub, "child", "news"))
            hub.send_all_on_topic("news", "from the child")
            log.wait_for("from the parent")
            hub.close()
            os._exit(7)
        log = asyncio.run(follow(hub, "parent", "news"))
        log.wait_for("from the child")
        hub.send_all_on_topic("news", "from the parent")
        log.wait_for("from the parent")
        assert [m for _, m in log].count("from the parent") == 1, log
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        hub.close()
        print("well")
        """,
    )
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_forked_child_can_wait_for_a_subscription_that_it_inherited(redis: RedisServer):
    done = run(
        redis,
        """
        log = Log()
        subscription = hub.subscribe_topic("both", "news", log.add)
        asyncio.run(subscription.ready())
        if not (child := os.fork()):
            asyncio.run(asyncio.wait_for(subscription.ready(), PATIENCE))
            hub.send_all_on_topic("news", "from the child")
            log.wait_for("from the child")
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        hub.close()
        print("well")
        """,
    )
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_forked_child_that_asks_for_the_state_is_told_that_of_its_own_link(redis: RedisServer):
    done = run(
        redis,
        f"""
        states = []
        hub = PubSubHub(link={redis.url!r}, codec=Json, on_link_state=states.append)
        until(lambda: hub.link_state == "connected", "no connection")
        if not (child := os.fork()):
            states.clear()
            hub.link_state
            until(lambda: states == ["connected"], "the child has no connection")
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        hub.close()
        print("well")
        """,
    )
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr


@pytest.mark.parametrize(
    "end",
    ["pass", "sys.exit(0)", "hub.close()", "del hub", "[hub.send_all(n) for n in range(1000)]"],
)
def test_a_program_with_a_linked_hub_ends(redis: RedisServer, end: str):
    done = run(redis, f'asyncio.run(follow(hub, "ann", "news"))\nhub.send_all(1)\n{end}')
    assert (done.returncode, done.stderr) == (0, "")


def test_a_program_ends_while_the_broker_is_away(own_redis: RedisServer):
    own_redis.kill()
    done = run(own_redis, "hub.send_all(1)\nuntil(lambda: hub.link_state == 'disconnected', '')")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("end", ["pass", "sys.exit(0)", "del hub", "1 / 0"])
def test_what_a_program_sends_last_is_published_also_if_it_does_not_close_its_hub(
    linked: Linked, proxy: Proxy, end: str
):
    log = asyncio.run(follow(linked(), "ann", "news"))
    proxy.delay = 0.02
    run(proxy, f"for n in range(100):\n    hub.send_all_on_topic('news', n)\n{end}")
    assert log.wait(100) == [("news", number) for number in range(100)]


def test_what_an_exit_handler_sends_is_published(linked: Linked, redis: RedisServer):
    log = asyncio.run(follow(linked(), "ann"))
    done = run(redis, "import atexit\natexit.register(lambda: hub.send_all('goodbye'))")
    assert (done.returncode, done.stderr) == (0, "")
    assert log.wait(1) == [(None, "goodbye")]


def test_what_is_not_published_when_a_program_ends_is_said_once(own_redis: RedisServer):
    own_redis.kill()
    done = run(
        own_redis,
        f"""
        other = PubSubHub(link={own_redis.url!r}, codec=Json)
        for each in (hub, hub, other):
            each.send_all(1)
        """,
    )
    assert done.returncode == 0
    said = [line for line in done.stderr.splitlines() if "not reach" in line]
    assert said == ["3 messages may not reach other processes: this one ends"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_forked_child_that_ends_publishes_what_it_has_sent(linked: Linked, redis: RedisServer):
    log = asyncio.run(follow(linked(), "ann"))
    done = run(
        redis,
        """
        asyncio.run(follow(hub, "both", "news"))
        if not (child := os.fork()):
            hub.send_all("from the child")
            sys.exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        """,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert log.wait(1) == [(None, "from the child")]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_forked_child_that_ends_leaves_what_its_parent_has_sent_to_it(own_redis: RedisServer):
    own_redis.kill()
    done = run(
        own_redis,
        """
        hub.send_all("from the parent")
        if not (child := os.fork()):
            sys.exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        """,
    )
    assert done.returncode == 0
    said = [line for line in done.stderr.splitlines() if "not reach" in line]
    assert said == ["1 message may not reach other processes: this one ends"]


def test_closing_gives_up_what_cannot_be_published_in_time(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
):
    hub = PubSubHub(link=own_redis.url, codec=Json)
    hub.send_all(0)
    until(lambda: hub.stats().outbox == 0, "it is not published")
    own_redis.kill()
    for number in range(5):
        hub.send_all(number)
    hub.close(0.2)
    until(lambda: hub.link_state == "closed", "it is not closed")
    assert hub.stats().unpublished == 5
    assert [r.message for r in caplog.records if "will not reach" in r.message]


def test_nothing_is_left_of_a_linked_hub_that_is_dropped(redis: RedisServer):
    def threads() -> int:
        return len(psutil.Process().threads())

    before = threads(), threading.active_count()

    def use() -> "weakref.ref[PubSubHub]":
        hub = PubSubHub(link=redis.url, codec=Json)
        log: Log = asyncio.run(follow(hub, "ann", "news"))
        hub.send_all_on_topic("news", 1)
        log.wait(1)
        return weakref.ref(hub)

    references = [use() for _ in range(3)]
    gc.collect()
    until(lambda: not any(reference() for reference in references), "a hub is kept")
    until(lambda: (threads(), threading.active_count()) <= before, "threads are left")


def test_hubs_that_refer_to_themselves_are_collected(redis: RedisServer):
    class App:
        def __init__(self) -> None:
            self.hub = PubSubHub(link=redis.url, codec=self, on_link_state=self.note)
            self.hub.subscribe("ann", self.note)

        def note(self, state: object) -> None:
            pass

        def encode(self, message: object) -> bytes:
            return b""

        def decode(self, data: bytes) -> object:
            return None

    reference = weakref.ref(App())
    until(lambda: gc.collect() >= 0 and reference() is None, "it is kept")


def test_many_hubs_of_one_process_are_one(linked: Linked):
    async def main() -> None:
        hubs = [linked() for _ in range(10)]
        logs = [await follow(hub, str(number)) for number, hub in enumerate(hubs)]
        for number, hub in enumerate(hubs):
            hub.send_all(number)
        orders = [log.wait(10) for log in logs]
        assert all(order == orders[0] for order in orders)

    asyncio.run(main())


def test_a_hub_whose_threads_cannot_be_started_says_so_and_starts_them_later(redis: RedisServer):
    done = run(
        redis,
        """
        import pathlib, resource
        threading.stack_size(1 << 30)
        in_use = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * 4096
        resource.setrlimit(resource.RLIMIT_AS, (in_use + (1 << 29), resource.RLIM_INFINITY))
        try:
            hub.send_all("too early")
        except RuntimeError as error:
            print(error)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        threading.stack_size(0)
        log = asyncio.run(follow(hub, "ann"))
        hub.send_all("hello")
        print(log.wait_for("hello"))
        hub.close()
        """,
    )
    assert done.stdout.splitlines() == ["can't start new thread", "[(None, 'hello')]"], done.stderr
    assert done.stderr == ""


def test_a_hub_whose_node_has_no_thread_says_so_at_each_send_until_it_has_one(redis: RedisServer):
    done = run(
        redis,
        """
        import pathlib, resource
        # A thread of Python's gets one, and a thread of the link none.
        os.environ["RUST_MIN_STACK"] = str(1 << 30)
        in_use = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * 4096
        resource.setrlimit(resource.RLIMIT_AS, (in_use + (1 << 29), resource.RLIM_INFINITY))
        for _ in range(2):
            try:
                hub.send_all("too early")
            except RuntimeError as error:
                print(type(error).__name__, str(error).split(":")[0])
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        log = asyncio.run(follow(hub, "ann"))
        hub.send_all("hello")
        print(log.wait_for("hello"))
        print(sum(thread.name == "pagebus-link" for thread in threading.enumerate()))
        hub.close()
        """,
    )
    failure = "RuntimeError can't start a thread for the link"
    said = [failure, failure, "[(None, 'hello')]", "1"]
    assert done.stdout.splitlines() == said, done.stderr
    assert done.stderr == ""


def test_every_message_that_is_taken_while_a_hub_closes_is_published_or_counted(linked: Linked):
    there = linked()
    log = asyncio.run(follow(there, "bob"))
    for _ in range(20):
        log.clear()
        here, taken = linked(), []

        def send(hub: PubSubHub = here, taken: list[int] = taken) -> None:
            while True:
                try:
                    hub.send_all("hello")
                except HubClosed:
                    return
                taken.append(1)

        threads = [threading.Thread(target=send) for _ in range(4)]
        for thread in threads:
            thread.start()
        log.wait(10)
        here.close(10)
        for thread in threads:
            thread.join()
        count = len(taken) - here.stats().unpublished
        log.wait(count)
        there.send_all("end")
        log.wait_for("end")

        assert len(log) == count + 1


def test_waiting_for_a_subscription_that_is_given_up_leaves_nothing_behind(
    linked: Linked, own_redis: RedisServer
):
    own_redis.kill()
    hub = linked(own_redis)
    subscription = hub.subscribe_topic("ann", "news", lambda topic, message: None)
    loop = asyncio.new_event_loop()
    with pytest.raises(asyncio.TimeoutError):
        loop.run_until_complete(asyncio.wait_for(subscription.ready(), 0.01))
    loop.close()
    gone = weakref.ref(loop)
    del loop
    collect_garbage()

    assert gone() is None, gc.get_referrers(gone())
