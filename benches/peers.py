"""Processes beside this one: a line that is written to one of them is answered with a line."""

from __future__ import annotations

import subprocess
import sys
from types import TracebackType


class Peer:
    """A running program of ``benches.programs``, which has said that it is ready."""

    def __init__(self, program: str, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"benches.programs.{program}", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.hear("ready")

    def tell(self, *words: object) -> None:
        """Writes a line."""
        assert self.process.stdin is not None
        print(*words, file=self.process.stdin, flush=True)

    def read(self) -> str:
        """The next line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the program has ended: {self.process.args!r}")
        return line.strip()

    def hear(self, word: str) -> None:
        """Fails unless that is the next line."""
        if (line := self.read()) != word:
            raise RuntimeError(f"{self.process.args!r} says {line!r}, not {word!r}")

    def number(self) -> float:
        """The next line, which is a number."""
        return float(self.read())

    def close(self) -> None:
        """Ends it: there are no more lines. Fails if it found something wrong."""
        try:
            self.process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
        if self.process.returncode:
            raise RuntimeError(f"{self.process.args!r} ended with {self.process.returncode}")

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
