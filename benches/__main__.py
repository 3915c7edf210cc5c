"""``python -m benches``: holds the contests, prints the figures, writes docs/benchmarks.md."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory

from benches import report
from benches.contest import Contest, alternate, hold
from benches.contests import CONTESTS
from benches.goals import GOALS
from benches.results import FILE, UNFINISHED, Results, metadata
from benches.tables import CONTEST_HEAD, GOALS_HEAD, Row, contest_rows, goal_rows, text


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

    def __init__(
        self, contests: list[Contest], kept: Results, *, short: bool, unfinished: Path | None
    ) -> None:
        self.contests, self.results, self.short = contests, kept, short
        self.unfinished = unfinished
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
        noted |= {"processes": contest.processes, "rounds": contest.rounds}
        self.results = self.results.with_result(result, noted).in_order(CONTESTS)
        show(CONTEST_HEAD, contest_rows(self.results, contest.name))
        if self.unfinished:
            self.results.save(self.unfinished)


def measure(patterns: list[str], *, short: bool, resume: bool) -> None:
    """Holds contests and shows the goals that they are for; keeps the values of a full run."""
    contests, kept = chosen(patterns, short=short), Results()
    if resume:
        if not UNFINISHED.exists():
            sys.exit("No full run was broken off.")
        kept = Results.load(UNFINISHED)
        contests = [c for c in contests if not kept.of(c.name)]
    elif patterns and not short and FILE.exists():
        kept = Results.load()
    is_full = not short and not patterns
    unfinished = UNFINISHED if is_full else None
    program = Program(contests, kept, short=short, unfinished=unfinished)
    program.hold_all()
    names = CONTESTS if resume else [contest.name for contest in contests]
    show(GOALS_HEAD, goal_rows(program.results, names))
    if program.failed:
        sys.exit(f"Failed: {', '.join(program.failed)}. The kept values are as they were.")
    if not short:
        # Not before its end: the values of a run that is broken off replace nothing.
        program.results.save()
        if is_full:
            UNFINISHED.unlink(missing_ok=True)
        write()


def write() -> None:
    """Writes the page and its plots anew, from the values that were kept."""
    # Large, and of no use to a process that measures.
    from benches import plots

    results = Results.load()
    report.write(results)
    plots.draw(results)


def check() -> None:
    """Fails where something was not measured, or the page does not say what the values say."""
    results = Results.load()
    problems = [*not_measured(results), *not_written(results), *not_drawn(results)]
    if problems:
        sys.exit("\n".join([*problems, "Measure with: make bench", f"Write with: {REPORT}"]))


REPORT = ".venv/bin/python -m benches --report"


def not_measured(results: Results) -> Iterator[str]:
    """What is missing in the values."""
    for name in CONTESTS:
        if not results.of(name):
            yield f"The contest {name!r} was not held."
    for goal in GOALS:
        if goal.contest not in CONTESTS:
            yield f"There is no contest {goal.contest!r} for goal {goal.number}."
        elif not goal.ratio(results):
            yield f"There is no ratio for goal {goal.number}: {goal.what}."


def not_written(results: Results) -> Iterator[str]:
    """What is wrong with the page."""
    try:
        page = report.page(results, report.written())
        if page != report.written():
            yield "docs/benchmarks.md is not what benches/results.json says."
        if report.MISSING in page:
            yield "docs/benchmarks.md names what was not measured."
    except LookupError as error:
        yield f"docs/benchmarks.md: {error}"


def not_drawn(results: Results) -> Iterator[str]:
    """Plots that are not what the values give."""
    from benches import plots

    with TemporaryDirectory() as folder:
        plots.draw(results, Path(folder))
        drawn = _contents(Path(folder))
    found = _contents(plots.FOLDER)
    for name in sorted({*drawn, *found}):
        if drawn.get(name) != found.get(name):
            yield f"docs/benchmarks/{name} is not what benches/results.json gives."


def _contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("*.svg")}


def parser() -> argparse.ArgumentParser:
    """What can be said on the command line."""
    parser = argparse.ArgumentParser(prog="python -m benches", description=__doc__)
    step = parser.add_mutually_exclusive_group()
    step.add_argument(
        "--short", action="store_true", help="hold fewer and shorter contests, and only print"
    )
    step.add_argument(
        "--resume",
        action="store_true",
        help="go on with a full run that was broken off, or in which contests failed",
    )
    step.add_argument(
        "--report", action="store_true", help="measure nothing: write the page from the last run"
    )
    step.add_argument(
        "--check",
        action="store_true",
        help="measure nothing: fail if a contest, a figure on the page or a plot is missing",
    )
    step.add_argument("--worker", nargs=2, metavar=("NAME", "ROUNDS"), help=argparse.SUPPRESS)
    parser.add_argument(
        "--names",
        nargs="+",
        metavar="NAME",
        default=[],
        help='contests to hold, such as "inline *"; the others keep the values of their last run',
    )
    return parser


def main() -> None:
    options = parser()
    arguments = options.parse_args()
    if arguments.names and arguments.resume:
        options.error("--resume holds all contests that are left")
    if arguments.worker:
        name, rounds = arguments.worker
        print(json.dumps(alternate(CONTESTS[name], int(rounds))))
    elif arguments.report:
        write()
    elif arguments.check:
        check()
    else:
        try:
            measure(arguments.names, short=arguments.short, resume=arguments.resume)
        except KeyboardInterrupt:
            sys.exit("Broken off. The kept values are as they were; --resume continues a full run.")


if __name__ == "__main__":
    main()
