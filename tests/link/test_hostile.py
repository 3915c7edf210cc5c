"""Hostile programs at the broker: whatever they put there, a hub goes on, and runs none of it."""

import random
import struct
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest
from link_tools import Linked, Log, until
from redis_server import RedisServer

import pagebus
import parallel
from fuzz.link import CHANNEL, Target

pytestmark = pytest.mark.link


@pytest.fixture
def target(request: pytest.FixtureRequest, redis: RedisServer, _servers: Any) -> Iterator[Target]:
    yield from parallel.for_each_runner(request, lambda: closing(Target(_servers.taken.port)))


def test_a_hub_hears_what_is_right_among_a_thousand_hostile_entries(target: Target):
    rng = random.Random(7)
    for _ in range(1000):
        target.run(rng.randbytes(rng.randrange(200)))

    assert target.hub.stats().unreadable > 50
    assert target.hub.link_state == "connected"


@pagebus.message(name="hostile.Point")
@dataclass
class Point:
    """A class that may travel."""

    x: int
    y: int


def extension(code: int, body: bytes) -> bytes:
    return b"\xc9" + struct.pack(">IB", len(body), code) + body


def text(of: str) -> bytes:
    return b"\xd9" + bytes([len(of)]) + of.encode()


PAYLOADS = {
    "lists in lists, a hundred thousand deep": b"\x91" * 100_000 + b"\x01",
    "dicts in dicts, a hundred thousand deep": b"\x81\x01" * 100_000 + b"\x01",
    "tuples in tuples that say that they are long": b"\xc9\xff\xff\xff\xff\x01" * 10_000,
    "a list of four billion items": b"\xdd\xff\xff\xff\xff",
    "a text of four billion bytes": b"\xdb\xff\xff\xff\xff",
    "bytes that are not there": b"\xc6\xff\xff\xff\xff\x00",
    "a class that nobody registered": extension(
        5, text("os.system") + text("command") + text("ls")
    ),
    "a module's name for a class": extension(5, text("subprocess") + text("Popen") + text("ls")),
    "a field that the class does not have": extension(
        5, text("hostile.Point") + text("x") + b"\x01" + text("__class__") + b"\x01"
    ),
    "too few fields": extension(5, text("hostile.Point") + text("x") + b"\x01"),
    "the same field twice": extension(
        5, text("hostile.Point") + (text("x") + b"\x01") * 2 + text("y") + b"\x01"
    ),
    "a pickle": b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94",
}


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_a_hostile_message_is_skipped_and_counted(
    linked: Linked, redis: RedisServer, payload: bytes
):
    hub, log = linked(codec=None), Log()
    hub.subscribe_topic("ann", "news", log.add)
    hub.send_all_on_topic("news", "before")
    log.wait_for("before")
    entry = b"\x01\x94\xc4\x10" + bytes(16) + b"\x01\x00\x91\x92\xc0"
    entry += b"\xc6" + struct.pack(">I", len(payload)) + payload
    epoch = redis.ask("HGET", f"{CHANNEL.decode()}:state", "e").split(b"\r\n")[1]
    redis.ask("HINCRBY", f"{CHANNEL.decode()}:state", "n", "1")
    redis.ask_bytes(b"XADD", CHANNEL + b":log", epoch + b"-2", b"d", entry)
    redis.ask_bytes(b"PUBLISH", CHANNEL, epoch + b"-2:" + entry)
    hub.send_all_on_topic("news", "after")

    log.wait_for("after")
    assert [message for _, message in log] == ["before", "after"]
    until(lambda: hub.stats().unreadable == 1, "counted")
