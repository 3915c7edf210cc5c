"""Types of the native module: who is subscribed to what, and how a message reaches a handler."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from types import TracebackType
from typing import Any, Literal, TypeAlias, final

from pagebus._codec import Codec

__all__ = [
    "BusyTopic",
    "DecodeError",
    "FailingHandler",
    "HandlerFailure",
    "HubClosed",
    "Listener",
    "MessagePack",
    "OutboxFull",
    "Overflow",
    "Presence",
    "PubSub",
    "PubSubHub",
    "SlowHandler",
    "Stats",
    "Stream",
    "Subscription",
    "__version__",
    "_register",
]

__version__: str

_LinkState: TypeAlias = Literal["connecting", "connected", "disconnected", "closed"]

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
        history: How many messages of each topic, and of those sent to all, are kept for handlers
            that subscribe with ``replay``; :meth:`keep` says so for one topic.
        max_history: How many messages are kept in all. Beyond that, the topic that was sent to or
            replayed least recently loses all of its own.
        link: The URL of a Redis or Valkey server (``redis://``), of sentinels
            (``redis+sentinel://``) or of a cluster (``redis+cluster://``). Hubs of any processes
            with the same server and the same ``namespace`` are one hub: what is sent on one
            reaches the sessions of all. It is delivered once it has come back from the server, to
            the sender's sessions too.
        namespace: What keeps the hubs of several apps apart on one server.
        codec: Makes bytes of messages, and messages of bytes.
        max_message_bytes: Larger messages are refused by the send.
        max_outbox: How many messages may wait for the server. Beyond that, the oldest is given up:
            counted in ``stats().unpublished``, logged and given to ``on_overflow``.
        on_gap: Called with a topic (``None`` for what is not on a topic) and a number of entries
            (``None`` if nobody knows) when the server has lost what this hub had not had yet.
        on_link_state: Called with each new :attr:`link_state`.
        presence: Tell the other hubs who is on which topic here, and know it of those that do the
            same: :meth:`sessions`, :meth:`topics`, :meth:`subscriber_count` and
            :meth:`subscribe_presence` tell of all of them, as far as this hub follows a topic,
            because a session of it is there or watches it.

    Raises:
        TypeError: ``loop`` is not an event loop, ``executor`` has no ``submit``, a hook is not
            callable, a number is not an int, ``presence`` is not a bool, or ``overflow``, ``link``
            or ``namespace`` is not a string.
        ValueError: ``loop`` is closed, ``executor`` is shut down, ``max_pending``,
            ``max_message_bytes`` or ``max_outbox`` < 1, another number is negative, there is no
            such ``overflow``, ``link`` is no such URL, or there is ``presence`` without ``link``.
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
        history: int = 0,
        max_history: int = 100_000,
        link: str | None = None,
        namespace: str = "default",
        codec: Codec | None = None,
        max_message_bytes: int = 1_048_576,
        max_outbox: int = 10_000,
        on_gap: Callable[[str | None, int | None], object] | None = None,
        on_link_state: Callable[[_LinkState], object] | None = None,
        presence: bool = False,
    ) -> PubSubHub: ...
    def send_all(self, message: Any) -> None:
        """Send ``message`` to all: to the handlers of every session, but those on topics.

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
        """Send ``message`` to all sessions but ``except_session_id``, as :meth:`send_all` does.

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

    def send_to(self, session_id: str, message: Any) -> None:
        """Send ``message`` to one session: to its handlers for what is sent to all.

        In order with everything else that is sent. Goes nowhere if the session has no such handler.

        Raises:
            TypeError: ``session_id`` is not a string.
            HubClosed: The hub is closed.
            RuntimeError: The hub's loop is closed or its executor is shut down.
        """

    def subscribe(
        self,
        session_id: str,
        handler: Callable[[Any], object],
        *,
        concurrent: bool = False,
        replay: int = 0,
    ) -> Subscription:
        """Call ``handler(message)`` for every message sent to all, from the next send on.

        Subscribing an equal handler of the same session again changes nothing, whatever
        ``concurrent`` is, and returns a handle on the subscription that exists.

        Mirrors ``flet.PubSubHub.subscribe`` (which returns ``None``).

        Args:
            session_id: The session that owns the subscription.
            handler: A callable, sync or async, that takes the message.
            concurrent: Let calls of this handler overlap: started in order, not awaited in order.
            replay: How many of the messages that are kept it gets first; ``max_pending`` at the
                most. What is sent meanwhile follows, without a gap and without a double.

        Raises:
            TypeError: ``session_id`` is not a string, ``replay`` is not an int, or ``handler`` is
                not callable, not hashable, or cannot be called with one positional argument.
            ValueError: ``replay`` is negative, or no messages are kept.
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
        replay: int = 0,
    ) -> Subscription:
        """Call ``handler(topic, message)`` for every message on ``topic``, from the next send on.

        Mirrors ``flet.PubSubHub.subscribe_topic`` (which returns ``None``).

        Args:
            session_id: The session that owns the subscription.
            topic: The topic's name.
            handler: A callable, sync or async, that takes the topic and the message.
            concurrent: Let calls of this handler overlap: started in order, not awaited in order.
            replay: As in :meth:`subscribe`.

        Raises:
            TypeError: ``session_id`` or ``topic`` is not a string, ``replay`` is not an int, or
                ``handler`` is not callable, not hashable, or cannot be called with two positional
                arguments.
            ValueError: ``replay`` is negative, or no messages of the topic are kept.
            HubClosed: The hub is closed.
            RuntimeError: ``handler`` is async and there is no event loop to run it on, or the
                loop is closed, or the executor is shut down.
        """

    def subscribe_presence(
        self, session_id: str, topic: str, handler: Callable[[Presence], object]
    ) -> Subscription:
        """Call ``handler(presence)`` when sessions come to ``topic`` and when they leave it.

        The first call tells who is there. Changes that come faster than they can be told are
        told together and never dropped, whatever ``max_pending`` and ``overflow`` say; replaying
        all that was told gives :meth:`sessions` of the topic. Watching a topic is not being on it.
        The handle that is returned ends it, and so does :meth:`unsubscribe_all`;
        :meth:`unsubscribe_topic` does not.

        Args:
            session_id: The session that owns the subscription.
            topic: The topic's name.
            handler: A callable, sync or async, that takes a :class:`Presence`.

        Raises:
            TypeError, HubClosed, RuntimeError: As for :meth:`subscribe`, or ``topic`` is not a
                string.
        """

    def stream(self, session_id: str, topic: str | None = None, *, replay: int = 0) -> Stream:
        """The session's messages for an ``async for`` loop: on ``topic``, or those sent to all.

        ``async with hub.stream("ann", "news") as messages`` subscribes; its end unsubscribes.

        Args:
            session_id: The session that owns the subscription.
            topic: The topic's name. Default: what is sent to all.
            replay: As in :meth:`subscribe`.

        Raises:
            TypeError: ``session_id`` or ``topic`` is not a string, or ``replay`` is not an int.
            ValueError: ``replay`` is negative.
        """

    def listen(
        self,
        session_id: str,
        topic: str | None = None,
        *,
        timeout: float | None = None,
        replay: int = 0,
    ) -> Listener:
        """The session's messages for the ``for`` loop of a thread; the twin of :meth:`stream`.

        ``with hub.listen("ann", "news") as messages`` subscribes; its end unsubscribes.

        Args:
            session_id: The session that owns the subscription.
            topic: The topic's name. Default: what is sent to all.
            timeout: Seconds to wait for each message, or ``None`` for as long as it takes.
            replay: As in :meth:`subscribe`.

        Raises:
            TypeError: ``session_id`` or ``topic`` is not a string, ``timeout`` is not a number, or
                ``replay`` is not an int.
            ValueError: ``timeout`` or ``replay`` is negative.
        """

    def unsubscribe(self, session_id: str) -> None:
        """Remove the session's handlers for what is sent to all; its topics stay.

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
        """Remove everything of the session: all handlers, and what is queued for them.

        When it has returned, no new call of these handlers begins, whatever was queued.

        Mirrors ``flet.PubSubHub.unsubscribe_all``.

        Raises:
            TypeError: ``session_id`` is not a string.
        """

    def keep(self, topic: str | None, *, messages: int, seconds: float | None = None) -> None:
        """Keep the last messages of one topic, instead of what ``PubSubHub(history=...)`` says.

        Args:
            topic: The topic's name, or ``None`` for what is sent to all.
            messages: How many; 0 for none.
            seconds: How long at the most. Default: for as long as there is room.

        Raises:
            TypeError: ``topic`` is not a string, ``messages`` not an int or ``seconds`` not a
                number.
            ValueError: ``messages`` is negative, or ``seconds`` is not more than 0.
        """

    def sessions(self, topic: str | None = None) -> dict[str, Mapping[str, Any]]:
        """Tell who is subscribed: session ids, with what each session says of itself.

        On a hub that shares presence, those of other hubs too: on ``topic``, if this hub follows
        it, or on any topic that it follows.

        Args:
            topic: A topic whose subscribers to tell. Default: every session with a subscription.

        Raises:
            TypeError: ``topic`` is not a string.
        """

    def topics(self) -> list[str]:
        """Tell the topics that have a subscriber now, in no particular order.

        On a hub that shares presence, a topic that it follows may have them on other hubs alone.
        """

    def subscriber_count(self, topic: str) -> int:
        """Tell how many sessions are subscribed to ``topic``: ``len(hub.sessions(topic))``.

        Raises:
            TypeError: ``topic`` is not a string.
        """

    def close(self, timeout: float | None = 5.0) -> None:
        """Refuse new sends and subscriptions, and wait until what is queued is delivered.

        After ``timeout`` seconds, what is left is given up: counted in ``stats().dropped`` and
        logged as an error. Handlers that are still running are not stopped. A closed hub lets all
        its handlers go once it has nothing left to deliver. Closing a closed hub only waits.

        In one of the hub's handlers, which would wait for itself, and on the thread of an event
        loop that runs, it returns at once, and what is queued is still delivered: on an event
        loop, await :meth:`aclose`. Ctrl-C ends the wait, and what is queued is still delivered.
        ``with hub:`` closes the hub when the block ends.

        Args:
            timeout: Seconds, or ``None`` for as long as it takes.

        Raises:
            TypeError: ``timeout`` is not a number.
            ValueError: ``timeout`` is negative.
        """

    def aclose(self, timeout: float | None = 5.0) -> Coroutine[Any, Any, None]:
        """Do what :meth:`close` does, and let the event loop go on meanwhile.

        The hub refuses new work from the call on. If the coroutine is cancelled, what is queued
        is still delivered. In one of the hub's handlers it returns at once; not so in another task
        that such a handler starts and awaits: the two wait for each other until the timeout.
        ``async with hub:`` closes the hub when the block ends.

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
    def _close_anywhere(self, timeout: float | None) -> None: ...
    def _wait_for_room(self, timeout: float | None) -> None: ...
    @property
    def closed(self) -> bool:
        """Whether :meth:`close` or :meth:`aclose` has been called.

        What was queued then may still be on its way.
        """

    @property
    def link_state(self) -> _LinkState | None:
        """How the hub stands to its server, or ``None`` for a hub without a link."""

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

    def send_to(self, session_id: str, message: Any) -> None:
        """:meth:`PubSubHub.send_to`: a direct message to another session, or to this one."""

    def subscribe(
        self, handler: Callable[[Any], object], *, concurrent: bool = False, replay: int = 0
    ) -> Subscription:
        """:meth:`PubSubHub.subscribe` for this session. Mirrors ``flet.PubSubClient.subscribe``."""

    def subscribe_topic(
        self,
        topic: str,
        handler: Callable[[str, Any], object],
        *,
        concurrent: bool = False,
        replay: int = 0,
    ) -> Subscription:
        """:meth:`PubSubHub.subscribe_topic` for this session.

        Mirrors ``flet.PubSubClient.subscribe_topic``.
        """

    def subscribe_presence(self, topic: str, handler: Callable[[Presence], object]) -> Subscription:
        """:meth:`PubSubHub.subscribe_presence` for this session."""

    def identify(self, **info: Any) -> None:
        """Say what others may see of this session: ``identify(name="Ann")``.

        Replaces what was said before. Others get it from :meth:`PubSubHub.sessions` and in
        :class:`Presence` records, for as long as the session has a subscription, and again when
        it subscribes with this client.

        Raises:
            TypeError, ValueError: The hub shares presence, and its codec cannot encode ``info``,
                or that has more than ``max_message_bytes``. What was said before stays.
        """

    def stream(self, topic: str | None = None, *, replay: int = 0) -> Stream:
        """:meth:`PubSubHub.stream` of this session."""

    def listen(
        self, topic: str | None = None, *, timeout: float | None = None, replay: int = 0
    ) -> Listener:
        """:meth:`PubSubHub.listen` of this session."""

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

    async def ready(self) -> None:
        """Return when nothing that other processes send from now on is missed.

        At once for a hub without a link. For a subscription to presence: when those who are on
        other hubs have been told, if the hub shares presence. Subscribing itself does not wait for
        the server, which takes as long as one question and its answer do.
        """

    def _when_ready(self, callback: Callable[[], object]) -> int: ...
    def _forget_ready(self, callback: Callable[[], object]) -> None: ...
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

