"""An executor for a child process, which has none of its parent's threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

_WORKERS_BEGINNING = (
    "_initializer",
    "_initargs",
    # What these two are made into from Python 3.14 on.
    "_create_worker_context",
    "_resolve_work_item_task",
)


def heir_of(executor: Any) -> Any:
    """What takes the executor's place: itself, if it needs no threads that are gone.

    ``None`` if it needs them, and cannot be made anew because only its own class knows how.
    """
    if type(executor) is ThreadPoolExecutor:
        return _anew(executor)
    if isinstance(executor, ThreadPoolExecutor) and _is_in_use(executor):
        return None
    return executor


def _anew(executor: ThreadPoolExecutor) -> ThreadPoolExecutor:
    heir = ThreadPoolExecutor(executor._max_workers, executor._thread_name_prefix or "")
    for name in _WORKERS_BEGINNING:
        if hasattr(executor, name):
            setattr(heir, name, getattr(executor, name))
    if executor._shutdown:
        heir.shutdown()
    return heir


def _is_in_use(executor: ThreadPoolExecutor) -> bool:
    return bool(executor._threads) or executor._shutdown_lock.locked()
