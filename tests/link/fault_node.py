"""One process of a run with faults: sessions that listen, and a sender.

It does what lines on its standard input say. What its sessions get goes into one file, and what
it is about to send into another one.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

from link_tools import PATIENCE, Json

from pagebus import PubSubHub

SESSIONS = 20
TOPICS = 50
ON_EACH = 10
END = "end"


def name_of(node: int, session: int) -> str:
    return f"session {node}/{session}"


def topics_of(node: int, session: int, seed: int) -> list[str]:
    """What a session is subscribed to all the time; each node's first one hears everything."""
    topics = [f"topic {number}" for number in range(TOPICS)]
    if session == 0:
        return topics
    return random.Random(f"{seed} {node} {session}").sample(topics, ON_EACH)


class Node:
    def __init__(self, url: str, number: int, nodes: int, seed: int, directory: Path) -> None:
        self.number, self.nodes, self.seed = number, nodes, seed
        self.random = random.Random(f"{seed} {number}")
        self.received = (directory / f"received {number}").open("a", buffering=1)
        self.sent = (directory / f"sent {number}").open("a", buffering=1)
        self.hub = PubSubHub(link=url, codec=Json, max_outbox=1_000_000, on_gap=self.tell_gap)
        self.count = 0
        self.pace = threading.Event()
        self.ends: set[tuple[str, str, str, int]] = set()
        self.end_came = threading.Condition()

    def tell_gap(self, topic: str | None, count: int | None) -> None:
        self.received.write(json.dumps(["gap", topic, count]) + "\n")

    async def subscribe(self) -> None:
        for session in range(SESSIONS):
            name = name_of(self.number, session)

            def note(message: Any, topic: str = "", name: str = name) -> None:
                if message[0] == END:
                    self.note_end(name, topic, *message[1:])
                else:
                    self.received.write(json.dumps([name, topic, message]) + "\n")

            def note_topic(topic: str, message: Any, note: Any = note) -> None:
                note(message, topic)

            topics = topics_of(self.number, session, self.seed)
            subscriptions = [
                self.hub.subscribe(name, note),
                *(self.hub.subscribe_topic(name, topic, note_topic) for topic in topics),
            ]
            for subscription in subscriptions:
                await subscription.ready()

    def send(self) -> None:
        """Send one message, of any kind."""
        self.count += 1
        message = [self.number, self.count]
        topic = f"topic {self.random.randrange(TOPICS)}"
        # Never the first of a node: those hear everything.
        other = name_of(self.random.randrange(self.nodes), self.random.randrange(1, SESSIONS))
        kind = self.random.choices(["topic", "others", "all", "to"], [16, 2, 1, 1])[0]
        self.sent.write(json.dumps([kind, topic, other, message]) + "\n")
        match kind:
            case "topic":
                self.hub.send_all_on_topic(topic, message)
            case "others":
                self.hub.send_others_on_topic(other, topic, message)
            case "all":
                self.hub.send_all(message)
            case "to":
                self.hub.send_to(other, message)

    def send_for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(5):
                self.send()
            self.pace.wait(0.01)

    def flush(self) -> None:
        while self.hub.stats().outbox:
            time.sleep(0.01)

    def say_end(self) -> None:
        """Send the last message of this node wherever anybody listens."""
        for number in range(TOPICS):
            self.hub.send_all_on_topic(f"topic {number}", [END, "topic", self.number])
        self.hub.send_all([END, "all", self.number])
        for node in range(self.nodes):
            for session in range(SESSIONS):
                self.hub.send_to(name_of(node, session), [END, "to", self.number])

    def note_end(self, name: str, topic: str, kind: str, node: int) -> None:
        with self.end_came:
            self.ends.add((name, topic, kind, node))
            self.end_came.notify_all()

    def hear_end_of(self, *nodes: float) -> None:
        """Wait for the last message of each node, wherever a session listens.

        In a topic there is one order, so nothing of them comes after that.
        """
        expected = set[tuple[str, str, str, int]]()
        for session in range(SESSIONS):
            name = name_of(self.number, session)
            places = [(topic, "topic") for topic in topics_of(self.number, session, self.seed)]
            for node in map(int, nodes):
                expected |= {(name, *place, node) for place in [*places, ("", "all"), ("", "to")]}
        with self.end_came:
            all_came = self.end_came.wait_for(lambda: expected <= self.ends, 2 * PATIENCE)
            assert all_came, sorted(expected - self.ends)[:5]


def main() -> None:
    url, number, nodes, seed, directory = sys.argv[1:]
    node = Node(url, int(number), int(nodes), int(seed), Path(directory))
    asyncio.run(node.subscribe())
    print("ready", flush=True)
    for line in sys.stdin:
        command, *arguments = line.split()
        getattr(node, command)(*map(float, arguments))
        print("done", flush=True)
    assert node.hub.stats().unpublished == 0
    node.hub.close()


if __name__ == "__main__":
    main()
