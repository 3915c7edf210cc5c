"""Presence across linked hubs: who is on a topic, whichever hub it is asked of."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import Broker, Cluster
from link_tools import PATIENCE, Json, Linked, until
from proxy import Proxy
from redis_server import REDIS, RedisServer

from pagebus import MessagePack, Presence, PubSub, PubSubHub

pytestmark = pytest.mark.link

TABLE = "pagebus:{default:proom}:members"


def ignore(*_: object) -> None:
    """Hear a message, and do nothing."""


class Room(dict[str, Any]):
    """Who is there, as one who replays all records knows it."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Presence] = []

    def hear(self, presence: Presence) -> None:
        self.records.append(presence)
        for session_id in presence.left:
            del self[session_id]
        self.update(presence.joined)


def watch(hub: PubSubHub, topic: str = "room") -> Room:
    """Watch a topic, and return when those on other hubs are known."""
    room = Room()
    subscription = hub.subscribe_presence("watcher", topic, room.hear)

    async def ready() -> None:
        await asyncio.wait_for(subscription.ready(), PATIENCE)

    asyncio.run(ready())
    return room


def agree(hubs: list[PubSubHub], there: dict[str, Any], *rooms: Room) -> None:
    """Return when all hubs know that these are in the room, and who watches does too."""

    def all_know() -> bool:
        known = [hub.sessions("room") for hub in hubs]
        return all(sessions == there for sessions in [*known, *rooms])

    try:
        until(all_know, "they differ")
    except AssertionError:
        raise AssertionError([*(hub.sessions("room") for hub in hubs), *rooms, there]) from None
    for hub in hubs:
        assert hub.subscriber_count("room") == len(there)


# ---- who is there ---------------------------------------------------------------------------


def test_every_hub_that_follows_a_topic_knows_who_is_on_it(sharing: Linked):
    hubs = [sharing() for _ in range(3)]
    rooms = [watch(hub) for hub in hubs]
    ann, bob = PubSub(hubs[0], "ann"), PubSub(hubs[1], "bob")
    ann.identify(name="Ann")
    ann.subscribe_topic("room", ignore)
    agree(hubs, {"ann": {"name": "Ann"}}, *rooms)
    bob.subscribe_topic("room", ignore)
    agree(hubs, {"ann": {"name": "Ann"}, "bob": {}}, *rooms)
    assert [hub.topics() for hub in hubs] == [["room"]] * 3
    assert set(hubs[2].sessions()) == {"ann", "bob", "watcher"}
    ann.unsubscribe_all()
    agree(hubs, {"bob": {}}, *rooms)
    bob.unsubscribe_all()
    agree(hubs, {}, *rooms)
    assert [hub.topics() for hub in hubs] == [[]] * 3
    told = [[(dict(p.joined), dict(p.left)) for p in room.records] for room in rooms]
    assert told[0] == told[1] == told[2]


def test_who_is_on_a_topic_follows_it_without_watching(sharing: Linked):
    here, there = sharing(), sharing()
    here.subscribe_topic("ann", "room", ignore)
    there.subscribe_topic("bob", "room", ignore)
    agree([here, there], {"ann": {}, "bob": {}})


def test_a_topic_that_a_hub_does_not_follow_is_unknown_to_it(sharing: Linked):
    here, there = sharing(), sharing()
    here.subscribe_topic("ann", "room", ignore)
    subscription = there.subscribe_presence("bob", "room", ignore)
    agree([here, there], {"ann": {}})
    subscription.cancel()
    assert there.sessions("room") == {}
    assert (there.subscriber_count("room"), there.topics(), there.sessions()) == (0, [], {})
    there.subscribe_presence("bob", "room", ignore)
    agree([here, there], {"ann": {}})


def test_who_comes_late_is_told_who_is_there_once_it_is_ready(sharing: Linked):
    here, early = sharing(), sharing()
    room = watch(early)
    for number in range(3000):
        here.subscribe_topic(f"session {number}", "room", ignore)
    there = {f"session {number}": {} for number in range(3000)}
    agree([here, early], there, room)
    late = sharing()
    assert watch(late) == there == late.sessions("room")


