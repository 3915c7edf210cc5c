"""``pagebus.flet.install()`` and ``uninstall()``, on each supported version of Flet."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

import pagebus

# What each program below begins with. Flet's classes are imported by name before the install.
BEGINNING = """
import asyncio
import importlib
import threading
from concurrent.futures import ThreadPoolExecutor

import flet
from flet import PubSubClient, PubSubHub

import pagebus
import pagebus.flet


class ALoggingHub(PubSubHub):
    def __init__(self, name, **keywords):
        super().__init__(**keywords)
        self.name = name


class ALoggingClient(PubSubClient):
    def __init__(self, hub, session_id, name):
        super().__init__(hub, session_id)
        self.name = name


def delivers(hub, client_class=PubSubClient):
    heard = []
    client = client_class(hub, "ada")
    client.subscribe(heard.append)
    client.send_all("hello")
    return heard == ["hello"]
"""

Run = Callable[..., None]


@pytest.fixture
def run(any_flet: str) -> Run:
    """Run a program on a version of Flet; it must come to its end."""

    def run_program(program: str) -> None:
        source = BEGINNING + dedent(program)
        result = subprocess.run([any_flet, "-c", source], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr

    return run_program


# ---- installed ----------------------------------------------------------------------------------


def test_every_hub_made_after_install_is_a_pagebus_hub(run: Run) -> None:
    run("""
        pagebus.flet.install()
        assert type(PubSubHub()) is pagebus.PubSubHub
        assert type(flet.PubSubHub()) is pagebus.PubSubHub
        loop, executor = asyncio.new_event_loop(), ThreadPoolExecutor()
        assert type(PubSubHub(loop, executor)) is pagebus.PubSubHub
        assert type(PubSubHub(loop=loop, executor=executor)) is pagebus.PubSubHub
    """)


def test_a_client_of_such_a_hub_is_a_pagebus_pubsub(run: Run) -> None:
    run("""
        pagebus.flet.install()
        hub = PubSubHub()
        for client in PubSubClient(hub, "ada"), PubSubClient(pubsub=hub, session_id="ada"):
            assert type(client) is pagebus.PubSub
            assert client.hub is hub
            assert client.session_id == "ada"
        assert delivers(hub)
    """)


def test_wherever_flet_makes_a_hub_it_makes_a_pagebus_hub(run: Run) -> None:
    run("""
        web = importlib.import_module("flet_web.fastapi.flet_app_manager")
        old = flet.version.__dict__.get("version") == "0.28.3"
        desktop = importlib.import_module(
            "flet.flet_socket_server" if old else "flet.messaging.flet_socket_server"
        )
        pagebus.flet.install()

        async def main():
            loop = asyncio.get_running_loop()
            hub = web.app_manager.get_pubsubhub(main, loop=loop)
            assert type(hub) is pagebus.PubSubHub
            assert web.app_manager.get_pubsubhub(main, loop=loop) is hub
            handlers = {"on_event": None} if old else {"before_main": None}
            server = desktop.FletSocketServer(
                loop=loop, executor=None, on_session_created=None, **handlers
            )
            assert type(server.pubsubhub) is pagebus.PubSubHub

        asyncio.run(main())
        if old:
            from flet.core.connection import Connection

            assert type(Connection().pubsubhub) is pagebus.PubSubHub
    """)


def test_subclasses_of_flets_classes_stay_flets(run: Run) -> None:
    run("""
        pagebus.flet.install()
        hub = ALoggingHub("main", loop=asyncio.new_event_loop())
        assert type(hub) is ALoggingHub
        assert hub.name == "main"
        assert type(PubSubClient(hub, "ada")) is PubSubClient
        assert delivers(hub)
        client = ALoggingClient(PubSubHub(), "ada", "first")
        assert type(client) is ALoggingClient
        assert client.name == "first"
    """)


def test_hubs_made_before_install_stay_flets(run: Run) -> None:
    run("""
        hub = PubSubHub(asyncio.new_event_loop())
        pagebus.flet.install()
        assert type(hub) is PubSubHub
        assert type(PubSubClient(hub, "ada")) is PubSubClient
        assert delivers(hub)
    """)


def test_installing_again_changes_nothing(run: Run) -> None:
    run("""
        for _ in range(3):
            pagebus.flet.install()
        assert type(PubSubHub()) is pagebus.PubSubHub
        pagebus.flet.uninstall()
        assert type(PubSubHub()) is PubSubHub
    """)


# ---- uninstalled --------------------------------------------------------------------------------


def test_after_uninstall_flets_classes_work_as_before(run: Run) -> None:
    run("""
        pagebus.flet.install()
        pagebus.flet.uninstall()
        loop = asyncio.new_event_loop()
        for hub in PubSubHub(loop), PubSubHub(loop=loop, executor=None):
            assert type(hub) is PubSubHub
            assert type(PubSubClient(pubsub=hub, session_id="bob")) is PubSubClient
            assert delivers(hub)
        assert delivers(ALoggingHub("main", loop=loop))
        assert ALoggingClient(hub, "ada", "first").name == "first"
        try:
            PubSubHub(loop, None, "one too many")
        except TypeError:
            pass
        else:
            raise AssertionError("Flet's hub takes two arguments")
    """)


def test_uninstalling_again_or_without_install_changes_nothing(run: Run) -> None:
    run("""
        pagebus.flet.uninstall()
        assert type(PubSubHub()) is PubSubHub
        pagebus.flet.install()
        for _ in range(3):
            pagebus.flet.uninstall()
        assert type(PubSubHub()) is PubSubHub
        pagebus.flet.install()
        assert type(PubSubHub()) is pagebus.PubSubHub
    """)


def test_a_pagebus_hub_outlives_uninstall(run: Run) -> None:
    run("""
        pagebus.flet.install()
        hub = PubSubHub()
        client = PubSubClient(hub, "ada")
        pagebus.flet.uninstall()
        heard = []
        client.subscribe(heard.append)
        PubSubClient(hub, "bob").send_all("to a hub that Flet still holds")
        assert heard == ["to a hub that Flet still holds"]
        assert delivers(hub)
    """)


def test_install_and_uninstall_may_race_with_new_hubs(run: Run) -> None:
    run("""
        loop = asyncio.new_event_loop()
        stop = threading.Event()
        errors = []

        def toggle():
            while not stop.is_set():
                pagebus.flet.install()
                pagebus.flet.uninstall()

        def make():
            try:
                for _ in range(2000):
                    hub = PubSubHub(loop)
                    assert type(hub) in (PubSubHub, pagebus.PubSubHub)
                    assert delivers(hub)
            except BaseException as error:
                errors.append(error)
                raise

        togglers = [threading.Thread(target=toggle) for _ in range(2)]
        makers = [threading.Thread(target=make) for _ in range(4)]
        for thread in togglers + makers:
            thread.start()
        for thread in makers:
            thread.join()
        stop.set()
        for thread in togglers:
            thread.join()
        assert not errors
        pagebus.flet.install()
        assert type(PubSubHub()) is pagebus.PubSubHub
    """)


# ---- refused ------------------------------------------------------------------------------------


def run_without_site_packages(python: str, folder: Path, program: str) -> None:
    """Run a program that sees pagebus and what is in ``folder``, but nothing that is installed."""
    (folder / "pagebus").symlink_to(Path(pagebus.__file__).parent)
    result = subprocess.run(
        [python, "-S", "-c", dedent(program)],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr


REFUSED = """
    import pagebus.flet

    try:
        pagebus.flet.install()
    except pagebus.flet.UnsupportedFletError as error:
        assert isinstance(error, ImportError)
        assert error.name == "flet"
        assert str(error) == {message!r}, error
    else:
        raise AssertionError("installed")
