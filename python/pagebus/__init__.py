"""Pub/sub between the sessions of a Python app: Flet's ``page.pubsub`` on a Rust core."""

from pagebus._codec import Codec, message
from pagebus._core import (
    BusyTopic,
    DecodeError,
    FailingHandler,
    HandlerFailure,
    HubClosed,
    Listener,
    MessagePack,
    OutboxFull,
    Overflow,
    Presence,
    PubSub,
    PubSubHub,
    SlowHandler,
    Stats,
    Stream,
    Subscription,
    __version__,
)
from pagebus._default import default_hub
from pagebus._publisher import Publisher

PubSubClient = PubSub
"""Flet's name for :class:`PubSub`."""

__all__ = [
    "BusyTopic",
    "Codec",
    "DecodeError",
    "FailingHandler",
    "HandlerFailure",
    "HubClosed",
    "Listener",
    "MessagePack",
    "OutboxFull",
    "Overflow",
    "Presence",
    "PubSub",
    "PubSubClient",
    "PubSubHub",
    "Publisher",
    "SlowHandler",
    "Stats",
    "Stream",
    "Subscription",
    "__version__",
    "default_hub",
    "message",
]
