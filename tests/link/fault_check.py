"""The verdict on a run with faults: who should have heard what, and in which order."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fault_node import SESSIONS, name_of, topics_of

Message = tuple[int, int]


@dataclass
class Sent:
    kind: str
    topic: str
    other: str


@dataclass
class History:
    """What nodes wrote down."""

    sent: dict[Message, Sent] = field(default_factory=dict)
    heard: dict[str, dict[str, list[Message]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    gaps: list[Any] = field(default_factory=list)


def lines(path: Path) -> list[Any]:
    """Whole lines: a process that was killed may have left half of one."""
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def read(directory: Path, nodes: int) -> History:
    history = History()
    for node in range(nodes):
        for kind, topic, other, message in lines(directory / f"sent {node}"):
            history.sent[tuple(message)] = Sent(kind, topic, other)
        for who, topic, message in lines(directory / f"received {node}"):
            if who == "gap":
                history.gaps.append((node, topic, message))
            else:
                history.heard[who][topic].append(tuple(message))
    return history


def is_for(sent: Sent, session: str, topics: set[str]) -> bool:
    match sent.kind:
        case "all":
            return True
        case "to":
            return sent.other == session
        case "topic":
            return sent.topic in topics
        case _:
            return sent.topic in topics and sent.other != session


def check(directory: Path, nodes: int, seed: int, killed: set[int]) -> dict[str, int]:
    """Raise ``AssertionError`` at what is lost, doubled, out of order, or not for who heard it.

    What a killed node sent last may not have gone out; what somebody heard of it, all must have.
    """
    history = read(directory, nodes)
    assert not history.gaps, history.gaps
    living = [node for node in range(nodes) if node not in killed]
    gone_out = {message for message in history.sent if message[0] not in killed}
    for node in living:
        for messages in history.heard[name_of(node, 0)].values():
            gone_out.update(messages)
    # What was told to one session alone tells nobody else whether it went out.
    for message, sent in history.sent.items():
        if sent.kind == "to" and message[0] in killed:
            gone_out.discard(message)
    deliveries = 0
    for node in living:
        for session in range(SESSIONS):
            deliveries += check_session(history, gone_out, node, session, seed, killed)
    for topic in history.heard[name_of(living[0], 0)]:
        orders = [history.heard[name_of(node, 0)][topic] for node in living]
        assert all(order == orders[0] for order in orders), f"two orders of {topic!r}"
        places = {message: place for place, message in enumerate(orders[0])}
        for session, heard in history.heard.items():
            order = [places[message] for message in heard[topic] if message in places]
            assert order == sorted(order), f"{session} heard {topic!r} in another order"
    check_senders(history)
    return {"sends": len(history.sent), "deliveries": deliveries}


def check_senders(history: History) -> None:
    """What all nodes hear in one order may still be another one than that of the sends."""
    for session, topics in history.heard.items():
        for topic, messages in topics.items():
            last: dict[tuple[bool, int], int] = defaultdict(int)
            for sender, count in messages:
                # Between what is sent to one session and what is sent to all there is no order.
                way = (history.sent[sender, count].kind == "to", sender)
                place = f"{session} heard {topic!r}" if topic else session
                assert count > last[way], f"{place}: {sender}, {count} came after {last[way]}"
                last[way] = count


def check_session(
    history: History, gone_out: set[Message], node: int, session: int, seed: int, killed: set[int]
) -> int:
    name, topics = name_of(node, session), set(topics_of(node, session, seed))
    heard = [message for messages in history.heard[name].values() for message in messages]
    unsure = {m for m in heard if m[0] in killed and history.sent[m].kind == "to"}
    expected = {m for m in gone_out if is_for(history.sent[m], name, topics)}
    assert len(heard) == len(set(heard)), f"{name}: twice: {doubled(heard)}"
    lost = expected - set(heard)
    assert not lost, f"{name}: lost {len(lost)}: {sorted(lost)[:5]}"
    more = set(heard) - expected - unsure
    assert not more, f"{name}: not for it: {sorted(more)[:5]}"
    return len(heard)


def doubled(messages: list[Message]) -> list[Message]:
    return sorted({message for message in messages if messages.count(message) > 1})[:5]
