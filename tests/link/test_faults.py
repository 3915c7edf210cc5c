"""Four processes talk while something goes wrong: nothing is lost, doubled, or out of order.

Each fault goes on for ``PAGEBUS_FAULTS`` seconds; ``PAGEBUS_SEED`` chooses the traffic.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fault_check
import pytest
from brokers import KINDS, Broker, Cluster
from link_tools import PATIENCE
from proxy import Proxy
from redis_server import REDIS, RedisServer

pytestmark = [pytest.mark.link, pytest.mark.heavy]

SECONDS = float(os.environ.get("PAGEBUS_FAULTS", "4"))
SEED = int(os.environ.get("PAGEBUS_SEED", "7"))
NODES = 4


class Run:
    """Nodes of one broker."""

    def __init__(self, urls: list[str], directory: Path) -> None:
        self.urls, self.directory = urls, directory
        self.random = random.Random(SEED)
        self.nodes = [self._start(number) for number in range(NODES)]
        self.killed: set[int] = set()
        for node in self.nodes:
            self._read(node, "ready")

    def _start(self, number: int) -> subprocess.Popen[str]:
        program = Path(__file__).with_name("fault_node.py")
        # A node that stands still for ten seconds misses more than is kept otherwise.
        url = f"{self.urls[number]}{'&' if '?' in self.urls[number] else '?'}log_entries=20000"
        arguments = [url, number, NODES, SEED, self.directory]
        return subprocess.Popen(
            [sys.executable, program, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @staticmethod
    def _read(node: subprocess.Popen[str], expected: str) -> None:
        assert node.stdout is not None
        assert node.stdout.readline() == f"{expected}\n"

    def tell(self, command: str) -> None:
        for node in self.living():
            assert node.stdin is not None
            node.stdin.write(f"{command}\n")
            node.stdin.flush()

    def wait(self) -> None:
        for node in self.living():
            self._read(node, "done")

    def living(self) -> list[subprocess.Popen[str]]:
        return [node for number, node in enumerate(self.nodes) if number not in self.killed]

    def kill(self, number: int) -> None:
        self.nodes[number].kill()
        self.killed.add(number)

    def end(self) -> dict[str, int]:
        """The verdict."""
        self.wait()
        self.tell("flush")
        self.wait()
        self.tell("say_end")
        self.wait()
        living = [number for number in range(NODES) if number not in self.killed]
        self.tell(f"hear_end_of {' '.join(map(str, living))}")
        self.wait()
        for node in self.living():
            assert node.stdin is not None
            node.stdin.close()
        for node in self.living():
            assert node.wait(2 * PATIENCE) == 0
        return fault_check.check(self.directory, NODES, SEED, self.killed)

    def close(self) -> None:
        for node in self.nodes:
            node.kill()
            node.wait()
            for pipe in (node.stdin, node.stdout):
                if pipe is not None:
                    pipe.close()


class ProxiedRun(Run):
    """Nodes, each behind a proxy of its own."""

    def __init__(self, server: RedisServer, directory: Path) -> None:
        self.server = server
        self.proxies = [Proxy(server.port) for _ in range(NODES)]
        super().__init__([proxy.url for proxy in self.proxies], directory)

    def close(self) -> None:
        super().close()
        for proxy in self.proxies:
            proxy.close()


@pytest.fixture
def told(tmp_path: Path) -> Path:
    """Where the nodes write down what they send and hear."""
    directory = tmp_path / "told"
    directory.mkdir()
    return directory


@pytest.fixture
def run(own_redis: RedisServer, told: Path) -> Iterator[ProxiedRun]:
    run = ProxiedRun(own_redis, told)
    yield run
    run.close()


def kill_the_broker(run: ProxiedRun) -> None:
    run.server.kill()
    time.sleep(0.3)
    run.server.start()


def kill_connections(run: ProxiedRun) -> None:
    run.server.ask("CLIENT", "KILL", "TYPE", run.random.choice(["normal", "pubsub"]))


def pause_the_broker(run: ProxiedRun) -> None:
    run.server.ask("CLIENT", "PAUSE", str(run.random.choice([200, 1000])), "ALL")


def cut(run: ProxiedRun) -> None:
    run.random.choice(run.proxies).cut()


def delay(run: ProxiedRun) -> None:
    run.random.choice(run.proxies).delay = run.random.choice([0.0, 0.05, 0.3])


def truncate(run: ProxiedRun) -> None:
    run.random.choice(run.proxies).cut_after(run.random.randrange(5000))


def half_open(run: ProxiedRun) -> None:
    proxy = run.random.choice(run.proxies)
    proxy.swallow()
    time.sleep(1)
    if run.random.random() < 0.5:
        proxy.cut()
    proxy.flow()


def stop_a_node(run: ProxiedRun) -> None:
    node = run.random.choice(run.living())
    node.send_signal(signal.SIGSTOP)
    time.sleep(min(10.0, SECONDS / 2))
    node.send_signal(signal.SIGCONT)


def kill_a_node(run: ProxiedRun) -> None:
    if not run.killed:
        run.kill(run.random.randrange(1, NODES))


def send_garbage(run: ProxiedRun) -> None:
    channel = f"pagebus:{{default:ttopic {run.random.randrange(50)}}}"
    garbage = run.random.choice(["", "x", "1-1:", "9-9:\x01", "y" * 3_000_000])
    run.server.ask("PUBLISH", channel, garbage)


FAULTS: list[Callable[[ProxiedRun], Any]] = [
    kill_the_broker,
    kill_connections,
    pause_the_broker,
    cut,
    delay,
    truncate,
    half_open,
    stop_a_node,
    kill_a_node,
    send_garbage,
]


@pytest.mark.timeout(180 + 4 * SECONDS)
@pytest.mark.parametrize("fault", FAULTS, ids=[fault.__name__ for fault in FAULTS])
def test_every_message_reaches_all_who_listen_once_and_in_one_order(
    run: ProxiedRun, fault: Callable[[ProxiedRun], Any]
):
    run.tell(f"send_for {SECONDS}")
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        time.sleep(run.random.uniform(0.1, 0.6))
        fault(run)
    for proxy in run.proxies:
        proxy.delay = 0.0
    verdict = run.end()
    assert verdict["deliveries"] > verdict["sends"] > 100


def let_another_take_over(broker: Broker, random: random.Random) -> None:
    broker.fail()
    broker.recover()


def move_channels(cluster: Cluster, random: random.Random) -> None:
    for _ in range(10):
        channel = f"pagebus:{{default:ttopic {random.randrange(50)}}}"
        if cluster.home(channel) is not (to := random.choice(cluster.nodes)):
            cluster.move(channel, to)


@pytest.mark.timeout(240 + 4 * SECONDS)
@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("sentinels", let_another_take_over),
        ("a cluster", let_another_take_over),
        ("a cluster", move_channels),
    ],
)
def test_every_message_reaches_all_who_listen_when_there_are_several_servers(
    told: Path, tmp_path: Path, kind: str, fault: Callable[[Any, random.Random], None]
):
    assert REDIS is not None
    (directory := tmp_path / "broker").mkdir()
    broker = KINDS[kind](directory, REDIS)
    run = Run([broker.url] * NODES, told)
    try:
        run.tell(f"send_for {SECONDS}")
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            time.sleep(run.random.uniform(0.1, 0.6))
            fault(broker, run.random)
        verdict = run.end()
    finally:
        run.close()
        broker.close()
    assert verdict["deliveries"] > verdict["sends"] > 100
