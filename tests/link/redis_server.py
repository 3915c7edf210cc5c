"""A real redis-server for a test, on a free port, with a directory of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

# What can be tried here, and where it is.
PROGRAMS = {
    name: path
    for name, program in (("redis", "redis-server"), ("valkey", "valkey-server"))
    if (path := shutil.which(program)) is not None
}
REDIS = next(iter(PROGRAMS.values()), None)

PATIENCE = 30.0

Command = tuple[str, ...]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Server:
    """A program that talks as Redis does."""

    def __init__(self, port: int, directory: Path, command: list[str]) -> None:
        self.port = port
        self._log = directory / "log"
        self._command = command
        self.start()

    def start(self, *options: str) -> None:
        with self._log.open("a") as log:
            command = [*self._command, *options]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            assert self.process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.01)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def ask(self, *command: str) -> bytes:
        """The answer to one command, up to the end of what comes at once."""
        return self.ask_bytes(*(part.encode() for part in command))

    def ask_bytes(self, *command: bytes) -> bytes:
        """The same, with what is no text."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            parts = [b"*%d\r\n" % len(command)]
            parts += [b"$%d\r\n%b\r\n" % (len(part), part) for part in command]
            connection.sendall(b"".join(parts))
            return connection.recv(1 << 20)

    def tell(self, *command: str) -> bytes:
        """The answer to one command, which must not be an error."""
        answer = self.ask(*command)
        assert not answer.startswith(b"-"), (command, answer)
        return answer

    def _answers(self) -> bool:
        try:
            return self.ask("PING").startswith(b"+PONG")
        except OSError:
            return False


class RedisServer(Server):
    """A server that can be killed and started again on the same port, with what it wrote down."""

    def __init__(
        self, directory: Path, *options: str, port: int = 0, program: str | None = None
    ) -> None:
        program = program or REDIS
        assert program is not None
        directory.mkdir(exist_ok=True)
        port = port or free_port()
        command = [
            *(program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)),
            *("--save", "", "--appendonly", "yes", "--appendfsync", "always", *options),
        ]
        super().__init__(port, directory, command)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"
