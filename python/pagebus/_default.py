"""The hub of the process, for programs that want one and no more."""

from __future__ import annotations

import os

from pagebus._core import PubSubHub

_hubs: dict[str, PubSubHub] = {}


def default_hub() -> PubSubHub:
    """Give the hub of this process: a ``PubSubHub()``, made at the first call.

    If the environment variable ``PAGEBUS_LINK`` is set, it is linked with those of other processes.

    Every thread gets the same one, and a child process that is forked has its own copy of it. It
    lives as long as the process: who closes it closes it for all.

    Raises:
        ValueError: ``PAGEBUS_LINK`` is no URL of a Redis or Valkey server.
    """
    # In one step and without a lock: a fork could inherit it locked, and a finalizer that asks for
    # the hub while it is being made would wait for itself.
    made = _hubs.get("default")
    return made or _hubs.setdefault("default", PubSubHub(link=link_of_the_environment()))


def link_of_the_environment() -> str | None:
    """The link that whoever started the process has chosen for it."""
    return os.environ.get("PAGEBUS_LINK") or None


def made_default_hub() -> PubSubHub | None:
    """The hub of this process, if anybody has asked for it."""
    return _hubs.get("default")