def test_a_session_on_two_hubs_comes_once_and_leaves_with_the_last(sharing: Linked):
    hubs = [sharing() for _ in range(3)]
    room = watch(hubs[2])
    first = hubs[0].subscribe_topic("ann", "room", ignore)
    agree(hubs[2:], {"ann": {}}, room)
    second = hubs[1].subscribe_topic("ann", "room", ignore)
    hubs[1].subscribe_topic("bob", "room", ignore)
    agree(hubs, {"ann": {}, "bob": {}}, room)
    first.cancel()
    hubs[0].subscribe_topic("cid", "room", ignore)
    agree(hubs, {"ann": {}, "bob": {}, "cid": {}}, room)
    second.cancel()
    agree(hubs, {"bob": {}, "cid": {}}, room)
    told = [(list(p.joined), list(p.left)) for p in room.records]
    assert told == [([], []), (["ann"], []), (["bob"], []), (["cid"], []), ([], ["ann"])]


def test_names_of_any_characters_are_told_as_they_are(sharing: Linked):
    here, there = sharing(), sharing()
    for topic, session in [("{a}%", "}"), ("", ""), ("\ud800", "\udfff"), ("e", "n")]:
        room = watch(there, topic)
        here.subscribe_topic(session, topic, ignore)
        until(lambda: there.sessions(topic) == {session: {}} == room, (topic, session))  # noqa: B023
    assert there.stats().unreadable == 0


def test_hubs_of_other_namespaces_and_databases_know_nothing(sharing: Linked, redis: RedisServer):
    here, there = sharing(), sharing(namespace="other")
    elsewhere = sharing(link=f"{redis.url[:-1]}1")
    rooms = [watch(hub) for hub in (there, elsewhere)]
    follower = watch(sharing())
    here.subscribe_topic("ann", "room", ignore)
    until(lambda: follower == {"ann": {}}, "nobody knows it")
    for hub, room in zip((there, elsewhere), rooms, strict=True):
        hub.subscribe_topic("bob", "room", ignore)
        assert hub.sessions("room") == {"bob": {}} == room


# ---- what sessions say of themselves --------------------------------------------------------


def test_what_a_session_says_is_known_on_every_hub(sharing: Linked):
    hubs = [sharing(codec=MessagePack()) for _ in range(2)]
    room = watch(hubs[1])
    ann = PubSub(hubs[0], "ann")
    ann.subscribe_topic("room", ignore)
    for says in ({"name": "Ann"}, {"name": "Ann", "tags": ("a", 1)}, {}, {"key": b"\x00"}):
        ann.identify(**says)
        agree(hubs, {"ann": says}, room)
    with pytest.raises(TypeError):
        hubs[1].sessions("room")["ann"]["name"] = "Eve"  # type: ignore[index]


def test_what_a_session_said_last_counts_wherever_it_said_it(sharing: Linked):
    hubs = [sharing() for _ in range(3)]
    room = watch(hubs[2])
    here, there = PubSub(hubs[0], "ann"), PubSub(hubs[1], "ann")
    here.subscribe_topic("room", ignore)
    there.subscribe_topic("room", ignore)
    here.identify(name="Ann")
    agree(hubs, {"ann": {"name": "Ann"}}, room)
    # Another millisecond.
    time.sleep(0.01)
    there.identify(name="Anna")
    agree(hubs, {"ann": {"name": "Anna"}}, room)
    there.unsubscribe_all()
    agree([hubs[0], hubs[2]], {"ann": {"name": "Ann"}}, room)


def test_what_cannot_be_encoded_is_refused_and_changes_nothing(sharing: Linked):
    hub, other = sharing(codec=MessagePack(), max_message_bytes=100), sharing(codec=MessagePack())
    ann = PubSub(hub, "ann")
    ann.identify(name="Ann")
    ann.subscribe_topic("room", ignore)
    watch(other)
    with pytest.raises(TypeError, match=r"info cannot be told to other hubs: message\['x'\] is"):
        ann.identify(x=object())
    with pytest.raises(ValueError, match=r"info cannot be told to other hubs: .*100 bytes"):
        ann.identify(x="x" * 100)
    agree([hub, other], {"ann": {"name": "Ann"}})
    ann.unsubscribe_all()
    ann.subscribe_topic("room", ignore)
    agree([hub, other], {"ann": {"name": "Ann"}})


