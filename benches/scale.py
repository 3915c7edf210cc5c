"""``python -m benches.scale``: what many linked hubs cost, measured, checked, and carried on.

Measures the constants of the model, puts real nodes under loads to see how far it is off, and
writes the regions of docs/scale.md and its plot. ``--report`` writes them from the last values,
``--check`` fails if they are not what the values say.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benches import units
from benches.costs import Measured, measure, try_out
from benches.model import SHARE, Costs, Load, Pace, Prediction, need, predict
from benches.report import REGION
from benches.results import metadata
from benches.tables import markdown

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "benches" / "scale.json"
PAGE = ROOT / "docs" / "scale.md"
PLOT = ROOT / "docs" / "scale.svg"

ROOMS, RATE, FLOODED = 100, 500.0, 500
TRIED = [
    *((Load(nodes, ROOMS, RATE), False) for nodes in (2, 4, 8, 16, 32)),
    *((Load(nodes, FLOODED, RATE), True) for nodes in (2, 4, 8)),
]
"""Loads for real nodes, and whether they are as fast as it goes."""

SESSIONS = 10_000
"""Sessions of a node."""
PER_MINUTE = 1.0
"""Messages that each of them sends."""
NODES = (10, 100, 1_000)
NOTED = {
    "revision": "Revision",
    "date": "Date",
    "cpu_model_name": "Processor",
    "cpu_count": "Cores",
    "memory": "Memory",
    "platform": "System",
    "python_version": "Python",
    "pagebus_version": "pagebus",
    "broker_version": "Server",
}


@dataclass(frozen=True)
class Values:
    """What was measured, and where."""

    noted: dict[str, str]
    costs: Costs
    tried: list[Measured]

    def save(self) -> None:
        """Keeps it with the code."""
        FILE.write_text(json.dumps(_rounded(asdict(self)), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls) -> Values:
        """What was kept."""
        kept: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
        costs = kept["costs"]
        quiet, busy = (Pace(**costs.pop(pace)) for pace in ("quiet", "busy"))
        tried = [Measured(Load(**each.pop("load")), **each) for each in kept["tried"]]
        return cls(kept["noted"], Costs(quiet, busy, **costs), tried)


def _rounded(value: Any) -> Any:
    """With four digits, as all values are kept."""
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(each) for each in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def rooms_of(nodes: int, *, is_together: bool = False) -> Load:
    """The load that the page carries on to: full nodes, sessions that talk now and then."""
    sessions = nodes * SESSIONS
    return Load(nodes, sessions // 50, sessions * PER_MINUTE / 60, is_together=is_together)


# ---- the regions of the page --------------------------------------------------------------------


def run(values: Values) -> str:
    """Where and when."""
    return markdown(("", ""), [(name, values.noted[key]) for key, name in NOTED.items()])


def costs(values: Values) -> str:
    """The constants."""
    found = values.costs

    def paced(what: str, name: str) -> tuple[str, ...]:
        quiet, busy = (getattr(pace, name) for pace in (found.quiet, found.busy))
        return (what, _time(quiet), _time(busy))

    def once(what: str, value: str) -> tuple[str, ...]:
        return (what, value, value)

    rows = [
        paced("server: append and note a message", "publish"),
        paced("server: hand it to one node", "push"),
        paced("node: send a message", "send"),
        paced("node: get a message, with its first handler", "entry"),
        paced("node: another handler, which does nothing", "handler"),
        once("node: be there, each second", _time(found.alive_node)),
        once("server: a node that is there, each second", _time(found.alive_server)),
        once("server: a node subscribes to a topic", _time(found.join_server)),
        once("to the server: a message", _bytes(found.bytes_in)),
        once("from the server: a message, to each node", _bytes(found.bytes_push)),
        once("memory of the server: a topic with one entry", _bytes(found.memory_topic)),
        once("another entry, up to a thousand", _bytes(found.memory_entry)),
        once("another node that publishes there", _bytes(found.memory_publisher)),
        once("a node that is subscribed to it", _bytes(found.memory_subscription)),
    ]
    return markdown(("", "alone", "in a crowd"), rows)


def tried(values: Values) -> str:
    """The model beside real nodes."""
    head = (
        *("nodes", "messages a second", "a room is on", "processor of the server", "of a node"),
        "from the server",
    )
    rows = []
    for each in values.tried:
        guess = _guess(values, each)
        rows.append(
            (
                str(each.load.nodes) + (", in a crowd" if each.is_busy else ""),
                f"{each.load.rate:,.0f}",
                f"{each.load.spread:.1f} nodes",
                _beside(guess.server, each.server, _share),
                _beside(guess.node, each.node, _share),
                _beside(guess.out, each.out, _traffic),
            )
        )
    return markdown(head, rows)


def outlook(values: Values) -> str:
    """The load on more and more nodes."""
    head = (
        *("nodes", "sessions", "messages a second", "a room is on", "pushes a second"),
        *("processor of servers", "from servers", "memory of servers", "of a node's processor"),
        *("servers", "what runs out first"),
    )
    loads = [rooms_of(nodes, is_together=together) for together in (False, True) for nodes in NODES]
    return markdown(head, [_outlook_row(values.costs, load) for load in loads])


def _outlook_row(found: Costs, load: Load) -> Sequence[str]:
    guess, needed = predict(found, found.busy, load), need(found, load)
    return (
        f"{load.nodes:,}",
        f"{load.sessions:,}",
        f"{load.rate:,.0f}",
        f"{load.spread:.1f} nodes",
        f"{load.pushes:,.0f}",
        f"{guess.server:.2g} cores",
        _traffic(guess.out),
        units.quantity(guess.memory, "byte"),
        _share(guess.node),
        f"{needed.servers}",
        needed.bottleneck if needed.servers > 1 else f"nothing: {needed.bottleneck} is first",
    )


def _guess(values: Values, each: Measured) -> Prediction:
    pace = values.costs.busy if each.is_busy else values.costs.quiet
    return predict(values.costs, pace, each.load)


def _beside(guess: float, found: float, text: Callable[[float], str]) -> str:
    return f"{text(guess)} predicted, {text(found)} measured ({guess / found - 1:+.0%})"


def _time(seconds: float) -> str:
    return units.quantity(seconds, "second")


def _bytes(size: float) -> str:
    return units.quantity(size, "byte")


def _share(cores: float) -> str:
    return f"{cores:.1%}"


def _traffic(size: float) -> str:
    return f"{size / 1e6:,.2f} MB/s" if size < 10e6 else f"{size / 1e6:,.0f} MB/s"


# ---- single figures, within sentences -----------------------------------------------------------


def _most_messages(values: Values, nodes_each: int) -> str:
    """Messages a second that one server takes, if each goes to so many nodes."""
    pace = values.costs.busy
    return f"{_round(SHARE / (pace.publish + nodes_each * pace.push)):,}"


def _off(values: Values, what: str) -> str:
    """How far the model is off at most, for nodes that are not in a crowd."""
    quiet = [each for each in values.tried if not each.is_busy]
    off = [abs(getattr(_guess(values, each), what) / getattr(each, what) - 1) for each in quiet]
    return f"{max(off):.0%}"


def _crowd(values: Values) -> str:
    """What is measured of what is predicted for the server, in a crowd."""
    busy = [each for each in values.tried if each.is_busy]
    shares = [each.server / _guess(values, each).server for each in busy]
    return f"{min(shares):.0%} to {max(shares):.0%}"


def _back(values: Values) -> str:
    """How long one server takes to have all nodes back that it has lost."""
    load = rooms_of(NODES[-1])
    seconds = load.rooms * load.spread * values.costs.join_server
    return f"{seconds:,.0f} seconds"


def _round(value: float) -> int:
    """To two digits: what is carried on has no more."""
    return int(float(f"{value:.2g}"))


FIGURES: dict[str, Callable[[Values], str]] = {
    "messages to one node": lambda values: _most_messages(values, 1),
    "messages to ten nodes": lambda values: _most_messages(values, 10),
    "messages to fifty nodes": lambda values: _most_messages(values, 50),
    "off server": lambda values: _off(values, "server"),
    "off node": lambda values: _off(values, "node"),
    "off out": lambda values: _off(values, "out"),
    "crowd": _crowd,
    "back": _back,
    "servers": lambda values: str(need(values.costs, rooms_of(NODES[-1])).servers),
    "servers together": lambda values: str(
        need(values.costs, rooms_of(NODES[-1], is_together=True)).servers
    ),
    "push": lambda values: _time(values.costs.busy.push),
    "publish": lambda values: _time(values.costs.busy.publish),
    "shown": lambda values: f"{rooms_of(1).rate * rooms_of(1).per_room:,.0f}",
    "alive": lambda values: _share(NODES[-1] * values.costs.alive_server),
}


def figure(values: Values, *name: str) -> str:
    """One figure."""
    return FIGURES[" ".join(name)](values)


REGIONS: dict[str, Callable[..., str]] = {
    function.__name__: function for function in (run, costs, tried, outlook, figure)
}


def page(values: Values, text: str) -> str:
    """The page with its regions made anew."""

    def region(found: Any) -> str:
        made = REGIONS[found["kind"]](values, *(found["of"] or "").split())
        is_block = found["text"].startswith("\n")
        return str(found["start"] + (f"\n\n{made}\n\n" if is_block else made) + found["end"])

    return REGION.sub(region, text)


# ---- the plot -----------------------------------------------------------------------------------


def draw(values: Values, file: Path = PLOT) -> None:
    """Processor time of servers against sessions, for both ways to place rooms."""
    from matplotlib.figure import Figure

    from benches import plots

    with plots.style():
        drawn = Figure(figsize=(plots.WIDTH, 3.6), layout="constrained")
        left, right = drawn.subplots(1, 2)
        _draw_tried(left, values)
        _draw_outlook(right, values)
        drawn.savefig(file, metadata={"Date": None, "Creator": None})


def _draw_tried(axes: Any, values: Values) -> None:
    from benches.plots import FLET, PAGEBUS

    quiet = [each for each in values.tried if not each.is_busy]
    nodes = [each.load.nodes for each in quiet]
    lines: dict[str, tuple[str, list[float], list[float]]] = {
        "the server": (
            FLET,
            [_guess(values, each).server for each in quiet],
            [each.server for each in quiet],
        ),
        "a node": (
            PAGEBUS,
            [_guess(values, each).node for each in quiet],
            [each.node for each in quiet],
        ),
    }
    axes.set_title("Predicted (lines) and measured (dots)")
    axes.set_xscale("log", base=2)
    axes.set_xticks(nodes, [str(number) for number in nodes])
    for name, (color, predicted, measured) in lines.items():
        axes.plot(nodes, [100 * value for value in predicted], "-", color=color)
        axes.plot(nodes, [100 * value for value in measured], "o", color=color)
        place = (nodes[-1], 100 * predicted[-1])
        axes.annotate(name, place, (8, 0), textcoords="offset points", va="center", color=color)
    axes.set_xlim(nodes[0] * 0.9, nodes[-1] * 2.2)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("nodes")
    axes.set_ylabel("% of a processor core")
    axes.grid(axis="y")


def _draw_outlook(axes: Any, values: Values) -> None:
    from benches.plots import FLOOR, PAGEBUS

    axes.set_title("Processor time of servers, in cores")
    axes.set_xscale("log")
    axes.set_yscale("log")
    nodes = [round(10 ** (place / 8)) for place in range(8, 25)]
    for together, name in ((False, "rooms anywhere"), (True, "rooms together")):
        loads = [rooms_of(number, is_together=together) for number in nodes]
        cores = [predict(values.costs, values.costs.busy, load).server for load in loads]
        sessions = [load.sessions for load in loads]
        axes.plot(sessions, cores, "-", color=PAGEBUS)
        place = (sessions[-1], cores[-1])
        axes.annotate(name, place, (8, 0), textcoords="offset points", va="center", color=PAGEBUS)
    axes.axhline(SHARE, color=FLOOR, linewidth=1.2, linestyle="--")
    axes.annotate(
        *("one server is full", (9e7, SHARE), (0, 4)),
        textcoords="offset points",
        ha="right",
        color=FLOOR,
    )
    axes.set_xticks([1e5, 1e6, 1e7], ["100,000", "1 million", "10 million"])
    axes.set_xlim(nodes[0] * SESSIONS * 0.9, 9e7)
    axes.set_yticks([0.01, 0.1, 1, 10], ["0.01", "0.1", "1", "10"])
    axes.minorticks_off()
    axes.set_xlabel("sessions")
    axes.grid(axis="y")


# ---- the command ------------------------------------------------------------------------------


def hold() -> Values:
    """Measures everything."""
    noted = {key: str(value) for key, value in metadata().items() if key in NOTED}
    noted["date"] = noted["date"][:10]
    begun = time.monotonic()

    def tell(progress: str) -> None:
        print(f"[{time.monotonic() - begun:.0f} s] {progress}", file=sys.stderr, flush=True)

    found = measure(tell)
    real = []
    for load, is_busy in TRIED:
        tell(f"{load.nodes} nodes{', in a crowd' if is_busy else ''} ...")
        real.append(try_out(load, is_busy=is_busy))
    tell("done")
    return Values(noted, found, real)


def write(values: Values) -> None:
    """Writes the page and its plot anew."""
    PAGE.write_text(page(values, PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    draw(values)


def check() -> None:
    """Fails where the page or its plot does not say what the values say."""
    values, text = Values.load(), PAGE.read_text(encoding="utf-8")
    problems = []
    if page(values, text) != text:
        problems.append("docs/scale.md is not what benches/scale.json says.")
    with TemporaryDirectory() as folder:
        drawn = Path(folder) / PLOT.name
        draw(values, drawn)
        if not PLOT.exists() or drawn.read_bytes() != PLOT.read_bytes():
            problems.append("docs/scale.svg is not what benches/scale.json gives.")
    if problems:
        sys.exit(
            os.linesep.join([*problems, "Write with: .venv/bin/python -m benches.scale --report"])
        )


def main() -> None:
    """Measure, or write, or check."""
    parser = argparse.ArgumentParser(prog="python -m benches.scale", description=__doc__)
    step = parser.add_mutually_exclusive_group()
    step.add_argument("--report", action="store_true", help="write the page from the last values")
    step.add_argument("--check", action="store_true", help="fail if the page is not theirs")
    options = parser.parse_args()
    if options.check:
        check()
        return
    if not options.report:
        hold().save()
    # From the file, whose values are rounded: so it is written as it will be checked.
    write(Values.load())


if __name__ == "__main__":
    main()
