"""A cluster: channels are on several servers and are moved; some servers fail, others go on."""

import asyncio
import itertools
import signal
import threading
from collections.abc import Iterator

import pytest
from brokers import Cluster
from link_tools import PATIENCE, Linked, Log, follow, losses, until
from redis_server import REDIS, RedisServer

from pagebus import PubSubHub

pytestmark = pytest.mark.link


@pytest.fixture(scope="module")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    assert REDIS is not None
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), REDIS)
    yield cluster
    cluster.close()


@pytest.fixture
def cluster(_shared: Cluster) -> Cluster:
    """Three servers, emptied."""
    _shared.clear()
    return _shared


def channel(topic: str) -> str:
    return f"pagebus:{{default:t{topic}}}"


def topics_at(cluster: Cluster, server: RedisServer, count: int) -> list[str]:
    """Topics that a server has."""
    topics = (f"topic {number}" for number in itertools.count())
    there = (topic for topic in topics if cluster.home(channel(topic)) is server)
    return list(itertools.islice(there, count))


class Sender:
    """Sends on topics until it is stopped."""

    def __init__(self, hub: PubSubHub, *topics: str) -> None:
        self._hub, self._topics, self.count = hub, topics, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def _send(self) -> None:
        while not self._stop.wait(0.002):
            for topic in self._topics:
                self._hub.send_all_on_topic(topic, self.count)
            self.count += 1

    def more(self) -> None:
        """Return when it has sent some more."""
        before = self.count
        until(lambda: self.count > before + 20, "it does not send")

    def stop(self, log: Log) -> None:
        """End, and see that all has come, once and in order."""
        self._stop.set()
        self._thread.join()
        heard = log.wait(self.count * len(self._topics))
        for topic in self._topics:
            numbers = [message for on, message in heard if on == topic]
            assert numbers == list(range(self.count))


def test_nothing_is_lost_while_channels_are_moved_from_server_to_server(
    linked: Linked, cluster: Cluster, caplog: pytest.LogCaptureFixture
):
    gaps: list[object] = []
    here, there = (
        linked(link=cluster.url, on_gap=lambda topic, count: gaps.append((topic, count)))
        for _ in range(2)
    )
    moved, left = topics_at(cluster, cluster.nodes[0], 2)
    log = asyncio.run(follow(there, "bob", moved, left))
    sender = Sender(here, moved, left)
    for turn in range(10):
        sender.more()
        cluster.move(channel(moved), cluster.nodes[(turn + 1) % 3])
    sender.more()
    cluster.move(channel(moved), cluster.nodes[0])
    sender.stop(log)
    assert gaps == []
    assert losses(caplog.records) == []


def test_a_channel_that_is_idle_while_it_is_moved_is_followed_all_the_same(
    linked: Linked, cluster: Cluster
):
    here, there = linked(link=cluster.url), linked(link=cluster.url)
    [moved] = topics_at(cluster, cluster.nodes[0], 1)
    log = asyncio.run(follow(there, "bob", moved))
    for turn in (1, 2, 0):
        cluster.move(channel(moved), cluster.nodes[turn])
        here.send_all_on_topic(moved, turn)
    assert [message for _, message in log.wait(3)] == [1, 2, 0]


def test_a_channel_that_is_moved_while_others_come_and_go_disturbs_nobody(
    linked: Linked, cluster: Cluster
):
    here, there = linked(link=cluster.url), linked(link=cluster.url)
    moved, *others = topics_at(cluster, cluster.nodes[0], 40)
    log = asyncio.run(follow(there, "bob", moved, others[0]))
    sender = Sender(here, moved, others[0])
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            for topic in others[1:]:
                there.subscribe_topic("cat", topic, print)
            asyncio.run(
                asyncio.wait_for(there.subscribe_topic("cat", moved, bool).ready(), PATIENCE)
            )
            there.unsubscribe_all("cat")

    guest = threading.Thread(target=come_and_go)
    guest.start()
    for turn in range(15):
        cluster.move(channel(moved), cluster.nodes[(turn + 1) % 3])
    sender.more()
    stop.set()
    guest.join()
    sender.stop(log)
    # And they are followed where they should be, and nowhere else.
    bob = asyncio.run(follow(there, "dan", *others))
    for topic in others:
        here.send_all_on_topic(topic, "last")
    for topic in others:
        until(lambda topic=topic: (topic, "last") in list(bob), f"{topic} is not heard")