class Picky(Json):
    """A codec that does not decode everything."""

    @staticmethod
    def decode(data: bytes) -> Any:
        if b"bad" in data:
            raise ValueError("it is bad")
        return Json.decode(data) if b"list" not in data else []


def test_what_cannot_be_decoded_is_counted_and_the_session_is_there_all_the_same(
    sharing: Linked, caplog: pytest.LogCaptureFixture
):
    here, there = sharing(), sharing(codec=Picky)
    watch(there)
    for session, says in (("ann", "bad"), ("bob", "list"), ("cid", "good")):
        client = PubSub(here, session)
        client.identify(says=says)
        client.subscribe_topic("room", ignore)
    agree([there], {"ann": {}, "bob": {}, "cid": {"says": "good"}})
    assert there.stats().unreadable == 2
    [record] = [r for r in caplog.records if "cannot be decoded" in r.message]
    assert "what a session says of itself" in record.message


def test_garbage_in_the_table_and_on_the_channel_is_skipped(sharing: Linked, redis: RedisServer):
    here, there = sharing(), sharing()
    host = "0" * 39 + "1"
    redis.ask("ZADD", "pagebus:{default:n}:alive", str(2**50), host)
    for field, value in ((f"{host}eve", "\x02"), ("x", "y"), (host, ""), ("", "")):
        redis.ask("HSET", TABLE, field, value)
    room = watch(there)
    assert room == {"eve": {}, "": {}}
    for garbage in ("", "x", "1-1:", "1-1:x", "9-9:\x03", "1-18446744073709551615:\x01"):
        redis.ask("PUBLISH", TABLE.removesuffix(":members"), garbage)
    here.subscribe_topic("ann", "room", ignore)
    agree([here, there], {"ann": {}, "eve": {}, "": {}}, room)
    assert there.stats().unreadable > 0


# ---- only who wants it ----------------------------------------------------------------------


def test_hubs_that_do_not_share_presence_tell_nothing_and_know_nothing(
    linked: Linked, sharing: Linked, redis: RedisServer
):
    quiet, other = linked(), linked()
    quiet.subscribe_topic("ann", "room", ignore)
    quiet.subscribe_presence("ann", "room", ignore)
    PubSub(quiet, "ann").identify(name=object())
    subscription = other.subscribe_topic("bob", "room", ignore)

    async def ready() -> None:
        await asyncio.wait_for(subscription.ready(), PATIENCE)

    asyncio.run(ready())
    quiet.send_all_on_topic("room", "hello")
    until(lambda: quiet.stats().outbox == 0, "it is not published")
    assert b"members" not in redis.ask("KEYS", "*")
    assert b"alive" not in redis.ask("KEYS", "*")
    assert b":p" not in redis.ask("PUBSUB", "CHANNELS")
    assert list(quiet.sessions("room")) == ["ann"]
    room = watch(sharing())
    assert room == {}
    assert list(other.sessions("room")) == ["bob"]


def test_presence_is_a_bool_and_needs_a_link(redis: RedisServer):
    with pytest.raises(TypeError, match="presence must be a bool, not int"):
        PubSubHub(link=redis.url, presence=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="presence needs hubs to share it with"):
        PubSubHub(presence=True)
    assert PubSubHub(presence=False).link_state is None


