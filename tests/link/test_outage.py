"""The broker goes away and comes back: the app goes on, and nothing is lost or doubled."""

import asyncio
import signal
import subprocess
import sys
import threading
import time

import pytest
from link_tools import PATIENCE, Linked, Log, follow, until
from proxy import Proxy
from redis_server import RedisServer

import pagebus
from pagebus import Overflow, PubSubHub

pytestmark = pytest.mark.link


def numbers(log: list[tuple[str | None, object]]) -> list[object]:
    return [message for _, message in log]


def test_a_broker_that_is_killed_and_started_again_loses_and_doubles_nothing(
    linked: Linked, own_redis: RedisServer
):
    states: list[str] = []
    here = linked(own_redis, on_link_state=states.append)
    there = linked(own_redis)

    async def begin() -> None:
        logs.extend([await follow(here, "ann", "news"), await follow(there, "bob", "news")])

    logs: list = []
    asyncio.run(begin())
    stop = threading.Event()
    sent = 0

    def send() -> None:
        nonlocal sent
        while not stop.is_set():
            here.send_all_on_topic("news", sent)
            sent += 1
            time.sleep(0.001)

    sender = threading.Thread(target=send)
    sender.start()
    for _ in range(3):
        logs[1].wait(len(logs[1]) + 20)
        own_redis.kill()
        until(lambda: here.link_state == there.link_state == "disconnected", "nobody notices")
        own_redis.start()
        until(lambda: here.link_state == there.link_state == "connected", "no new connection")
    stop.set()
    sender.join()
    for log in logs:
        assert numbers(log.wait(sent)) == list(range(sent))
    assert states == ["connected", *["disconnected", "connected"] * 3]


def test_connections_that_are_closed_by_the_broker_are_made_again(
    linked: Linked, redis: RedisServer
):
    here, there = linked(), linked()
    log = asyncio.run(follow(there, "bob", "news"))
    for number in range(300):
        here.send_all_on_topic("news", number)
        if number % 100 == 50:
            redis.ask("CLIENT", "KILL", "TYPE", "normal")
            redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
    assert numbers(log.wait(300)) == list(range(300))


@pytest.mark.parametrize(
    ("topics", "count", "size"), [(4, 20, 1_000_000), (40, 20, 60_000), (2500, 17, 1000)]
)
def test_a_connection_that_breaks_costs_no_more_where_much_was_said_before(
    linked: Linked, own_redis: RedisServer, topics: int, count: int, size: int
):
    states: list[str] = []
    here, there = linked(own_redis), linked(own_redis, on_link_state=states.append)
    names = [f"topic {number}" for number in range(topics)]
    log = asyncio.run(follow(there, "bob", *names))
    for round_ in range(count):
        for name in names:
            here.send_all_on_topic(name, "x" * size)
        log.wait((round_ + 1) * topics)
    log.clear()
    own_redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
    until(lambda: "disconnected" in states, "nobody notices")
    for name in names:
        here.send_all_on_topic(name, "after")
    assert sorted(name for name, _ in log.wait(topics) if name) == sorted(names)
    # What has been heard is not asked for again, and so is not too much for the server to keep.
    assert states == ["connected", "disconnected", "connected"]


def test_a_hub_that_takes_long_to_subscribe_to_everything_keeps_its_link(
    linked: Linked, proxy: Proxy
):
    states: list[str] = []
    # A connection that takes a quarter of a megabyte in a second.
    proxy.delay = 0.25
    hub, log = linked(proxy, on_link_state=states.append), Log()
    until(lambda: hub.link_state == "connected", "no connection")
    for number in range(600):
        hub.subscribe_topic("ann", f"topic {number} {'x' * 2000}", log.add)
    hub.subscribe_topic("ann", "the last", log.add)
    hub.send_all_on_topic("the last", "hello")
    assert log.wait(1) == [("the last", "hello")]
    assert states == ["connected"]


def test_what_one_hub_missed_while_it_was_cut_off_it_is_told_afterwards(
    linked: Linked, redis: RedisServer, proxy: Proxy
):
    here, there = linked(redis), linked(proxy)
    log = asyncio.run(follow(there, "bob", "news"))
    here.send_all_on_topic("news", 0)
    log.wait(1)
    for round_ in range(5):
        proxy.cut()
        for number in range(100):
            here.send_all_on_topic("news", round_ * 100 + number + 1)
    assert numbers(log.wait(501)) == list(range(501))


