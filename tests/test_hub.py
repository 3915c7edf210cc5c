"""The hub as a class: what it takes, and how a program ends with it."""

import asyncio
import inspect
import pickle
import subprocess
import sys
import textwrap
import weakref
from typing import Any

import flet.pubsub.pubsub_hub
import pytest

import pagebus
from delivery_modes import LOOPS, Bus, LoopThread, Recorder, WatchedExecutor, numbers
from pagebus import PubSubHub, Subscription

OPERATIONS = [
    "send_all",
    "send_all_on_topic",
    "send_others",
    "send_others_on_topic",
    "subscribe",
    "subscribe_topic",
    "unsubscribe",
    "unsubscribe_topic",
    "unsubscribe_all",
]


@pytest.mark.thread_unsafe(reason="CPython 3.11 and older parse signatures in one thread only")
@pytest.mark.parametrize("operation", [*OPERATIONS, "__init__"])
def test_every_operation_takes_what_flets_takes_under_the_same_names(operation: str):
    flets = inspect.signature(getattr(flet.pubsub.pubsub_hub.PubSubHub, operation))
    names = list(flets.parameters)[1:]

    if operation == "__init__":
        ours = inspect.signature(PubSubHub)
        mine = list(ours.parameters)
    else:
        ours = inspect.signature(getattr(PubSubHub, operation))
        mine = list(ours.parameters)[1:]

    assert mine[: len(names)] == names
    for name in mine[len(names) :]:
        assert ours.parameters[name].kind is inspect.Parameter.KEYWORD_ONLY


def test_every_operation_takes_its_arguments_by_name():
    hub, got = PubSubHub(loop=None, executor=None), Recorder()
    hub.subscribe(session_id="ann", handler=got.record)
    hub.subscribe_topic(session_id="ann", topic="lobby", handler=got.record)

    hub.send_all(message=1)
    hub.send_all_on_topic(topic="lobby", message=2)
    hub.send_others(except_session_id="bob", message=3)
    hub.send_others_on_topic(except_session_id="bob", topic="lobby", message=4)
    hub.unsubscribe_topic(session_id="ann", topic="lobby")
    hub.unsubscribe(session_id="ann")
    hub.unsubscribe_all(session_id="ann")

    assert got == [1, ("lobby", 2), 3, ("lobby", 4)]


def test_a_send_returns_nothing_and_a_subscription_returns_its_handle():
    hub = PubSubHub()

    assert hub.send_all(1) is None
    assert hub.send_all_on_topic("lobby", 1) is None
    assert hub.send_others("ann", 1) is None
    assert hub.send_others_on_topic("ann", "lobby", 1) is None
    assert isinstance(hub.subscribe("ann", print), Subscription)
    assert isinstance(hub.subscribe_topic("ann", "lobby", print), Subscription)
    assert hub.unsubscribe_topic("ann", "lobby") is None
    assert hub.unsubscribe("ann") is None
    assert hub.unsubscribe_all("ann") is None
    assert hub.close() is None


def test_goodbyes_to_who_is_not_there_change_nothing(bus: Bus):
    got = bus.recorder()
    bus.subscribe("ann", got.handler)

    bus.hub.unsubscribe("nobody")
    bus.hub.unsubscribe_all("nobody")
    bus.hub.unsubscribe_topic("nobody", "nowhere")
    bus.hub.unsubscribe_topic("ann", "nowhere")
    bus.hub.send_all("hello")
    bus.settle()

    assert got == ["hello"]


def test_unsubscribe_leaves_topics_and_unsubscribe_topic_leaves_the_rest(bus: Bus):
    broadcast, lobby, kitchen = bus.recorder(), bus.recorder(), bus.recorder()

    def send() -> None:
        bus.hub.send_all("all")
        bus.hub.send_all_on_topic("lobby", "lobby")
        bus.hub.send_all_on_topic("kitchen", "kitchen")
        bus.settle()

    bus.subscribe("ann", broadcast.handler)
    bus.subscribe_topic("ann", "lobby", lobby.handler)
    bus.subscribe_topic("ann", "kitchen", kitchen.handler)
    send()
    bus.hub.unsubscribe_topic("ann", "lobby")
    send()
    bus.hub.unsubscribe("ann")
    send()

    assert (len(broadcast), len(lobby), len(kitchen)) == (2, 1, 3)


def test_a_new_hub_is_open_and_empty():
    hub = PubSubHub()

    assert hub.closed is False
    assert set(numbers(hub).values()) == {0}


def test_a_hub_shows_what_it_is():
    assert "PubSubHub" in repr(PubSubHub())


def test_a_hub_can_be_watched_but_not_copied_nor_given_new_attributes():
    hub = PubSubHub()

    assert weakref.ref(hub)() is hub
    with pytest.raises(TypeError):
        pickle.dumps(hub)
    with pytest.raises(AttributeError):
        hub.anything = 1  # type: ignore[attr-defined]


def test_the_package_names_everything_that_it_exports():
    for name in pagebus.__all__:
        assert getattr(pagebus, name) is not None
    assert pagebus.PubSubClient is pagebus.PubSub
    assert {"PubSub", "PubSubClient", "PubSubHub"} <= set(pagebus.__all__)