def test_a_server_that_does_not_allow_it_is_said_once_and_messages_still_travel(
    sharing: Linked, own_redis: RedisServer, caplog: pytest.LogCaptureFixture
):
    rule = ("on", ">pass", "~*", "&*", "+@all", "-zadd")
    own_redis.ask("ACL", "SETUSER", "limited", *rule)
    url = own_redis.url.replace("//", "//limited:pass@")
    here, there = sharing(link=url), sharing(link=url)
    got: list[object] = []
    there.subscribe_topic("bob", "room", lambda topic, message: got.append(message))
    here.subscribe_topic("ann", "room", ignore)
    until(lambda: here.link_state == there.link_state == "connected", "no connection")

    def hears() -> bool:
        here.send_all_on_topic("room", "hello")
        return bool(got)

    until(hears, "nothing is heard")
    said = "other processes are not told who is here: "
    until(lambda: sum(said in r.message for r in caplog.records) == 2, "it is not said")
    own_redis.ask("ACL", "SETUSER", "limited", "+@all")
    agree([here, there], {"ann": {}, "bob": {}})
    assert sum(said in r.message for r in caplog.records) == 2


def test_what_stands_in_the_way_at_the_server_is_said_and_messages_still_travel(
    sharing: Linked, redis: RedisServer, caplog: pytest.LogCaptureFixture
):
    redis.ask("SET", TABLE, "in the way")
    redis.ask("SET", "pagebus:{default:n}:alive", "in the way")
    here, there = sharing(), sharing()
    got: list[object] = []
    there.subscribe_topic("bob", "room", lambda topic, message: got.append(message))
    here.subscribe_topic("ann", "room", ignore)
    said = "other processes are not told who is here: "
    until(lambda: sum(said in r.message for r in caplog.records) == 2, "it is not said")

    def hears() -> bool:
        here.send_all_on_topic("room", "hello")
        return bool(got)

    until(hears, "nothing is heard")
    redis.ask("DEL", TABLE)
    redis.ask("DEL", "pagebus:{default:n}:alive")
    agree([here, there], {"ann": {}, "bob": {}})
    redis.ask("HSET", TABLE, "n", "no number")
    here.subscribe_topic("cid", "room", ignore)
    redis.ask("DEL", TABLE)
    agree([here, there], {"ann": {}, "bob": {}, "cid": {}})


# ---- those who go without a word ------------------------------------------------------------

PREAMBLE = """
import asyncio, os, sys
sys.path.insert(0, {tools!r})
from link_tools import Json, until
from pagebus import PubSub, PubSubHub
hub = PubSubHub(link={url!r}, codec=Json, presence=True)
for name in sys.argv[1:]:
    hub.subscribe_topic(name, "room", lambda topic, message: None)
print("well", flush=True)
"""

NODE = """
for line in sys.stdin:
    how, name = line.split()
    if how == "join":
        hub.subscribe_topic(name, "room", lambda topic, message: None)
    elif how == "leave":
        hub.unsubscribe_all(name)
    elif how == "end":
        break
    print(how, flush=True)
"""


class Process:
    """Another process, with a hub that sessions are on."""

    def __init__(self, redis: RedisServer, *names: str, program: str = NODE) -> None:
        preamble = PREAMBLE.format(tools=str(Path(__file__).parent), url=redis.url)
        command = [sys.executable, "-c", preamble + textwrap.dedent(program), *names]
        pipe = subprocess.PIPE
        self.popen = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        assert self._heard() == "well"

    def tell(self, how: str, name: str = "-") -> None:
        assert self.popen.stdin
        self.popen.stdin.write(f"{how} {name}\n")
        self.popen.stdin.flush()
        if how != "end":
            assert self._heard() == how

    def _heard(self) -> str:
        assert self.popen.stdout
        return self.popen.stdout.readline().strip()

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()
        for pipe in (self.popen.stdin, self.popen.stdout):
            assert pipe
            pipe.close()


@pytest.fixture
def process(redis: RedisServer) -> Iterator[Callable[..., Process]]:
    """Start processes with hubs; they are killed at the end."""
    started: list[Process] = []

    def start(*names: str, program: str = NODE) -> Process:
        started.append(Process(redis, *names, program=program))
        return started[-1]

    yield start
    for process in started:
        process.kill()


def test_processes_know_who_is_on_each_other(sharing: Linked, process: Callable[..., Process]):
    hub = sharing()
    room = watch(hub)
    first, second = process("ann"), process("bob", "ann")
    agree([hub], {"ann": {}, "bob": {}}, room)
    first.tell("leave", "ann")
    first.tell("join", "cid")
    agree([hub], {"ann": {}, "bob": {}, "cid": {}}, room)
    second.tell("leave", "ann")
    agree([hub], {"bob": {}, "cid": {}}, room)


