"""Servers that sentinels watch: which one is asked, and what a failover may lose."""

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest
from brokers import FAILOVER, SERVICE, WithSentinels
from link_tools import PATIENCE, Linked, follow, until
from redis_server import REDIS, RedisServer

from ports import free_port

pytestmark = [
    pytest.mark.link,
    pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="there is no SIGSTOP here"),
]


@pytest.fixture(scope="module")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WithSentinels]:
    assert REDIS is not None
    watched = WithSentinels(tmp_path_factory.mktemp("watched"), REDIS)
    yield watched
    watched.close()


@pytest.fixture
def watched(_shared: WithSentinels) -> WithSentinels:
    """A master and a replica, emptied."""
    _shared.clear()
    return _shared


def numbers(log: list[tuple[str | None, object]]) -> list[object]:
    return [message for _, message in log]


def test_sentinels_that_are_away_or_know_nothing_do_not_matter(
    linked: Linked, watched: WithSentinels, redis: RedisServer
):
    known = f"127.0.0.1:{watched.sentinels[0].port}"
    others = f"127.0.0.1:{free_port()},127.0.0.1:{redis.port}"
    hub = linked(link=f"redis+sentinel://{others},{known}/{SERVICE}")
    log = asyncio.run(follow(hub, "ann"))
    hub.send_all("hello")
    assert log.wait(1) == [(None, "hello")]


def test_a_service_that_no_sentinel_knows_is_no_link(
    linked: Linked, watched: WithSentinels, caplog: pytest.LogCaptureFixture
):
    hub = linked(link=watched.url.replace(f"/{SERVICE}/", "/other/"))
    hub.send_all("waits")
    until(lambda: hub.link_state == "disconnected", "it is found")
    until(lambda: "No such master with that name" in caplog.text, "nobody is told why")


def test_users_and_passwords_of_sentinels_are_said_apart(linked: Linked, watched: WithSentinels):
    sentinel, server = watched.sentinels[0], watched.master
    for asked, user in ((sentinel, "watch"), (server, "chat")):
        asked.tell("ACL", "SETUSER", user, "on", f">secret of {user}", "~*", "&*", "+@all")
    place = f"127.0.0.1:{sentinel.port}/{SERVICE}"
    options = "sentinel_username=watch&sentinel_password=secret%20of%20watch"
    hub = linked(link=f"redis+sentinel://chat:secret%20of%20chat@{place}?{options}")
    log = asyncio.run(follow(hub, "ann"))
    hub.send_all("hello")
    assert log.wait(1) == [(None, "hello")]
    wrong = options.replace("of%20watch", "of%20nobody")
    refused = linked(link=f"redis+sentinel://chat:secret%20of%20chat@{place}?{wrong}")
    refused.send_all("not yet")
    until(lambda: refused.link_state == "disconnected", "it is let in")


def test_a_master_that_is_silent_is_left_when_another_one_has_taken_over(
    linked: Linked, watched: WithSentinels
):
    here, there = linked(link=watched.url_without_waiting), linked(link=watched.url_without_waiting)
    log = asyncio.run(follow(there, "bob", "news"))
    here.send_all_on_topic("news", 0)
    log.wait(1)
    silent = watched.master
    silent.process.send_signal(signal.SIGSTOP)
    try:
        for number in range(1, 10):
            here.send_all_on_topic("news", number)
        assert numbers(log.wait(10)) == list(range(10))
        watched.master, watched.replica = watched.replica, silent
    finally:
        silent.process.send_signal(signal.SIGCONT)
    watched.follow()


def test_a_master_that_the_sentinels_do_not_follow_any_more_is_left(
    linked: Linked, watched: WithSentinels, own_redis: RedisServer
):
    states: list[str] = []
    hub = linked(link=watched.url_without_waiting, on_link_state=states.append)
    log = asyncio.run(follow(hub, "ann", "news"))
    # The old one is well, and knows nothing of it.
    try:
        have_watched(watched, own_redis)
        until(lambda: "disconnected" in states, "it is not left")
        until(lambda: states[-1] == "connected", "no new connection")
        there = linked(own_redis)
        there.send_all_on_topic("news", "on the new one")
        assert log.wait(1) == [("news", "on the new one")]
    finally:
        have_watched(watched, watched.master)
        until(watched.are_watched, "the sentinels do not find each other")


def have_watched(watched: WithSentinels, server: RedisServer) -> None:
    """Have the sentinels watch another server; nobody must remember the one before."""
    for sentinel in watched.sentinels:
        sentinel.tell("SENTINEL", "REMOVE", SERVICE)
    for sentinel in watched.sentinels:
        sentinel.tell("SENTINEL", "MONITOR", SERVICE, "127.0.0.1", str(server.port), "2")
        for setting, value in FAILOVER.items():
            sentinel.tell("SENTINEL", "SET", SERVICE, setting, str(value))


