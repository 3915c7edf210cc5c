"""Contests: several ways of doing the same thing, timed alternately in the same process.

Machines are noisy, and their noise changes from minute to minute. Contestants therefore take
turns, round by round, in the same process, with the garbage collected in between; several
processes one after the other even out what differs between processes (hash seeds, addresses).
The ratios of medians are what to compare. The values are kept as pyperf benchmarks.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Literal

import pyperf

Values = dict[str, float]
"""What one round measured, by name: "time" where there is but one thing to measure."""
Round = Callable[[], Values]
"""Does the thing once and says what that cost, in the contest's unit."""
Contestant = Callable[[], AbstractContextManager[Round]]
"""Sets up one way of doing it."""

MINUTES = 10
"""A process that takes longer is stuck."""


@dataclass(frozen=True)
class Contest:
    """Several ways of doing one thing."""

    name: str
    contestants: Mapping[str, Contestant]
    unit: Literal["second", "byte", "integer"] = "second"
    rounds: int = 20
    """Rounds of each contestant in each process, after those that only warm up."""
    warmups: int = 2
    processes: int = 5
    short_rounds: int = 5
    """Rounds in the short mode, which uses a single process; 0 leaves the contest out of it."""


@dataclass(frozen=True)
class Result:
    """What the contestants of one contest measured."""

    contest: Contest
    runs: list[dict[str, dict[str, list[float]]]] = field(default_factory=list)
    """For each process: contestant, what was measured, values."""

    def benchmark(self, contestant: str, what: str = "time") -> pyperf.Benchmark:
        """The values of one contestant as a pyperf benchmark."""
        name = f"{self.contest.name}: {contestant}" + (f", {what}" if what != "time" else "")
        metadata = {"name": name, "unit": self.contest.unit}
        return pyperf.Benchmark(
            [
                pyperf.Run(run[contestant][what], metadata=metadata, collect_metadata=False)
                for run in self.runs
            ]
        )


def alternate(contest: Contest, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Lets the contestants take turns, in this process."""
    values: dict[str, dict[str, list[float]]] = {name: {} for name in contest.contestants}
    with ExitStack() as stack:
        turns = {name: stack.enter_context(c()) for name, c in contest.contestants.items()}
        for number in range(contest.warmups + rounds):
            for name, turn in turns.items():
                gc.collect()
                for what, value in turn().items():
                    if number >= contest.warmups:
                        values[name].setdefault(what, []).append(value)
    return values


def hold(contest: Contest, *, short: bool) -> Result:
    """Holds a contest in processes of its own."""
    rounds = contest.short_rounds if short else contest.rounds
    result = Result(contest)
    for _ in range(1 if short else contest.processes):
        command = [sys.executable, "-m", "benches", "--worker", contest.name, str(rounds)]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, timeout=60 * MINUTES
        )
        result.runs.append(json.loads(done.stdout.splitlines()[-1]))
    return result
