"""Event loops that come and go under a hub that was given none."""

import asyncio
import weakref
from typing import Any

import pytest

from delivery_modes import LOOPS, Recorder, alive, turns_of_the_loop
from pagebus import PubSubHub, Subscription


@pytest.mark.parametrize("kind", LOOPS)
def test_a_handler_that_subscribes_again_on_a_new_loop_is_called_there(kind: str):
    hub, got, handles = PubSubHub(), Recorder(), list[Subscription]()

    async def handler(message: Any) -> None:
        got.record((message, asyncio.get_running_loop() is loop))

    async def program(message: int) -> None:
        handles.append(hub.subscribe("ann", handler))
        hub.send_all(message)
        await turns_of_the_loop(10)
        assert handles[-1].active

    for message in range(3):
        loop = LOOPS[kind]()
        loop.run_until_complete(program(message))
        loop.close()

    assert got == [(0, True), (1, True), (2, True)]
    assert hub.stats().subscriptions == 1
    assert [handle.active for handle in handles] == [False, False, True]


@pytest.mark.parametrize("topic", ["lobby", "topic {}"], ids=["one topic", "a topic each"])
@pytest.mark.parametrize("goodbye", ["inside", "after", "never"])
def test_the_loops_of_finished_programs_are_let_go(goodbye: str, topic: str, log: Any):
    hub, loops, got = PubSubHub(), list[weakref.ref[asyncio.AbstractEventLoop]](), Recorder()

    async def program(number: int) -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        session_id, name = f"session {number}", topic.format(number)

        async def handler(topic: str, message: Any) -> None:
            got.record(message)

        hub.subscribe_topic(session_id, name, handler)
        hub.send_all_on_topic(name, number)
        await turns_of_the_loop(3)
        if goodbye == "inside":
            hub.unsubscribe_all(session_id)

    for number in range(20):
        asyncio.run(program(number))
        if goodbye == "after":
            hub.unsubscribe_all(f"session {number}")

    # Who has said nothing is forgotten when the next one comes.
    left = 1 if goodbye == "never" else 0
    assert alive(loops, left) == hub.stats().sessions == left
    assert got == list(range(20))
