"""Runs a Flet program in a process of its own, on a free port of 127.0.0.1."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ports import free_port

READY_WITHIN = 60.0


class Server:
    """A running Flet program: started with its port free, ended by its process id."""

    def __init__(self, command: list[str], log: Path, settings: dict[str, str]) -> None:
        self.port = free_port()
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                command,
                env=_environment(self.port, settings),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://127.0.0.1:{self.port}"

    def wait_until_ready(self) -> None:
        """Return when the program accepts connections."""
        deadline = time.monotonic() + READY_WITHIN
        while not accepts(self.port):
            assert self._process.poll() is None, f"the program ended:\n{self.log()}"
            assert time.monotonic() < deadline, f"the program does not listen:\n{self.log()}"
            time.sleep(0.05)

    def ask(self, question: str) -> Any:
        """Put ``question`` on the program's standard input; its next line of JSON is the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(question + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def read_line(self) -> str:
        """The next line that the program prints."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")

    def log(self) -> str:
        """What the program has written to its standard error."""
        return self._log.read_text(errors="replace")

    def stop(self) -> int:
        """End the program and return its exit status."""
        self._process.terminate()
        try:
            self._process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        return self._process.returncode


Serve = Callable[..., Server]
"""``serve(python, *arguments, **settings)``: a running program, which ends with the test."""


def accepts(port: int) -> bool:
    """Whether somebody listens on the port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _environment(port: int, settings: dict[str, str]) -> dict[str, str]:
    """Unless told otherwise: a web server that opens no browser and needs nothing from outside."""
    own = {
        "FLET_SERVER_PORT": str(port),
        "PORT": str(port),
        "FLET_SERVER_IP": "127.0.0.1",
        "FLET_FORCE_WEB_SERVER": "true",
        "FLET_WEB_NO_CDN": "true",
        "PYTHONFAULTHANDLER": "1",
        "PYTHONUNBUFFERED": "1",
    }
    return {**os.environ, **own, **settings}
