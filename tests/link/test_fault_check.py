"""The verdict on runs with faults, on runs that are made up: each fault is found."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fault_check
import pytest
from fault_check import Message, Sent
from fault_node import SESSIONS, TOPICS, name_of, topics_of

pytestmark = pytest.mark.link

SEED = 7
NODES = 2
MESSAGES = 400

Line = tuple[str, str, Message]


@dataclass
class Made:
    """A run without faults, as its nodes would have written it down."""

    sent: list[tuple[Sent, Message]]
    received: list[list[Line]]

    def kind_of(self, message: Message) -> str:
        return next(sent.kind for sent, found in self.sent if found == message)


def made() -> Made:
    chance, counts = random.Random(SEED), [0] * NODES
    sent = []
    for _ in range(MESSAGES):
        node = chance.randrange(NODES)
        counts[node] += 1
        kind = chance.choices(["topic", "others", "all", "to"], [16, 2, 1, 1])[0]
        other = name_of(chance.randrange(NODES), chance.randrange(1, SESSIONS))
        topic = f"topic {chance.randrange(TOPICS)}"
        sent.append((Sent(kind, topic, other), (node, counts[node])))
    return Made(sent, [heard_by(node, sent) for node in range(NODES)])


def heard_by(node: int, all_sent: list[tuple[Sent, Message]]) -> list[Line]:
    lines = []
    for sent, message in all_sent:
        for session in range(SESSIONS):
            name, topics = name_of(node, session), set(topics_of(node, session, SEED))
            if fault_check.is_for(sent, name, topics):
                topic = sent.topic if sent.kind in ("topic", "others") else ""
                lines.append((name, topic, message))
    return lines


def verdict(run: Made, directory: Path, killed: set[int] | None = None) -> dict[str, int]:
    for node in range(NODES):
        mine = [
            (sent.kind, sent.topic, sent.other, message)
            for sent, message in run.sent
            if message[0] == node
        ]
        for name, lines in ((f"sent {node}", mine), (f"received {node}", run.received[node])):
            (directory / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return fault_check.check(directory, NODES, SEED, killed or set())


def lose(run: Made) -> None:
    run.received[0].pop(50)


def double(run: Made) -> None:
    run.received[0].append(run.received[0][50])


def mislead(run: Made) -> None:
    name, topics = name_of(0, 2), topics_of(0, 2, SEED)
    for sent, message in run.sent:
        if sent.kind == "topic" and sent.topic not in topics:
            return run.received[0].append((name, sent.topic, message))
    raise AssertionError


def miss(run: Made) -> None:
    run.received[1].append(("gap", "topic 1", (3, 0)))


def swap(lines: list[Line], which: Callable[[Line], object]) -> None:
    """Swap the first two of which the same can be said."""
    before: dict[object, int] = {}
    for place, line in enumerate(lines):
        if (said := which(line)) is None:
            continue
        if (other := before.setdefault(said, place)) != place:
            lines[place], lines[other] = lines[other], lines[place]
            return
    raise AssertionError


def swap_in_one_session(run: Made) -> None:
    name = name_of(1, 3)
    swap(run.received[1], lambda line: line[1] or None if line[0] == name else None)


def swap_direct_messages(run: Made) -> None:
    def way(line: Line) -> object:
        return (line[0], line[2][0]) if run.kind_of(line[2]) == "to" else None

    swap(run.received[1], way)


def swap_those_of_a_sender_everywhere(run: Made) -> None:
    before: dict[object, int] = {}
    for place, (sent, message) in enumerate(run.sent):
        if sent.kind == "topic":
            other = before.setdefault((sent.topic, message[0]), place)
            if other != place:
                swapped = list(run.sent)
                swapped[place], swapped[other] = swapped[other], swapped[place]
                run.received = [heard_by(node, swapped) for node in range(NODES)]
                return
    raise AssertionError


def test_a_run_without_faults_is_well(tmp_path: Path):
    run = made()
    found = verdict(run, tmp_path)
    assert found == {"sends": MESSAGES, "deliveries": sum(map(len, run.received))}


def test_messages_to_all_and_to_one_session_may_overtake_each_other(tmp_path: Path):
    run = made()
    for lines in run.received:
        lines.sort(key=lambda line: run.kind_of(line[2]) == "to")
    verdict(run, tmp_path)


def test_what_a_killed_node_sent_last_may_be_lost(tmp_path: Path):
    run = made()
    _, last = [sent for sent in run.sent if sent[1][0] == 1][-1]
    run.received = [[line for line in lines if line[2] != last] for lines in run.received]
    verdict(run, tmp_path, {1})
    with pytest.raises(AssertionError, match="lost 1"):
        verdict(run, tmp_path)


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        (lose, "lost 1"),
        (double, "twice"),
        (mislead, "not for it"),
        (miss, "gap|topic 1"),
        (swap_in_one_session, "heard 'topic .*' in another order"),
        (swap_direct_messages, r"session 1/\d+: \d, \d+ came after \d+"),
        (swap_those_of_a_sender_everywhere, r"heard 'topic .*': \d, \d+ came after \d+"),
    ],
)
def test_each_fault_is_found(tmp_path: Path, fault: Callable[[Made], None], complaint: str):
    run = made()
    fault(run)
    with pytest.raises(AssertionError, match=complaint):
        verdict(run, tmp_path)
