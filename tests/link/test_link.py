"""Linking hubs: what may be said, and what a linked hub refuses. What hubs tell each other is in
`test_conformance.py`."""

import asyncio
from typing import Any

import pytest
from link_tools import PATIENCE, Json, Linked, Log, follow, until

from pagebus import HubClosed, PubSubHub

pytestmark = pytest.mark.link


class Panics(Json):
    """A codec that meets a fault in native code."""

    @staticmethod
    def decode(data: bytes) -> Any:
        panics = [kind for kind in BaseException.__subclasses__() if "Panic" in kind.__name__]
        if panics and data == b'"panic"':
            raise panics[0]("a fault")
        raise ValueError("there is no such class before the first error")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_link_whose_thread_meets_a_fault_does_not_seem_to_be_there(
    linked: Linked, caplog: pytest.LogCaptureFixture
):
    states: list[str] = []
    hub = linked(codec=Panics, on_link_state=states.append)
    asyncio.run(follow(hub, "ann"))
    hub.send_all("hello")
    until(lambda: hub.stats().unreadable == 1, "it does not come")
    hub.send_all("panic")
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
