"""What a process does for the first time: in one go, and once more in the middle of it."""

import os

import pytest

import python_programs

# ---- in one go --------------------------------------------------------------------------------

# The calls follow one another in C, and what they call is C: nothing lets another thread run but
# they themselves, though one has been waiting since the first of them.
IN_ONE_GO = """
import threading
from functools import partial
from types import SimpleNamespace
from pagebus import MessagePack, PubSubHub

lock, done, jobs = threading.Lock(), [], []
hub, idle = PubSubHub(), PubSubHub()
on_executor = PubSubHub(executor=SimpleNamespace(submit=jobs.append))
hub.subscribe("bob", [].append)
on_executor.subscribe("bob", [].append)

def body():
    list(map(partial.__call__, [
        partial(lock.release), partial(sum, range(2_000_000)), *FIRST, partial(done.append, 1)
    ]))

lock.acquire()
threading.Thread(target=body, daemon=True).start()
# The other thread lets this one go on, and keeps the interpreter.
lock.acquire()
assert done, "another thread had a turn"
"""

FIRST_TIMES = {
    "subscribe and leave": """
        partial(idle.subscribe, "ann", lambda message: None),
        partial(idle.subscribe_topic, "ann", "room/1", lambda topic, message: None),
        partial(idle.unsubscribe_topic, "ann", "room/1"),
        partial(idle.unsubscribe_all, "ann"),
    """,
    "send": """
        partial(hub.send_all, "hello"),
        partial(hub.send_others, "ann", "hello"),
        partial(hub.send_all_on_topic, "room/1", "hello"),
        partial(hub.send_to, "bob", "hello"),
    """,
    "give work to an executor": """
        partial(on_executor.send_all, "hello"),
    """,
    "keep what is sent": """
        partial(hub.keep, "room/1", messages=10),
        partial(hub.send_all_on_topic, "room/1", "hello"),
    """,
    "look": """
        partial(hub.sessions),
        partial(hub.topics),
        partial(hub.stats),
    """,
    "encode and decode": """
        partial(MessagePack().encode, {"when": 1}),
        partial(MessagePack().decode, MessagePack().encode("hello")),
    """,
    "close": """
        partial(hub.close),
    """,
}


@pytest.mark.parametrize("calls", FIRST_TIMES.values(), ids=FIRST_TIMES)
def test_a_thread_is_not_stopped_in_the_middle_of_what_it_does_for_the_first_time(calls: str):
    done = python_programs.run(IN_ONE_GO.replace("*FIRST", calls.strip().rstrip(",")))

    assert (done.returncode, done.stderr) == (0, "")


# ---- once more in the middle of it --------------------------------------------------------------

# Garbage whose end does the same is collected at every place where the collector may run.
AGAIN = """
import asyncio, gc, os, signal, sys
from pagebus import PubSubHub

async def on_loop(message): pass
def handler(message): pass
def on_topic(topic, message): pass

def act():
    ACT

class Garbage:
    def __init__(self): self.me = self
    def __del__(self): act()

def run(allocations):
    signal.alarm(60)
    gc.disable()
    Garbage()
    gc.set_threshold(gc.get_count()[0] + allocations, 1000, 1000)
    gc.enable()
    act()
    os._exit(0)

loop = asyncio.new_event_loop()
gc.collect()
for allocations in range(40):
    if not (child := os.fork()):
        run(1 + allocations)
    assert os.waitpid(child, 0)[1] == 0, allocations
"""

ACTS = {
    "inline": """
    hub = PubSubHub(); hub.subscribe("ann", handler); hub.send_all(1); hub.stats(); hub.close()
    """,
    "on a loop": """
    hub = PubSubHub(loop); hub.subscribe("ann", on_loop); hub.send_all(1)
    """,
    "presence": """
    hub = PubSubHub(); hub.subscribe_topic("ann", "room", on_topic)
    hub.subscribe_presence("ann", "room", handler); hub.sessions("room")
    """,
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_what_is_done_for_the_first_time_may_be_done_in_the_middle_of_it(act: str):
    program = AGAIN.replace("    ACT", act.strip("\n"))
    done = python_programs.run(program, seconds=120)

    assert (done.returncode, done.stderr) == (0, "")