def test_nothing_counts_as_published_before_a_replica_has_it(
    linked: Linked, watched: WithSentinels, caplog: pytest.LogCaptureFixture
):
    states: list[str] = []
    here = linked(link=watched.url, on_link_state=states.append)
    asyncio.run(follow(here, "ann", "news"))
    os.kill(watched.replica.process.pid, signal.SIGSTOP)
    try:
        here.send_all_on_topic("news", 1)
        until(lambda: "takes no messages" in caplog.text, "nobody is told")
        assert "0 of 1 replicas have it" in caplog.text
        # On a new connection, on which nothing has been written, it is not there either.
        watched.master.tell("CLIENT", "KILL", "TYPE", "pubsub")
        until(lambda: "disconnected" in states, "the connection goes on")
        until(lambda: states[-1] == "connected", "no new connection")
        attempts = waits(watched)
        until(lambda: waits(watched) > attempts + 2, "it is not tried again")
        assert here.stats().outbox == 1
    finally:
        os.kill(watched.replica.process.pid, signal.SIGCONT)
    until(lambda: here.stats().outbox == 0, "it is not published")
    until(lambda: "takes messages again" in caplog.text, "nobody is told that it is over")


def test_nobody_hears_what_a_replica_does_not_have(linked: Linked, watched: WithSentinels):
    here, there = linked(link=watched.url), linked(link=watched.url)
    log = asyncio.run(follow(there, "bob", "news"))
    os.kill(watched.replica.process.pid, signal.SIGSTOP)
    try:
        here.send_all_on_topic("news", 1)
        attempts = waits(watched)
        until(lambda: waits(watched) > attempts + 1, "it is not tried again")
        # Not from the log either.
        watched.master.tell("CLIENT", "KILL", "TYPE", "pubsub")
        attempts = waits(watched)
        until(lambda: waits(watched) > attempts + 2, "nobody reads it again")
        assert log == []
    finally:
        os.kill(watched.replica.process.pid, signal.SIGCONT)
    assert numbers(log.wait(1)) == [1]


def test_a_hub_that_only_listens_says_what_it_waits_for(
    linked: Linked, watched: WithSentinels, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO", "pagebus")
    os.kill(watched.replica.process.pid, signal.SIGSTOP)
    try:
        hub = linked(link=watched.url)
        subscription = hub.subscribe_topic("ann", "news", lambda topic, message: None)
        until(lambda: "replicas have it" in caplog.text, "nobody is told")
    finally:
        os.kill(watched.replica.process.pid, signal.SIGCONT)
    asyncio.run(asyncio.wait_for(subscription.ready(), PATIENCE))
    until(lambda: "takes messages again" in caplog.text, "nobody is told that it is over")


def waits(watched: WithSentinels) -> int:
    """How often somebody has waited for a replica."""
    stats = watched.master.ask("INFO", "commandstats").split()
    [line] = [line for line in stats if b"_wait:" in line]
    return int(line.split(b"calls=")[1].split(b",")[0])


def test_what_replicas_have_survives_the_master(linked: Linked, watched: WithSentinels):
    here, there = linked(link=watched.url), linked(link=watched.url)
    log = asyncio.run(follow(there, "bob", "news"))
    for turn in range(3):
        for number in range(200):
            here.send_all_on_topic("news", [turn, number])
        until(lambda: here.stats().outbox == 0, "it is not published")
        # At once: nothing else has time to reach the replica.
        watched.fail()
        channel = "pagebus:{default:tnews}"
        entries = watched.ask(channel, "HGET", "{}:state", "n").split(b"\r\n")[1]
        assert watched.ask(channel, "XLEN", "{}:log").strip() == b":" + entries
        watched.recover()
    heard = numbers(log.wait(600))
    assert heard == [[turn, number] for turn in range(3) for number in range(200)]


def test_what_a_failover_has_lost_is_told_as_a_gap(linked: Linked, watched: WithSentinels):
    gaps: list[object] = []
    here = linked(link=watched.url_without_waiting)
    there = linked(
        link=watched.url_without_waiting,
        on_gap=lambda topic, count: gaps.append((topic, count)),
    )
    log = asyncio.run(follow(there, "bob", "news"))
    here.send_all_on_topic("news", "kept")
    log.wait(1)
    until(lambda: b":1\r\n" in watched.replica.ask("XLEN", "pagebus:{default:tnews}:log"), "no")
    os.kill(watched.replica.process.pid, signal.SIGSTOP)
    try:
        # What is on its way would reach it yet.
        watched.master.tell("CLIENT", "KILL", "TYPE", "replica")
        here.send_all_on_topic("news", "lost")
        # It is acknowledged, and was heard.
        log.wait(2)
        until(lambda: here.stats().outbox == 0, "it is not published")
        watched.master.kill()
    finally:
        os.kill(watched.replica.process.pid, signal.SIGCONT)
    watched.master, watched.replica = watched.replica, watched.master
    until(watched.is_promoted, "no replica takes over")
    here.send_all_on_topic("news", "after")
    assert numbers(log.wait(3)) == ["kept", "lost", "after"]
    assert gaps == [("news", None)]
    watched.recover()
