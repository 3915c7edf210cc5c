"""The instructions of one delivery, counted under valgrind: pagebus's own, and the interpreter's.

Each way sends as many messages to few handlers as to many. The difference is what handlers add:
sends and turns of the event loop cancel out. Nothing of it depends on the machine's load, but for
pagebus's looks at the clock, which a slow program makes more often.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benches.contest import Contest, Contestant, Round, Values
from benches.programs.deliveries import BORDER, FEW, MANY, SENDS, WAYS
from pagebus import _core

ATTEMPTS = 5
TIMEOUT = 100.0
OURS = Path(_core.__file__).name


def run(way: str, sizes: tuple[int, int], file: Path, **environment: str) -> bool:
    """Counts a way's instructions; tells whether the loop took as many turns for many handlers.

    Where it did not, something else kept the processor for longer than a turn may last.
    """
    command = [
        *("valgrind", "--quiet", "--tool=callgrind", f"--dump-before={BORDER}"),
        *("--compress-strings=no", "--compress-pos=no", f"--callgrind-out-file={file}"),
        *(sys.executable, "-m", "benches.programs.deliveries", way, *map(str, sizes)),
    ]
    environment = {**os.environ, "PYTHONHASHSEED": "0", **environment}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=TIMEOUT
    )
    few, many = done.stdout.split()
    return few == many


def by_object(file: Path) -> Counter[str]:
    """The instructions in each program file, such as a shared library."""
    counts: Counter[str] = Counter()
    place, total, is_call = "", 0, False
    for line in file.read_text(errors="replace").splitlines():
        if line.startswith("ob="):
            place = Path(line[3:]).name
        elif line.startswith("totals:"):
            total = int(line.split()[1])
        elif line[:1].isdigit() and not is_call:
            counts[place] += int(line.split()[1])
        # The line that follows says what the callee took, which stands with the callee as well.
        is_call = line.startswith("calls=")
    if counts.total() != total or not total:
        raise RuntimeError(f"{counts.total()} instructions were read in {file}, not {total}")
    return counts


def parts(way: str, sizes: tuple[int, int], **environment: str) -> tuple[Counter[str], ...]:
    """The instructions of all sends to few handlers, and of those to many."""
    if not shutil.which("valgrind"):
        raise RuntimeError("valgrind, which counts the instructions, is not installed")
    with TemporaryDirectory() as folder:
        file = Path(folder, "counts")
        if not any(run(way, sizes, file, **environment) for _ in range(ATTEMPTS)):
            raise RuntimeError("the machine is too busy: the loop took turns that nobody needs")
        # The first part is what came before.
        return tuple(by_object(file.with_suffix(f".{part}")) for part in (2, 3))


def count(way: str) -> Values:
    """The instructions of a delivery."""
    few, many = parts(way, (FEW, MANY))
    many.subtract(few)
    each = {place: number / (MANY - FEW) / SENDS for place, number in many.items()}
    total, own = sum(each.values()), each.get(OURS, 0)
    values = {"total": total, "pagebus": own, "interpreter": total - own}
    # The file of values takes no zeros.
    return {what: value for what, value in values.items() if value}


def counted(way: str) -> Contestant:
    """A contestant that needs no clock."""

    @contextmanager
    def contestant() -> Iterator[Round]:
        yield lambda: count(way)

    return contestant


CONTESTS = [
    Contest(
        "instructions",
        {way: counted(way) for way in WAYS},
        unit="integer",
        rounds=1,
        warmups=0,
        processes=1,
        short_rounds=0,
    )
]
