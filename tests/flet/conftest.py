"""What the tests against a real Flet need: its versions, running programs, browser windows."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from environments import FLET_0_28, FLET_0_86, FLET_1_0, PROGRAMS, ROOT, VERSIONS, interpreter
from flet_servers import Serve, Server
from flet_windows import PATIENCE_MS, Look, Meet, Window, browser

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


WITH_A_BROWSER = 4 * PATIENCE_MS / 1000
"""Seconds that a test with windows may take, in which it waits for several things."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("browser") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(WITH_A_BROWSER))


def require(condition: object, what: str) -> None:
    """Skip the test for want of ``what``; where skipping is forbidden, that is a failure."""
    if not condition:
        pytest.skip(f"missing: {what}")


# ---- the versions of Flet -----------------------------------------------------------------------


def _python(version: str) -> str:
    """An interpreter that imports this version of Flet, and pagebus."""
    python = interpreter(version)
    probe = [str(python), "-c", "import flet, pagebus"]
    works = python.exists() and subprocess.run(probe, capture_output=True).returncode == 0
    require(works, f"an environment with {version} (`make test` provides it)")
    return str(python)


@pytest.fixture(scope="session")
def flet_1_0() -> str:
    """An interpreter with Flet 1.0."""
    return _python(FLET_1_0)


@pytest.fixture(scope="session")
def flet_0_86() -> str:
    """An interpreter with Flet 0.86."""
    return _python(FLET_0_86)


@pytest.fixture(scope="session")
def flet_0_28() -> str:
    """An interpreter with Flet 0.28.3."""
    return _python(FLET_0_28)


@pytest.fixture(scope="session", params=VERSIONS)
def any_flet(request: pytest.FixtureRequest) -> str:
    """An interpreter with each supported version of Flet in turn."""
    return _python(request.param)


# ---- running programs ---------------------------------------------------------------------------


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start Flet programs: ``serve(python, *arguments, FLET_...="...")``; all end with the test."""
    servers: list[Server] = []

    def start(python: str, *arguments: object, **settings: str) -> Server:
        log = tmp_path / f"server-{len(servers)}.log"
        server = Server([python, *map(str, arguments)], log, settings)
        servers.append(server)
        server.wait_until_ready()
        return server

    yield start
    logs = [server.log() for server in servers]
    assert [server.stop() for server in servers] == [0] * len(servers)
    assert not [log for log in logs if "Traceback" in log]


@pytest.fixture
def board(serve: Serve) -> Serve:
    """Start ``programs/board.py`` on the pagebus hub: ``board(python, "sync", ...)``."""

    def start(python: str, kind: str, **settings: str) -> Server:
        return serve(python, "-m", "pagebus", "run", PROGRAMS / "board.py", kind, **settings)

    return start


# ---- browser windows ----------------------------------------------------------------------------


@pytest.fixture
def look(request: pytest.FixtureRequest) -> Iterator[Look]:
    """Open an address in a window with cookies of its own, whose pictures have the test's name."""
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    require(chromium, "Chromium (apt-get install chromium)")
    artifacts = ROOT / "artifacts"
    artifacts.mkdir(exist_ok=True)
    with browser(str(chromium)) as open_page:
        yield lambda url, name, **settings: open_page(
            url, artifacts / f"{request.node.name}-{name}", settings
        )


@pytest.fixture
def meet(look: Look) -> Meet:
    """Let Ada and Bob open a program's page."""

    def visit(server: Server, name: str) -> Window:
        window = look(server.url, name)
        window.type("Your name", name)
        return window

    return lambda server: (visit(server, "Ada"), visit(server, "Bob"))
