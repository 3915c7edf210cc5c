"""Types of the native module: who is subscribed to what, and how a message reaches a handler."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from types import TracebackType
from typing import Any, Literal, final

__all__ = [
    "HandlerFailure",
    "HubClosed",
    "Overflow",
    "PubSub",
    "PubSubHub",
    "Stats",
    "Subscription",
    "__version__",
]

__version__: str

# ---- hub ------------------------------------------------------------------------------------

@final
class PubSubHub:
    """The router that the sessions of one app share. Thread-safe; mirrors ``flet.PubSubHub``.

    How a handler is called depends on what the hub was given:

    ============== ================================== ==========================================
    handler        hub                                where it runs
    ============== ================================== ==========================================
    ``async``      with ``loop``                      on that loop, from any sending thread
    ``async``      without ``loop``                   on the loop that ran at ``subscribe``
    sync           with ``executor``                  on the executor, a session's calls in turn
    sync           without ``executor``               inside the send, on the sender's thread
    ============== ================================== ==========================================

    Messages reach a handler in the order in which they were sent, one at a time, in a copy of the
    ``contextvars`` context in which it was subscribed. A handler's exception is logged on the
    logger ``pagebus`` and never reaches the sender or another handler; only ``KeyboardInterrupt``
    and ``SystemExit`` of a handler that runs inside the send do reach the sender.

    Args:
        loop: The event loop on which async handlers run. Default: the loop that runs at
            ``subscribe``.
        executor: Where sync handlers run. Default: inside the send.
        max_pending: How many messages may wait in a queue, at least 1: for one handler that is
            busy, and for one topic whose event loop or executor is.
        overflow: What a full queue does; what is dropped is counted and reported. With
            ``"drop_oldest"`` the oldest message gives way, with ``"drop_newest"`` the one that
            comes is not taken, and with ``"unsubscribe"`` the handler that does not keep up loses
            its subscription (a topic whose event loop or executor is busy loses its oldest).
        on_error: Called with a :class:`HandlerFailure` after each failure has been logged.
        on_overflow: Called with an :class:`Overflow` when messages are dropped.

    Raises:
        TypeError: ``loop`` is not an event loop, ``executor`` has no ``submit``, a hook is not
            callable, ``max_pending`` is not an int, or ``overflow`` is not a string.
        ValueError: ``loop`` is closed, ``executor`` is shut down, ``max_pending`` < 1, or there
            is no such ``overflow``.
    """

    def __new__(
        cls,
        loop: asyncio.AbstractEventLoop | None = None,
        executor: Executor | None = None,
        *,
        max_pending: int = 10_000,
        overflow: Literal["drop_oldest", "drop_newest", "unsubscribe"] = "drop_oldest",
        on_error: Callable[[HandlerFailure], object] | None = None,
        on_overflow: Callable[[Overflow], object] | None = None,
    ) -> PubSubHub: ...
    def send_all(self, message: Any) -> None:
        """Send ``message`` to every broadcast handler of every session.

        Returns at once: one subscriber or ten thousand cost the sender the same. (Sync handlers
        of a hub without an executor have run when it returns, unless another thread, or a
        handler that is sending, delivers them.)

        Mirrors ``flet.PubSubHub.send_all``.

        Raises:
            HubClosed: The hub is closed.
            RuntimeError: The hub's loop is closed or its executor is shut down.
        """

    def send_all_on_topic(self, topic: str, message: Any) -> None:
        """Send ``message`` to every handler that is subscribed to ``topic``.

        Mirrors ``flet.PubSubHub.send_all_on_topic``.

        Raises:
            TypeError: ``topic`` is not a string.
            HubClosed: The hub is closed.
            RuntimeError: The hub's loop is closed or its executor is shut down.
        """

    def send_others(self, except_session_id: str, message: Any) -> None:
        """Send ``message`` to the broadcast handlers of every session but ``except_session_id``.

        Mirrors ``flet.PubSubHub.send_others``.

        Raises:
            TypeError: ``except_session_id`` is not a string.
            HubClosed: The hub is closed.
            RuntimeError: The hub's loop is closed or its executor is shut down.
        """

    def send_others_on_topic(self, except_session_id: str, topic: str, message: Any) -> None:
        """Send ``message`` to the handlers on ``topic`` of every session but ``except_session_id``.

        Mirrors ``flet.PubSubHub.send_others_on_topic``.

        Raises:
            TypeError: ``except_session_id`` or ``topic`` is not a string.
            HubClosed: The hub is closed.
            RuntimeError: The hub's loop is closed or its executor is shut down.
        """

    def subscribe(
        self, session_id: str, handler: Callable[[Any], object], *, concurrent: bool = False
    ) -> Subscription:
        """Call ``handler(message)`` for every message sent to all, from the next send on.

        Subscribing an equal handler of the same session again changes nothing, whatever
        ``concurrent`` is, and returns a handle on the subscription that exists.

        Mirrors ``flet.PubSubHub.subscribe`` (which returns ``None``).

        Args:
            session_id: The session that owns the subscription.
            handler: A callable, sync or async, that takes the message.
            concurrent: Let calls of this handler overlap: started in order, not awaited in order.

        Raises:
            TypeError: ``session_id`` is not a string, or ``handler`` is not callable, not
                hashable, or cannot be called with one positional argument.
            HubClosed: The hub is closed.
            RuntimeError: ``handler`` is async and there is no event loop to run it on, or the
                loop is closed, or the executor is shut down.
        """

    def subscribe_topic(
        self,
        session_id: str,
        topic: str,
        handler: Callable[[str, Any], object],
        *,
        concurrent: bool = False,
    ) -> Subscription:
        """Call ``handler(topic, message)`` for every message on ``topic``, from the next send on.

        Mirrors ``flet.PubSubHub.subscribe_topic`` (which returns ``None``).

        Args:
            session_id: The session that owns the subscription.
            topic: The topic's name.
            handler: A callable, sync or async, that takes the topic and the message.
            concurrent: Let calls of this handler overlap: started in order, not awaited in order.

        Raises:
            TypeError: ``session_id`` or ``topic`` is not a string, or ``handler`` is not
                callable, not hashable, or cannot be called with two positional arguments.
            HubClosed: The hub is closed.
            RuntimeError: ``handler`` is async and there is no event loop to run it on, or the
                loop is closed, or the executor is shut down.
        """

    def unsubscribe(self, session_id: str) -> None:
        """Remove the session's broadcast handlers; its topics stay.

        When it has returned, no new call of these handlers begins, whatever was queued.

        Mirrors ``flet.PubSubHub.unsubscribe``.

        Raises:
            TypeError: ``session_id`` is not a string.
        """

    def unsubscribe_topic(self, session_id: str, topic: str) -> None:
        """Remove the session's handlers on ``topic``.

        When it has returned, no new call of these handlers begins, whatever was queued.

        Mirrors ``flet.PubSubHub.unsubscribe_topic``.

        Raises:
            TypeError: ``session_id`` or ``topic`` is not a string.
        """

    def unsubscribe_all(self, session_id: str) -> None:
        """Remove everything of the session: broadcast handlers, topics and queued messages.

        When it has returned, no new call of these handlers begins, whatever was queued.

        Mirrors ``flet.PubSubHub.unsubscribe_all``.

        Raises:
            TypeError: ``session_id`` is not a string.
        """

    def close(self, timeout: float | None = 5.0) -> None:
        """Refuse new sends and subscriptions, and wait until what is queued is delivered.

        After ``timeout`` seconds, what is left is given up: counted in ``stats().dropped`` and
        logged as an error. Handlers that are still running are not stopped. A closed hub lets all
        its handlers go once it has nothing left to deliver. Closing a closed hub only waits.

        In one of the hub's handlers, which would wait for itself, and on the thread of an event
        loop that runs, it returns at once, and what is queued is still delivered: on an event
        loop, await :meth:`aclose`. ``with hub:`` closes it when the block ends.

        Args:
            timeout: Seconds, or ``None`` for as long as it takes.

        Raises:
            TypeError: ``timeout`` is not a number.
            ValueError: ``timeout`` is negative.
        """

    def aclose(self, timeout: float | None = 5.0) -> Coroutine[Any, Any, None]:
        """Do what :meth:`close` does, and let the event loop go on meanwhile.

        The hub refuses new work from the call on. If the coroutine is cancelled, what is queued
        is still delivered. In one of the hub's handlers it returns at once; a task of its own that
        the handler waits for does not know, and waits for the handler. ``async with hub:`` closes
        the hub when the block ends.

        Args:
            timeout: Seconds, or ``None`` for as long as it takes.

        Raises:
            TypeError: ``timeout`` is not a number.
            ValueError: ``timeout`` is negative.
        """

    def __enter__(self) -> PubSubHub: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...
    def __aenter__(self) -> Coroutine[Any, Any, PubSubHub]: ...
    def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> Coroutine[Any, Any, None]: ...
    @property
    def closed(self) -> bool:
        """Whether :meth:`close` or :meth:`aclose` has been called."""

    def stats(self) -> Stats:
        """The hub's counters and sizes at this moment."""

