"""Waiting until a subscription of a linked hub misses nothing that other processes send."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pagebus._core import Listener, Stream, Subscription


async def ready(subscription: Subscription | Stream) -> None:
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


def ready_in_a_thread(listener: Listener, timeout: float | None) -> None:
    """Do the same for the subscription of a thread, which may wait so long."""
    end = None if timeout is None else time.monotonic() + timeout
    told = threading.Semaphore(0)
    # A method is a new object each time, and is forgotten by its identity.
    tell = told.release
    try:
        for _ in range(listener._when_ready(tell)):
            _check_may_wait(timeout)
            left = None if end is None else max(0.0, end - time.monotonic())
            if not told.acquire(timeout=left):
                message = f"the server has confirmed nothing within {timeout:g} seconds"
                raise TimeoutError(message)
    finally:
        listener._forget_ready(tell)


def _check_may_wait(timeout: float | None) -> None:
    if timeout != 0 and asyncio._get_running_loop() is not None:
        message = "to wait here would stop the event loop that runs on this thread: use stream()"
        raise RuntimeError(message)
