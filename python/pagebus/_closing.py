"""Closing a hub from a coroutine: the event loop goes on delivering meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol, TypeVar

T = TypeVar("T")


class Closing(Protocol):
    """A hub that closes."""

    def is_done(self) -> bool:
        """Whether everything is delivered, or given up."""

    def is_inside(self) -> bool:
        """Whether this thread is inside one of the hub's handlers."""

    def when_done(self, callback: object, /) -> None:
        """Call ``callback`` when that is so, on whatever thread."""

    def give_up(self) -> None:
        """Let go of what is left."""


async def entered(hub: T) -> T:
    """Give what ``async with`` gives."""
    return hub


async def aclose(closing: Closing, timeout: float | None) -> None:
    """Wait until everything is delivered, for so many seconds, and give up what is left then."""
    # One of the hub's handlers would wait for its own end.
    if closing.is_done() or closing.is_inside():
        return
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        # If this coroutine was cancelled, its loop may be closed meanwhile.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(done.set)

    closing.when_done(tell)
    try:
        await asyncio.wait_for(done.wait(), timeout)
    except asyncio.TimeoutError:
        closing.give_up()
