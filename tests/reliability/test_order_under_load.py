"""Twenty seconds of load from eight threads: every message is accounted for.

``make soak SECONDS=600 SEED=7`` does the same for as long as you like.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import soak
from delivery_modes import DEADLINE
from soak.plan import Size, steps

TESTS = Path(soak.__file__).parent.parent


def number(what: str, text: str) -> int:
    found = re.search(rf"([\d,]+) {what}", text)
    assert found, text
    return int(found[1].replace(",", ""))


@pytest.mark.heavy
@pytest.mark.timeout(20 + 4 * DEADLINE)
def test_under_load_everybody_gets_exactly_what_was_sent_in_one_order_and_nothing_after_goodbye():
    # A new seed each time: the run says which, and how to repeat it.
    run = subprocess.run(
        [sys.executable, "-m", "soak", "--seconds", "20"],
        cwd=TESTS,
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=20 + 3 * DEADLINE,
        check=False,
    )

    last = run.stdout.splitlines()[-1] if run.stdout else ""
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr[-8000:]}"
    assert last.startswith("done: ")
    assert number("faults", last) == 0
    # It did what it is for: everybody had something to do, on every hub.
    assert number("deliveries", last) > 100_000
    assert number("subscriptions", last) > 1_000
    assert number("failed on purpose", last) > 100


def test_the_plan_of_a_thread_depends_on_the_seed_alone():
    def plan(seed: int, turn: int, thread: int) -> list[str]:
        return [str(step) for step in steps(seed, turn, thread, Size(), [True, False])]

    assert plan(7, 3, 2) == plan(7, 3, 2)
    assert len({tuple(plan(*place)) for place in ((7, 3, 2), (8, 3, 2), (7, 4, 2), (7, 3, 1))}) == 4