def test_the_sessions_of_a_process_that_is_killed_leave(
    sharing: Linked, process: Callable[..., Process], redis: RedisServer
):
    hubs = [sharing(), sharing()]
    rooms = [watch(hub) for hub in hubs]
    hubs[0].subscribe_topic("bob", "room", ignore)
    doomed = process("ann", "bob", "cid")
    agree(hubs, {"ann": {}, "bob": {}, "cid": {}}, *rooms)
    doomed.kill()
    agree(hubs, {"bob": {}}, *rooms)
    assert [list(room.records[-1].left) for room in rooms] in (
        [["ann", "cid"]] * 2,
        [["cid", "ann"]] * 2,
        [["ann", "cid"], ["cid", "ann"]],
        [["cid", "ann"], ["ann", "cid"]],
    )
    # Whoever reads the table next removes what is left there of the dead.
    assert watch(sharing()) == {"bob": {}}
    until(lambda: redis.ask("HLEN", TABLE) == b":4\r\n", "it stays")


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="there is no such signal here")
def test_the_sessions_of_a_process_that_is_stopped_leave_and_come_back(
    sharing: Linked, process: Callable[..., Process]
):
    hub = sharing()
    room = watch(hub)
    stopped = process("ann", "bob")
    agree([hub], {"ann": {}, "bob": {}}, room)
    stopped.popen.send_signal(signal.SIGSTOP)
    agree([hub], {}, room)
    stopped.popen.send_signal(signal.SIGCONT)
    agree([hub], {"ann": {}, "bob": {}}, room)
    stopped.tell("leave", "ann")
    agree([hub], {"bob": {}}, room)


@pytest.mark.parametrize("end", ["hub.close()", "asyncio.run(hub.aclose())", "del hub"])
def test_who_closes_its_hub_leaves_at_once(
    sharing: Linked, process: Callable[..., Process], redis: RedisServer, end: str
):
    hub = sharing()
    room = watch(hub)
    leaver = process("ann", "bob", program=f"{NODE}\n{end}\nsys.stdin.read()")
    agree([hub], {"ann": {}, "bob": {}}, room)
    [field] = [key for key in redis.ask("HKEYS", TABLE).decode().split() if key.endswith("ann")]
    leaver.tell("end")
    agree([hub], {}, room)
    # It has said so itself: what somebody has put who is taken for dead is still in the table then.
    assert redis.ask("HEXISTS", TABLE, field) == b":0\r\n"


def test_closing_a_hub_does_not_wait_for_a_broker_that_is_away(
    sharing: Linked, own_redis: RedisServer
):
    hub = sharing(own_redis)
    hub.subscribe_topic("ann", "room", ignore)
    until(lambda: hub.link_state == "connected", "no connection")
    own_redis.kill()
    until(lambda: hub.link_state == "disconnected", "nobody notices")
    closer = threading.Thread(target=hub.close, args=(100 * PATIENCE,), daemon=True)
    closer.start()
    until(lambda: not closer.is_alive(), "it waits for the broker")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_child_process_tells_what_it_has_taken_over(
    sharing: Linked, process: Callable[..., Process]
):
    hub = sharing()
    room = watch(hub)
    forker = process(
        *("ann", "bob"),
        program="""
        until(lambda: hub.link_state == "connected", "no connection")
        if not (child := os.fork()):
            hub.subscribe_topic("cid", "room", lambda topic, message: None)
            hub.unsubscribe_all("bob")
            until(lambda: len(hub.sessions("room")) == 3, "it does not know its parent")
            sys.stdin.readline()
            hub.close()
            os._exit(7)
        os.waitpid(child, 0)
        sys.stdin.readline()
        """,
    )
    agree([hub], {"ann": {}, "bob": {}, "cid": {}}, room)
    forker.tell("end")
    agree([hub], {"ann": {}, "bob": {}}, room)


