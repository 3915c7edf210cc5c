"""pagebus and Flet's own hub are given the same operations and must deliver the same messages.

A Hypothesis state machine draws sequences of all nine operations, through hubs and through
clients, on several sessions, topics and handlers, and lets both hubs carry them out. Whenever both
have settled, every handler must have got the same messages, as often, from both.

Where the two differ on purpose, the machine keeps out of the way:

=============================== =========================== ====================================
what                            Flet                        pagebus, and how the machine copes
=============================== =========================== ====================================
order of messages               whatever the loop and the   as sent; compared as multisets, and
                                pool make of it             pagebus's own order is checked
messages queued at a goodbye    still arrive                do not arrive; both settle before
                                                            every goodbye
subscribe, subscribe_topic      return None                 return a Subscription; not compared
a hub without a loop            cannot send                 can; Flet's always gets a loop
an object with async __call__,  called, never awaited       awaited; the machine's handlers are
a lambda returning a coroutine                              coroutine functions and functions
a handler that raises           vanishes, or stops the      is logged and reported; the machine's
                                fan-out and hits the sender handlers only record
a handler that uses the hub     deadlocks without executor  may; the machine's handlers only
                                                            record
a session id or topic that is   accepted                    refused; the machine's are strings
no string, a handler that
cannot be called
the client's first parameter    is named ``pubsub``         is named ``hub``; given by position
=============================== =========================== ====================================
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import flet.pubsub.pubsub_client
import flet.pubsub.pubsub_hub
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

import pagebus
from delivery_modes import WatchedExecutor, turns_of_the_loop

EXAMPLES = 500
STEPS = 25

SESSIONS = ["ann", "bob", "cat"]
TOPICS = ["lobby", "kitchen"]
HANDLERS = range(4)

sessions = st.sampled_from(SESSIONS)
topics = st.sampled_from(TOPICS)
handlers = st.sampled_from(HANDLERS)
through_client = st.booleans()


@dataclass(frozen=True)
class Delivery:
    """One way in which both hubs deliver in a run of the machine."""

    name: str
    is_async: tuple[bool, ...]
    has_executor: bool = False
    ours_has_loop: bool = True

    def __str__(self) -> str:
        return self.name


ASYNC, SYNC, BOTH = (True,), (False,), (True, False)

DELIVERIES = [
    Delivery("async on the hub's loop", ASYNC),
    Delivery("async on the subscriber's loop", ASYNC, ours_has_loop=False),
    Delivery("sync on the executor", SYNC, has_executor=True),
    Delivery("sync on the executor, without a loop", SYNC, has_executor=True, ours_has_loop=False),
    Delivery("sync inline", SYNC),
    Delivery("sync inline, without a loop", SYNC, ours_has_loop=False),
    Delivery("sync on the executor and async on the loop", BOTH, has_executor=True),
]


class Side:
    """One of the two hubs, its clients, and a set of handlers that record what it delivers."""

    def __init__(self, hub: Any, client: Any, is_async: tuple[bool, ...]) -> None:
        self.hub = hub
        self.clients = {session_id: client(hub, session_id) for session_id in SESSIONS}
        self.got: list[tuple[int, tuple[Any, ...]]] = []
        self.handlers = [self._handler(n, is_async[n % len(is_async)]) for n in HANDLERS]

    def any_way(self, client: bool, session_id: str) -> Any:
        """The hub, or a session's client: for what both do alike."""
        return self.clients[session_id] if client else self.hub

    def for_session(self, client: bool, operation: str, session_id: str, *args: Any) -> None:
        """What a hub does for a session that it is told, and a client for its own."""
        if client:
            getattr(self.clients[session_id], operation)(*args)
        else:
            getattr(self.hub, operation)(session_id, *args)

    def _handler(self, number: int, is_async: bool) -> Callable[..., Any]:
        def handler(*args: Any) -> None:
            self.got.append((number, args))

        async def async_handler(*args: Any) -> None:
            self.got.append((number, args))

        return async_handler if is_async else handler


