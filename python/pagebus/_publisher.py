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

    Thread-safe. A process that sends now and then keeps one publisher, because it takes longer to
    connect than to send.

    Args:
        link: The URL of the Redis or Valkey server.
        namespace: That of the hubs; of a Flet app it is the module and name of its ``main``.
        codec: That of the hubs. Default: :class:`pagebus.MessagePack`.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: ``link`` is no such URL.
    """

    def __init__(
        self, link: str, *, namespace: str = "default", codec: Codec | None = None
    ) -> None:
        if not isinstance(link, str):
            message = f"link must be a str, not {type(link).__name__}"
            raise TypeError(message)
        self._hub = PubSubHub(link=link, namespace=namespace, codec=codec)

    def send_all(self, message: Any) -> None:
        """Send ``message`` to the handlers of every session, but those on topics."""
        self._hub.send_all(message)

    def send_all_on_topic(self, topic: str, message: Any) -> None:
        """Send ``message`` to every handler that is subscribed to ``topic``."""
        self._hub.send_all_on_topic(topic, message)

    def send_to(self, session_id: str, message: Any) -> None:
        """Send ``message`` to one session."""
        self._hub.send_to(session_id, message)

    def close(self, timeout: float | None = 5.0) -> int:
        """Wait until everything is published, and return how many messages are not.

        Those that the server has not taken after ``timeout`` seconds are given up and logged.
        """
        self._hub.close(timeout)
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
