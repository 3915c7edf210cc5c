"""What is made of the results: the tables and figures on docs/benchmarks.md.

The page is written by hand, but for its regions between ``<!-- measured: ... -->`` and
``<!-- end -->``, and these are written by this program alone. What a region shows stands in its
first line:

- ``run``: when and where the contests were held;
- ``goals``: the table of the goals;
- ``contests PATTERN | ...``: the table of the contests whose names match;
- ``median CONTEST | CONTESTANT``: one median, within a sentence;
- ``ratio CONTEST | CONTESTANT | CONTESTANT``: one ratio, within a sentence;
- ``surplus CONTEST | CONTESTANT | CONTESTANT``: how much more the first took, within a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from benches import units
from benches.contests import CONTESTS
from benches.results import Results
from benches.tables import CONTEST_HEAD, GOALS_HEAD, contest_rows, goal_rows, markdown

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"

MISSING = "(not measured)"
"""Stands for a figure within a sentence until there is one."""

REGION = re.compile(
    r"(?P<start><!-- measured: (?P<kind>\w+)(?: (?P<of>[^>]+))? -->)"
    r"(?P<text>.*?)"
    r"(?P<end><!-- end -->)",
    re.DOTALL,
)


def written() -> str:
    """The page as it is."""
    return PAGE.read_text(encoding="utf-8")


def write(results: Results) -> None:
    """Makes the regions of the page anew."""
    PAGE.write_text(page(results, written()), encoding="utf-8")


def page(results: Results, text: str) -> str:
    """A text with its regions made anew."""

    def region(found: re.Match[str]) -> str:
        made = REGIONS[found["kind"]](results, *_split(found["of"] or ""))
        is_block = found["text"].startswith("\n")
        return found["start"] + (f"\n\n{made}\n\n" if is_block else made) + found["end"]

    _expect_all_contests(results, text)
    return REGION.sub(region, text)


def run(results: Results) -> str:
    """When and where the contests were held."""

    def noted(key: str) -> str:
        # More than one where some contests were held again later, or none: not all note all.
        known = dict.fromkeys(map(str, filter(None, results.each(key, ""))))
        return ", ".join(known) or "unknown"

    dates = sorted(str(date)[:10] for date in results.each("date", "unknown"))
    seconds = sum(float(took) for took in results.each("seconds_in_all", 0))
    loads = [float(load) for load in results.each("load_avg_1min", 0)]
    rows = {
        "Command": "; ".join(mixed(results)) or "`make bench`",
        "Revision": noted("revision"),
        "Date": " to ".join(dict.fromkeys((dates[0], dates[-1]))),
        "Duration": f"{seconds / 60:.0f} minutes",
        "Processor": f"{noted('cpu_model_name')}, {noted('cpu_count')} cores",
        "Memory": noted("memory"),
        "System": noted("platform"),
        "Load before": f"{min(loads):.2f} to {max(loads):.2f} (average over the minute before each "
        "contest; the contest before it is part of that)",
        "Python": f"{noted('python_implementation')} {noted('python_version')}",
        "pagebus": noted("pagebus_version"),
        "Flet": noted("flet_version"),
        "uvloop": noted("uvloop_version"),
        "pyperf": noted("perf_version"),
        "Server of linked hubs": noted("broker_version"),
        "redis-py": f"{noted('redis_version')}, with hiredis {noted('hiredis_version')}",
        "channels_redis": noted("channels_redis_version"),
        "broadcaster": noted("broadcaster_version"),
    }
    return markdown(("", ""), rows.items())


def mixed(results: Results) -> list[str]:
    """Why the values are not those of one full run, if they are not."""
    reasons = []
    if len(set(results.each("revision", "unknown"))) > 1:
        reasons.append("the contests were held with several revisions")
    missing = [name for name in CONTESTS if not results.of(name)]
    if missing:
        reasons.append(f"not held: {', '.join(missing)}")
    others = [name for name in results.contests("*") if not _is_full(results, name)]
    if others:
        reasons.append(f"other rounds than those of `make bench`: {', '.join(others)}")
    return reasons


def _is_full(results: Results, name: str) -> bool:
    contest = CONTESTS.get(name)
    if contest is None:
        return False
    rounds = [contest.rounds] * contest.processes
    return all([len(p) for p in m.processes] == rounds for m in results.of(name))


def goals(results: Results) -> str:
    """The table of the goals."""
    return markdown(GOALS_HEAD, goal_rows(results, results.contests("*")))


def contests(results: Results, *patterns: str) -> str:
    """The table of some contests."""
    rows = [row for name in results.contests(*patterns) for row in contest_rows(results, name)]
    return markdown(CONTEST_HEAD, rows)


def median(results: Results, contest: str, contestant: str, what: str = "time") -> str:
    """One median."""
    measured = results.find(contest, contestant, what)
    return units.quantity(measured.median, measured.unit) if measured else MISSING


def ratio(results: Results, contest: str, contestant: str, other: str, what: str = "time") -> str:
    """One ratio."""
    ours, theirs = (results.find(contest, name, what) for name in (contestant, other))
    return units.ratio(ours.ratio(theirs).middle) if ours and theirs else MISSING


def surplus(results: Results, contest: str, contestant: str, other: str, what: str = "time") -> str:
    """How much more of something one took than the other."""
    ours, theirs = (results.find(contest, name, what) for name in (contestant, other))
    return f"{ours.ratio(theirs).middle - 1:.1%}" if ours and theirs else MISSING


REGIONS: dict[str, Callable[..., str]] = {
    function.__name__: function for function in (run, goals, contests, median, ratio, surplus)
}


def _split(of: str) -> list[str]:
    return [part.strip() for part in of.split("|") if part.strip()]


def _expect_all_contests(results: Results, text: str) -> None:
    """Nothing that was measured may be left out of the page."""
    regions = [found for found in REGION.finditer(text) if found["kind"] == "contests"]
    shown = {name for found in regions for name in results.contests(*_split(found["of"]))}
    missing = sorted({measured.contest for measured in results} - shown)
    if missing:
        raise LookupError(f"the page has no table for these contests: {', '.join(missing)}")