def test_nothing_is_left_of_a_hub_that_shares_presence(redis: RedisServer):
    class Tagged(Json):
        def __init__(self) -> None:
            self.hub = PubSubHub(link=redis.url, codec=self, presence=True)
            self.other = PubSubHub(link=redis.url, codec=Json, presence=True)
            client = PubSub(self.other, "ann")
            client.identify(name="Ann")
            client.subscribe_topic("room", ignore)
            self.hub.subscribe_presence("bob", "room", self.hear)
            until(lambda: self.hub.sessions("room") == {"ann": {"me": self}}, "nobody comes")

        def hear(self, presence: Presence) -> None:
            pass

        def decode(self, data: bytes) -> Any:  # type: ignore[override]
            return {"me": self}

    reference = weakref.ref(Tagged())
    until(lambda: gc.collect() >= 0 and reference() is None, "it is kept")


# ---- while something fails ------------------------------------------------------------------


@pytest.mark.parametrize("keeps", [True, False], ids=["with its data", "without its data"])
def test_a_broker_that_is_started_again_knows_everybody_again(
    sharing: Linked, own_redis: RedisServer, keeps: bool
):
    hubs = [sharing(own_redis) for _ in range(3)]
    rooms = [watch(hub) for hub in hubs]
    for number, hub in enumerate(hubs):
        hub.subscribe_topic(f"{number}", "room", ignore)
    agree(hubs, {"0": {}, "1": {}, "2": {}}, *rooms)
    own_redis.kill()
    until(lambda: all(hub.link_state == "disconnected" for hub in hubs), "nobody notices")
    assert hubs[0].sessions("room") == {"0": {}, "1": {}, "2": {}}
    hubs[0].unsubscribe_all("0")
    hubs[1].subscribe_topic("ann", "room", ignore)
    if not keeps:
        for written in own_redis.directory.glob("appendonly*"):
            shutil.rmtree(written) if written.is_dir() else written.unlink()
    own_redis.start()
    agree(hubs, {"1": {}, "2": {}, "ann": {}}, *rooms)


def test_a_broker_that_forgets_everything_is_told_everything_again(
    sharing: Linked, redis: RedisServer
):
    hubs = [sharing(), sharing()]
    hubs[0].subscribe_topic("ann", "room", ignore)
    hubs[1].subscribe_topic("bob", "room", ignore)
    agree(hubs, {"ann": {}, "bob": {}})
    redis.ask("FLUSHALL")
    late = sharing()
    room = watch(late)
    agree([*hubs, late], {"ann": {}, "bob": {}}, room)


def test_what_changes_while_a_hub_is_cut_off_is_known_afterwards(
    sharing: Linked, proxies: Callable[[], Proxy]
):
    proxy = proxies()
    here, there = sharing(), sharing(proxy)
    rooms = [watch(hub) for hub in (here, there)]
    here.subscribe_topic("ann", "room", ignore)
    there.subscribe_topic("bob", "room", ignore)
    agree([here, there], {"ann": {}, "bob": {}}, *rooms)
    proxy.swallow()
    here.unsubscribe_all("ann")
    here.subscribe_topic("cid", "room", ignore)
    there.unsubscribe_all("bob")
    there.subscribe_topic("dan", "room", ignore)
    until(lambda: there.link_state == "disconnected", "a silent connection is trusted")
    proxy.flow()
    agree([here, there], {"cid": {}, "dan": {}}, *rooms)


