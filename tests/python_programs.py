"""Programs that run in a process of their own, where a test ends, forks or interrupts one."""

import subprocess
import sys
import textwrap


def run(body: str, *options: str, seconds: float = 60) -> "subprocess.CompletedProcess[str]":
    """Run ``body`` as a program, with options of the interpreter, and return what came of it."""
    return subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(body)],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