# ---- presence -------------------------------------------------------------------------------

@final
class Presence:
    """Who came to a topic and who left it, as given to a handler of ``subscribe_presence``."""

    @property
    def topic(self) -> str:
        """The topic."""

    @property
    def joined(self) -> Mapping[str, Mapping[str, Any]]:
        """Sessions that came, or say something else of themselves, with what they say."""

    @property
    def left(self) -> Mapping[str, Mapping[str, Any]]:
        """Sessions that left, with what they said of themselves."""

# ---- stream ---------------------------------------------------------------------------------

@final
class Stream:
    """A session's messages for an ``async for`` loop.

    ``async with ps.stream("news") as messages`` subscribes like an async handler, from the next
    send on, and unsubscribes when the block ends, however it ends. Inside, ``async for message in
    messages`` gives the messages in the order in which they were sent. One task at a time may wait
    for the next one, on whatever event loop; a wait that is cancelled loses no message.

    Up to ``max_pending`` messages wait for the loop; beyond that the hub's ``overflow`` says what
    happens. The loop ends when the session unsubscribes, which lets go of what waits, and when the
    hub is closed, after what was delivered before that.

    A stream serves for one block. In a hub without ``loop``, the loop that runs where the block
    begins delivers.

    Raises:
        HubClosed: The block begins, and the hub is closed.
        ValueError: The block begins, and no messages are kept to ``replay``.
        RuntimeError: The block has begun before; or a loop is begun outside of it, or while another
            task waits for a message; or the hub's loop is closed.
    """

    @property
    def session_id(self) -> str:
        """The session that reads."""

    @property
    def topic(self) -> str | None:
        """The topic, or ``None`` for messages sent to all."""

    @property
    def dropped(self) -> int:
        """Messages that this stream has lost because its ``async for`` loop did not keep up.

        Without those that gave way before they reached it: the event loop itself was busy.
        """

    def __aenter__(self) -> Coroutine[Any, Any, Stream]: ...
    def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> Coroutine[Any, Any, None]: ...
    def __aiter__(self) -> Stream: ...
    def __anext__(self) -> Coroutine[Any, Any, Any]: ...

