"""What each thread has for itself, where a test runs in several threads at once (`make parallel`).

pytest-run-parallel calls a test in several threads with the same arguments. Each of these threads
is here a *runner*, together with every thread that it starts: the loops and workers of its hubs. A
fixture that yields from ``for_each_runner`` gives each of them something of its own.
"""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import pytest


class Runner:
    """One of the threads that run a test, with all that it has started."""

    is_done = False


def current_runner() -> Runner | None:
    """Whose work this thread does; ``None`` where tests run one after the other."""
    return getattr(threading.current_thread(), "runner", None)


def here() -> Callable[[object], bool]:
    """A filter of what happens, such as log records: True in the caller's own threads.

    So it is in threads that belong to nobody who still runs: that concerns everybody.
    """
    own = current_runner()

    def happens_here(_: object) -> bool:
        runner = current_runner()
        return runner is own or runner is None or runner.is_done

    return happens_here


@contextmanager
def _as_runner() -> Iterator[None]:
    thread: Any = threading.current_thread()
    thread.runner = runner = Runner()
    try:
        yield
    finally:
        runner.is_done = True
        thread.runner = None


def inherit_runners() -> None:
    """From now on, a thread works for the runner that has started it."""
    start = threading.Thread.start

    @functools.wraps(start)
    def start_for_runner(thread: Any) -> None:
        thread.runner = current_runner()
        start(thread)

    threading.Thread.start = start_for_runner  # type: ignore[method-assign]


# ---- fixtures ---------------------------------------------------------------------------------

_Makers = list[tuple[str, Callable[[], AbstractContextManager[Any]]]]
_MAKERS = pytest.StashKey[_Makers]()


def for_each_runner(
    request: pytest.FixtureRequest, make: Callable[[], AbstractContextManager[Any]]
) -> Iterator[Any]:
    """What a fixture yields: ``make`` is entered by each runner, in the order of the fixtures."""
    makers = request.node.stash.get(_MAKERS, None)
    if makers is None:
        with make() as value:
            yield value
    else:
        makers.append((request.fixturename, make))
        try:
            yield None
        finally:
            makers.pop()


def prepare(item: pytest.Function) -> None:
    """Let several threads run a test, each with its own of what its fixtures make."""
    test, makers = item.obj, item.stash.setdefault(_MAKERS, [])

    @functools.wraps(test)
    def run(**arguments: Any) -> None:
        with ExitStack() as at_the_end:
            at_the_end.enter_context(_as_runner())
            for name, make in makers:
                value = at_the_end.enter_context(make())
                if name in arguments:
                    arguments[name] = value
            _run_strictly(test, arguments)

    # Or else the plugin reads the test's source, and leaves out what it suspects.
    del run.__wrapped__
    item.obj = run


def _run_strictly(test: Callable[..., None], arguments: dict[str, Any]) -> None:
    try:
        test(**arguments)
    except Warning as warning:
        # The plugin passes over a warning, even where warnings are errors.
        raise AssertionError("a warning is an error here") from warning