class SameAsFlet(RuleBasedStateMachine):
    """Both hubs side by side."""

    delivery: ClassVar[Delivery]
    loop: ClassVar[asyncio.AbstractEventLoop]
    executor: ClassVar[WatchedExecutor]

    @initialize()
    def make_hubs(self) -> None:
        executor = self.executor if self.delivery.has_executor else None
        self.flet = Side(
            flet.pubsub.pubsub_hub.PubSubHub(loop=self.loop, executor=executor),
            flet.pubsub.pubsub_client.PubSubClient,
            self.delivery.is_async,
        )
        self.pagebus = Side(
            pagebus.PubSubHub(
                loop=self.loop if self.delivery.ours_has_loop else None, executor=executor
            ),
            pagebus.PubSubClient,
            self.delivery.is_async,
        )
        self.sent = 0

    def do(self, operation: Callable[[Side], object]) -> None:
        """Carry it out on both hubs, as code that runs on the loop does."""

        async def on_the_loop() -> None:
            for side in (self.flet, self.pagebus):
                operation(side)

        self.loop.run_until_complete(on_the_loop())

    def settle(self) -> None:
        """Let both deliver everything."""
        hub = self.pagebus.hub
        while True:
            delivered = hub.stats().delivered
            self.loop.run_until_complete(turns_of_the_loop(4))
            self.executor.wait_idle()
            stats = hub.stats()
            if stats.pending == 0 and stats.delivered == delivered:
                break
        assert Counter(self.pagebus.got) == Counter(self.flet.got)

    def next_message(self) -> int:
        self.sent += 1
        return self.sent

    # ---- the nine operations ---------------------------------------------------------------

    @rule(client=through_client, session=sessions)
    def send_all(self, client: bool, session: str) -> None:
        message = self.next_message()
        self.do(lambda side: side.any_way(client, session).send_all(message))

    @rule(client=through_client, session=sessions, topic=topics)
    def send_all_on_topic(self, client: bool, session: str, topic: str) -> None:
        message = self.next_message()
        self.do(lambda side: side.any_way(client, session).send_all_on_topic(topic, message))

    @rule(client=through_client, session=sessions)
    def send_others(self, client: bool, session: str) -> None:
        message = self.next_message()
        self.do(lambda side: side.for_session(client, "send_others", session, message))

    @rule(client=through_client, session=sessions, topic=topics)
    def send_others_on_topic(self, client: bool, session: str, topic: str) -> None:
        args = "send_others_on_topic", session, topic, self.next_message()
        self.do(lambda side: side.for_session(client, *args))

    @rule(client=through_client, session=sessions, handler=handlers)
    def subscribe(self, client: bool, session: str, handler: int) -> None:
        self.do(lambda side: side.for_session(client, "subscribe", session, side.handlers[handler]))

    @rule(client=through_client, session=sessions, topic=topics, handler=handlers)
    def subscribe_topic(self, client: bool, session: str, topic: str, handler: int) -> None:
        args = "subscribe_topic", session, topic
        self.do(lambda side: side.for_session(client, *args, side.handlers[handler]))

    @rule(client=through_client, session=sessions)
    def unsubscribe(self, client: bool, session: str) -> None:
        self.settle()
        self.do(lambda side: side.for_session(client, "unsubscribe", session))

    @rule(client=through_client, session=sessions, topic=topics)
    def unsubscribe_topic(self, client: bool, session: str, topic: str) -> None:
        self.settle()
        self.do(lambda side: side.for_session(client, "unsubscribe_topic", session, topic))

    @rule(client=through_client, session=sessions)
    def unsubscribe_all(self, client: bool, session: str) -> None:
        self.settle()
        self.do(lambda side: side.for_session(client, "unsubscribe_all", session))

    # ---- the end ---------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "pagebus"):
            return
        self.settle()
        self.check_order()
        stats = self.pagebus.hub.stats()
        assert (stats.published, stats.failed, stats.dropped) == (self.sent, 0, 0)

    def check_order(self) -> None:
        """Every handler got its messages in the order sent: so far as one queue served it."""
        if self.delivery.has_executor:
            # A handler of two sessions is called on two workers: they have no order in common.
            return
        for number in HANDLERS:
            messages = [args[-1] for handler, args in self.pagebus.got if handler == number]
            assert messages == sorted(messages)


# Hypothesis looks at the source of the machine.
@pytest.mark.thread_unsafe(reason="CPython 3.11 and older parse source in one thread only")
@pytest.mark.parametrize("delivery", DELIVERIES, ids=str)
def test_the_same_operations_deliver_the_same_messages(delivery: Delivery, log: Any):
    class Machine(SameAsFlet):
        pass

    Machine.delivery = delivery
    Machine.loop = asyncio.new_event_loop()
    Machine.executor = WatchedExecutor(2)
    try:
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        Machine.executor.shutdown()
        Machine.loop.close()
