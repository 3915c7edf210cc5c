"""What linked hubs cost, measured piece by piece: the constants of ``benches.model``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from benches.broker import Broker, serving
from benches.model import HOUR, Costs, Load, Pace
from benches.peers import Peer

Counts = dict[str, float]

ROOMS = 2_000
"""Rooms of which each message is one of its own, however fast they follow on each other."""
FAN_OUTS = (0, 2, 4, 8)
"""Subscribers of a room from which the cost of each is taken."""
QUIET = 500.0
"""Messages a second where each comes alone."""
SECONDS = 4.0
FLOOD = 20_000
"""Messages to a server that always has a next one."""
CROWD = 50
"""Handlers in a room beside the first one."""
ENTRIES = 100
TRIED_FOR = 5.0
"""Seconds of a load with real nodes."""
FLOODS = 10
"""Messages of each node to each room, of a load that is as fast as it goes."""


class Watched:
    """A server and what it has done."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def count(self) -> Counts:
        """Its counters."""
        client = self._broker.client
        cpu, stats = client.info("cpu"), client.info("stats")
        script = client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})
        return {
            "cpu": cpu["used_cpu_user_main_thread"] + cpu["used_cpu_sys_main_thread"],
            "in": float(stats["total_net_input_bytes"]),
            "out": float(stats["total_net_output_bytes"]),
            "memory": float(client.info("memory")["used_memory"]),
            "publishes": float(script["calls"]),
        }

    def during(self, act: Callable[[], object]) -> Counts:
        """What it did meanwhile."""
        before = self.count()
        act()
        return since(before, self.count())


class Nodes:
    """Processes with a hub each, over a server."""

    def __init__(self, broker: Broker, count: int, stack: ExitStack) -> None:
        self._peers = [stack.enter_context(Peer("scale_node", broker.port)) for _ in range(count)]

    def ask(self, node: int, **question: object) -> Counts:
        """Has one node do something."""
        self._peers[node].tell(json.dumps(question))
        return _answer(self._peers[node])

    def ask_all(self, questions: list[dict[str, object]]) -> list[Counts]:
        """Has all do something at once."""
        for peer, question in zip(self._peers, questions, strict=True):
            peer.tell(json.dumps(question))
        return [_answer(peer) for peer in self._peers]

    def count(self) -> list[Counts]:
        """What each has done."""
        return self.ask_all([{"count": 0} for _ in self._peers])

    def until_calls(self, calls: float) -> list[Counts]:
        """Waits until all handlers together were called so often."""
        deadline = time.monotonic() + 60
        counts = self.count()
        while (called := sum(node["calls"] for node in counts)) < calls:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{called:,.0f} calls, and not {calls:,.0f}: some are missing")
            time.sleep(0.05)
            counts = self.count()
        if called != calls:
            raise RuntimeError(f"{called:,.0f} calls, and not {calls:,.0f}: some came twice")
        return counts


def since(before: Counts, after: Counts) -> Counts:
    """What came to the counters."""
    return {name: after[name] - before[name] for name in before}


def rooms(count: int, sessions: int) -> dict[str, int]:
    """So many rooms with so many sessions each."""
    return {f"room {number}": sessions for number in range(count)}


def _answer(peer: Peer) -> Counts:
    answer: Counts = json.loads(peer.read())
    return answer


# ---- the constants ------------------------------------------------------------------------------


def measure(tell: Callable[[str], None]) -> Costs:
    """All constants."""
    tell("the server ...")
    quiet = {each: _server_quiet(each) for each in FAN_OUTS}
    busy = {each: _server_busy(each) for each in FAN_OUTS}
    tell("a node ...")
    of_quiet_nodes, of_busy_nodes = _nodes(quiet=True), _nodes(quiet=False)
    tell("memory, signs of life ...")
    memory, alive = _memory(), _alive()
    bytes_out, bytes_push = _line(busy, "out")
    return Costs(
        quiet=Pace(*_line(quiet, "cpu"), *of_quiet_nodes),
        busy=Pace(*_line(busy, "cpu"), *of_busy_nodes),
        bytes_in=busy[0]["in"],
        bytes_out=bytes_out,
        bytes_push=bytes_push,
        **memory,
        **alive,
    )


def _line(points: dict[int, Counts], what: str) -> tuple[float, float]:
    """What one message costs, and what each subscriber more adds."""
    return fitted([(float(each), point[what]) for each, point in points.items()])


def fitted(points: list[tuple[float, float]]) -> tuple[float, float]:
    """A line through the points: where it begins, and how it rises."""
    count = len(points)
    middle_x, middle_y = (sum(axis) / count for axis in zip(*points, strict=True))
    over = sum((x - middle_x) * (y - middle_y) for x, y in points)
    rise = over / sum((x - middle_x) ** 2 for x, _ in points)
    return middle_y - rise * middle_x, rise


def _server_quiet(each: int) -> Counts:
    """What a message costs the server that comes alone, in a room with so many subscribed nodes."""
    with serving() as broker, ExitStack() as stack:
        watched, nodes = Watched(broker), Nodes(broker, 1 + each, stack)
        nodes.ask(0, flood=ROOMS, times=1)
        nodes.ask_all([{"join": rooms(ROOMS, 1 if node else 0)} for node in range(1 + each)])
        alive = watched.during(lambda: time.sleep(SECONDS))["cpu"]
        spent = watched.during(lambda: nodes.ask(0, talk=ROOMS, rate=QUIET, seconds=SECONDS))
        return {"cpu": (spent["cpu"] - alive) / spent["publishes"]}