# ---- pubsub ---------------------------------------------------------------------------------

@final
class PubSub:
    """One session's view of a hub: Flet's ``page.pubsub``. Mirrors ``flet.PubSubClient``.

    Args:
        hub: The hub that the app's sessions share.
        session_id: This session's id.

    Raises:
        TypeError: ``hub`` is not a :class:`PubSubHub` or ``session_id`` is not a string.
    """

    def __new__(cls, hub: PubSubHub, session_id: str) -> PubSub: ...
    @property
    def hub(self) -> PubSubHub:
        """The hub."""

    @property
    def session_id(self) -> str:
        """The session's id."""

    def send_all(self, message: Any) -> None:
        """:meth:`PubSubHub.send_all`. Mirrors ``flet.PubSubClient.send_all``."""

    def send_all_on_topic(self, topic: str, message: Any) -> None:
        """:meth:`PubSubHub.send_all_on_topic`. Mirrors ``flet.PubSubClient.send_all_on_topic``."""

    def send_others(self, message: Any) -> None:
        """:meth:`PubSubHub.send_others`, excluding this session.

        Mirrors ``flet.PubSubClient.send_others``.
        """

    def send_others_on_topic(self, topic: str, message: Any) -> None:
        """:meth:`PubSubHub.send_others_on_topic`, excluding this session.

        Mirrors ``flet.PubSubClient.send_others_on_topic``.
        """

    def subscribe(
        self, handler: Callable[[Any], object], *, concurrent: bool = False
    ) -> Subscription:
        """:meth:`PubSubHub.subscribe` for this session. Mirrors ``flet.PubSubClient.subscribe``."""

    def subscribe_topic(
        self, topic: str, handler: Callable[[str, Any], object], *, concurrent: bool = False
    ) -> Subscription:
        """:meth:`PubSubHub.subscribe_topic` for this session.

        Mirrors ``flet.PubSubClient.subscribe_topic``.
        """

    def unsubscribe(self) -> None:
        """:meth:`PubSubHub.unsubscribe` of this session.

        Mirrors ``flet.PubSubClient.unsubscribe``.
        """

    def unsubscribe_topic(self, topic: str) -> None:
        """:meth:`PubSubHub.unsubscribe_topic` of this session.

        Mirrors ``flet.PubSubClient.unsubscribe_topic``.
        """

    def unsubscribe_all(self) -> None:
        """:meth:`PubSubHub.unsubscribe_all` of this session.

        Mirrors ``flet.PubSubClient.unsubscribe_all``.
        """

