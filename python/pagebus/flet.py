"""The Flet integration: while it is installed, the hubs that Flet creates are pagebus hubs."""

import asyncio
import gc
import importlib
import inspect
import itertools
import sys
import threading
import weakref
from collections.abc import Callable, Container, Hashable
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, Protocol

from pagebus import PubSub, PubSubHub
from pagebus._default import link_of_the_environment, made_default_hub

if TYPE_CHECKING:
    from pagebus._monitor import Monitor

__all__ = ["Monitor", "UnsupportedFletError", "hub_of", "install", "pubsub", "uninstall"]

_SUPPORTED = "0.28.3, 0.86.x and 1.0.x"
_NOT_INSTALLED = (
    "pagebus was not installed when Flet made it: call pagebus.flet.install() before Flet starts,"
    " or start the program with `pagebus run`"
)

_lock = threading.Lock()
_wrapped: set[type] = set()
_installed = False
_link: str | None = None
_presence = False
_desktop_hub: weakref.ref[PubSubHub] | None = None


class UnsupportedFletError(ImportError):
    """Flet is missing, or its version is not one that pagebus supports."""

    def __init__(
        self, version: str | None, part: str = "pagebus.flet", supported: str = _SUPPORTED
    ) -> None:
        found = f"Flet {version} is not supported" if version else "Flet is not installed"
        super().__init__(f"{found}; {part} works with Flet {supported}", name="flet")


def install(*, link: str | None = None, presence: bool = False) -> None:
    """Make every hub that Flet creates from now on a pagebus hub.

    ``page.pubsub`` of a session on such a hub is a :class:`pagebus.PubSub`. It does not matter
    which module has imported Flet's classes before. Hubs that exist already stay what they are,
    and so do subclasses of Flet's classes. Installing twice is the same as installing once, with
    the last arguments.

    Args:
        link: The URL of a Redis or Valkey server. Pages of an app that several processes serve,
            on any machines, are on one hub then: that of the app's ``main``. Default: the
            environment variable ``PAGEBUS_LINK``, or no link if that is not set.
        presence: Whether these hubs also tell each other who is on which topic.

    Raises:
        TypeError: ``link`` is not a string, or ``presence`` is not a bool.
        ValueError: ``link`` is no URL of such a server, or there is ``presence`` without a link.
        UnsupportedFletError: Flet is not installed, or its version is not supported.
    """
    global _installed, _link, _presence
    link = link_of_the_environment() if link is None else link
    PubSubHub(link=link, presence=presence)  # refuses what is wrong
    hub_class, client_class = _flet_classes()
    with _lock:
        _wrap(hub_class, _hub)
        _wrap(client_class, _client_of_a_pagebus_hub)
        _installed, _link, _presence = True, link, presence


def uninstall() -> None:
    """Give Flet its own hub back, for every hub that it creates from now on.

    Pagebus hubs that exist already go on working. Without :func:`install` this changes nothing.
    """
    global _installed
    with _lock:
        _installed = False


def __getattr__(name: str) -> Any:
    """Import the monitor when somebody asks for it: it imports Flet, this module does not."""
    if name != "Monitor":
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    _check_monitor()
    return importlib.import_module("pagebus._monitor").Monitor


def _check_monitor() -> None:
    """Raise ``UnsupportedFletError`` where there is no monitor."""
    if (version := _flet_version()) == "0.28.3":
        raise UnsupportedFletError(version, "the monitor", "0.86.x and 1.0.x")
    _pubsub_package(version)


def _hubs() -> dict[str, PubSubHub]:
    """Name the hubs of the Flet apps of this process, and that of the process if it was made."""
    named: dict[str, PubSubHub] = {}
    for main, hub in dict(_of_the_web_server("pubsubhubs", {})).items():
        if isinstance(hub, PubSubHub):
            named[_unique(getattr(main, "__qualname__", "main"), named)] = hub
    if (hub := _the_desktop_hub()) is not None:
        named[_unique("main", named)] = hub
    if (hub := made_default_hub()) is not None:
        named[_unique("default hub", named)] = hub
    return named


def _unique(name: str, names: Container[str]) -> str:
    candidates = itertools.chain([name], (f"{name} {number}" for number in itertools.count(2)))
    return next(candidate for candidate in candidates if candidate not in names)


class _Page(Protocol):
    """What has a client: a ``flet.Page``."""

    @property
    def pubsub(self) -> Any: ...


def pubsub(page: _Page) -> PubSub:
    """Give ``page.pubsub`` with its type, which Flet's own annotations do not know.

    Raises:
        TypeError: ``page`` has no ``pubsub``, or one that is Flet's own: pagebus was not installed
            when Flet made the app's hub.
    """
    client = getattr(page, "pubsub", None)
    if isinstance(client, PubSub):
        return client
    found = f"'{type(page).__name__}'"
    message = (
        f"page must be a Flet page, not {found}"
        if client is None
        else f"page must be a page on a pagebus hub, not {found} on Flet's own; {_NOT_INSTALLED}"
    )
    raise TypeError(message)


