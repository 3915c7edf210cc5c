"""The task in which handlers run on an event loop."""

from __future__ import annotations

import asyncio
from typing import Any


class HandlerTask(asyncio.Task[None]):
    """A task that knows when somebody looks at it.

    Many handlers that do not suspend share one task. One that uses the task (``cancel()``, a
    callback) must not share it: its coroutine is told, and the others get a task of their own.
    asyncio itself does not come through here.
    """

    def __getattribute__(self, name: str) -> Any:
        _touch(self)
        return super().__getattribute__(name)


def _touch(task: HandlerTask) -> None:
    try:
        # Past our own `__getattribute__`, which asyncio's Python task would come through.
        drain: Any = object.__getattribute__(task, "_coro")
    except AttributeError:  # asyncio's Python task, while it is being made
        return
    if drain is not None:
        drain.touch()
