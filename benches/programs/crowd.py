"""A process with a thousand handlers: ``-m benches.programs.crowd BUS PORT``.

The bus is pagebus, or redis-py with a ``for`` loop over the handlers, which is the floor. Each line
on standard input is a message that they are to hear: ``local`` one that is sent here, to a hub
without a link, and ``linked`` one that comes from elsewhere. It prints when the last handler ran;
for a local one, how long that took.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
import threading
from collections.abc import Callable

import redis
from pyperf import perf_counter

from pagebus import PubSubHub

HANDLERS = 1_000
TOPIC = "to all in the crowd"


class Crowd:
    """The handlers of one hub."""

    def __init__(self, hub: PubSubHub) -> None:
        self.hub = hub
        self.last = 0.0
        self._calls = itertools.count(1)
        self._done = threading.Event()

    async def join(self) -> None:
        """Subscribes them all."""
        for number in range(HANDLERS):
            joined = self.hub.subscribe_topic(f"session {number}", TOPIC, self._handler())
        await joined.ready()

    def _handler(self) -> Callable[[str, str], None]:
        calls = self._calls

        def hear(topic: str, message: str) -> None:
            if next(calls) % HANDLERS == 0:
                self.last = perf_counter()
                self._done.set()

        return hear

    def wait(self) -> None:
        """Returns when they have heard a message."""
        self._done.wait()
        self._done.clear()

    def check(self, messages: int) -> None:
        """Fails unless they heard so many, each of them."""
        calls = next(self._calls) - 1
        if calls != messages * HANDLERS:
            sys.exit(f"{calls} calls of {HANDLERS} handlers, and {messages} messages")


class Loop(Crowd):
    """The least that could be done: one who listens calls them all."""

    def __init__(self, port: int) -> None:
        super().__init__(PubSubHub())
        self._listener = redis.Redis(port=port).pubsub()
        self._handlers = [self._handler() for _ in range(HANDLERS)]

    async def join(self) -> None:
        self._listener.subscribe(TOPIC)
        next(self._listener.listen())

    def wait(self) -> None:
        message = next(self._listener.listen())["data"]
        for handler in self._handlers:
            handler(TOPIC, message)


def main(bus: str, port: int) -> None:
    local = Crowd(PubSubHub())
    linked = (
        Crowd(PubSubHub(link=f"redis://127.0.0.1:{port}/0")) if bus == "pagebus" else Loop(port)
    )
    for crowd in (local, linked):
        asyncio.run(crowd.join())
    print("ready", flush=True)
    heard = {"local": 0, "linked": 0}
    for line in sys.stdin:
        word = line.strip()
        heard[word] += 1
        gc.collect()
        if word == "local":
            start = perf_counter()
            local.hub.send_all_on_topic(TOPIC, "hello")
            local.wait()
            print(local.last - start, flush=True)
        else:
            print("listening", flush=True)
            linked.wait()
            print(linked.last, flush=True)
    local.check(heard["local"])
    linked.check(heard["linked"])
    linked.hub.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
