"""Handlers to deliver to: a function of its own for every subscriber, as real programs have."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

Handler = Callable[[Any], None]
TopicHandler = Callable[[str, Any], None]
AsyncHandler = Callable[[Any], Awaitable[None]]


def make_sync() -> Handler:
    """A handler that does nothing: whatever is measured is the cost of getting there."""

    def handler(message: Any) -> None:
        pass

    return handler


def make_async() -> AsyncHandler:
    """An async handler that does not suspend."""

    async def handler(message: Any) -> None:
        pass

    return handler


def make_suspending() -> AsyncHandler:
    """An async handler that suspends once."""

    async def handler(message: Any) -> None:
        await asyncio.sleep(0)

    return handler


def count_calls(handler: Handler, counts: list[int], place: int) -> Handler:
    """A handler that does the same and counts, for itself alone."""

    def counting(message: Any) -> None:
        handler(message)
        counts[place] += 1

    return counting


def count_async_calls(handler: AsyncHandler, counts: list[int], place: int) -> AsyncHandler:
    """An async handler that does the same and counts, for itself alone."""

    async def counting(message: Any) -> None:
        await handler(message)
        counts[place] += 1

    return counting