def _server_busy(each: int) -> Counts:
    """What it costs one that always has a next message, from another node."""
    with serving() as broker, ExitStack() as stack:
        watched = Watched(broker)
        for _ in range(each):
            stack.enter_context(Peer("raw_subscribers", broker.port, ROOMS, 1))
        publishers = stack.enter_context(Peer("raw_publishers", broker.port, ROOMS))

        def publish() -> None:
            publishers.tell(FLOOD)
            publishers.hear("done")

        # Rooms that exist already: what comes first costs more, and only once.
        publish()
        spent = watched.during(publish)
        return {name: spent[name] / spent["publishes"] for name in ("cpu", "in", "out")}


def _nodes(*, quiet: bool) -> tuple[float, float, float]:
    """What a message costs the node that sends it, and those that get it, with one handler or more.

    Returns processor time for a send, for an entry with its first handler, and for a handler more.
    """
    count = 200
    with serving() as broker, ExitStack() as stack:
        nodes = Nodes(broker, 3, stack)
        nodes.ask(1, join=rooms(count, 1))
        nodes.ask(2, join=rooms(count, 1 + CROWD))
        before = nodes.count()
        if quiet:
            talk: dict[str, object] = {"talk": count, "seconds": 2 * SECONDS}
            nodes.ask_all([{**talk, "rate": rate} for rate in (QUIET, 0, 0)])
        else:
            nodes.ask(0, flood=count, times=200)
        sent = nodes.count()[0]["sent"]
        after = nodes.until_calls(sent * (2 + CROWD))
        sender, few, many = (since(a, b)["cpu"] / sent for a, b in zip(before, after, strict=True))
        return sender, few, (many - few) / CROWD


def _memory() -> dict[str, float]:
    """What the server keeps of a room: the first entry, another one, one of another node."""
    with serving() as broker, ExitStack() as stack:
        watched, nodes = Watched(broker), Nodes(broker, 1, stack)

        def grown(times: int) -> float:
            flood = watched.during(lambda: nodes.ask(0, flood=ROOMS, times=times))
            return flood["memory"] / ROOMS

        def subscribed(each: int) -> float:
            def subscribe() -> None:
                stack.enter_context(Peer("raw_subscribers", broker.port, ROOMS, each))

            return watched.during(subscribe)["memory"] / ROOMS

        topic = grown(1)
        # Memory is taken in pieces for several entries, of which the first one has one already.
        grown(ENTRIES)
        entry = grown(ENTRIES) / ENTRIES
        return {
            "memory_topic": topic,
            "memory_entry": entry,
            "memory_publisher": watched.during(lambda: _note_publisher(broker))["memory"] / ROOMS,
            # With as many connections both times.
            "memory_subscription": (subscribed(5) - subscribed(1)) / 4,
        }


def _note_publisher(broker: Broker) -> None:
    """Does what the first message of another node does beside its entry."""
    noted = broker.client.pipeline(transaction=False)
    for room in range(ROOMS):
        noted.set(f"pagebus:{{default:troom {room}}}:by:{1:032x}", 1, ex=HOUR)
    noted.execute()


def _alive() -> dict[str, float]:
    """What a node costs by being there, each second, and what a new subscription does."""
    count = 20
    with serving() as broker, ExitStack() as stack:
        watched, nodes = Watched(broker), Nodes(broker, 1, stack)
        nodes.ask(0, flood=ROOMS, times=1)
        nothing = watched.during(lambda: time.sleep(SECONDS))
        bystanders = stack.enter_context(Peer("bystanders", broker.port, count))
        bystanders.tell(2 * SECONDS)
        beats = watched.during(lambda: time.sleep(2 * SECONDS))
        node = bystanders.number() / count / (2 * SECONDS)
        join = watched.during(lambda: nodes.ask(0, join=rooms(ROOMS, 1)))
        server = beats["cpu"] / (2 * SECONDS) - nothing["cpu"] / SECONDS
        return {
            "alive_node": node,
            "alive_server": server / count,
            "join_server": join["cpu"] / ROOMS,
        }


# ---- whether they can be added up ---------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """What a load cost."""

    load: Load
    is_busy: bool
    server: float
    """Processor time of the server, each second."""
    node: float
    """And of each node."""
    out: float
    """Bytes that the server sends each second."""


def try_out(load: Load, *, is_busy: bool) -> Measured:
    """Puts real nodes under a load; every handler has to be called."""
    with serving() as broker, ExitStack() as stack:
        watched, nodes = Watched(broker), Nodes(broker, load.nodes, stack)
        # Rooms that exist already.
        nodes.ask(0, flood=load.rooms, times=1)
        nodes.ask_all([{"join": wanted} for wanted in load.placed()])
        question: dict[str, object] = {"flood": load.rooms, "times": FLOODS}
        if not is_busy:
            rate = load.rate / load.nodes
            question = {"talk": load.rooms, "rate": rate, "seconds": TRIED_FOR}
        before, begin = nodes.count(), time.monotonic()

        def act() -> None:
            nodes.ask_all([question] * load.nodes)
            sent = sum(since(a, b)["sent"] for a, b in zip(before, nodes.count(), strict=True))
            nodes.until_calls(sum(a["calls"] for a in before) + sent * load.per_room)

        done, seconds = watched.during(act), time.monotonic() - begin
        spent = [since(a, b) for a, b in zip(before, nodes.count(), strict=True)]
        return Measured(
            # Messages go at random moments: what came is what is counted with.
            load.at_rate(sum(node["sent"] for node in spent) / seconds),
            is_busy,
            done["cpu"] / seconds,
            sum(node["cpu"] for node in spent) / load.nodes / seconds,
            done["out"] / seconds,
        )
