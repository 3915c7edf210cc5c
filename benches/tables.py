"""The figures of the contests, and the goals, as rows of text."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence

from benches import units
from benches.goals import GOALS
from benches.results import Measured, Results

OURS = "pagebus"

Row = Sequence[str]

CONTEST_HEAD = (
    *("contest", "contestant", "median", "medians of the processes", "middle half of the rounds"),
    *("pagebus ÷ this", "processes × rounds"),
)
GOALS_HEAD = ("#", "what", "measured against", "goal", "at the worst", "measured", "verdict")


def contest_rows(results: Results, contest: str) -> list[Row]:
    """A row for everything that was measured in a contest."""
    return [_contest_row(results, measured) for measured in results.of(contest)]


def goal_rows(results: Results, contests: Container[str]) -> list[Row]:
    """A row for each goal that one of these contests is for."""
    rows: list[Row] = []
    for goal in GOALS:
        ratio = goal.ratio(results)
        if ratio and goal.contest in contests:
            limits = (goal.goal.text, goal.worst.text, goal.text(ratio), goal.verdict(ratio))
            rows.append((str(goal.number), goal.what, goal.against, *limits))
    return rows


def markdown(head: Row, rows: Iterable[Row]) -> str:
    """A table for a page."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def text(head: Row, rows: Iterable[Row]) -> str:
    """A table for a terminal, without the columns that have nothing to say."""
    columns = [column for column in zip(head, *rows, strict=True) if any(column[1:])]
    padded = [[cell.ljust(max(map(len, column))) for cell in column] for column in columns]
    return "\n".join("  ".join(line).rstrip() for line in zip(*padded, strict=True))


def with_separators(name: str) -> str:
    """A name with its numbers written like all others: 10,000."""
    return re.sub(r"\d{4,}", lambda digits: f"{int(digits[0]):,}", name)


def _contest_row(results: Results, measured: Measured) -> Row:
    ours = results.find(measured.contest, OURS, measured.what)
    is_other = ours and measured.contestant != OURS
    rounds = [len(process) for process in measured.processes]
    return (
        with_separators(measured.contest),
        measured.contestant + ("" if measured.what == "time" else f", {measured.what}"),
        units.quantity(measured.median, measured.unit),
        units.quantities(measured.between_processes(), measured.unit),
        units.quantities(measured.between_rounds(), measured.unit),
        units.ratios(ours.ratio(measured)) if ours and is_other else "",
        f"{len(rounds)} × {max(rounds)}",
    )