def test_sync_and_async_handlers_share_a_hub(log: Any):
    thread, executor = LoopThread(), WatchedExecutor(2)
    hub = PubSubHub(thread.loop, executor)
    on_loop, on_worker = Recorder(), Recorder()
    hub.subscribe("ann", on_loop.record_async)
    hub.subscribe("ann", on_worker.record)

    for message in range(100):
        hub.send_all(message)

    assert on_loop.wait(100) == on_worker.wait(100) == list(range(100))
    executor.shutdown()
    thread.close()


@pytest.mark.not_in_devmode(reason="an asyncio.Queue is used from a thread, as Flet does it")
@pytest.mark.parametrize("kind", LOOPS)
def test_what_a_worker_leaves_for_the_loop_is_seen_without_any_other_event(kind: str):
    thread, executor = LoopThread(LOOPS[kind]), WatchedExecutor(1)
    hub, seen = PubSubHub(thread.loop, executor), Recorder()
    queue: asyncio.Queue[Any] = thread.run(asyncio.Queue)

    async def show() -> None:
        while True:
            seen.record(await queue.get())

    # As Flet's page.update() does it: into an asyncio.Queue, from a thread that is not the loop's.
    hub.subscribe("ann", queue.put_nowait)
    task = thread.run(thread.loop.create_task, show())
    thread.spin()
    for message in range(5):
        hub.send_all(message)
        seen.wait(message + 1)

    thread.run(task.cancel)
    executor.shutdown()
    thread.close()
    assert seen == [0, 1, 2, 3, 4]


ENDINGS = {
    "inline": """
        hub = PubSubHub()
        hub.subscribe("ann", print)
        hub.send_all("hello")
    """,
    "a worker is busy and messages wait": """
        import threading, time
        from concurrent.futures import ThreadPoolExecutor
        hub = PubSubHub(executor=ThreadPoolExecutor(2))
        begun = threading.Event()
        def slow(message):
            begun.set()
            time.sleep(0.01)
        hub.subscribe("ann", slow)
        for message in range(20):
            hub.send_all(message)
        begun.wait()
        print("hello")
    """,
    "a loop has stopped and messages wait": """
        import asyncio
        loop = asyncio.new_event_loop()
        hub = PubSubHub(loop)
        async def handler(message):
            await asyncio.sleep(0)
        hub.subscribe("ann", handler)
        for message in range(20):
            hub.send_all(message)
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        print("hello")
    """,
    "asyncio.run ends while a handler is suspended": """
        import asyncio
        async def waits(message):
            await asyncio.sleep(1000)
        async def main():
            global hub
            hub = PubSubHub()
            hub.subscribe("ann", waits)
            hub.send_all(1)
            hub.send_all(2)
            await asyncio.sleep(0.01)
            print("hello")
        asyncio.run(main())
    """,
    "a loop runs on a daemon thread": """
        import asyncio, threading
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()
        hub = PubSubHub(loop)
        async def handler(message):
            await asyncio.sleep(1000)
        hub.subscribe("ann", handler)
        for message in range(20):
            hub.send_all(message)
        print("hello")
    """,
    "a loop on a daemon thread goes on calling": """
        import asyncio, threading
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()
        hub = PubSubHub(loop)
        async def handler(message):
            pass
        hub.subscribe("ann", handler)
        for message in range(5000):
            hub.send_all(message)
        print("hello")
    """,
    "a daemon thread goes on sending": """
        import threading
        hub = PubSubHub()
        begun = threading.Event()
        def send():
            while True:
                hub.send_all(1)
                begun.set()
        hub.subscribe("ann", lambda message: None)
        threading.Thread(target=send, daemon=True).start()
        begun.wait()
        print("hello")
    """,
    "a daemon thread goes on feeding workers": """
        import threading
        from concurrent.futures import ThreadPoolExecutor
        hub = PubSubHub(executor=ThreadPoolExecutor(2))
        begun = threading.Event()
        def send():
            try:
                while True:
                    hub.send_all(1)
                    begun.set()
            except RuntimeError:
                pass  # The executor is shut down: the program is ending.
        hub.subscribe("ann", lambda message: None)
        threading.Thread(target=send, daemon=True).start()
        begun.wait()
        print("hello")
    """,
    "daemon threads go on coming and going": """
        import threading
        hub = PubSubHub()
        begun = threading.Event()
        class Handler:
            def __call__(self, message): pass
        def come_and_go(name):
            while True:
                for _ in range(20):
                    hub.subscribe(name, Handler())
                    hub.subscribe_topic(name, "lobby", lambda topic, message: None)
                hub.send_all(1)
                hub.unsubscribe_all(name)
                begun.set()
        for name in "abcd":
            threading.Thread(target=come_and_go, args=(name,), daemon=True).start()
        begun.wait()
        print("hello")
    """,
    "a global is the last to hold the hub": """
        import sys
        class Page:
            def __init__(self):
                self.hub = PubSubHub()
                self.hub.subscribe("ann", self.on_message)
            def on_message(self, message): pass
            def __del__(self):
                self.hub.send_all("goodbye")
        sys.page = Page()
        print("hello")
    """,
}


@pytest.mark.parametrize("body", ENDINGS.values(), ids=ENDINGS)
def test_a_program_ends_quietly_whatever_is_under_way(body: str):
    program = "from pagebus import PubSubHub\n" + textwrap.dedent(body)

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr
    assert "panicked" not in done.stderr
    assert "Traceback" not in done.stderr
    assert "Fatal" not in done.stderr
