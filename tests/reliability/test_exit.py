"""The end of the interpreter: in time, with the program's own exit status, and without a crash."""

import os
import textwrap
import time

import pytest

import python_programs

RUNS = int(os.environ.get("PAGEBUS_EXITS", "3"))
"""How often each program runs: a thread has to be caught in the right moment."""

IN_TIME = 1.0
"""Seconds from the last line of a program to its end."""

PREAMBLE = """
import asyncio, atexit, queue, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from pagebus import PubSubHub

class Daemons:
    # A ThreadPoolExecutor waits for its threads at the end: that is Python's own affair.
    def __init__(self):
        self.jobs = queue.SimpleQueue()
        for _ in range(2):
            threading.Thread(target=self.run, daemon=True).start()
    def run(self):
        while True:
            self.jobs.get()()
    def submit(self, job):
        self.jobs.put(job)

def loop_of_a_daemon():
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop

def on_daemon(body):
    threading.Thread(target=body, daemon=True).start()

inside = threading.Event()
"""

# The status is written beside the moment at which the program was through.
THE_END = """
print(time.time(), flush=True)
"""

BUSY = {
    "messages wait for a loop that never runs": """
        loop = asyncio.new_event_loop()
        hub = PubSubHub(loop)
        async def handler(message): pass
        hub.subscribe("ann", handler)
        for message in range(1000):
            hub.send_all(message)
        loop.close()
        sys.exit(5)
    """,
    "messages wait for handlers that are blocked on workers": """
        hub = PubSubHub(executor=Daemons())
        def blocked(message):
            inside.set()
            threading.Event().wait()
        for number in range(5):
            hub.subscribe(str(number), blocked)
        for message in range(1000):
            hub.send_all(message)
        inside.wait()
        sys.exit(5)
    """,
    "messages wait for a handler that blocks its loop": """
        hub = PubSubHub(loop_of_a_daemon())
        async def blocked(message):
            inside.set()
            threading.Event().wait()
        hub.subscribe("ann", blocked)
        for message in range(1000):
            hub.send_all(message)
        inside.wait()
        sys.exit(5)
    """,
    "a handler is blocked inside a send of a daemon thread": """
        hub = PubSubHub()
        def blocked(message):
            inside.set()
            threading.Event().wait()
        hub.subscribe("ann", blocked)
        on_daemon(lambda: hub.send_all(1))
        inside.wait()
        for message in range(1000):
            hub.send_all(message)
        sys.exit(5)
    """,
    "daemon threads send to everything": """
        hub = PubSubHub(loop_of_a_daemon(), Daemons())
        inline = PubSubHub()
        async def on_loop(message):
            await asyncio.sleep(0)
        def on_worker(message):
            inside.set()
            time.sleep(0.0001)
        hub.subscribe("ann", on_loop)
        hub.subscribe("ann", on_worker)
        inline.subscribe("ann", on_worker)
        def send():
            while True:
                hub.send_all(1)
                inline.send_all(1)
        for _ in range(4):
            on_daemon(send)
        inside.wait()
        sys.exit(5)
    """,
    "messages wait for a server that is away": """
        hub = PubSubHub(link="redis://127.0.0.1:1/0")
        for message in range(1000):
            hub.send_all(message)
        sys.exit(5)
    """,
    "an exit handler sends": """
        hub, loop = PubSubHub(loop_of_a_daemon(), Daemons()), asyncio.new_event_loop()
        inline, later = PubSubHub(), PubSubHub(loop)
        async def on_loop(message):
            await asyncio.sleep(0)
        for each in (hub, inline, later):
            each.subscribe("ann", on_loop) if each is not inline else None
            each.subscribe("bob", lambda message: None)
        def send():
            for message in range(500):
                for each in (hub, inline, later):
                    each.send_all(message)
        atexit.register(send)
        sys.exit(5)
    """,
    "sys.exit in a handler inside a send": """
        hub = PubSubHub()
        hub.subscribe("ann", lambda message: sys.exit(5))
        hub.subscribe("bob", lambda message: None)
        hub.send_all("hello")
    """,
    "sys.exit in a handler on the main thread's loop": """
        async def main():
            hub = PubSubHub(asyncio.get_running_loop())
            async def ends(message):
                await asyncio.sleep(0)
                sys.exit(5)
            async def waits(message):
                await asyncio.sleep(100)
            hub.subscribe("ann", waits)
            hub.subscribe("bob", ends)
            for message in range(100):
                hub.send_all(message)
            await asyncio.sleep(100)
        import logging
        logging.disable(logging.CRITICAL)
        asyncio.run(main())
    """,
    "a message that daemon threads drop takes its time to go": """
        class Message:
            def __del__(self):
                time.sleep(0.0003)
        hub = PubSubHub(loop_of_a_daemon(), Daemons())
        inline = PubSubHub()
        async def on_loop(message):
            inside.set()
            await asyncio.sleep(0)
        for number in range(20):
            hub.subscribe(str(number), on_loop)
            hub.subscribe(str(number), lambda message: None)
        inline.subscribe("ann", lambda message: None)
        def send():
            while True:
                hub.send_all(Message())
                inline.send_all(Message())
        for _ in range(2):
            on_daemon(send)
        inside.wait()
        sys.exit(5)
    """,
    "a handler that daemon threads drop takes its time to go": """
        class Handler:
            def __call__(self, message): pass
            def __del__(self):
                time.sleep(0.0003)
        hub = PubSubHub()
        def come_and_go(name):
            while True:
                hub.subscribe(name, Handler())
                hub.send_all(1)
                hub.unsubscribe_all(name)
                inside.set()
        for name in "abc":
            on_daemon(lambda name=name: come_and_go(name))
        inside.wait()
        sys.exit(5)
    """,
}


@pytest.mark.thread_unsafe(reason="how soon a program ends is measured")
@pytest.mark.timeout(120 + 10 * RUNS)
@pytest.mark.parametrize("body", BUSY.values(), ids=BUSY)
def test_a_program_ends_in_time_with_its_own_status_while(body: str):
    program = PREAMBLE + "atexit.register(lambda: print(time.time()))\n" + textwrap.dedent(body)
    for _ in range(RUNS):
        done = python_programs.run(program)
        ended = time.time()

        assert done.returncode == 5, (done.returncode, done.stderr)
        for word in ("Fatal", "FATAL", "panicked", "Segmentation"):
            assert word not in done.stderr, done.stderr
        assert ended - float(done.stdout) < IN_TIME
