"""What the tests of linked hubs need: servers, and hubs that are linked by them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import BROKERS, Broker
from link_tools import Json, Linked
from proxy import Proxy
from redis_server import REDIS, RedisServer

from pagebus import PubSubHub


@pytest.fixture(autouse=True, scope="session")
def _needs_redis() -> None:
    if REDIS is None:
        pytest.skip("needs redis-server")


@pytest.fixture(scope="session")
def _shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def redis(_shared_redis: RedisServer) -> RedisServer:
    """A server, emptied."""
    _shared_redis.ask("FLUSHALL")
    return _shared_redis


@pytest.fixture
def proxy(redis: RedisServer) -> Iterator[Proxy]:
    """A proxy before the server."""
    proxy = Proxy(redis.port)
    yield proxy
    proxy.close()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that a test may kill."""
    server = RedisServer(tmp_path)
    yield server
    server.kill()


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
def linked(request: pytest.FixtureRequest) -> Iterator[Linked]:
    """Make hubs that are linked with each other; they are closed at the end."""
    hubs: list[PubSubHub] = []

    def link(server: RedisServer | None = None, **arguments: Any) -> PubSubHub:
        server = server or request.getfixturevalue("redis")
        hub = PubSubHub(**{"link": server.url, "codec": Json, **arguments})
        hubs.append(hub)
        return hub

    yield link
    for hub in hubs:
        hub.close(0)
