"""What a load costs linked hubs: constants of single steps, added up."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace

SHARE = 0.7
"""Of what there is of a thing, so much may be used: beyond that, queues grow."""
HOUR, KEPT = 3_600, 1_000
"""Seconds for which the server keeps a topic's entries, and how many."""

MEMORY = 64 * 2.0**30
"""Bytes of memory that a server has."""
NETWORK = 10e9 / 8
"""Bytes a second that a server can send."""
CONNECTIONS = 10_000
"""Connections that a server takes unless told otherwise."""
CONNECTIONS_OF_A_NODE = 2
"""On one a node is pushed to, on the other it publishes and reads."""


@dataclass(frozen=True)
class Pace:
    """Seconds of processor time for the steps of a message."""

    publish: float
    """At the server: append and note it."""
    push: float
    """At the server: hand it to one node."""
    send: float
    """At the node that sends."""
    entry: float
    """At each node that gets it, with its first handler."""
    handler: float
    """There, for each handler more, which does nothing but count."""


@dataclass(frozen=True)
class Costs:
    """All constants."""

    quiet: Pace
    """Each message comes alone and wakes everybody."""
    busy: Pace
    """There is always a next one."""
    bytes_in: float
    """Bytes to the server for a message."""
    bytes_out: float
    """From it for the answer."""
    bytes_push: float
    """From it for each node that gets it."""
    memory_topic: float
    """Bytes at the server for a topic with one entry."""
    memory_entry: float
    """For each entry more."""
    memory_publisher: float
    """For each node more that has published on it."""
    memory_subscription: float
    """For each node that is subscribed to it."""
    alive_node: float
    """Processor time of a node that does nothing, each second."""
    alive_server: float
    """And of the server for it."""
    join_server: float
    """Processor time of the server when a node subscribes to a topic and reads its log."""


@dataclass(frozen=True)
class Load:
    """Rooms that talk."""

    nodes: int
    rooms: int
    rate: float
    """Messages a second, in all."""
    per_room: int = 50
    """Sessions in a room."""
    is_together: bool = False
    """Whether the sessions of a room are on the same node; otherwise they are on any."""

    @property
    def spread(self) -> float:
        """Nodes that a room has sessions on."""
        if self.is_together:
            return 1.0
        return self.nodes * (1 - (1 - 1 / self.nodes) ** self.per_room)

    @property
    def sessions(self) -> int:
        return self.rooms * self.per_room

    @property
    def pushes(self) -> float:
        """Each second."""
        return self.rate * self.spread

    def at_rate(self, rate: float) -> Load:
        """The same with another rate."""
        return replace(self, rate=rate)

    def placed(self) -> list[dict[str, int]]:
        """For each node the sessions in its rooms, placed by the same chance each time."""
        chance = random.Random(7)
        nodes: list[Counter[str]] = [Counter() for _ in range(self.nodes)]
        for room in range(self.rooms):
            for _ in range(self.per_room):
                chance.choice(nodes)[f"room {room}"] += 1
        return [dict(node) for node in nodes]


@dataclass(frozen=True)
class Prediction:
    """What a load costs, each second."""

    server: float
    """Processor time of servers."""
    node: float
    """Processor time of a node."""
    out: float
    """Bytes that servers send."""
    memory: float
    """Bytes that servers hold."""


def predict(costs: Costs, pace: Pace, load: Load) -> Prediction:
    """Adds up."""
    own, heard = load.rate / load.nodes, load.pushes / load.nodes
    handlers = load.rate * load.per_room / load.nodes - heard
    entries = min(KEPT, max(1.0, load.rate / load.rooms * HOUR))
    publishers = min(load.spread, entries)
    topic = (
        costs.memory_topic
        + (entries - 1) * costs.memory_entry
        + (publishers - 1) * costs.memory_publisher
        + load.spread * costs.memory_subscription
    )
    return Prediction(
        server=load.rate * pace.publish + load.pushes * pace.push + load.nodes * costs.alive_server,
        node=costs.alive_node + own * pace.send + heard * pace.entry + handlers * pace.handler,
        out=load.rate * costs.bytes_out + load.pushes * costs.bytes_push,
        memory=load.rooms * topic,
    )


@dataclass(frozen=True)
class Need:
    """How much of what is needed, in servers."""

    processor: float
    network: float
    memory: float
    connections: float

    @property
    def servers(self) -> int:
        """Servers that are enough for everything."""
        return max(1, -int(-max(vars(self).values()) // 1))

    @property
    def bottleneck(self) -> str:
        """What runs out first."""
        needs: dict[str, float] = vars(self)
        return max(needs, key=needs.__getitem__)


def need(costs: Costs, load: Load) -> Need:
    """What a busy server must have, as multiples of what one has.

    A server serves its connections on one thread. Topics are spread over servers by chance, evenly;
    every node is there on each of them.
    """
    prediction, alive = predict(costs, costs.busy, load), load.nodes * costs.alive_server
    return Need(
        processor=(prediction.server - alive) / (SHARE - alive),
        network=prediction.out / NETWORK / SHARE,
        memory=prediction.memory / MEMORY / SHARE,
        connections=load.nodes * CONNECTIONS_OF_A_NODE / CONNECTIONS / SHARE,
    )
