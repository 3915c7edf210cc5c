"""What it costs that deliveries are counted and timed: beside the same build without that.

A turn of a deliverer is counted once. So its share is largest where a message has one handler. All
handlers are sync ones, inside the send: the shortest deliveries that there are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

from benches.contest import Contest, Contestant, Round, Values
from benches.handlers import Handler
from benches.inline import Check, Send, SendTo, pagebus, sending
from benches.instructions import parts
from benches.programs.deliveries import SENDS
from benches.sessions import subscribe_all

UNCOUNTED = Path(__file__).resolve().parents[1] / ".envs" / "uncounted"
"""Where `make bench` puts that build."""
SIZES = (1, 50)


# ---- instructions: the same in every run, and each counts the same --------------------------


def deliveries(**environment: str) -> Values:
    """Instructions for each delivery, with its share of the send."""
    counts = zip(SIZES, parts("inline, own contexts", SIZES, **environment), strict=True)
    return {str(size): each.total() / SENDS / size for size, each in counts}


@contextmanager
def counted() -> Iterator[Round]:
    """The build that is installed."""
    yield deliveries


@contextmanager
def uncounted() -> Iterator[Round]:
    """The other one."""
    path = os.pathsep.join(filter(None, (str(UNCOUNTED), os.environ.get("PYTHONPATH"))))
    module_file()
    yield lambda: deliveries(PYTHONPATH=path)


def module_file() -> Path:
    """The module of the other build."""
    files = (UNCOUNTED / "pagebus" / f"_core{suffix}" for suffix in EXTENSION_SUFFIXES)
    found = next((file for file in files if file.exists()), None)
    if found is None:
        raise RuntimeError(f"nothing is in {UNCOUNTED}: `make bench` builds it")
    return found


# ---- time: that of both in one process ------------------------------------------------------


def uncounted_module() -> Any:
    """The module of the other build, beside the one that is installed."""
    loader = ExtensionFileLoader("uncounted._core", str(module_file()))
    spec = spec_from_loader(loader.name, loader)
    if spec is None:
        raise RuntimeError(f"{loader.path} is no module")
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def hub_without() -> SendTo:
    """A hub of the other build, whose handlers run inside the send."""
    core = uncounted_module()

    def send_to(handlers: list[Handler]) -> tuple[Send, Check]:
        hub = core.PubSubHub()
        subscribe_all(hub, handlers, own_contexts=True)
        return hub.send_all, lambda _: None

    return send_to


def sending_without(size: int) -> Contestant:
    """A contestant that sends through such a hub."""

    @contextmanager
    def contestant() -> Iterator[Round]:
        with sending(hub_without(), size)() as a_round:
            yield a_round

    return contestant


WITHOUT = "nothing is counted"

CONTESTS = [
    Contest(
        "counting instructions",
        {"pagebus": counted, WITHOUT: uncounted},
        unit="integer",
        rounds=1,
        warmups=0,
        processes=1,
        short_rounds=0,
    ),
    *(
        Contest(
            f"counting {size}",
            {"pagebus": sending(pagebus, size), WITHOUT: sending_without(size)},
            rounds=60,
            short_rounds=0,
        )
        for size in (1, 1_000)
    ),
]
