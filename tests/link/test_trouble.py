"""A broker that is there and does not do what it should: it is said, and it passes."""

import asyncio
import logging

import pytest
from link_tools import PATIENCE, Linked, Log, follow, losses, until
from redis_server import RedisServer

from pagebus import PubSubHub

pytestmark = pytest.mark.link

SPOILT = "pagebus:{default:tspoilt}"


def said(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [record.message for record in caplog.records if words in record.message]


async def follow_topic(hub: PubSubHub, topic: str) -> Log:
    log = Log()
    await asyncio.wait_for(hub.subscribe_topic("ann", topic, log.add).ready(), 30)
    return log


@pytest.mark.parametrize("key", [f"{SPOILT}:log", f"{SPOILT}:state"])
def test_a_key_that_is_something_else_concerns_its_channel_alone(
    linked: Linked, redis: RedisServer, caplog: pytest.LogCaptureFixture, key: str
):
    redis.tell("SET", key, "something else")
    here, there = linked(), linked()
    log = asyncio.run(follow(there, "bob", "news"))
    spoilt = there.subscribe_topic("bob", "spoilt", log.add)
    until(lambda: there.stats().unreadable == 1, "nobody notices")
    for number in range(100):
        here.send_all_on_topic("news", number)
    assert [message for _, message in log.wait(100)] == list(range(100))
    here.send_all_on_topic("spoilt", "refused")
    until(lambda: here.stats().unpublished == 1, "it is not given up")
    redis.tell("DEL", key)
    asyncio.run(asyncio.wait_for(spoilt.ready(), PATIENCE))
    here.send_all_on_topic("spoilt", "well")
    assert log.wait(101)[-1] == ("spoilt", "well")
    [message] = said(caplog, "cannot be read at the broker")
    assert "the topic 'spoilt'" in message
    assert "WRONGTYPE" in message
    assert there.stats().unreadable == 1
    assert losses(caplog.records) == []


def test_a_topic_that_a_hub_may_not_listen_to_concerns_that_topic_alone(
    linked: Linked, own_redis: RedisServer, caplog: pytest.LogCaptureFixture
):
    own_redis.tell("ACL", "SETUSER", "chat", "on", ">secret", "~*", "+@all", "&*news*", "&*:n*")
    states: list[str] = []
    link = f"redis://chat:secret@127.0.0.1:{own_redis.port}/0"
    hub = linked(link=link, on_link_state=states.append)
    log = asyncio.run(follow_topic(hub, "news"))
    secret = hub.subscribe_topic("bob", "secret", log.add)
    until(lambda: hub.stats().unreadable == 1, "nobody notices")
    for number in range(100):
        hub.send_all_on_topic("news", number)
    assert [message for _, message in log.wait(100)] == list(range(100))
    own_redis.tell("ACL", "SETUSER", "chat", "allchannels")
    asyncio.run(asyncio.wait_for(secret.ready(), 30))
    hub.send_all_on_topic("secret", "heard")
    assert log.wait(101)[-1] == ("secret", "heard")
    [message] = said(caplog, "cannot be read at the broker")
    assert "the topic 'secret'" in message
    assert states == ["connected"]


def test_a_log_that_becomes_something_else_is_no_gap_when_it_is_gone(
    linked: Linked, redis: RedisServer
):
    gaps: list[object] = []
    here, there = linked(), linked(on_gap=lambda topic, count: gaps.append((topic, count)))
    log = asyncio.run(follow(there, "bob", "spoilt"))
    here.send_all_on_topic("spoilt", 1)
    log.wait(1)
    redis.tell("SET", f"{SPOILT}:log", "something else")
    here.send_all_on_topic("spoilt", 2)
    until(lambda: here.stats().unpublished == 1, "it is not given up")
    redis.tell("DEL", f"{SPOILT}:log")
    here.send_all_on_topic("spoilt", 3)
    assert log.wait(2) == [("spoilt", 1), ("spoilt", 3)]
    assert gaps == []


@pytest.mark.parametrize(
    ("setting", "bad", "good", "reason"),
    [("maxmemory", "1", "0", "OOM"), ("min-replicas-to-write", "1", "0", "NOREPLICAS")],
)
def test_a_server_that_takes_no_writes_is_told_of_once_and_gets_them_when_it_does(
    linked: Linked,
    own_redis: RedisServer,
    caplog: pytest.LogCaptureFixture,
    setting: str,
    bad: str,
    good: str,
    reason: str,
):
    here, there = linked(own_redis), linked(own_redis)
    log = asyncio.run(follow(there, "bob", "news", "sports"))
    for turn in range(2):
        caplog.clear()
        own_redis.tell("CONFIG", "SET", setting, bad)
        for number in range(10):
            here.send_all_on_topic("news", number)
            here.send_all_on_topic("sports", number)
        until(lambda: said(caplog, "takes no messages"), "nobody is told")
        assert here.link_state == "connected"
        assert here.stats().outbox == 20
        own_redis.tell("CONFIG", "SET", setting, good)
        heard = log.wait(20 * (turn + 1))
        until(lambda: said(caplog, "takes messages again"), "nobody is told that it is over")
        for topic in ("news", "sports"):
            numbers = [message for on, message in heard if on == topic]
            assert numbers == list(range(10)) * (turn + 1)
        told = [r for r in caplog.records if r.levelno == logging.WARNING]
        assert len(told) == 2
        assert reason in told[0].message


def test_a_server_that_has_become_a_replica_is_no_link_until_it_is_one_no_more(
    linked: Linked, own_redis: RedisServer, caplog: pytest.LogCaptureFixture
):
    states: list[str] = []
    here = linked(own_redis, on_link_state=states.append)
    log: Log = asyncio.run(follow(here, "ann", "news"))
    # Of a master that is not there.
    own_redis.tell("REPLICAOF", "127.0.0.1", "1")
    here.send_all_on_topic("news", "hello")
    until(lambda: "disconnected" in states, "nobody notices")
    until(lambda: hellos(own_redis) >= 5, "it does not try again")
    assert "connected" not in states[states.index("disconnected") :]
    own_redis.tell("REPLICAOF", "NO", "ONE")
    assert log.wait(1) == [("news", "hello")]
    assert states[-1] == "connected"
    [message] = losses(caplog.records)
    assert "read only" in message.lower() or "READONLY" in message


def hellos(server: RedisServer) -> int:
    """How often the server was asked what it is; twice by each attempt to connect."""
    [line] = [line for line in server.ask("INFO", "commandstats").split() if b"_hello:" in line]
    return int(line.split(b"calls=")[1].split(b",")[0])
