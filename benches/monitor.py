"""``python -m benches.monitor``: what it costs a busy hub that somebody looks at its monitor.

Without a monitor, with one on a page of the same process, with one beside the process: in turns, a
few seconds each. With ``--page`` the figures are written into a page of the documentation.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median

from benches.flet_app import SETTINGS, free_port, wait_until_ready
from benches.visitors import Visitor

PROGRAM = Path(__file__).parent / "programs" / "watched.py"
GREETING = "Failing handlers"
BEGIN, END = "<!-- measured: monitor -->", "<!-- end -->"

WAYS = {
    "nobody looks": "",
    "`pagebus.flet.Monitor` on an open page of the app": "on a page",
    "`pagebus monitor`, with its page open": "beside",
}


class Program:
    """The running program."""

    def __init__(self) -> None:
        self._port = free_port()
        self._process = subprocess.Popen(
            [sys.executable, PROGRAM],
            env={**os.environ, **SETTINGS, "FLET_SERVER_PORT": str(self._port)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        wait_until_ready(self._process, self._port)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.communicate(timeout=30)

    def measure(self, way: str, seconds: float) -> float:
        """Deliveries per second of its processor time while it is looked at in one of the ways."""
        with self._looked_at(way):
            assert self._process.stdout is not None
            self._tell(str(seconds))
            return float(self._process.stdout.readline())

    @contextmanager
    def _looked_at(self, way: str) -> Iterator[None]:
        if not way:
            yield
            return
        port = self._port
        if way == "beside":
            self._tell(f"beside {(port := free_port())}")
            wait_until_ready(self._process, port)
        with closing(Visitor(port, GREETING).socket):
            yield
        if way == "beside":
            self._tell("alone")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()


def measure(rounds: int, seconds: float) -> dict[str, list[float]]:
    """The values of all ways, taken in turns."""
    values: dict[str, list[float]] = {name: [] for name in WAYS}
    with closing(Program()) as program:
        for number in range(rounds):
            turn = list(WAYS.items())
            for name, way in turn[number % 3 :] + turn[: number % 3]:
                values[name].append(program.measure(way, seconds))
                print(f"{name}: {values[name][-1]:,.0f}/s", flush=True)
    return values


def table(values: dict[str, list[float]], seconds: float) -> str:
    """The medians, and the medians of what is left of the first one round by round."""
    alone = next(iter(values.values()))
    lines = ["| | deliveries | of those while nobody looks |", "| --- | ---: | ---: |"]
    for name, own in values.items():
        shares = [value / first for value, first in zip(own, alone, strict=True)]
        lines.append(f"| {name} | {median(own):,.0f} | {median(shares):.1%} |")
    how = (
        "Deliveries for each second of the app's process on a processor."
        f" Medians of {len(alone)} rounds of {seconds:g} seconds each, in turns,"
        f" on {os.cpu_count()} processor cores with Python {platform.python_version()}."
    )
    return "\n".join([*lines, "", how])


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--page", type=Path, help="the page that gets the figures")
    options = parser.parse_args()
    found = table(measure(options.rounds, options.seconds), options.seconds)
    print(found)
    if options.page:
        head, _, rest = options.page.read_text(encoding="utf-8").partition(BEGIN)
        _, _, tail = rest.partition(END)
        text = f"{head}{BEGIN}\n\n{found}\n\n{END}{tail}"
        options.page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