# ---- subscription ---------------------------------------------------------------------------

@final
class Subscription:
    """A handle on one handler's subscription; as a context manager it cancels on exit.

    The handle keeps neither the subscription nor its handler alive: dropping it cancels nothing.
    """

    @property
    def active(self) -> bool:
        """Whether the handler is still subscribed."""

    @property
    def session_id(self) -> str:
        """The session that owns the subscription."""

    @property
    def topic(self) -> str | None:
        """The topic, or ``None`` for a subscription to messages sent to all."""

    def cancel(self) -> None:
        """Remove this handler only. Cancelling again changes nothing.

        When it has returned, no new call of the handler begins, whatever was queued.
        """

    def __enter__(self) -> Subscription: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

# ---- stats ----------------------------------------------------------------------------------

@final
class Stats:
    """What a hub has done and holds, in messages, calls and subscriptions."""

    @property
    def published(self) -> int:
        """Sends since the hub was made, whether anybody listened or not."""

    @property
    def delivered(self) -> int:
        """Handler calls that were begun, as of the end of each deliverer's turn."""

    @property
    def failed(self) -> int:
        """Handler calls that raised."""

    @property
    def dropped(self) -> int:
        """Deliveries given up, because a queue was full or a loop or executor was gone.

        Exact when nothing is pending: what gave way in the middle of a queue is counted later.
        """

    @property
    def pending(self) -> int:
        """Messages that wait in the hub's queues now, without the one that is being dispatched."""

    @property
    def sessions(self) -> int:
        """Sessions that have a subscription now."""

    @property
    def topics(self) -> int:
        """Topics that have a subscription now."""

    @property
    def subscriptions(self) -> int:
        """Subscriptions now."""

# ---- report ---------------------------------------------------------------------------------

@final
class HandlerFailure:
    """One failed delivery, as given to the hub's ``on_error`` hook."""

    @property
    def exception(self) -> BaseException:
        """What the handler raised, with its traceback."""

    @property
    def session_id(self) -> str:
        """The session whose handler failed."""

    @property
    def topic(self) -> str | None:
        """The topic, or ``None`` for a message sent to all."""

    @property
    def handler(self) -> Callable[..., object]:
        """The handler that failed."""

    @property
    def message(self) -> Any:
        """The message that it was given."""

@final
class Overflow:
    """Messages dropped, as given to the hub's ``on_overflow`` hook.

    One burst, from the first drop until the queue is empty again, gives two: the first with
    ``dropped`` = 1, the last with the number of the whole burst (unless the handler leaves
    before). A handler that lost its subscription gives one, with all that it lost.

    Where one handler does not keep up, it is named. Where the event loop or the executor itself
    does not, messages are dropped for all that listen to a topic: ``session_id`` and ``handler``
    are ``None`` and ``dropped`` counts messages, not deliveries.
    """

    @property
    def session_id(self) -> str | None:
        """The session whose handler does not keep up."""

    @property
    def topic(self) -> str | None:
        """The topic, or ``None`` for messages sent to all."""

    @property
    def handler(self) -> Callable[..., object] | None:
        """The handler that does not keep up."""

    @property
    def dropped(self) -> int:
        """Messages dropped in this burst so far."""

class HubClosed(RuntimeError):  # noqa: N818 - a state, named as in asyncio.QueueShutDown
    """A send or a subscription on a hub that is closed."""
