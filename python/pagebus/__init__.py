"""Pub/sub between the sessions of a Python app: Flet's ``page.pubsub`` on a Rust core."""

from pagebus._core import (
    HandlerFailure,
    HubClosed,
    Overflow,
    PubSub,
    PubSubHub,
    Stats,
    Subscription,
    __version__,
)

PubSubClient = PubSub
"""Flet's name for :class:`PubSub`."""

__all__ = [
    "HandlerFailure",
    "HubClosed",
    "Overflow",
    "PubSub",
    "PubSubClient",
    "PubSubHub",
    "Stats",
    "Subscription",
    "__version__",
]
