"""Waiting until a subscription of a linked hub misses nothing that other processes send."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pagebus._core import Subscription


async def ready(subscription: Subscription) -> None:
    """Return when the broker has confirmed everything that the subscription needs."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    left = 0

    def one_less() -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            done.set()

    def tell() -> None:
        # If this coroutine was cancelled, its loop may be closed meanwhile.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(one_less)

    left = subscription._when_ready(tell)
    if left > 0:
        try:
            await done.wait()
        finally:
            subscription._forget_ready(tell)
