"""A Redis server of the benchmark's own: on a free port, with nothing in it or on disk."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import redis

from benches.flet_app import accepts, free_port

PROGRAM = shutil.which("redis-server") or shutil.which("valkey-server")
READY_WITHIN = 30.0


def version() -> str:
    """Which server it is."""
    if PROGRAM is None:
        return "none"
    told = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True)
    number = told.stdout.partition("v=")[2].split()[0]
    return f"{Path(PROGRAM).name} {number}"


class Broker:
    """The running server."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.port = port
        self.pid = process.pid
        self.client = redis.Redis(port=port)
        self._process = psutil.Process(process.pid)

    @property
    def url(self) -> str:
        """What a hub is given."""
        return f"redis://127.0.0.1:{self.port}/0"

    def cpu(self) -> float:
        """Seconds that it has been on a processor."""
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def info(self, section: str, key: str) -> int:
        """A number that it tells of itself."""
        return int(self.client.info(section)[key])


@contextmanager
def serving(*options: str) -> Iterator[Broker]:
    """Runs a server."""
    if PROGRAM is None:
        sys.exit("Missing: redis-server or valkey-server on the PATH, for what links hubs.")
    port = free_port()
    with TemporaryDirectory() as folder:
        command = [PROGRAM, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        process = subprocess.Popen(
            [*command, "--save", "", "--appendonly", "no", *options], stdout=subprocess.DEVNULL
        )
        try:
            broker = Broker(process, port)
            _wait_until_ready(process, broker)
            yield broker
            broker.client.close()
        finally:
            process.terminate()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], broker: Broker) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while not accepts(broker.port):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the server does not listen: {process.args!r}")
        time.sleep(0.02)
    broker.client.ping()
