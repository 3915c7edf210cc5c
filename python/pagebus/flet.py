"""The Flet integration: while it is installed, the hubs that Flet creates are pagebus hubs."""

import importlib
import threading
from collections.abc import Callable
from typing import Any

from pagebus import PubSub, PubSubHub

__all__ = ["UnsupportedFletError", "install", "uninstall"]

_SUPPORTED = "0.28.3, 0.86.x and 1.0.x"

_lock = threading.Lock()
_wrapped: set[type] = set()
_installed = False


class UnsupportedFletError(ImportError):
    """Flet is missing, or its version is not one that pagebus supports."""

    def __init__(self, version: str | None) -> None:
        found = f"Flet {version} is not supported" if version else "Flet is not installed"
        super().__init__(f"{found}; pagebus.flet works with Flet {_SUPPORTED}", name="flet")


def install() -> None:
    """Make every hub that Flet creates from now on a pagebus hub.

    ``page.pubsub`` of a session on such a hub is a :class:`pagebus.PubSub`. It does not matter
    which module has imported Flet's classes before. Hubs that exist already stay what they are,
    and so do subclasses of Flet's classes. Installing twice is the same as installing once.

    Raises:
        UnsupportedFletError: Flet is not installed, or its version is not supported.
    """
    global _installed
    hub_class, client_class = _flet_classes()
    with _lock:
        _wrap(hub_class, PubSubHub)
        _wrap(client_class, _client_of_a_pagebus_hub)
        _installed = True


def uninstall() -> None:
    """Give Flet its own hub back, for every hub that it creates from now on.

    Pagebus hubs that exist already go on working. Without :func:`install` this changes nothing.
    """
    global _installed
    with _lock:
        _installed = False


def _wrap(flet_class: type, make: Callable[..., object]) -> None:
    """Give ``flet_class`` a ``__new__`` that answers with ``make()`` while pagebus is installed.

    Python skips ``__init__`` when ``__new__`` returns an object of another class, so this reaches
    every caller, however it has imported the class. The wrapper stays after :func:`uninstall`:
    deleting a ``__new__`` that was assigned to a class leaves an ``object.__new__`` behind that
    refuses the arguments of ``__init__``.
    """
    if flet_class in _wrapped:
        return

    def new(cls: type, *args: Any, **kwargs: Any) -> object:
        made = make(*args, **kwargs) if _installed and cls is flet_class else None
        return object.__new__(cls) if made is None else made

    flet_class.__new__ = staticmethod(new)  # type: ignore[assignment]
    _wrapped.add(flet_class)


def _client_of_a_pagebus_hub(pubsub: object = None, session_id: Any = None) -> PubSub | None:
    return PubSub(pubsub, session_id) if isinstance(pubsub, PubSubHub) else None


def _flet_classes() -> tuple[type, type]:
    """Flet's hub and client classes, imported from where this version of Flet keeps them."""
    package = _pubsub_package(_flet_version())
    hub = importlib.import_module(f"{package}.pubsub_hub")
    client = importlib.import_module(f"{package}.pubsub_client")
    return hub.PubSubHub, client.PubSubClient


def _pubsub_package(version: str) -> str:
    if version == "0.28.3":
        return "flet.core.pubsub"
    if version.startswith(("0.86.", "1.0.")):
        return "flet.pubsub"
    raise UnsupportedFletError(version)


def _flet_version() -> str:
    try:
        version = importlib.import_module("flet.version")
    except ModuleNotFoundError as error:
        if error.name not in ("flet", "flet.version"):
            raise
        raise UnsupportedFletError(None) from error
    # Flet 0.28 names it `version`, later ones `flet_version`.
    return str(getattr(version, "flet_version", None) or getattr(version, "version", "(unknown)"))