def test_while_one_server_is_away_the_channels_of_the_others_go_on(
    linked: Linked, cluster: Cluster, caplog: pytest.LogCaptureFixture
):
    here, there = linked(link=cluster.url), linked(link=cluster.url)
    [away], [well] = (topics_at(cluster, node, 1) for node in cluster.nodes[:2])
    log = asyncio.run(follow(there, "bob", away, well))
    cluster.nodes[0].kill()
    here.send_all_on_topic(away, "waits")
    for number in range(100):
        here.send_all_on_topic(well, number)
    assert log.wait(100) == [(well, number) for number in range(100)]
    until(lambda: "takes no messages" in caplog.text, "nobody is told")
    cluster.nodes[0].start()
    assert log.wait_for("waits")[-1] == (away, "waits")
    until(lambda: "takes messages again" in caplog.text, "nobody is told that it is over")
    assert losses(caplog.records) == []


def test_without_any_server_there_is_no_link_until_they_are_back(linked: Linked, cluster: Cluster):
    states: list[str] = []
    here, there = linked(link=cluster.url, on_link_state=states.append), linked(link=cluster.url)
    topics = [topics_at(cluster, node, 1)[0] for node in cluster.nodes]
    log = asyncio.run(follow(there, "bob", *topics))
    here.send_all_on_topic(topics[0], "before")
    log.wait(1)
    for node in cluster.nodes:
        node.kill()
    until(lambda: "disconnected" in states, "nobody notices")
    assert "connected" not in states[states.index("disconnected") :]
    for topic in topics:
        here.send_all_on_topic(topic, "after")
    for node in cluster.nodes:
        node.start()
    heard = log.wait(4)
    assert sorted(heard[1:]) == sorted((topic, "after") for topic in topics)
    until(lambda: states[-1] == "connected", "no link")


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="there is no SIGSTOP here")
def test_a_server_that_is_silent_is_noticed_and_what_was_missed_is_heard(
    linked: Linked, cluster: Cluster, caplog: pytest.LogCaptureFixture
):
    here, there = linked(link=cluster.url), linked(link=cluster.url)
    [silent], [well] = (topics_at(cluster, node, 1) for node in cluster.nodes[:2])
    log = asyncio.run(follow(there, "bob", silent, well))
    cluster.nodes[0].process.send_signal(signal.SIGSTOP)
    try:
        here.send_all_on_topic(silent, "late")
        here.send_all_on_topic(well, "in time")
        assert log.wait(1) == [(well, "in time")]
        until(lambda: "takes no messages" in caplog.text, "nobody is told")
    finally:
        cluster.nodes[0].process.send_signal(signal.SIGCONT)
    assert log.wait(2) == [(well, "in time"), (silent, "late")]
    until(lambda: all(map(cluster.is_well, cluster.nodes)), "no cluster")


def test_connections_that_the_servers_close_are_made_again(linked: Linked, cluster: Cluster):
    here, there = linked(link=cluster.url), linked(link=cluster.url)
    topics = [topics_at(cluster, node, 1)[0] for node in cluster.nodes]
    log = asyncio.run(follow(there, "bob", *topics))
    sender = Sender(here, *topics)
    for turn in range(12):
        sender.more()
        kind = ("normal", "pubsub")[turn % 2]
        cluster.nodes[turn % 3].tell("CLIENT", "KILL", "TYPE", kind)
    sender.stop(log)


def test_a_replica_that_takes_over_goes_on_where_its_master_was(linked: Linked, cluster: Cluster):
    gaps: list[object] = []
    here, there = (
        linked(link=cluster.url, on_gap=lambda topic, count: gaps.append((topic, count)))
        for _ in range(2)
    )
    master = cluster.nodes[0]
    [topic] = topics_at(cluster, master, 1)
    log = asyncio.run(follow(there, "bob", topic))
    sender = Sender(here, topic)
    sender.more()
    replica = cluster.add_replica(master)
    # As planned: it takes over when it has everything.
    replica.tell("CLUSTER", "FAILOVER")
    until(lambda: cluster.home(channel(topic)) is replica, "it does not take over")
    sender.more()
    sender.stop(log)
    copied = lambda: b"master_link_status:up" in master.ask("INFO", "replication")  # noqa: E731
    until(copied, "it does not follow")
    assert replica.tell("WAIT", "1", "1000") == b":1\r\n"
    # And not as planned.
    replica.kill()
    here.send_all_on_topic(topic, "after")
    assert log.wait_for("after")[-1] == (topic, "after")
    replica.start()
    cluster.nodes[0], cluster.nodes[3] = master, replica
    until(lambda: all(map(cluster.is_well, cluster.nodes)), "no cluster")
    assert gaps == []


def test_a_server_that_is_in_no_cluster_is_no_link(
    linked: Linked, redis: RedisServer, caplog: pytest.LogCaptureFixture
):
    hub = linked(link=f"redis+cluster://127.0.0.1:{redis.port}")
    hub.send_all("waits")
    until(lambda: hub.link_state == "disconnected", "it is taken for one")
    until(lambda: "cluster support disabled" in caplog.text, "nobody is told why")
