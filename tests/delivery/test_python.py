"""Handlers on daemon threads that the interpreter ends, while the program exits."""

import subprocess
import sys
import textwrap

import pytest

RUNS = 3
"""A thread has to be caught in the right moment; once is not every time."""

ENDINGS = {
    "inside a sync handler": """
        import threading, time
        from pagebus import PubSubHub

        def slow(message):
            inside.set()
            time.sleep(0.0005)

        def send_for_ever():
            while True:
                hub.send_all("hello")

        hub, inside = PubSubHub(), threading.Event()
        hub.subscribe("ann", slow)
        threading.Thread(target=send_for_ever, daemon=True).start()
    """,
    "inside a handler on a loop": """
        import asyncio, threading, time
        from pagebus import PubSubHub

        async def echo(message):
            inside.set()
            time.sleep(0.0005)
            hub.send_all(message)

        loop, inside = asyncio.new_event_loop(), threading.Event()
        hub = PubSubHub(loop)
        hub.subscribe("ann", echo)
        threading.Thread(target=loop.run_forever, daemon=True).start()
        hub.send_all("hello")
    """,
}

THE_END = """
inside.wait()
# What a program of some size leaves to be torn down takes its time.
objects = [object() for _ in range(500_000)], [{number: number} for number in range(150_000)]
"""


@pytest.mark.parametrize("body", ENDINGS.values(), ids=ENDINGS)
def test_a_program_ends_well_while_a_daemon_thread_is(body: str):
    program = textwrap.dedent(body) + THE_END

    for _ in range(RUNS):
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stderr) == (0, "")
