"""What a machine's hubs deliver with, all stepped by hand on one thread."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any


class Bytes:
    """The input, read from the front. Where it ends, there is nothing but zeros."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    def __bool__(self) -> bool:
        return self._place < len(self._data)

    def below(self, limit: int) -> int:
        """The next number, from 0 to ``limit`` - 1."""
        if not self:
            return 0
        self._place += 1
        return self._data[self._place - 1] % limit

    def chosen(self, among: Any) -> Any:
        """One of several."""
        return among[self.below(len(among))]


class HandExecutor(Executor):
    """An executor whose jobs run when they are told to."""

    def __init__(self) -> None:
        self.jobs: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self.is_shut_down = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self.is_shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[Any] = Future()
        self.jobs.append((future, lambda: fn(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.is_shut_down = True
        while cancel_futures and self.jobs:
            self.jobs.popleft()[0].cancel()

    def step(self) -> bool:
        """Run the next job; tell if there was one."""
        if not self.jobs:
            return False
        future, job = self.jobs.popleft()
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(job())
            except BaseException as error:
                future.set_exception(error)
        return True


class HandLoop:
    """An event loop that turns when it is told to."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.errors: list[str] = []
        self.loop.set_exception_handler(lambda _, context: self.errors.append(context["message"]))

    @property
    def is_open(self) -> bool:
        return not self.loop.is_closed()

    def turn(self) -> None:
        """Let it turn once, where none turns already."""
        if self.is_open and not any_loop_runs():
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    def run(self, fn: Callable[[], Any]) -> Any:
        """Call ``fn`` on it, where none turns already."""
        if not self.is_open or any_loop_runs():
            return fn()

        async def call() -> Any:
            return fn()

        return self.loop.run_until_complete(call())

    def close(self) -> None:
        if self.is_open and not any_loop_runs():
            self.loop.close()

    def end(self) -> None:
        """End what is suspended on it, and close it."""
        if not self.is_open:
            return
        for _ in range(3):
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            for _ in range(5):
                self.turn()
        self.loop.close()


def any_loop_runs() -> bool:
    """Whether this is called from inside a loop."""
    return asyncio._get_running_loop() is not None
