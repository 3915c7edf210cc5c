"""``python -m benches``: holds the contests, prints the figures, writes docs/benchmarks.md."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from fnmatch import fnmatchcase

from benches import (
    churn,
    event_loop,
    executor,
    flet_app,
    inline,
    interest,
    memory,
    report,
    send,
    stall,
    threads,
)
from benches.contest import Contest, alternate, hold
from benches.results import FILE, Results, metadata
from benches.tables import CONTEST_HEAD, GOALS_HEAD, Row, contest_rows, goal_rows, text

MODULES = (inline, event_loop, executor, send, stall, memory, churn, interest, threads, flet_app)
CONTESTS: dict[str, Contest] = {c.name: c for module in MODULES for c in module.CONTESTS}


def chosen(patterns: list[str], *, short: bool) -> list[Contest]:
    """The contests to hold."""
    contests = [c for c in CONTESTS.values() if c.short_rounds or not short]
    if not patterns:
        return contests
    for pattern in patterns:
        if not any(fnmatchcase(contest.name, pattern) for contest in contests):
            names = ", ".join(contest.name for contest in contests)
            sys.exit(f"No contest is named {pattern!r}. There are: {names}.")
    return [c for c in contests if any(fnmatchcase(c.name, pattern) for pattern in patterns)]


def tell(progress: str) -> None:
    """Says how far it is, beside the figures."""
    print(progress, file=sys.stderr, flush=True)


def show(head: Row, rows: list[Row]) -> None:
    """Prints a table."""
    print(text(head, rows), end="\n\n", flush=True)


class Program:
    """The contests that are held, one after the other."""

    def __init__(self, contests: list[Contest], kept: Results, *, short: bool) -> None:
        self.contests, self.results, self.short = contests, kept, short
        self.failed: list[str] = []
        self.begun = time.monotonic()

    def hold_all(self) -> None:
        """Holds them; one that fails does not take away what the others measure."""
        for number, contest in enumerate(self.contests, 1):
            tell(f"[{number}/{len(self.contests)}] {contest.name} ...")
            start = time.monotonic()
            self._hold(contest)
            end = time.monotonic()
            tell(f"  {end - start:.1f} s, {end - self.begun:.0f} s in all")

    def _hold(self, contest: Contest) -> None:
        noted, start = metadata(), time.monotonic()
        try:
            result = hold(contest, short=self.short)
        except subprocess.SubprocessError as error:
            self.failed.append(contest.name)
            tell(f"  {error}")
            return
        noted["seconds_in_all"] = round(time.monotonic() - start, 1)
        self.results = self.results.with_result(result, noted).in_order(CONTESTS)
        show(CONTEST_HEAD, contest_rows(self.results, contest.name))
        if not self.short:
            self.results.save()


def measure(patterns: list[str], *, short: bool) -> None:
    """Holds contests and shows the goals that they are for; keeps the values of a full run."""
    is_part = patterns and not short and FILE.exists()
    kept = Results.load() if is_part else Results()
    program = Program(chosen(patterns, short=short), kept, short=short)
    program.hold_all()
    show(GOALS_HEAD, goal_rows(program.results))
    if program.failed:
        sys.exit(f"These contests failed; hold them again with --names: {program.failed}")
    if not short:
        write()


def write() -> None:
    """Writes the page and its plots anew, from the values that were kept."""
    # Large, and of no use to a process that measures.
    from benches import plots

    results = Results.load()
    report.write(results)
    plots.draw(results)


def check() -> None:
    """Fails where the page does not say what the values say."""
    if report.page(Results.load(), report.written()) != report.written():
        sys.exit(
            "docs/benchmarks.md is not what benches/results.json says: python -m benches --report"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benches", description=__doc__)
    step = parser.add_mutually_exclusive_group()
    step.add_argument(
        "--short", action="store_true", help="hold fewer and shorter contests, and only print"
    )
    step.add_argument(
        "--report", action="store_true", help="measure nothing: write the page from the last run"
    )
    step.add_argument(
        "--check", action="store_true", help="measure nothing: fail if the page is not up to date"
    )
    step.add_argument("--worker", nargs=2, metavar=("NAME", "ROUNDS"), help=argparse.SUPPRESS)
    parser.add_argument(
        "--names",
        nargs="+",
        metavar="NAME",
        default=[],
        help='contests to hold, such as "inline *"; the others keep the values of their last run',
    )
    arguments = parser.parse_args()
    if arguments.worker:
        name, rounds = arguments.worker
        print(json.dumps(alternate(CONTESTS[name], int(rounds))))
    elif arguments.report:
        write()
    elif arguments.check:
        check()
    else:
        measure(arguments.names, short=arguments.short)


if __name__ == "__main__":
    main()
