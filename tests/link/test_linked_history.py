"""History across linked hubs: who comes later gets what any hub has sent before."""

import asyncio
import gc
import random
import signal
import sys
import threading
import weakref
from typing import Any

import msgpack
import pytest
from link_tools import Linked, Log, losses, until
from redis_server import RedisServer

from delivery_modes import collect_garbage
from pagebus import PubSubHub

pytestmark = pytest.mark.link


def come(hub: PubSubHub, session: str, topic: str | None, replay: int) -> Log:
    """Subscribe a session with a replay, and return what it gets."""
    log = Log()
    if topic is None:
        hub.subscribe(session, lambda message: log.add(None, message), replay=replay)
    else:
        hub.subscribe_topic(session, topic, log.add, replay=replay)
    return log


def said(log: Log) -> list[Any]:
    return [message for _, message in log]


@pytest.mark.parametrize("topic", ["room/1", None])
def test_who_comes_to_another_hub_gets_what_was_sent_before_it_listened(
    linked: Linked, topic: str | None
):
    ann = linked(history=100)
    for number in range(5):
        send(ann, topic, number)
    until(lambda: ann.stats().outbox == 0, "published")
    bob = come(linked(history=100), "bob", topic, replay=3)
    bob.wait(3)
    send(ann, topic, 5)

    bob.wait_for(5)
    assert said(bob) == [2, 3, 4, 5]


def send(hub: PubSubHub, topic: str | None, message: Any) -> None:
    if topic is None:
        hub.send_all(message)
    else:
        hub.send_all_on_topic(topic, message)


def test_whoever_comes_while_others_send_gets_no_gap_and_nothing_twice(linked: Linked):
    here, there, rng = linked(), linked(history=50), random.Random(7)
    over = threading.Event()

    def send_numbers() -> None:
        number = 0
        while not over.is_set():
            here.send_all_on_topic("room/1", number)
            number += 1
            if number % 20 == 0:
                until(lambda: here.stats().outbox < 100, "published")

    sender = threading.Thread(target=send_numbers)
    sender.start()
    try:
        for round_ in range(150):
            # For who comes alone, the hub follows the topic anew; others come one after another.
            sessions = [f"{round_}/{number}" for number in range(rng.choice([1, 1, 2, 4]))]
            logs = [come(there, session, "room/1", replay=20) for session in sessions]
            for log in logs:
                got = [message for _, message in log.wait(25)]
                assert got == list(range(got[0], got[0] + len(got))), got
            for session in sessions:
                there.unsubscribe_all(session)
    finally:
        over.set()
        sender.join()


def test_who_comes_while_somebody_else_is_there_gets_what_both_would_have(linked: Linked):
    hub = linked(history=10)
    hub.send_all_on_topic("room/1", "before")
    until(lambda: hub.stats().outbox == 0, "published")
    ann = come(hub, "ann", "room/1", replay=10)
    bob = come(hub, "bob", "room/1", replay=10)
    cid = Log()
    hub.subscribe_topic("cid", "room/1", cid.add)
    ann.wait_for("before")
    hub.send_all_on_topic("room/1", "after")
    for log in (ann, bob, cid):
        log.wait_for("after")
    dan = come(hub, "dan", "room/1", replay=10)
    dan.wait(2)

    assert said(ann) == said(bob) == said(dan) == ["before", "after"]
    assert said(cid) == ["after"]


def test_a_hub_that_missed_messages_while_nobody_listened_replays_them(linked: Linked):
    here, there = linked(history=10), linked(history=10)
    come(there, "bob", "room/1", replay=1)
    here.send_all_on_topic("room/1", 1)
    until(lambda: there.stats().delivered == 1, "delivered")
    there.unsubscribe_all("bob")
    here.send_all_on_topic("room/1", 2)
    until(lambda: here.stats().outbox == 0, "published")

    bob = come(there, "bob", "room/1", replay=10)
    bob.wait_for(2)
    assert said(bob) == [1, 2]


def test_a_session_that_did_not_get_a_message_is_not_given_it_later_elsewhere(linked: Linked):
    here, there = linked(), linked(history=10)
    here.send_others_on_topic("bob", "room/1", "not for bob")
    here.send_all_on_topic("room/1", "for all")
    until(lambda: here.stats().outbox == 0, "published")

    bob, cid = (come(there, name, "room/1", replay=10) for name in ("bob", "cid"))
    cid.wait(2)
    bob.wait(1)
    assert said(bob) == ["for all"]
    assert said(cid) == ["not for bob", "for all"]


def test_a_stream_begins_with_what_was_sent_before_its_hub_listened(linked: Linked):
    async def main() -> list[str]:
        here, there = linked(), linked(history=10)
        here.send_all_on_topic("room/1", "before")
        until(lambda: here.stats().outbox == 0, "published")
        got = []
        async with there.stream("ann", "room/1", replay=5) as messages:
            async for message in messages:
                got.append(message)
                if message == "after":
                    break
                here.send_all_on_topic("room/1", "after")
        return got

    assert asyncio.run(main()) == ["before", "after"]


def test_messages_that_are_too_old_are_not_replayed(linked: Linked, redis: RedisServer):
    here, there = linked(), linked()
    here.send_all_on_topic("room/1", "old")
    until(lambda: here.stats().outbox == 0, "published")
    put_back(redis, "room/1", minutes=10)
    here.send_all_on_topic("room/1", "new")
    until(lambda: here.stats().outbox == 0, "published")
    there.keep("room/1", messages=10, seconds=300)

    bob = come(there, "bob", "room/1", replay=10)
    bob.wait_for("new")
    assert said(bob) == ["new"]


