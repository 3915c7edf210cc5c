"""The values of the contests, kept in a pyperf file: their medians, spreads and ratios."""

from __future__ import annotations

import importlib.metadata
import os
import statistics
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import psutil
import pyperf

import pagebus
from benches import broker
from benches.contest import Result

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "benches" / "results.json"
UNFINISHED = ROOT / "artifacts" / "results.json"
"""The values of a run until its end."""
COMPARED = ("flet", "uvloop", "redis", "hiredis", "channels_redis", "broadcaster")
"""Packages whose versions are noted."""
DIGITS = 4
"""Digits of a value that are worth keeping: noise is in the third."""

PRIVATE = {
    *("hostname", "python_executable", "python_cflags", "python_config_args"),
    *("boot_time", "uptime", "mem_max_rss"),
}
"""What pyperf notes about a machine that is of no use to anybody elsewhere."""


@dataclass(frozen=True)
class Spread:
    """A figure, and the range in which it lay."""

    middle: float
    low: float
    high: float


@dataclass(frozen=True)
class Measured:
    """What one contestant of one contest measured."""

    contest: str
    contestant: str
    what: str
    unit: str
    processes: tuple[tuple[float, ...], ...]
    """The values of each process."""

    @property
    def values(self) -> list[float]:
        """All values, sorted."""
        return sorted(value for process in self.processes for value in process)

    @property
    def medians(self) -> list[float]:
        """The median of each process."""
        return [statistics.median(process) for process in self.processes]

    @property
    def median(self) -> float:
        """The median of all values."""
        return statistics.median(self.values)

    def between_processes(self) -> Spread:
        """The median of all values, from the lowest to the highest median of a process."""
        return Spread(self.median, min(self.medians), max(self.medians))

    def between_rounds(self) -> Spread:
        """The median of all values, and the middle half of them."""
        if len(self.values) == 1:
            return Spread(self.median, self.median, self.median)
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return Spread(self.median, low, high)

    def ratio(self, other: Measured) -> Spread:
        """This median as a multiple of another one's: in each process, and the median of those.

        Both took turns in the same processes, so what differs between these is not in the ratio.
        """
        ratios = [a / b for a, b in zip(self.medians, other.medians, strict=True)]
        return Spread(statistics.median(ratios), min(ratios), max(ratios))


class Results:
    """The values of all contests that were held."""

    def __init__(self, benchmarks: Iterable[pyperf.Benchmark] = ()) -> None:
        self._benchmarks = list(benchmarks)
        self._measured = [_measured(benchmark) for benchmark in self._benchmarks]

    @classmethod
    def load(cls, path: Path = FILE) -> Results:
        """What was saved."""
        return cls(pyperf.BenchmarkSuite.load(str(path)))

    def save(self, path: Path = FILE) -> None:
        """Saves everything in a file that ``python -m pyperf`` reads too."""
        path.parent.mkdir(exist_ok=True)
        # Never half a file, whenever the program is broken off.
        written = path.with_suffix(".new")
        pyperf.BenchmarkSuite(self._benchmarks).dump(str(written), replace=True)
        os.replace(written, path)

    def __iter__(self) -> Iterator[Measured]:
        return iter(self._measured)

    def with_result(self, result: Result, metadata: dict[str, str | float]) -> Results:
        """These results with those of one more contest, or with newer ones in their place."""
        name = result.contest.name
        others = [b for b in self._benchmarks if b.get_metadata()["contest"] != name]
        return Results([*others, *_benchmarks(result, metadata)])

    def in_order(self, contests: Iterable[str]) -> Results:
        """These results in the order of the contests; those of other contests are left out."""
        places = {contest: place for place, contest in enumerate(contests)}
        known = [b for b in self._benchmarks if b.get_metadata()["contest"] in places]
        return Results(sorted(known, key=lambda b: places[b.get_metadata()["contest"]]))

    def contests(self, *patterns: str) -> list[str]:
        """The names of the contests that match one of the patterns."""
        names = dict.fromkeys(measured.contest for measured in self)
        return [name for name in names if any(fnmatchcase(name, p) for p in patterns)]

    def of(self, contest: str) -> list[Measured]:
        """Everything that was measured in a contest."""
        return [measured for measured in self if measured.contest == contest]

    def find(self, contest: str, contestant: str, what: str = "time") -> Measured | None:
        """What a contestant measured, if its contest was held."""
        for measured in self.of(contest):
            if (measured.contestant, measured.what) == (contestant, what):
                return measured
        return None

    def each(self, key: str, default: str | float) -> list[str | float]:
        """What a note says for each of the contests."""
        notes = [benchmark.get_metadata() for benchmark in self._benchmarks]
        return list({note["contest"]: note.get(key, default) for note in notes}.values())


def metadata() -> dict[str, str | float]:
    """What there is to know about this machine at this moment, and the versions of everything."""
    noted: dict[str, str | float] = pyperf.Run([1.0]).get_metadata()
    public = {key: value for key, value in noted.items() if key not in PRIVATE}
    versions = {f"{name}_version": importlib.metadata.version(name) for name in COMPARED}
    memory = {"memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB"}
    own = {"pagebus_version": pagebus.__version__, "revision": revision()}
    return {**public, **versions, **memory, **own, "broker_version": broker.version()}


def revision() -> str:
    """Which revision of the project this is: its version, where nothing else tells."""
    # What a run writes does not make it another program.
    changes = ("diff", "--quiet", "HEAD", "--", ".", ":!docs", ":!benches/results.json")
    try:
        name = _git("describe", "--always")
        is_changed = _git(*changes).returncode != 0
    except OSError:
        return pagebus.__version__
    if name.returncode != 0:
        return pagebus.__version__
    return name.stdout.strip() + ("-dirty" if is_changed else "")


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
    )


def _benchmarks(result: Result, metadata: dict[str, str | float]) -> Iterator[pyperf.Benchmark]:
    for contestant, measures in result.runs[0].items():
        for what in measures:
            benchmark = result.benchmark(contestant, what)
            names = {"contest": result.contest.name, "contestant": contestant, "what": what}
            yield pyperf.Benchmark(
                [_run(run, {**metadata, **names}) for run in benchmark.get_runs()]
            )


def _run(run: pyperf.Run, metadata: dict[str, str | float]) -> pyperf.Run:
    """The same run with rounded values, and with metadata."""
    values = [float(f"{value:.{DIGITS}g}") for value in run.values]
    return pyperf.Run(values, metadata={**metadata, **run.get_metadata()}, collect_metadata=False)


def _measured(benchmark: pyperf.Benchmark) -> Measured:
    noted = benchmark.get_metadata()
    processes = tuple(tuple(run.values) for run in benchmark.get_runs())
    return Measured(noted["contest"], noted["contestant"], noted["what"], noted["unit"], processes)
