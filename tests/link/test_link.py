"""Linking hubs: what may be said, and what a linked hub refuses. What hubs tell each other is in
`test_conformance.py`."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from link_tools import PATIENCE, Json, Linked, Log, follow, until
from redis_server import RedisServer

from pagebus import HubClosed, Listener, PubSubHub

pytestmark = pytest.mark.link


class Panics(Json):
    """A codec that meets a fault in native code."""

    @staticmethod
    def decode(data: bytes) -> Any:
        if data == b'"hello"':
            raise ValueError("there is no such class before the first error")
        raise faults()[json.loads(data)]("a fault")


def faults() -> list[type[BaseException]]:
    """What faults in native code look like; each module that is written so has its own."""
    return [kind for kind in BaseException.__subclasses__() if "Panic" in kind.__name__]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_link_whose_thread_meets_a_fault_does_not_seem_to_be_there(
    linked: Linked, caplog: pytest.LogCaptureFixture
):
    states: list[str] = []
    hub = linked(codec=Panics, on_link_state=states.append)
    asyncio.run(follow(hub, "ann"))
    hub.send_all("hello")
    until(lambda: hub.stats().unreadable == 1, "it does not come")
    for number in range(len(faults())):
        with contextlib.suppress(HubClosed):
            hub.send_all(number)
    until(lambda: hub.link_state == "closed", "nobody knows")
    assert states == ["connected", "disconnected", "closed"]
    assert [r.message for r in caplog.records if "a fault of its own" in r.message]
    with pytest.raises(HubClosed, match="the hub's link has ended"):
        hub.send_all("hello")
    # There is nothing to wait for.
    hub.close(None)


def test_a_linked_hub_that_is_closed_takes_no_messages(linked: Linked):
    hub = linked()
    hub.close()
    with pytest.raises(HubClosed):
        hub.send_all("too late")


@pytest.mark.parametrize("how", ["subscribe", "subscribe_presence", "listen"])
def test_where_no_thread_can_be_started_nobody_is_subscribed(
    linked: Linked, monkeypatch: pytest.MonkeyPatch, how: str
):
    hub = linked()

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    ways: dict[str, Callable[[], object]] = {
        "subscribe": lambda: hub.subscribe("ann", lambda message: None),
        "subscribe_presence": lambda: hub.subscribe_presence("ann", "news", print),
        "listen": lambda: hub.listen("ann").__enter__(),
    }
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            ways[how]()
    assert hub.stats().subscriptions == 0
    ways[how]()
    assert hub.stats().subscriptions == 1


def test_a_message_that_is_too_large_is_refused_at_the_send(linked: Linked):
    hub = linked(max_message_bytes=100)
    with pytest.raises(ValueError, match=r"message must not have more than 100 bytes .*has 102"):
        hub.send_all("x" * 100)


def test_a_message_that_the_codec_cannot_encode_is_refused_at_the_send(linked: Linked):
    with pytest.raises(TypeError, match="not JSON serializable"):
        linked().send_all(object())


def test_a_link_that_is_no_url_is_refused():
    with pytest.raises(ValueError, match="link cannot be used: "):
        PubSubHub(link="nowhere", codec=Json)
    with pytest.raises(TypeError, match="link must be a str, not int"):
        PubSubHub(link=7, codec=Json)  # type: ignore[arg-type]


def test_without_a_link_there_is_no_state_and_everybody_is_ready():
    hub = PubSubHub()
    assert hub.link_state is None
    asyncio.run(hub.subscribe("ann", print).ready())


def test_namespaces_are_apart_whatever_they_are_called(linked: Linked):
    async def main() -> None:
        here, there = linked(namespace="app"), linked(namespace="app:tx")
        bob = await follow(there, "bob", "news")
        here.send_all_on_topic("x:tnews", "of the app")
        await asyncio.to_thread(until, lambda: here.stats().outbox == 0, "it is not published")
        there.send_all_on_topic("news", "of its own")
        assert bob.wait_for("of its own") == [("news", "of its own")]

    asyncio.run(main())


def test_hubs_on_two_databases_of_one_server_hear_nothing_of_each_other(linked: Linked, redis: Any):
    async def main() -> None:
        here, there = linked(), linked(link=f"{redis.url[:-1]}1")
        ann, bob = await follow(here, "ann", "news"), await follow(there, "bob", "news")
        here.send_all_on_topic("news", "in the first")
        ann.wait(1)
        there.send_all_on_topic("news", "in the second")
        assert bob.wait_for("in the second") == [("news", "in the second")]
        assert ann == [("news", "in the first")]
        assert here.stats().unreadable == there.stats().unreadable == 0

    asyncio.run(main())


def test_who_waits_for_a_subscription_that_has_ended_does_not_wait_for_ever(linked: Linked):
    async def main() -> None:
        hub = linked()
        ended = hub.subscribe_topic("ann", "news", print)
        ended.cancel()
        await asyncio.wait_for(ended.ready(), PATIENCE)
        ends = hub.subscribe_topic("ann", "sports", print)
        waiting = asyncio.ensure_future(ends.ready())
        await asyncio.sleep(0)
        ends.cancel()
        await asyncio.wait_for(waiting, PATIENCE)
        closed = hub.subscribe_topic("ann", "weather", print)
        await hub.aclose()
        await asyncio.wait_for(closed.ready(), PATIENCE)

    asyncio.run(main())


@pytest.mark.parametrize("topic", [None, "news"])
def test_who_reads_a_stream_that_is_ready_misses_nothing(linked: Linked, topic: str | None):
    async def main() -> None:
        here, there = linked(), linked()
        for number in range(10):
            async with there.stream("bob", topic) as messages:
                await asyncio.wait_for(messages.ready(), PATIENCE)
                send(here, topic, number)
                assert await asyncio.wait_for(anext(messages), PATIENCE) == number

    asyncio.run(main())


@pytest.mark.parametrize("topic", [None, "news"])
def test_a_thread_whose_listener_is_ready_misses_nothing(linked: Linked, topic: str | None):
    here, there = linked(), linked()
    for number in range(10):
        with there.listen("bob", topic, timeout=PATIENCE) as messages:
            messages.ready(PATIENCE)
            send(here, topic, number)
            assert next(messages) == number


def send(hub: PubSubHub, topic: str | None, message: Any) -> None:
    if topic is None:
        hub.send_all(message)
    else:
        hub.send_all_on_topic(topic, message)


def test_who_waits_for_a_stream_that_ends_does_not_wait_for_ever(linked: Linked):
    async def main() -> None:
        hub = linked()
        async with hub.stream("ann", "news") as messages:
            waiting = asyncio.ensure_future(messages.ready())
            await asyncio.sleep(0)
            hub.unsubscribe_all("ann")
            await asyncio.wait_for(waiting, PATIENCE)
            assert [message async for message in messages] == []

    asyncio.run(main())


def test_a_listener_that_waits_for_a_server_that_is_away_can_give_up(
    linked: Linked, own_redis: RedisServer
):
    own_redis.kill()
    hub = linked(own_redis)

    async def on_a_loop(messages: Listener) -> None:
        with pytest.raises(RuntimeError, match=r"stop the event loop .* use stream\(\)"):
            messages.ready()
        with pytest.raises(TimeoutError):
            messages.ready(0)

    with hub.listen("ann", "news") as messages:
        for timeout in (0, 0.01):
            with pytest.raises(TimeoutError, match=f"confirmed nothing within {timeout} seconds"):
                messages.ready(timeout)
        asyncio.run(on_a_loop(messages))


def test_a_subscription_to_presence_is_ready_at_once(linked: Linked):
    async def main() -> None:
        subscription = linked().subscribe_presence("ann", "news", print)
        await asyncio.wait_for(subscription.ready(), PATIENCE)

    asyncio.run(main())


def test_who_subscribes_and_sends_at_once_hears_it(linked: Linked):
    for number in range(30):
        hub, log = linked(), Log()
        hub.subscribe_topic("ann", f"news/{number}", log.add)
        hub.send_all_on_topic(f"news/{number}", "hello")
        log.wait_for("hello")
        assert log == [(f"news/{number}", "hello")]


def test_waiting_for_a_subscription_of_a_hub_that_closes_comes_to_an_end(linked: Linked):
    async def main() -> None:
        hub, goes_on = linked(), asyncio.Event()
        begun = asyncio.Event()

        async def handler(message: Any) -> None:
            begun.set()
            await goes_on.wait()

        subscription = hub.subscribe("ann", handler)
        await subscription.ready()
        hub.send_all("hello")
        await begun.wait()
        closing = asyncio.ensure_future(hub.aclose())
        await asyncio.get_running_loop().run_in_executor(
            None, until, lambda: hub.link_state == "closed", "the link goes on"
        )
        await asyncio.wait_for(subscription.ready(), PATIENCE)
        goes_on.set()
        await closing

    asyncio.run(main())
