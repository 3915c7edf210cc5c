"""What is made of the results: the tables and figures on docs/benchmarks.md.

The page is written by hand, but for its regions between ``<!-- measured: ... -->`` and
``<!-- end -->``, and these are written by this program alone. What a region shows stands in its
first line:

- ``run``: when and where the contests were held;
- ``goals``: the table of the goals;
- ``contests PATTERN | ...``: the table of the contests whose names match;
- ``median CONTEST | CONTESTANT``: one median, within a sentence;
- ``ratio CONTEST | CONTESTANT | CONTESTANT``: one ratio, within a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from benches import units
from benches.results import Measured, Results
from benches.tables import CONTEST_HEAD, GOALS_HEAD, contest_rows, goal_rows, markdown

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"

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
        # More than one where some contests were held again later.
        return ", ".join(dict.fromkeys(str(note) for note in results.each(key))) or "unknown"

    dates = sorted(str(date)[:10] for date in results.each("date"))
    seconds = sum(float(took) for took in results.each("seconds_in_all"))
    loads = [float(load) for load in results.each("load_avg_1min")]
    rows = {
        "Command": "`make bench`",
        "Date": " to ".join(dict.fromkeys((dates[0], dates[-1]))),
        "Duration": f"{seconds / 60:.0f} minutes",
        "Processor": f"{noted('cpu_model_name')}, {noted('cpu_count')} cores",
        "Memory": noted("memory"),
        "System": noted("platform"),
        "Load before": f"{loads[0]:.2f} (average over the minute before the first contest)",
        "Python": f"{noted('python_implementation')} {noted('python_version')}",
        "pagebus": noted("pagebus_version"),
        "Flet": noted("flet_version"),
        "uvloop": noted("uvloop_version"),
        "pyperf": noted("perf_version"),
    }
    return markdown(("", ""), rows.items())


def goals(results: Results) -> str:
    """The table of the goals."""
    return markdown(GOALS_HEAD, goal_rows(results))


def contests(results: Results, *patterns: str) -> str:
    """The table of some contests."""
    rows = [row for name in results.contests(*patterns) for row in contest_rows(results, name)]
    return markdown(CONTEST_HEAD, rows)


def median(results: Results, contest: str, contestant: str, what: str = "time") -> str:
    """One median."""
    measured = _find(results, contest, contestant, what)
    return units.quantity(measured.median, measured.unit)


def ratio(results: Results, contest: str, contestant: str, other: str, what: str = "time") -> str:
    """One ratio."""
    ours, theirs = (_find(results, contest, name, what) for name in (contestant, other))
    return units.ratio(ours.ratio(theirs).middle)


REGIONS: dict[str, Callable[..., str]] = {
    function.__name__: function for function in (run, goals, contests, median, ratio)
}


def _split(of: str) -> list[str]:
    return [part.strip() for part in of.split("|") if part.strip()]


def _find(results: Results, contest: str, contestant: str, what: str) -> Measured:
    measured = results.find(contest, contestant, what)
    if measured is None:
        raise LookupError(f"the page names what was not measured: {contest}, {contestant}, {what}")
    return measured


def _expect_all_contests(results: Results, text: str) -> None:
    """Nothing that was measured may be left out of the page."""
    regions = [found for found in REGION.finditer(text) if found["kind"] == "contests"]
    shown = {name for found in regions for name in results.contests(*_split(found["of"]))}
    missing = sorted({measured.contest for measured in results} - shown)
    if missing:
        raise LookupError(f"the page has no table for these contests: {', '.join(missing)}")
