"""All contests, in the order in which they are held and shown."""

from __future__ import annotations

from benches import (
    churn,
    counting,
    event_loop,
    executor,
    extras,
    flet_app,
    inline,
    instructions,
    link,
    memory,
    selectivity,
    send,
    stall,
    stream,
    threads,
)
from benches.contest import Contest

MODULES = (
    *(inline, event_loop, executor, send, stall, memory, churn, selectivity, threads, stream),
    extras,
    flet_app,
    link,
    *(instructions, counting),
)
CONTESTS: dict[str, Contest] = {c.name: c for module in MODULES for c in module.CONTESTS}
