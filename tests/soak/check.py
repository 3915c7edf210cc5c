"""What must be true when all is quiet: compares records with what was sent, for one hub."""

from __future__ import annotations

from collections.abc import Iterator

from soak.audience import Seat, Send
from soak.plan import TOPICS
from soak.stage import Stage


class Round:
    """What happened at one hub between two moments of quiet."""

    def __init__(self, stage: Stage, sent: list[Send]) -> None:
        self.stage = stage
        self.sent = {send.number: send for send in sent}
        self.order: list[Send] = []
        self._scopes: dict[str | None, list[Send]] = {}

    def faults(self) -> Iterator[str]:
        """Everything that is wrong, in words."""
        yield from self._faults_of_order()
        if len(self.order) == len(self.sent):
            for scope in (None, *TOPICS):
                self._scopes[scope] = [send for send in self.order if send.topic == scope]
            for seat in self.stage.seats:
                for fault in self._faults_of(seat):
                    yield f"{seat}: {fault}"

    # ---- one order for all ------------------------------------------------------------------

    def _faults_of_order(self) -> Iterator[str]:
        (first, log), *others = self.stage.witnesses
        for name, other in others:
            if other != log:
                yield f"{first} and {name} differ: {_first_difference(log, other)}"
        lost, known = self.sent.keys() - set(log), self.sent.keys() >= set(log)
        if lost or not known or len(log) != len(self.sent):
            doubled = len(log) - len(set(log))
            yield f"{first}: {len(lost)} messages lost, {doubled} doubled: {sorted(lost)[:5]}"
            return
        self.order = [self.sent[number] for number in log]
        latest = self.order[0] if self.order else None
        for send in self.order:
            # A send that had returned before another began comes first.
            if latest and send.end < latest.begin:
                yield f"{send.number} was sent before {latest.number} and came after it"
                return
            if latest and send.begin > latest.begin:
                latest = send

    # ---- one handler ------------------------------------------------------------------------

    def _faults_of(self, seat: Seat) -> Iterator[str]:
        yield from seat.faults
        for departure in seat.departures:
            late = len(seat.log) - departure.received
            if late > departure.slack:
                yield f"{late} calls after its goodbye had returned"
        due = [s for s in self._scopes[seat.topic] if s.excluded != seat.session.name]
        log = seat.log
        if seat.overlaps and not seat.is_async:
            # Their calls begin in order, on several threads.
            place = {send.number: index for index, send in enumerate(due)}
            log = sorted(log, key=lambda number: place.get(number, -1))
        yield from self._faults_of_log(seat, due, log)

    def _faults_of_log(self, seat: Seat, due: list[Send], log: list[int]) -> Iterator[str]:
        begin, end = seat.joined or (0, 0)
        numbers = [send.number for send in due]
        start = numbers.index(log[0]) if log and log[0] in self.sent and log[0] in numbers else None
        if log and (start is None or numbers[start : start + len(log)] != log):
            yield f"got not what it was sent: {_first_difference(numbers[start or 0 :], log)}"
            return
        # Between the begin and the end of its subscribe, a message may or may not be for it.
        if start is not None and due[start].end < begin:
            yield f"got {log[0]}, which was sent before it subscribed"
        if start is None:
            start = len(due) if seat.is_there else 0
        elif any(send.begin > end for send in due[:start]):
            yield f"lost a message right after it subscribed, before {log[0]}"
        if seat.is_there:
            missing = [send.number for send in due[start + len(log) :]]
            if not log:
                missing = [send.number for send in due if send.begin > end]
            if missing:
                yield f"lost the last {len(missing)} messages: {missing[:5]}"
        elif log and self.sent[log[-1]].begin > min(d.end for d in seat.departures):
            yield f"got {log[-1]}, which was sent after it had left"

    # ---- what the hub says ------------------------------------------------------------------

    def faults_of_counts(self, totals: dict[str, int]) -> Iterator[str]:
        """Differences between the hub's numbers and those that were counted."""
        stage = self.stage
        there = [seat for seat in stage.seats if seat.is_there]
        names = {seat.session.name for seat in there}
        own = len(TOPICS) + 1
        expected = totals | {
            "dropped": 0,
            "pending": 0,
            "sessions": len(names) + len(stage.witnesses),
            "topics": len(TOPICS),
            "subscriptions": len(there) + own * len(stage.witnesses),
        }
        stats = stage.hub.stats()
        for name, count in expected.items():
            if getattr(stats, name) != count:
                yield f"stats().{name} is {getattr(stats, name)}, not {count}"


def _first_difference(expected: list[int], found: list[int]) -> str:
    pairs = zip(expected, found, strict=False)
    index = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(expected), len(found)))
    there = slice(max(0, index - 2), index + 4)
    return f"at {index}: expected {expected[there]}, found {found[there]}"