@final
class Listener:
    """A session's messages for the ``for`` loop of a thread.

    The twin of :class:`Stream`, subscribed like a sync handler: ``with ps.listen("news") as
    messages`` and ``for message in messages``. It waits without holding the interpreter, and
    Ctrl-C ends the wait. On the thread of an event loop that runs, which a wait would stop, it
    gives what is there and does not wait: use :class:`Stream` there, or ``timeout=0`` to look.

    Raises:
        TimeoutError: No message came within ``timeout`` seconds; the loop may be begun again.
        HubClosed: The block begins, and the hub is closed.
        ValueError: The block begins, and no messages are kept to ``replay``.
        RuntimeError: The block has begun before; or a loop is begun outside of it, or while another
            thread waits for a message, or would wait on the thread of an event loop that runs; or
            the hub's executor is shut down.
    """

    @property
    def session_id(self) -> str:
        """The session that reads."""

    @property
    def topic(self) -> str | None:
        """The topic, or ``None`` for messages sent to all."""

    @property
    def dropped(self) -> int:
        """Messages that this listener has lost because its ``for`` loop did not keep up.

        Without those that gave way before they reached it: the executor itself was busy.
        """

    def __enter__(self) -> Listener: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...
    def __iter__(self) -> Listener: ...
    def __next__(self) -> Any: ...