def test_a_half_open_connection_is_noticed(linked: Linked, redis: RedisServer, proxy: Proxy):
    states: list[str] = []
    here, there = linked(redis), linked(proxy, on_link_state=states.append)
    log = asyncio.run(follow(there, "bob", "news"))
    proxy.swallow()
    here.send_all_on_topic("news", 1)
    there.send_all_on_topic("news", 2)
    until(lambda: "disconnected" in states, "a silent connection is trusted")
    proxy.flow()
    assert sorted(numbers(log.wait(2))) == [1, 2]


@pytest.mark.parametrize("count", [1, 20, 100, 500, 3000])
def test_an_answer_that_breaks_off_in_the_middle_is_read_again(
    linked: Linked, redis: RedisServer, proxy: Proxy, count: int
):
    here, there = linked(redis), linked(proxy)
    log = asyncio.run(follow(there, "bob", "news"))
    proxy.cut_after(count)
    for number in range(200):
        here.send_all_on_topic("news", number)
    assert numbers(log.wait(200)) == list(range(200))


def test_beyond_its_limit_the_outbox_gives_up_the_oldest_and_counts_them(
    linked: Linked, own_redis: RedisServer, caplog: pytest.LogCaptureFixture
):
    here, there = linked(own_redis, max_outbox=100), linked(own_redis)
    log = asyncio.run(follow(there, "bob", "news"))
    here.send_all_on_topic("news", "first")
    log.wait(1)
    own_redis.kill()
    until(lambda: here.link_state == "disconnected", "nobody notices")
    for number in range(150):
        here.send_all_on_topic("news", number)
    here.send_all_on_topic("news", "last")
    own_redis.start()
    assert numbers(log.wait_for("last")) == ["first", *range(51, 150), "last"]
    [record] = [r for r in caplog.records if "will not reach" in r.message]
    assert record.levelname == "ERROR"


def test_each_outage_that_fills_the_outbox_is_told_and_what_it_cost(
    linked: Linked, own_redis: RedisServer, caplog: pytest.LogCaptureFixture
):
    told: list[Overflow] = []
    hub = linked(own_redis, max_outbox=5, on_overflow=told.append)
    for turn in range(1, 3):
        own_redis.kill()
        until(lambda: hub.link_state == "disconnected", "nobody notices")
        for number in range(20):
            hub.send_all(number)
        own_redis.start()
        until(lambda turn=turn: len(told) == 2 * turn, "it is not told")
    assert [overflow.dropped for overflow in told] == [1, 15, 1, 15]
    for overflow in told:
        assert (overflow.session_id, overflow.topic, overflow.handler) == (None, None, None)
    assert hub.stats().unpublished == 30
    lines = [r.message for r in caplog.records if "other processes" in r.message]
    assert lines == 2 * [
        "messages will not reach other processes: the outbox is full",
        "what is sent reaches other processes again; 15 messages did not",
    ]


def test_a_hook_that_is_told_of_a_full_outbox_may_close_the_hub(
    linked: Linked, own_redis: RedisServer
):
    own_redis.kill()
    closed = threading.Event()

    def close(overflow: Overflow) -> None:
        # It would wait for itself.
        hub.close(None)
        closed.set()

    hub = linked(own_redis, max_outbox=1, on_overflow=close)
    for number in range(2):
        hub.send_all(number)
    assert closed.wait(PATIENCE)


def test_entries_that_the_broker_keeps_no_longer_are_told_as_a_gap(
    linked: Linked, redis: RedisServer, proxy: Proxy
):
    gaps: list[tuple[str | None, int | None]] = []
    here = linked(redis)
    there = linked(proxy, on_gap=lambda topic, count: gaps.append((topic, count)))
    log = asyncio.run(follow(there, "bob", "news"))
    here.send_all_on_topic("news", 0)
    log.wait(1)
    proxy.swallow()
    until(lambda: there.link_state == "disconnected", "a silent connection is trusted")
    for number in range(1, 6):
        here.send_all_on_topic("news", number)
        until(lambda: here.stats().outbox == 0, "it is not published")
    redis.ask("XTRIM", "pagebus:{default:tnews}:log", "MAXLEN", "2")
    proxy.flow()
    assert numbers(log.wait(3)) == [0, 4, 5]
    assert gaps == [("news", 3)]
    stats = there.stats()
    assert (stats.gaps, stats.reconnects) == (1, 1)


