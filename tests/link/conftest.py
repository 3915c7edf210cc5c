"""What the tests of linked hubs need: servers, and hubs that are linked by them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from brokers import BROKERS, Broker
from link_tools import Json, Linked
from proxy import Proxy
from redis_server import REDIS, RedisServer

import parallel
from pagebus import PubSubHub


@pytest.fixture(autouse=True, scope="session")
def _needs_redis() -> None:
    if REDIS is None:
        pytest.skip("needs redis-server")


class Servers:
    """Servers that are used again and again; each thread that runs a test has one of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._all = directory, list[RedisServer]()
        self._free, self._taking = list[RedisServer](), threading.Lock()
        self._taken: dict[parallel.Runner | None, RedisServer] = {}

    @contextmanager
    def one(self) -> Iterator[RedisServer]:
        """A server, emptied."""
        with self._taking:
            if not self._free:
                self._all.append(RedisServer(self._directory / f"server {len(self._all)}"))
                self._free.append(self._all[-1])
            server = self._taken[parallel.current_runner()] = self._free.pop()
        server.ask("FLUSHALL")
        try:
            yield server
        finally:
            del self._taken[parallel.current_runner()]
            self._free.append(server)

    @property
    def taken(self) -> RedisServer:
        """The one that whoever runs this has."""
        return self._taken[parallel.current_runner()]

    def close(self) -> None:
        for server in self._all:
            server.kill()


@pytest.fixture(scope="session")
def _servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with closing(Servers(tmp_path_factory.mktemp("redis"))) as servers:
        yield servers


@pytest.fixture
def redis(request: pytest.FixtureRequest, _servers: Servers) -> Iterator[RedisServer]:
    """A server, emptied."""
    yield from parallel.for_each_runner(request, _servers.one)


@pytest.fixture
def proxies(
    request: pytest.FixtureRequest, redis: RedisServer, _servers: Servers
) -> Iterator[Callable[[], Proxy]]:
    """Make proxies before the server."""

    @contextmanager
    def proxies() -> Iterator[Callable[[], Proxy]]:
        with ExitStack() as at_the_end:
            yield lambda: at_the_end.enter_context(closing(Proxy(_servers.taken.port)))

    yield from parallel.for_each_runner(request, proxies)


@pytest.fixture
def proxy(request: pytest.FixtureRequest, redis: RedisServer, _servers: Servers) -> Iterator[Proxy]:
    """A proxy before the server."""
    yield from parallel.for_each_runner(request, lambda: closing(Proxy(_servers.taken.port)))


@pytest.fixture
def own_redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    """A server that a test may kill."""
    numbers = itertools.count()

    @contextmanager
    def start() -> Iterator[RedisServer]:
        server = RedisServer(tmp_path / f"own server {next(numbers)}")
        try:
            yield server
        finally:
            server.kill()

    yield from parallel.for_each_runner(request, start)


@pytest.fixture(scope="module", params=BROKERS or ["redis one server"])
def _running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Broker]:
    broker = BROKERS[request.param](tmp_path_factory.mktemp("broker"))
    yield broker
    broker.close()


@pytest.fixture
def broker(_running: Broker) -> Broker:
    """Each kind of broker, one after the other; it knows nothing."""
    _running.clear()
    return _running


@pytest.fixture
def linked(
    request: pytest.FixtureRequest, redis: RedisServer, _servers: Servers
) -> Iterator[Linked]:
    """Make hubs that are linked with each other; they are closed at the end."""
    yield from parallel.for_each_runner(request, lambda: _linking(_servers))


@pytest.fixture
def sharing(
    request: pytest.FixtureRequest, redis: RedisServer, _servers: Servers
) -> Iterator[Linked]:
    """Make linked hubs that share presence."""
    yield from parallel.for_each_runner(request, lambda: _linking(_servers, presence=True))


@contextmanager
def _linking(servers: Servers, **settings: Any) -> Iterator[Linked]:
    hubs: list[PubSubHub] = []

    def link(server: RedisServer | None = None, **arguments: Any) -> PubSubHub:
        server = server or servers.taken
        hub = PubSubHub(**{"link": server.url, "codec": Json, **settings, **arguments})
        hubs.append(hub)
        return hub

    yield link
    for hub in hubs:
        hub.close(0)
