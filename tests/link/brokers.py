"""Brokers that linked hubs are tried with: one server, servers with sentinels, and clusters.

Each has a URL, can be emptied, fails in its own way and recovers. Another engine needs one more
class like these, and a line in ``BROKERS``.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from link_tools import until
from redis_server import PROGRAMS, Certificate, RedisServer, Server

from ports import free_port

SERVICE = "main"

SILENCE = 3000
"""Milliseconds after which a server is taken for dead by the others.

A busy machine lets one wait for a second, and no test means a failover that comes of that."""

FAILOVER = {"down-after-milliseconds": SILENCE, "failover-timeout": 1500}
"""What sentinels are told of a service."""


class Broker(Protocol):
    """What the tests need of a broker."""

    @property
    def url(self) -> str: ...

    def clear(self) -> None:
        """Forget everything."""

    def fail(self) -> None:
        """Do what brokers do: kill the server that has the most to do."""

    def recover(self) -> None:
        """Be as before."""

    def ask(self, channel: str, *command: str) -> bytes:
        """The answer of the server that has a channel; ``{}`` in the command is its name."""

    def listeners(self, channel: str) -> int:
        """How many nodes a channel is pushed to."""

    def close(self) -> None:
        """End everything."""


def number(answer: bytes) -> int:
    """The last line of an answer."""
    return int(answer.split(b"\r\n")[-2].lstrip(b":"))


def filled(command: tuple[str, ...], channel: str) -> list[str]:
    return [part.replace("{}", channel) for part in command]


class OneServer:
    """One server, which comes back with what it has acknowledged."""

    def __init__(
        self, directory: Path, program: str, certificate: Certificate | None = None
    ) -> None:
        self._server = RedisServer(directory, program=program, certificate=certificate)

    @property
    def url(self) -> str:
        return self._server.url

    def clear(self) -> None:
        self._server.tell("FLUSHALL")

    def fail(self) -> None:
        self._server.kill()

    def recover(self) -> None:
        self._server.start()

    def ask(self, channel: str, *command: str) -> bytes:
        return self._server.ask(*filled(command, channel))

    def listeners(self, channel: str) -> int:
        return number(self.ask(channel, "PUBSUB", "NUMSUB", "{}"))

    def close(self) -> None:
        self._server.kill()


class WithSentinels:
    """A master and a replica, and three sentinels that let the replica take over.

    With a certificate, all of them talk TLS, to each other as well.
    """

    def __init__(
        self, directory: Path, program: str, certificate: Certificate | None = None
    ) -> None:
        self._certificate = certificate
        # Full copies begin at once, and the replica is asked often.
        options = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"]
        options += ["--tls-replication", "yes"] * (certificate is not None)
        self.servers = [
            RedisServer(
                directory / f"server {place}", *options, program=program, certificate=certificate
            )
            for place in range(2)
        ]
        self.master, self.replica = self.servers
        self.follow()
        self.sentinels = [self._sentinel(directory / f"s{n}", program) for n in range(3)]
        until(self.are_watched, "the sentinels do not find each other")

    def _sentinel(self, directory: Path, program: str) -> Server:
        directory.mkdir()
        port, settings = free_port(), directory / "settings"
        public_port, security = port, {}
        if self._certificate is not None:
            public_port = free_port()
            security = {"tls-port": public_port, "tls-replication": "yes"}
            security |= self._certificate.settings
        lines = [
            *(f"{name} {value}" for name, value in security.items()),
            f"port {port}",
            "bind 127.0.0.1",
            f"dir {directory}",
            f"sentinel monitor {SERVICE} 127.0.0.1 {self.master.public_port} 2",
            *(f"sentinel {setting} {SERVICE} {value}" for setting, value in FAILOVER.items()),
        ]
        settings.write_text("\n".join(lines) + "\n")
        return Server(port, directory, [program, str(settings), "--sentinel"], public_port)

    def are_watched(self) -> bool:
        def says(sentinel: Server, name: bytes, count: int) -> bool:
            words = sentinel.ask("SENTINEL", "MASTER", SERVICE).split(b"\r\n")
            return int(words[words.index(name) + 2]) >= count

        return all(
            says(sentinel, b"num-other-sentinels", 2) and says(sentinel, b"num-slaves", 1)
            for sentinel in self.sentinels
        )

    @property
    def url(self) -> str:
        """With it, what the master has acknowledged the replica has as well."""
        return f"{self.url_without_waiting}?wait_replicas=1"

    @property
    def url_without_waiting(self) -> str:
        scheme = "redis" if self._certificate is None else "rediss"
        hosts = ",".join(f"127.0.0.1:{sentinel.public_port}" for sentinel in self.sentinels)
        return f"{scheme}+sentinel://{hosts}/{SERVICE}/0"

    def clear(self) -> None:
        self.master.tell("FLUSHALL")
        until(lambda: self.replica.ask("DBSIZE") == b":0\r\n", "the replica is not emptied")

    def fail(self) -> None:
        self.master.kill()
        self.master, self.replica = self.replica, self.master
        until(self.is_promoted, "no replica takes over")

    def is_promoted(self) -> bool:
        port = str(self.master.public_port).encode()
        try:
            return b"role:master" in self.master.ask("INFO", "replication") and all(
                port in sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
                for sentinel in self.sentinels
            )
        except OSError:
            # Whoever gets another role closes its connections.
            return False

    def recover(self) -> None:
        self.replica.start()
        self.follow()

    def follow(self) -> None:
        """Have the replica follow the master."""
        self.replica.tell("REPLICAOF", "127.0.0.1", str(self.master.public_port))
        is_there = lambda: b"master_link_status:up" in self.replica.ask("INFO", "replication")  # noqa: E731
        until(is_there, "the replica does not follow")

    def ask(self, channel: str, *command: str) -> bytes:
        return self.master.ask(*filled(command, channel))

    def listeners(self, channel: str) -> int:
        return number(self.ask(channel, "PUBSUB", "NUMSUB", "{}"))

    def close(self) -> None:
        for server in (*self.sentinels, *self.servers):
            server.kill()


class Cluster:
    """Three servers of a cluster, each with a third of the slots.

    With a certificate, they talk TLS.
    """

    BOUNDS = (0, 5461, 10923, 16384)

    def __init__(
        self, directory: Path, program: str, certificate: Certificate | None = None
    ) -> None:
        self._directory, self._program, self._certificate = directory, program, certificate
        self.nodes = [self._node() for _ in range(3)]
        for place, node in enumerate(self.nodes):
            node.tell("CLUSTER", "SET-CONFIG-EPOCH", str(place + 1))
            first, last = self.BOUNDS[place], self.BOUNDS[place + 1] - 1
            node.tell("CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
            self.meet(node)
        until(lambda: all(map(self.is_well, self.nodes)), "no cluster")
        self._killed = self.nodes[0]

    def _node(self) -> RedisServer:
        self._last = getattr(self, "_last", -1) + 1
        bus = free_port()
        node = RedisServer(
            self._directory / f"node {self._last}",
            *("--cluster-enabled", "yes", "--cluster-port", str(bus)),
            *("--cluster-node-timeout", str(SILENCE), "--cluster-require-full-coverage", "no"),
            *("--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0"),
            *(["--tls-cluster", "yes"] * (self._certificate is not None)),
            program=self._program,
            certificate=self._certificate,
        )
        self._buses = {**getattr(self, "_buses", {}), node.port: bus}
        return node

    def meet(self, node: RedisServer) -> None:
        first = self.nodes[0] if hasattr(self, "nodes") else node
        if node is not first:
            bus = str(self._buses[first.port])
            node.tell("CLUSTER", "MEET", "127.0.0.1", str(first.public_port), bus)

    def is_well(self, node: RedisServer) -> bool:
        info = node.ask("CLUSTER", "INFO")
        known = f"cluster_known_nodes:{len(self.nodes)}".encode()
        return b"cluster_state:ok" in info and b"slots_ok:16384" in info and known in info

    def add_replica(self, master: RedisServer) -> RedisServer:
        node = self._node()
        self.nodes.append(node)
        self.meet(node)
        master_identity = self.identity(master)
        until(
            lambda: not node.ask("CLUSTER", "REPLICATE", master_identity).startswith(b"-"),
            "no replica",
        )
        is_there = lambda: b"master_link_status:up" in node.ask("INFO", "replication")  # noqa: E731
        until(lambda: is_there() and all(map(self.is_well, self.nodes)), "no replica")
        # Who does not know it does not vote for it.
        identity = self.identity(node).encode()
        is_known = lambda other: identity in other.ask("CLUSTER", "REPLICAS", master_identity)  # noqa: E731
        until(lambda: all(map(is_known, self.nodes)), "nobody knows the replica")
        return node

    @staticmethod
    def identity(node: RedisServer) -> str:
        return node.tell("CLUSTER", "MYID").split(b"\r\n")[1].decode()

    @property
    def url(self) -> str:
        scheme = "redis" if self._certificate is None else "rediss"
        hosts = ",".join(f"127.0.0.1:{node.public_port}" for node in self.nodes[:2])
        return f"{scheme}+cluster://{hosts}"

    def clear(self) -> None:
        for node in self.nodes:
            node.tell("FLUSHALL")

    @staticmethod
    def slot(channel: str) -> int:
        tag = channel[channel.index("{") + 1 : channel.index("}")]
        return binascii.crc_hqx(tag.encode(), 0) % 16384

    def home(self, channel: str) -> RedisServer:
        """The server that has a channel."""
        for node in self.nodes:
            # The others say where it is.
            if node.process.poll() is None and node.ask("EXISTS", channel).startswith(b":"):
                return node
        raise AssertionError(channel)

    def fail(self) -> None:
        # What is sent to all is there.
        self._killed = self.home("pagebus:{default:a}")
        self._killed.kill()

    def recover(self) -> None:
        self._killed.start()
        until(lambda: all(map(self.is_well, self.nodes)), "no cluster")

    def move(self, channel: str, to: RedisServer) -> None:
        """Move a channel's slot to another server, as redis-cli does."""
        slot, before = str(self.slot(channel)), self.home(channel)
        to.tell("CLUSTER", "SETSLOT", slot, "IMPORTING", self.identity(before))
        before.tell("CLUSTER", "SETSLOT", slot, "MIGRATING", self.identity(to))
        while keys := before.tell("CLUSTER", "GETKEYSINSLOT", slot, "10").split(b"\r\n")[2:-1:2]:
            there = ("127.0.0.1", str(to.port), "", "0", "5000", "KEYS")
            before.tell("MIGRATE", *there, *(key.decode() for key in keys))
        for node in (to, *(node for node in self.nodes if node is not to)):
            node.tell("CLUSTER", "SETSLOT", slot, "NODE", self.identity(to))
        # Another move before that could leave the slot with nobody.
        until(self._agree, "the servers do not agree on where it is")

    def _agree(self) -> bool:
        """Whether all servers say the same of each: its epoch, and its slots."""
        return len({self._as_seen_by(node) for node in self.nodes}) == 1

    @staticmethod
    def _as_seen_by(node: RedisServer) -> frozenset[tuple[bytes, ...]]:
        lines = [line.split() for line in node.tell("CLUSTER", "NODES").split(b"\n")]
        lines = [line for line in lines if len(line) > 7]
        return frozenset((line[0], line[6], *line[8:]) for line in lines)

    def ask(self, channel: str, *command: str) -> bytes:
        return self.home(channel).ask(*filled(command, channel))

    def listeners(self, channel: str) -> int:
        return number(self.ask(channel, "PUBSUB", "SHARDNUMSUB", "{}"))

    def close(self) -> None:
        for node in self.nodes:
            node.kill()


KINDS: dict[str, Callable[..., Broker]] = {
    "one server": OneServer,
    "sentinels": WithSentinels,
    "a cluster": Cluster,
}

# What is there is tried: every kind, with every program. Redis before 7.0 has no sharded channels.
BROKERS: dict[str, Callable[[Path], Broker]] = {
    f"{name} {kind}": (lambda directory, make=make, path=path: make(directory, path))
    for name, path in PROGRAMS.items()
    for kind, make in KINDS.items()
    if (name, kind) != ("redis 6.2", "a cluster")
}
