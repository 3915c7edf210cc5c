"""What the tests against a real Flet need: its versions, running programs, browser windows."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from environments import GROUPS, ROOT, python_of
from flet_servers import Server

CHROMIUM = Path("/usr/bin/chromium")
PROGRAMS = Path(__file__).parent / "programs"


def require(condition: object, what: str) -> None:
    """Skip the test for want of ``what``; where skipping is forbidden, fail."""
    if condition:
        return
    if os.environ.get("PAGEBUS_NO_SKIP") == "1":
        pytest.fail(f"missing: {what}", pytrace=False)
    pytest.skip(f"missing: {what}")


# ---- the versions of Flet -----------------------------------------------------------------------


def _interpreter(version: str) -> str:
    """An interpreter that imports Flet ``version`` and pagebus; Flet 1.0 is in this one's own."""
    if version == "flet-1.0":
        return sys.executable
    python = python_of(version)
    probe = [str(python), "-c", "import flet, pagebus"]
    works = python.exists() and subprocess.run(probe, capture_output=True).returncode == 0
    require(works, f"the environment {version} (python tests/flet/environments.py makes it)")
    return str(python)


@pytest.fixture(scope="session")
def flet_1_0() -> str:
    """An interpreter with Flet 1.0."""
    return _interpreter("flet-1.0")


@pytest.fixture(scope="session")
def flet_0_86() -> str:
    """An interpreter with Flet 0.86."""
    return _interpreter("flet-0.86")


@pytest.fixture(scope="session")
def flet_0_28() -> str:
    """An interpreter with Flet 0.28.3."""
    return _interpreter("flet-0.28")


@pytest.fixture(scope="session", params=["flet-1.0", *GROUPS])
def any_flet(request: pytest.FixtureRequest) -> str:
    """An interpreter with each supported version of Flet in turn."""
    return _interpreter(request.param)


# ---- running programs ---------------------------------------------------------------------------

Serve = Callable[..., Server]


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
    logs = [(server.log(), server.stop())[0] for server in servers]
    assert not [log for log in logs if "Traceback" in log]


@pytest.fixture
def board(serve: Serve) -> Callable[..., Server]:
    """Start ``programs/board.py`` on the pagebus hub: ``board(python, "sync", ...)``."""

    def start(python: str, kind: str, **settings: str) -> Server:
        return serve(python, "-m", "pagebus", "run", PROGRAMS / "board.py", kind, **settings)

    return start


# ---- browser windows ----------------------------------------------------------------------------


@pytest.fixture
def open_window(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Open browser windows: ``open_window(server, "ada")`` is Ada's, with cookies of its own."""
    require(CHROMIUM.exists(), f"Chromium at {CHROMIUM} (apt-get install chromium)")
    from flet_windows import browser

    artifacts = ROOT / "artifacts"
    artifacts.mkdir(exist_ok=True)
    with browser(CHROMIUM) as open_page:
        yield lambda server, name: open_page(server.url, artifacts / f"{request.node.name}-{name}")
