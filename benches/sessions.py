"""Sessions: each has a context of its own beside its handlers, as every Flet page has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context, ContextVar, copy_context
from typing import Any

from flet.pubsub.pubsub_hub import PubSubHub as FletHub

page: ContextVar[str] = ContextVar("page")


def make_context(session: str) -> Context:
    """A context for the session's code, as Flet makes one in which `page` is the session's."""
    context = copy_context()
    context.run(page.set, session)
    return context


def subscribe_all(
    bus: Any, handlers: Sequence[Callable[..., Any]], *, own_contexts: bool = True
) -> None:
    """Subscribes each handler for a session, from the session's own context or from one place."""
    for number, handler in enumerate(handlers):
        session = f"session-{number}"
        if own_contexts:
            make_context(session).run(bus.subscribe, session, handler)
        else:
            bus.subscribe(session, handler)


def flet_hub() -> Any:
    """Flet's hub without an executor: it refuses to deliver without a loop, even to handlers that
    do not need one."""
    return FletHub(loop=asyncio.new_event_loop())