# ---- stats ----------------------------------------------------------------------------------

@final
class Stats:
    """What a hub has done and holds, in messages, calls and subscriptions."""

    __match_args__ = (
        "published",
        "delivered",
        "failed",
        "dropped",
        "pending",
        "sessions",
        "topics",
        "subscriptions",
        "latency_p50",
        "latency_p99",
        "latency_max",
        "slowest",
        "failing",
        "busiest",
        "outbox",
        "unpublished",
        "unreadable",
        "gaps",
        "reconnects",
    )

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
        """Deliveries given up: a queue was full, a loop or executor was gone, or the hub closed.

        Exact when nothing is pending: what gave way in the middle of a queue is counted later.
        """

    @property
    def pending(self) -> int:
        """Messages that wait now, in the hub's queues and for streams and listeners.

        Without the one that is being dispatched.
        """

    @property
    def sessions(self) -> int:
        """Sessions that have a subscription now."""

    @property
    def topics(self) -> int:
        """Topics that have a subscription now."""

    @property
    def subscriptions(self) -> int:
        """Subscriptions now."""

    @property
    def latency_p50(self) -> float:
        """Seconds from a send until the handler is called, for half of the calls.

        Of a sample of the calls of the last one to two minutes; 0.0 if there were none.
        """

    @property
    def latency_p99(self) -> float:
        """The same for 99 of 100 calls."""

    @property
    def latency_max(self) -> float:
        """The same for all calls."""

    @property
    def slowest(self) -> tuple[SlowHandler, ...]:
        """Up to 20 handlers of which a call took 0.1 ms or more, the slowest first.

        Calls are timed by way of sample: one of about 256, and more after a slow one.
        """

    @property
    def failing(self) -> tuple[FailingHandler, ...]:
        """Up to 20 handlers that raised, the one that did so last first."""

    @property
    def busiest(self) -> tuple[BusyTopic, ...]:
        """Up to 20 topics that have a subscription, the one that was sent to most first.

        Nearly: one that others have just overtaken, or outlived, can be missing until it is sent to
        again some times.
        """

    @property
    def outbox(self) -> int:
        """Messages that wait to be published over the hub's link; 0 without one."""

    @property
    def unpublished(self) -> int:
        """Messages that never will be: the outbox was full, or the server refused them."""

    @property
    def unreadable(self) -> int:
        """What came over the link and could not be read."""

    @property
    def gaps(self) -> int:
        """How often ``on_gap`` was, or would have been, called."""

    @property
    def reconnects(self) -> int:
        """How often the link was there again after it was not."""

    def asdict(self) -> dict[str, Any]:
        """The fields with their values; those of the lists' entries too."""

    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class SlowHandler:
    """A handler that takes its time."""

    __match_args__ = ("handler", "calls", "mean", "max")

    @property
    def handler(self) -> str:
        """The handler's module and name."""

    @property
    def calls(self) -> int:
        """Calls that were timed and took 0.1 ms or more."""

    @property
    def mean(self) -> float:
        """Seconds that they took on average, an async handler's waiting included."""

    @property
    def max(self) -> float:
        """Seconds that the longest of them took."""

    def asdict(self) -> dict[str, Any]:
        """The fields with their values."""

    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class FailingHandler:
    """A handler that raised."""

    __match_args__ = ("handler", "failures", "traceback")

    @property
    def handler(self) -> str:
        """The handler's module and name."""

    @property
    def failures(self) -> int:
        """Calls that raised."""

    @property
    def traceback(self) -> str:
        """The traceback of its last failure as text: the last 8,000 characters of it."""

    def asdict(self) -> dict[str, Any]:
        """The fields with their values."""

    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class BusyTopic:
    """A topic that is sent to."""

    __match_args__ = ("topic", "published", "sessions")

    @property
    def topic(self) -> str:
        """The topic's name."""

    @property
    def published(self) -> int:
        """Sends on it since it has had subscriptions."""

    @property
    def sessions(self) -> int:
        """Sessions that are on it now."""

    def asdict(self) -> dict[str, Any]:
        """The fields with their values."""

    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

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

    Where one handler does not keep up, it is named. Where the event loop, the executor or, without
    one, the thread that delivers does not, messages are dropped for all that listen to a topic:
    ``session_id`` and ``handler`` are ``None`` and ``dropped`` counts messages, not deliveries.

    Where the server of a linked hub does not, or is away, the messages that its outbox has no room
    for are of all topics together: ``topic`` is ``None`` too.
    """

    @property
    def session_id(self) -> str | None:
        """The session whose handler does not keep up."""

    @property
    def topic(self) -> str | None:
        """The topic, or ``None`` for messages sent to all, or to whomever."""

    @property
    def handler(self) -> Callable[..., object] | Stream | Listener | None:
        """The handler, or the stream or listener, that does not keep up."""

    @property
    def dropped(self) -> int:
        """Messages dropped in this burst so far."""

class HubClosed(RuntimeError):  # noqa: N818 - a state, named as in asyncio.QueueShutDown
    """A send or a subscription on a hub that is closed."""

class OutboxFull(RuntimeError):  # noqa: N818 - a state, as above
    """A message that a :class:`pagebus.Publisher` has not taken: too many wait for the server."""

# ---- codec ----------------------------------------------------------------------------------

@final
class MessagePack:
    """The codec that hubs use if they are given none: MessagePack, with a few types more.

    What travels: ``str``, ``int``, ``float``, ``bool``, ``None``, ``bytes``, ``list``, ``tuple``,
    ``dict``, ``datetime``, ``UUID``, and objects of classes with :func:`pagebus.message`.
    """

    def __new__(cls) -> MessagePack: ...
    def encode(self, message: Any) -> bytes:
        """Give the bytes of a message.

        Raises:
            TypeError: There is something in it that does not travel; it is said where.
            ValueError: A text has a lone surrogate, an object lacks a field, something is longer
                than 4 GiB or nested deeper than 100 levels, or contains itself.
        """

    def decode(self, data: bytes) -> Any:
        """Give the message of which these are the bytes.

        Nothing is imported or run for that but the classes with :func:`pagebus.message`.

        Raises:
            TypeError: ``data`` is not bytes.
            DecodeError: They are not the bytes of a message, or of one that is not known here.
        """

class DecodeError(ValueError):
    """Bytes are not those of a message, or of one of a class that is not known here."""

def _register(
    cls: type,
    name: str,
    fields: list[tuple[str, str]],
    read: Callable[[Any], object] | None,
    build: Callable[..., object],
) -> None: ...
