"""Plots of the results: docs/benchmarks/*.svg, the same for the same values.

Backgrounds are transparent, and all colours can be read on a light page and on a dark one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benches import units
from benches.results import Measured, Results, Spread

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "benchmarks"

PAGEBUS, FLET, FLOOR, TEXT = "#2b82e6", "#dd6b20", "#868e99", "#7b838d"
FLOORS = {"for loop", "create_task", "executor.submit", "empty method", "wake-up", "no hub"}
"""Contestants that are no hub: the least that could be done."""
SPECIAL = {"shared context"}
"""Contestants that are pagebus in a special case."""

FONT = 9.5
WIDTH = 9.6

Plot = Callable[[Results], Figure]


def style() -> AbstractContextManager[None]:
    """How all plots look."""
    return mpl.rc_context(
        {
            "svg.hashsalt": "pagebus",
            "font.size": FONT,
            "text.color": TEXT,
            "axes.labelcolor": TEXT,
            "axes.edgecolor": TEXT,
            "axes.facecolor": "none",
            "figure.facecolor": "none",
            "figure.constrained_layout.wspace": 0.06,
            "figure.constrained_layout.hspace": 0.08,
            "axes.titlesize": 10.5,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.titlepad": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "xtick.color": TEXT,
            "ytick.color": TEXT,
            "grid.color": TEXT,
            "grid.alpha": 0.25,
            "grid.linewidth": 0.6,
            "lines.linewidth": 2,
            "lines.markersize": 5,
        }
    )


def draw(results: Results, folder: Path = FOLDER) -> None:
    """Draws all plots for whose contests there are values."""
    folder.mkdir(exist_ok=True)
    with style():
        for name, plot in PLOTS.items():
            figure = plot(results)
            # A date would make a new file of every run.
            metadata = {"Date": None, "Creator": None}
            figure.savefig(folder / f"{name}.svg", metadata=metadata)


def colour(contestant: str) -> str:
    """The colour of a contestant, the same in all plots."""
    if contestant.startswith("Flet"):
        return FLET
    return FLOOR if contestant in FLOORS else PAGEBUS


# ---- the cost of a delivery, against the number of subscribers -------------------------------


def fanout(results: Results) -> Figure:
    """A panel for each kind of handlers, a line for each contestant."""
    kinds = {
        "inline": "Sync handlers, inside the send",
        "async": "Async handlers, on the loop",
        "executor": "Sync handlers, on an executor",
    }
    figure = Figure(figsize=(WIDTH, 4.1), layout="constrained")
    panels: Sequence[Axes] = figure.subplots(1, len(kinds), sharex=True, sharey=True)
    for axes, (kind, title) in zip(panels, kinds.items(), strict=True):
        axes.set_title(title)
        _log_log(axes)
        _lines(axes, [m for name in results.contests(f"{kind} *") for m in results.of(name)])
    panels[0].set_ylabel("time for each delivery")
    figure.supxlabel("subscribers", fontsize=FONT)
    return figure


def _log_log(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    # The names of the lines stand on their right.
    axes.set_xlim(0.7, 300_000_000)
    axes.set_xticks([10**n for n in range(6)], ["1", "10", "100", "1k", "10k", "100k"])
    axes.yaxis.set_major_locator(LogLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(_tick))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
    axes.tick_params(length=0)
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_bounds(1, 100_000)


def _lines(axes: Axes, measured: list[Measured]) -> None:
    ends: dict[str, tuple[float, float]] = {}
    for contestant in dict.fromkeys(m.contestant for m in measured):
        own = [m for m in measured if m.contestant == contestant]
        sizes = [int(m.contest.split()[-1]) for m in own]
        spreads = [m.between_processes() for m in own]
        line = "o--" if contestant in SPECIAL else "o-"
        axes.plot(sizes, [s.middle for s in spreads], line, color=colour(contestant))
        axes.fill_between(
            sizes,
            [s.low for s in spreads],
            [s.high for s in spreads],
            color=colour(contestant),
            alpha=0.25,
            linewidth=0,
        )
        ends[contestant] = (sizes[-1], spreads[-1].middle)
    _label_ends(axes, ends)


def _label_ends(axes: Axes, ends: dict[str, tuple[float, float]]) -> None:
    """Names the lines at their ends, without one name on another."""
    apart, lowest = 1.6, 0.0
    for contestant, (x, y) in sorted(ends.items(), key=lambda end: end[1][1]):
        lowest = max(y, lowest * apart)
        axes.text(x * 1.5, lowest, contestant, color=colour(contestant), va="center")


# ---- bars: one figure for each contestant -------------------------------------------------------


@dataclass(frozen=True)
class Panel:
    """The contestants of a contest, on an axis of their own."""

    title: str
    contest: str
    what: str = "time"

    def measured(self, results: Results) -> list[Measured]:
        """What is shown."""
        return [m for m in results.of(self.contest) if m.what == self.what]


def bars(*panels: Panel) -> Plot:
    """A plot with panels side by side, and a bar for each contestant."""

    def plot(results: Results) -> Figure:
        bars = max(len(panel.measured(results)) for panel in panels)
        figure = Figure(figsize=(WIDTH, 0.5 + 0.45 * bars), layout="constrained")
        grid = figure.subplots(1, len(panels), squeeze=False)
        for axes, panel in zip(grid.flat, panels, strict=True):
            axes.set_title(panel.title)
            _bars(axes, panel.measured(results))
        return figure

    return plot


def _bars(axes: Axes, measured: list[Measured]) -> None:
    for place, each in enumerate(measured):
        spread = each.between_processes()
        axes.barh(place, spread.middle, 0.62, color=colour(each.contestant))
        _whisker(axes, place, spread)
        label = f"  {units.quantity(spread.middle, each.unit)}"
        axes.text(max(spread.middle, spread.high), place, label, va="center")
    _name_rows(axes, [m.contestant for m in measured])
    widest = max((m.between_processes().high for m in measured), default=1)
    axes.set_xlim(0, widest * 1.45)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)


def _whisker(axes: Axes, place: float, spread: Spread) -> None:
    """The range of the processes, whose ends can be seen however near they are."""
    axes.hlines(place, spread.low, spread.high, color=TEXT, linewidth=1.2)
    axes.vlines((spread.low, spread.high), place - 0.15, place + 0.15, color=TEXT, linewidth=1.2)


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(length=0)


# ---- the cost of a send: from a call that does nothing to one that wakes a loop ------------------


def send(results: Results) -> Figure:
    """A panel for each pattern of sends, a dot for each kind of send."""
    panels = (
        Panel("The hub is awake", "send burst"),
        Panel("The hub is asleep, caches are cold", "send idle"),
    )
    names = {m.contestant: None for panel in panels for m in panel.measured(results)}
    figure = Figure(figsize=(WIDTH, 0.9 + 0.3 * len(names)), layout="constrained")
    grid: Sequence[Axes] = figure.subplots(1, len(panels), sharex=True, sharey=True)
    for axes, panel in zip(grid, panels, strict=True):
        axes.set_title(panel.title)
        _dots(axes, panel.measured(results), list(names))
    return figure


def _dots(axes: Axes, measured: list[Measured], names: list[str]) -> None:
    _name_rows(axes, [SENDS.get(name, name) for name in names])
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.xaxis.set_major_formatter(FuncFormatter(_tick))
    axes.minorticks_off()
    axes.grid(axis="x")
    for each in measured:
        place, spread = names.index(each.contestant), each.between_processes()
        axes.hlines(place, spread.low, spread.high, color=colour(each.contestant), alpha=0.5)
        axes.plot(spread.middle, place, "o", color=colour(each.contestant), markersize=7)
        label = units.quantity(spread.middle, each.unit)
        axes.annotate(label, (spread.high, place), (8, 0), textcoords="offset points", va="center")
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


SENDS = {
    "pagebus": "to 10,000 subscribers",
    "1 subscriber": "to 1 subscriber",
    "1 of 10,000": "to 1 of 10,000 sessions",
    "nobody": "to a hub without sessions",
    "others alone": "to others, of whom there are none",
    "unheard topic": "to a topic without subscribers",
    "Flet, 1 subscriber": "Flet, to 1 subscriber",
    "empty method": "an empty method of a C type",
    "wake-up": "a wake-up of the loop",
}


# ---- a Flet app: from the first session to the last ---------------------------------------------


def app(results: Results) -> Figure:
    """A row for each app, from the first session that has the patch to the last one."""
    contests = results.contests("app *")
    figure = Figure(figsize=(WIDTH, 0.9 + 0.72 * len(contests)), layout="constrained")
    axes = figure.subplots()
    axes.set_title("From a click until the first, the median and the last session have the patch")
    for place, contest in enumerate(contests):
        hubs = list(dict.fromkeys(m.contestant for m in results.of(contest)))
        for row, hub in enumerate(hubs):
            y = place + (row - (len(hubs) - 1) / 2) * 0.8 / len(hubs)
            _from_first_to_last(axes, results, contest, hub, y)
    _name_rows(axes, [_app_name(contest) for contest in contests])
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(FuncFormatter(_tick))
    axes.grid(axis="x")
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    return figure


def _from_first_to_last(axes: Axes, results: Results, contest: str, hub: str, y: float) -> None:
    whats = ("first", "median", "last")
    found = [m for m in results.of(contest) if m.contestant == hub and m.what in whats]
    spreads = [m.between_processes() for what in whats for m in found if m.what == what]
    moments = [spread.middle for spread in spreads]
    for spread in spreads:
        axes.hlines(y, spread.low, spread.high, color=colour(hub), linewidth=7, alpha=0.3)
    axes.plot(moments, [y] * len(moments), "-o", color=colour(hub), markersize=6, linewidth=1)
    label = f"{hub}: {', '.join(units.quantity(m, 'second') for m in moments)}"
    axes.annotate(
        *(label, (spreads[-1].high, y), (8, 0)),
        textcoords="offset points",
        va="center",
        color=colour(hub),
    )


def _app_name(contest: str) -> str:
    _, kind, visitors = contest.split()
    return f"{kind} handlers,\n{visitors} sessions"


def _tick(value: float, _: object) -> str:
    name, size = units.multiple(value, "second")
    return f"{value / size:g} {name}" if value else "0"


PLOTS: dict[str, Plot] = {
    "fanout": fanout,
    "send": send,
    "stall": bars(
        Panel("Longest stall of the event loop", "stall 10000"),
        Panel("The send itself", "stall 10000", "send"),
    ),
    "memory": bars(
        Panel("1,000 sessions", "memory 1000"),
        Panel("10,000 sessions", "memory 10000"),
        Panel("100,000 sessions", "memory 100000"),
    ),
    "churn": bars(
        Panel("100,000 sessions, sends to a topic", "churn topic 100000"),
        Panel("10,000 sessions, sends to all", "churn all 10000"),
    ),
    "app": app,
}
