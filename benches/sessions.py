"""What sessions have of their own beside their handlers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import Context, ContextVar, copy_context
from typing import Any

page: ContextVar[str] = ContextVar("page")


def make_context(session: str) -> Context:
    """A context for the session's code, as Flet makes one in which `page` is the session's."""
    context = copy_context()
    context.run(page.set, session)
    return context


def subscribe_all(
    bus: Any, handlers: Sequence[Callable[..., Any]], *, own_contexts: bool = False
) -> None:
    """Subscribes each handler for a session, from one place or from the session's own context."""
    for number, handler in enumerate(handlers):
        session = f"session-{number}"
        if own_contexts:
            make_context(session).run(bus.subscribe, session, handler)
        else:
            bus.subscribe(session, handler)