class Churn:
    """Threads on which sessions of some hubs come, go and say something."""

    def __init__(self, hubs: list[PubSubHub], clients: int, seed: int = 0) -> None:
        self.clients = [
            [PubSub(hub, f"{(number * 7 + at) % 9}") for number in range(clients)]
            for at, hub in enumerate(hubs)
        ]
        self.own = [{client.session_id: {} for client in clients} for clients in self.clients]
        self.there: list[dict[str, bool]] = [{} for _ in hubs]
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._come_and_go, args=(at, random.Random(seed * 100 + at)))
            for at in range(len(hubs))
        ]
        for thread in self._threads:
            thread.start()

    def _come_and_go(self, at: int, dice: random.Random) -> None:
        while not self._stop.is_set():
            client = dice.choice(self.clients[at])
            if dice.random() < 0.1:
                client.identify(at=at, number=dice.random())
            if dice.random() < 0.5:
                client.subscribe_topic("room", ignore)
                self.there[at][client.session_id] = True
            else:
                client.unsubscribe_topic("room")
                self.there[at][client.session_id] = False
            if dice.random() < 0.05:
                time.sleep(0.001)

    def stop(self) -> set[str]:
        """Who is there now."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return {name for there in self.there for name, is_there in there.items() if is_there}


def settled(hubs: list[PubSubHub], names: set[str], rooms: list[Room]) -> None:
    """Return when all agree on who is there, and what they say."""

    def all_know() -> bool:
        first = hubs[0].sessions("room")
        known = [hub.sessions("room") for hub in hubs]
        return set(first) == names and all(sessions == first for sessions in [*known, *rooms])

    try:
        until(all_know, "they differ")
    except AssertionError:
        found = [dict(sorted(hub.sessions("room").items())) for hub in hubs]
        raise AssertionError([found, [dict(room) for room in rooms], names]) from None


def test_whatever_threads_do_on_three_hubs_all_come_to_the_same(sharing: Linked):
    hubs = [sharing() for _ in range(3)]
    rooms = [watch(hub) for hub in hubs]
    churn = Churn(hubs, 5)
    time.sleep(0.3)
    late = sharing()
    rooms.append(watch(late))
    time.sleep(0.3)
    settled([*hubs, late], churn.stop(), rooms)


@pytest.mark.parametrize("fault", ["cut", "swallow", "kill the connections", "flush"])
def test_whatever_fails_meanwhile_all_come_to_the_same(
    sharing: Linked, redis: RedisServer, proxies: Callable[[], Proxy], fault: str
):
    made = [proxies() for _ in range(3)]
    hubs = [sharing(proxy) for proxy in made]
    rooms = [watch(hub) for hub in hubs]
    churn = Churn(hubs, 4)
    for proxy in made:
        time.sleep(0.2)
        if fault == "cut":
            proxy.cut()
        elif fault == "swallow":
            proxy.swallow()
            threading.Timer(5, proxy.flow).start()
        elif fault == "flush":
            redis.ask("FLUSHALL")
        else:
            redis.ask("CLIENT", "KILL", "TYPE", "normal")
            redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
    time.sleep(0.3)
    settled(hubs, churn.stop(), rooms)


def test_who_watches_again_and_again_knows_who_is_there_each_time(sharing: Linked):
    here, there = sharing(), sharing()
    churn = Churn([here], 6)
    for _ in range(30):
        room = watch(there)
        there.unsubscribe_all("watcher")
        assert there.sessions("room") == {}
        del room
    names = churn.stop()
    settled([here, there], names, [watch(there)])


# ---- over every broker ----------------------------------------------------------------------


def test_hubs_come_to_the_same_over_every_broker_also_when_it_fails(
    sharing: Linked, broker: Broker
):
    hubs = [sharing(link=broker.url) for _ in range(3)]
    rooms = [watch(hub) for hub in hubs]
    churn = Churn(hubs, 4)
    time.sleep(0.3)
    broker.fail()
    time.sleep(0.3)
    broker.recover()
    time.sleep(0.3)
    settled(hubs, churn.stop(), rooms)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster in which a test may move topics."""
    assert REDIS is not None
    cluster = Cluster(tmp_path, REDIS)
    yield cluster
    cluster.close()


def test_a_topic_that_is_moved_within_a_cluster_stays_known(sharing: Linked, cluster: Cluster):
    here, there = hubs = [sharing(link=cluster.url) for _ in range(2)]
    room = watch(here)
    for number in range(30):
        if number % 10 == 5:
            home = cluster.home(TABLE)
            cluster.move(TABLE, next(node for node in cluster.nodes if node is not home))
        hubs[number % 2].subscribe_topic(f"{number}", "room", ignore)
    everybody = {f"{number}": {} for number in range(30)}
    agree(hubs, everybody, room)
    there.unsubscribe_all("29")
    del everybody["29"]
    agree([here], everybody, room)
