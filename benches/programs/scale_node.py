"""One node of many: ``-m benches.programs.scale_node PORT``.

Each line on standard input is one thing to do, in JSON, answered with a line of JSON:

- ``{"join": {ROOM: SESSIONS, ...}}``: so many handlers in each room;
- ``{"talk": ROOMS, "rate": RATE, "seconds": SECONDS}``: messages to rooms at random, so many a
  second, each by itself;
- ``{"flood": ROOMS, "times": TIMES}``: a message to each of so many rooms, again and again, as fast
  as they go out, and no two of a room at once;
- ``{"count": 0}``: what it has done so far.

Every answer has the counts: messages sent, handlers called, entries heard, and seconds of processor
time.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import random
import sys
import time
from typing import Any

from benches.buses import MOST
from pagebus import PubSubHub

MESSAGE = "." * 100


class Node:
    """A linked hub, and what it did."""

    def __init__(self, port: int) -> None:
        self.hub = PubSubHub(link=f"redis://127.0.0.1:{port}/0", max_outbox=MOST)
        self._sent = self._entries = 0
        self._calls = itertools.count()
        self._looks = 0

    def count(self) -> dict[str, float]:
        """What it has done."""
        self._looks += 1
        return {
            "sent": self._sent,
            "calls": next(self._calls) + 1 - self._looks,
            "entries": self._entries,
            "cpu": time.process_time(),
        }

    def join(self, rooms: dict[str, int]) -> None:
        """Subscribes; returns when nothing is missed."""
        asyncio.run(self._join(rooms))

    async def _join(self, rooms: dict[str, int]) -> None:
        number = itertools.count()
        joined = []
        for room, sessions in rooms.items():
            for place in range(sessions):
                handler = self._first if place == 0 else self._make_handler()
                joined.append(self.hub.subscribe_topic(str(next(number)), room, handler))
        for subscription in joined:
            await subscription.ready()

    def _first(self, topic: str, message: Any) -> None:
        self._entries += 1
        next(self._calls)

    def _make_handler(self) -> Any:
        calls = self._calls

        def hear(topic: str, message: Any) -> None:
            next(calls)

        return hear

    def talk(self, rooms: int, rate: float, seconds: float) -> None:
        """Sends at random moments."""
        now = time.monotonic()
        until = now + seconds
        at = now
        while rate and (at := at + random.expovariate(rate)) < until:
            time.sleep(max(0.0, at - time.monotonic()))
            self._send(random.randrange(rooms))
        time.sleep(max(0.0, until - time.monotonic()))

    def flood(self, rooms: int, times: int) -> None:
        """Sends all the time; what waits for a room would go together."""
        for _ in range(times):
            for room in range(rooms):
                self._send(room)
            while self.hub.stats().outbox:
                time.sleep(0.0005)

    def _send(self, room: int) -> None:
        self._sent += 1
        self.hub.send_all_on_topic(f"room {room}", MESSAGE)


def main(port: int) -> None:
    node = Node(port)
    print("ready", flush=True)
    gc.freeze()
    for line in sys.stdin:
        match json.loads(line):
            case {"join": rooms}:
                node.join(rooms)
            case {"talk": rooms, "rate": rate, "seconds": seconds}:
                node.talk(rooms, rate, seconds)
            case {"flood": rooms, "times": times}:
                node.flood(rooms, times)
        print(json.dumps(node.count()), flush=True)
    node.hub.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
