"""What sessions have of their own beside their handlers."""

from __future__ import annotations

from contextvars import Context, ContextVar, copy_context

page: ContextVar[str] = ContextVar("page")


def make_context(session: str) -> Context:
    """A context for the session's code, as Flet makes one in which `page` is the session's."""
    context = copy_context()
    context.run(page.set, session)
    return context