"""


def test_without_flet_install_says_which_versions_it_works_with(
    flet_1_0: str, tmp_path: Path
) -> None:
    message = "Flet is not installed; pagebus.flet works with Flet 0.28.3, 0.86.x and 1.0.x"
    run_without_site_packages(flet_1_0, tmp_path, REFUSED.format(message=message))


@pytest.mark.parametrize(
    "version", ['version = "0.27.6"', 'flet_version = "0.85.9"', 'flet_version = "1.1.0"']
)
def test_an_unsupported_flet_is_refused_by_its_version(
    flet_1_0: str, tmp_path: Path, version: str
) -> None:
    flet = tmp_path / "flet"
    flet.mkdir()
    (flet / "__init__.py").touch()
    (flet / "version.py").write_text(f"{version}\n")
    number = version.split('"')[1]
    message = (
        f"Flet {number} is not supported; pagebus.flet works with Flet 0.28.3, 0.86.x and 1.0.x"
    )
    run_without_site_packages(flet_1_0, tmp_path, REFUSED.format(message=message))


def test_importing_the_integration_does_not_import_flet(flet_1_0: str) -> None:
    program = "import sys, pagebus.flet; assert 'flet' not in sys.modules"
    subprocess.run([flet_1_0, "-c", program], check=True)