def test_the_server_keeps_as_much_as_the_url_says(linked: Linked, redis: RedisServer):
    hub = linked(link=f"{redis.url}?log_entries=100&log_seconds=60")
    for number in range(400):
        hub.send_all_on_topic("news", number)
        until(lambda: hub.stats().outbox == 0, "it is not published")
    log = "pagebus:{default:tnews}:log"
    # Redis trims a hundred at a time.
    assert 100 <= int(redis.ask("XLEN", log)[1:]) <= 200
    assert 0 < int(redis.ask("TTL", log)[1:]) <= 60


def test_garbage_from_the_broker_is_skipped_and_said_once(
    linked: Linked, redis: RedisServer, caplog: pytest.LogCaptureFixture
):
    here, there = linked(), linked()
    log = asyncio.run(follow(there, "bob", "news"))
    channel = "pagebus:{default:tnews}"
    for garbage in (
        "",
        "nonsense",
        "1-1:",
        "99999999999999-7:x",
        "-",
        ":",
        "1-18446744073709551615:",
    ):
        redis.ask("PUBLISH", channel, garbage)
    redis.ask("XADD", f"{channel}:log", "1-1", "x", "y")
    for number in range(10):
        here.send_all_on_topic("news", number)
    assert numbers(log.wait(10)) == list(range(10))
    assert len([r for r in caplog.records if "cannot be read" in r.message]) == 1


def test_an_entry_of_a_newer_version_is_skipped(
    linked: Linked, redis: RedisServer, caplog: pytest.LogCaptureFixture
):
    here, there = linked(), linked()
    log = asyncio.run(follow(there, "bob", "news"))
    here.send_all_on_topic("news", 1)
    log.wait(1)
    epoch = redis.ask("HGET", "pagebus:{default:tnews}:state", "e").split(b"\r\n")[1].decode()
    redis.ask("HINCRBY", "pagebus:{default:tnews}:state", "n", "1")
    redis.ask("XADD", "pagebus:{default:tnews}:log", f"{epoch}-2", "d", "\x02later")
    here.send_all_on_topic("news", 3)
    assert numbers(log.wait(2)) == [1, 3]
    assert [r.message for r in caplog.records if "newer version 2" in r.message]


def test_without_a_broker_the_app_goes_on(linked: Linked, own_redis: RedisServer):
    own_redis.kill()
    hub: PubSubHub = linked(own_redis)
    got: list[object] = []
    hub.subscribe("ann", got.append)
    hub.send_all(1)
    until(lambda: hub.link_state == "disconnected", "nobody notices")
    assert got == []
    own_redis.start()
    until(lambda: hub.link_state == "connected", "no connection")
    hub.send_all(2)
    until(lambda: 2 in got, "nothing comes")


def test_a_hub_that_missed_much_hears_all_of_it_once_while_others_go_on_sending(
    linked: Linked, redis: RedisServer, proxy: Proxy
):
    gaps: list[object] = []
    here = linked(redis)
    there = linked(proxy, on_gap=lambda topic, count: gaps.append((topic, count)))
    topics = [f"news {number}" for number in range(5)]
    # Many, and with long names: what is pushed comes together with answers to subscriptions.
    others = [f"topic {number} {'x' * 2000}" for number in range(100)]
    log = asyncio.run(follow(there, "bob", *topics, *others))
    sent = 0

    def send() -> None:
        nonlocal sent
        for topic in topics:
            here.send_all_on_topic(topic, sent)
        sent += 1

    send()
    log.wait(len(topics))
    proxy.swallow()
    proxy.cut()
    # One by one, so that there are more entries than one answer has.
    for _ in range(600):
        send()
        until(lambda: here.stats().outbox == 0, "it is not published")
    proxy.delay = 0.05
    proxy.flow()
    for _ in range(200):
        send()
        time.sleep(0.005)
    proxy.delay = 0.0
    heard = log.wait(sent * len(topics))
    for topic in topics:
        assert [message for on, message in heard if on == topic] == list(range(sent))
    assert gaps == []


def leave(hub: PubSubHub, redis: RedisServer) -> None:
    """Unsubscribe, and return when the server knows it and the hub does not know that yet."""
    hub.unsubscribe_all("bob")
    asked = ("PUBSUB", "NUMSUB", "pagebus:{default:tnews}")
    until(lambda: b":0\r\n" in redis.ask(*asked), "it does not leave")


def test_who_comes_back_while_the_channel_is_being_left_is_ready_no_sooner_than_that_is_true(
    linked: Linked, redis: RedisServer, proxy: Proxy
):
    here, there = linked(redis), linked(proxy)
    asyncio.run(follow(there, "bob", "news"))
    proxy.delay = 0.3
    leave(there, redis)
    log = asyncio.run(follow(there, "bob", "news"))
    here.send_all_on_topic("news", "heard")
    assert log.wait(1) == [("news", "heard")]