def put_back(redis: RedisServer, topic: str, minutes: int) -> None:
    """Let the only entry of a topic be so much older."""
    log = f"pagebus:{{default:t{topic}}}:log".encode()
    head, _, rest = redis.ask_bytes(b"XRANGE", log, b"-", b"+").partition(b"\r\nd\r\n$")
    place, (length, _, rest) = head.split(b"\r\n")[3], rest.partition(b"\r\n")
    version, entry = rest[:1], msgpack.unpackb(rest[1 : int(length)])
    # After who published it and a number comes when that was, in milliseconds.
    entry[2] -= minutes * 60_000
    assert redis.ask_bytes(b"DEL", log) == b":1\r\n"
    older = version + msgpack.packb(entry)
    assert place in redis.ask_bytes(b"XADD", log, place, b"d", older)


def test_what_cannot_be_read_of_the_past_is_skipped_and_counted(linked: Linked):
    class Upper:
        encode = staticmethod(lambda message: message.upper().encode())

        @staticmethod
        def decode(data: bytes) -> str:
            if data == b"BAD":
                raise ValueError("bad")
            return data.decode()

    here, there = linked(codec=Upper), linked(codec=Upper, history=10)
    for message in ("one", "bad", "two"):
        here.send_all_on_topic("room/1", message)
    until(lambda: here.stats().outbox == 0, "published")

    bob = come(there, "bob", "room/1", replay=10)
    bob.wait_for("TWO")
    assert said(bob) == ["ONE", "TWO"]
    assert there.stats().unreadable == 1


def test_a_replay_waits_for_a_server_that_is_away(linked: Linked, own_redis: RedisServer):
    here, there = linked(own_redis), linked(own_redis, history=10)
    here.send_all_on_topic("room/1", "before")
    until(lambda: here.stats().outbox == 0, "published")
    there.send_all("connect")
    until(lambda: there.link_state == "connected", "connected")
    own_redis.kill()
    until(lambda: there.link_state == "disconnected", "noticed")
    bob = come(there, "bob", "room/1", replay=10)
    assert said(bob) == []
    own_redis.start()

    bob.wait_for("before")
    assert said(bob) == ["before"]


def test_a_session_that_goes_while_it_waits_for_a_replay_is_let_go(
    linked: Linked, own_redis: RedisServer
):
    own_redis.kill()
    hub = linked(own_redis, history=10)

    class Page:
        def hear(self, topic: str, message: Any) -> None: ...

    page = Page()
    gone = weakref.ref(page)
    hub.subscribe_topic("ann", "room/1", page.hear, replay=10)
    hub.unsubscribe_all("ann")
    del page
    collect_garbage()

    assert gone() is None, gc.get_referrers(gone())


def test_what_is_sent_to_all_is_kept_whoever_else_comes(linked: Linked):
    here, there = linked(), linked(history=100)
    for number in range(3):
        here.send_all(number)
    until(lambda: here.stats().outbox == 0, "published")
    for name in ("ann", "bob", "cid", "dan"):
        log = come(there, name, None, replay=10)
        log.wait(3)
        # Its own channel is followed as well by then.
        there.send_to(name, "psst")
        log.wait_for("psst")
        assert said(log) == [0, 1, 2, "psst"]


@pytest.mark.thread_unsafe(reason="there is one handler of a signal, and one hook")
@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit, KeyboardInterrupt])
def test_a_decoder_that_interrupts_while_it_reads_the_past_costs_one_message(
    linked: Linked, error: type[BaseException]
):
    class Picky:
        encode = staticmethod(lambda message: message.encode())

        @staticmethod
        def decode(data: bytes) -> str:
            if data == b"bad":
                raise error
            return data.decode()

    here, there = linked(codec=Picky), linked(codec=Picky, history=10)
    for message in ("one", "bad", "two"):
        here.send_all_on_topic("room/1", message)
    until(lambda: here.stats().outbox == 0, "published")
    unraisable: list[Any] = []
    before, sys.unraisablehook = sys.unraisablehook, unraisable.append
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        bob = come(there, "bob", "room/1", replay=10)
        bob.wait_for("two")
        here.send_all_on_topic("room/1", "three")
        bob.wait_for("three")
    finally:
        sys.unraisablehook = before
        signal.signal(signal.SIGINT, handler)
    assert said(bob) == ["one", "two", "three"]


@pytest.mark.parametrize("history", [2**31, 2**63, 2**64, 2**100])
def test_as_much_as_anybody_can_want_is_kept(linked: Linked, history: int):
    here, there = linked(), linked(history=history)
    here.send_all_on_topic("room/1", 1)
    until(lambda: here.stats().outbox == 0, "published")
    bob = come(there, "bob", "room/1", replay=history)
    bob.wait_for(1)
    assert said(bob) == [1]


def test_a_long_history_of_large_messages_does_not_break_the_link(
    linked: Linked, caplog: pytest.LogCaptureFixture
):
    here, there = linked(), linked(history=100)
    for number in range(60):
        here.send_all_on_topic("room/1", [number, "x" * 900_000])
        until(lambda: here.stats().outbox == 0, "published")
    bob = come(there, "bob", "room/1", replay=100)
    bob.wait(60)
    assert [number for number, _ in said(bob)] == list(range(60))
    assert losses(caplog.records) == []