def hub_of(main: Callable[..., object]) -> PubSubHub:
    """Give the hub of the Flet app that begins with ``main``, to send from outside of its pages.

    May be called from any thread. In a web server, the app is the one that was given this
    ``main``, and its hub is made for its first page, or here, if this is called on the server's
    event loop while it runs: in a REST endpoint, in a startup hook. On the desktop, a process has
    one app, and so one hub, whatever ``main`` is.

    Raises:
        TypeError: ``main`` is not a function that Flet can start.
        LookupError: The app has no hub yet: no page of it is open. Or, on the server's event loop,
            there is no such app: ``flet.fastapi.app`` was not given this ``main``.
        RuntimeError: The app is on Flet's own hub, because pagebus was not installed.
        UnsupportedFletError: Flet is not installed, or its version is not supported.
    """
    if not (callable(main) and isinstance(main, Hashable)):
        message = f"main must be the function that Flet starts, not '{type(main).__name__}'"
        raise TypeError(message)
    _pubsub_package(_flet_version())  # refuses what is not supported
    hub = _web_hub(main) or _the_desktop_hub() or _new_web_hub(main)
    if isinstance(hub, PubSubHub):
        return hub
    if hub is not None:
        raise _own_hub(is_made=True)
    message = f"no page of {_name(main)} is open yet, so it has no hub"
    raise LookupError(message)


def _name(main: object) -> object:
    return getattr(main, "__qualname__", main)


def _own_hub(is_made: bool) -> RuntimeError:
    verb = "is" if is_made else "would be"
    return RuntimeError(f"this app's hub {verb} Flet's own; {_NOT_INSTALLED}")


def _the_desktop_hub() -> PubSubHub | None:
    return None if _desktop_hub is None else _desktop_hub()


def _web_hub(main: Callable[..., object]) -> object:
    """The hub that the web server has made for ``main``."""
    return _of_the_web_server("pubsubhubs", {}).get(main)


def _new_web_hub(main: Callable[..., object]) -> object:
    """A new hub, which the web server will use for ``main``; only on the loop that serves pages.

    On another loop, such as one that a thread runs for its hardware, the handlers of all pages
    would be called on that one.
    """
    serving = _of_the_web_server("evict_sessions_task", None)
    if serving is None or serving.get_loop() is not asyncio._get_running_loop():
        return None
    if not _installed:
        raise _own_hub(is_made=False)
    if not _is_served(main):
        message = (
            "main must be a function that a Flet app of this process begins with, as in"
            f" flet.fastapi.app(main), and none begins with {_name(main)}"
        )
        raise LookupError(message)
    return _web_server().app_manager.get_pubsubhub(main, loop=serving.get_loop())


def _is_served(main: Callable[..., object]) -> bool:
    """Whether Flet's web server has an app that begins with ``main``.

    A hub for anything else would be nobody's. Before an app's first page only its endpoint knows
    its ``main``, and nobody can ask Flet for that. What is frozen cannot be found, so then ``main``
    is believed.
    """
    if gc.get_freeze_count():
        return True
    return any(_served_by(thing) == main for thing in gc.get_objects() if _is_endpoint(thing))


def _is_endpoint(thing: object) -> bool:
    """Whether it opens the pages of an app; its name is the same in all versions of Flet."""
    return (
        type(thing) is FunctionType
        and thing.__module__ == "flet_web.fastapi.app"
        and thing.__name__ == "app_handler"
    )


def _served_by(endpoint: Any) -> object:
    given = inspect.getclosurevars(endpoint).nonlocals
    # Flet 0.28 names it `session_handler`, later ones `main`.
    return given.get("main", given.get("session_handler"))


def _of_the_web_server(name: str, default: Any) -> Any:
    """What Flet's web server keeps under a private name, which is the same in all versions."""
    if (server := _web_server()) is None:
        return default
    return vars(server.app_manager)[f"_FletAppManager__{name}"]


def _web_server() -> Any:
    return sys.modules.get("flet_web.fastapi.flet_app_manager")


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


_DESKTOP_SERVERS = (
    "flet.flet_socket_server",
    "flet.messaging.flet_socket_server",
    "flet.messaging.flet_dart_bridge_server",
)


def _hub(*args: Any, **kwargs: Any) -> PubSubHub:
    """A hub, which is remembered if it is for the app of this process.

    The desktop's server does not tell its ``main`` to anybody, and nobody can ask for the server.
    """
    global _desktop_hub
    caller = sys._getframe(2)
    is_desktop = caller.f_globals.get("__name__") in _DESKTOP_SERVERS
    main = None if is_desktop else caller.f_locals.get("session_handler")
    namespace = _namespace(main)
    hub = PubSubHub(*args, link=_link, namespace=namespace, presence=_presence, **kwargs)
    if is_desktop:
        _desktop_hub = weakref.ref(hub)
    return hub


def _namespace(main: object) -> str:
    """A name for the app that begins with ``main``: the same in every process that serves it."""
    module = getattr(main, "__module__", "__main__")
    if module == "__main__":
        module = Path(getattr(sys.modules["__main__"], "__file__", None) or "app").stem
    return f"{module}.{getattr(main, '__qualname__', 'main')}"


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