def test_who_comes_back_while_the_channel_is_being_left_survives_that_the_connection_breaks(
    linked: Linked, redis: RedisServer, proxy: Proxy
):
    states: list[str] = []
    here, there = linked(redis), linked(proxy, on_link_state=states.append)
    asyncio.run(follow(there, "bob", "news"))
    proxy.delay = 0.3
    leave(there, redis)
    got: list[object] = []
    there.subscribe_topic("bob", "news", lambda topic, message: got.append(message))
    proxy.cut()
    proxy.delay = 0.0
    until(lambda: states[-2:] == ["disconnected", "connected"], "no new connection")
    number = 0

    def hears() -> bool:
        nonlocal number
        number += 1
        here.send_all_on_topic("news", number)
        return bool(got)

    until(hears, "it is not followed any more")


def test_closing_takes_the_time_it_is_given_to_publish_what_is_left(
    linked: Linked, own_redis: RedisServer
):
    here, there = linked(own_redis), linked(own_redis)
    log = asyncio.run(follow(there, "bob", "news"))
    own_redis.kill()
    until(lambda: here.link_state == "disconnected", "nobody notices")
    here.send_all_on_topic("news", 1)
    closer = threading.Thread(target=here.close, args=(60,))
    closer.start()
    # Longer than a hub takes that nobody waits for.
    time.sleep(6)
    own_redis.start()
    closer.join()
    assert here.stats().unpublished == 0
    assert numbers(log.wait(1)) == [1]


def test_a_channel_that_was_idle_until_its_log_expired_tells_no_gap(
    linked: Linked, redis: RedisServer
):
    gaps: list[object] = []
    here, there = linked(), linked(on_gap=lambda topic, count: gaps.append((topic, count)))
    log = asyncio.run(follow(there, "bob", "news"))
    here.send_all_on_topic("news", 1)
    log.wait(1)
    log_time, state_time = (
        int(redis.ask("TTL", f"pagebus:{{default:tnews}}:{what}")[1:]) for what in ("log", "state")
    )
    # As time passes: whatever has gone by when the log expires.
    for what, left in (("log", 0), ("state", state_time - log_time)):
        redis.ask("PEXPIRE", f"pagebus:{{default:tnews}}:{what}", str(1000 * left + 1))
    until(lambda: redis.ask("EXISTS", "pagebus:{default:tnews}:log") == b":0\r\n", "it stays")
    here.send_all_on_topic("news", 2)
    assert numbers(log.wait(2)) == [1, 2]
    assert gaps == []


def test_an_entry_with_a_field_that_is_no_text_does_not_break_the_link(
    linked: Linked, redis: RedisServer
):
    async def main() -> None:
        there = linked()
        bob = await follow(there, "bob", "news")
        there.send_all_on_topic("news", 1)
        assert bob.wait(1) == [("news", 1)]

    redis.ask_bytes(b"XADD", b"pagebus:{default:tnews}:log", b"1-1", b"\xff", b"y")
    asyncio.run(main())


LISTENER = """
import logging, sys
from pagebus import PubSubHub

logging.basicConfig(stream=sys.stdout, format="%(message)s")
hub = PubSubHub(link=sys.argv[1])
hub.subscribe("ann", lambda message: print(message, flush=True))
for line in sys.stdin:
    print(hub.link_state, flush=True)
"""


def test_a_process_that_stands_still_for_a_while_keeps_its_link(redis: RedisServer):
    command = [sys.executable, "-c", LISTENER, redis.url]
    pipe = subprocess.PIPE
    with (
        pagebus.Publisher(redis.url) as publisher,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as listener,
    ):
        assert listener.stdin is not None
        assert listener.stdout is not None

        def heard(message: str) -> str:
            publisher.send_all(message)
            return listener.stdout.readline().strip()

        until(lambda: b":1\r\n" in redis.ask("PUBSUB", "NUMSUB", "pagebus:{default:a}"), "no")
        assert heard("before") == "before"
        listener.send_signal(signal.SIGSTOP)
        # Longer than any link may be silent.
        time.sleep(6)
        listener.send_signal(signal.SIGCONT)
        assert heard("after") == "after"
        # A link that was given up says so before it is back.
        time.sleep(1.5)
        listener.stdin.write("how is the link?\n")
        listener.stdin.close()
        assert listener.stdout.read() == "connected\n"
