"""Sending to linked hubs from a process that has no sessions."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from pagebus._codec import Codec
from pagebus._core import PubSubHub


class Publisher:
    """Sends to the sessions of linked hubs, from a process without any: a cron job, a web request.

    As a context manager it is closed at the end, which waits until everything is published::

        with pagebus.Publisher("redis://127.0.0.1:6379/0", namespace="chat.main") as publisher:
            publisher.send_all_on_topic("room/1", "The server stops at noon.")

    A send returns before the message is published, and nothing is given up for it: where so many
    wait for the server that there is no room for one more, the send waits. On a running event loop
    it raises instead: send from a thread there, if it is much at once.

    Thread-safe. A process that sends now and then keeps one publisher, because it takes longer to
    connect than to send.

    Args:
        link: The URL of the Redis or Valkey server.
        namespace: That of the hubs; of a Flet app it is the module and name of its ``main``.
        codec: That of the hubs. Default: :class:`pagebus.MessagePack`.
        max_outbox: How many messages may wait for the server.
        timeout: How many seconds a send waits for room before it raises :class:`OutboxFull`.
            ``None`` is as long as it takes.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: ``link`` is no such URL, ``max_outbox`` < 1, or ``timeout`` is negative.
    """

    def __init__(
        self,
        link: str,
        *,
        namespace: str = "default",
        codec: Codec | None = None,
        max_outbox: int = 10_000,
        timeout: float | None = 5.0,
    ) -> None:
        if not isinstance(link, str):
            message = f"link must be a str, not {type(link).__name__}"
            raise TypeError(message)
        self._hub = PubSubHub(link=link, namespace=namespace, codec=codec, max_outbox=max_outbox)
        self._hub._wait_for_room(timeout)

    def send_all(self, message: Any) -> None:
        """Send ``message`` to the handlers of every session, but those on topics.

        Raises:
            OutboxFull: There was no room for it in time, or an event loop runs, and it must not
                wait. Nothing else is lost.
            HubClosed: The publisher is closed.
        """
        self._hub.send_all(message)

    def send_all_on_topic(self, topic: str, message: Any) -> None:
        """Send ``message`` to every handler that is subscribed to ``topic``.

        Raises:
            OutboxFull: As :meth:`send_all`.
            HubClosed: The publisher is closed.
        """
        self._hub.send_all_on_topic(topic, message)

    def send_to(self, session_id: str, message: Any) -> None:
        """Send ``message`` to one session.

        Raises:
            OutboxFull: As :meth:`send_all`.
            HubClosed: The publisher is closed.
        """
        self._hub.send_to(session_id, message)

    def close(self, timeout: float | None = 5.0) -> int:
        """Wait until everything is published, and return how many messages are not.

        Those that the server has not taken after ``timeout`` seconds are given up and logged.

        It waits on an event loop too, which stands still meanwhile; :meth:`aclose` and
        ``async with`` let it go on.
        """
        self._hub._close_anywhere(timeout)
        return self._unpublished()

    async def aclose(self, timeout: float | None = 5.0) -> int:
        """Do what :meth:`close` does, while the event loop goes on."""
        await self._hub.aclose(timeout)
        return self._unpublished()

    def _unpublished(self) -> int:
        stats = self._hub.stats()
        return stats.outbox + stats.unpublished

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Publisher:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
