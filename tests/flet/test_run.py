"""``pagebus run``: a program runs as Python itself runs it, with the hub installed."""

import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pagebus
from flet_servers import Serve

SCRIPT = Path(sys.executable).with_name("pagebus.exe" if sys.platform == "win32" else "pagebus")
PAGEBUS = (sys.executable, "-m", "pagebus")
RUN = (*PAGEBUS, "run")
PYTHON = (sys.executable,)


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], Path]:
    """Write a program into a folder of its own."""

    def write(source: str) -> Path:
        path = tmp_path / "programs" / "app.py"
        path.parent.mkdir()
        path.write_text(source, encoding="utf-8")
        return path

    return write


def run(*command: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, **options)


# ---- the program --------------------------------------------------------------------------------

WHO_AM_I = """
import os, sys
print(sys.argv, sys.path[0], __name__, __file__, __spec__, __package__, __doc__, type(__loader__))
print(sys.modules["__main__"].__dict__ is globals(), os.getcwd())
import neighbour
"""


def test_the_program_is_main_as_if_python_had_started_it(
    program: Callable[[str], Path], tmp_path: Path
) -> None:
    path = program(WHO_AM_I)
    (path.parent / "neighbour.py").write_text("print('is imported')\n")
    for name in (path, path.relative_to(tmp_path)):
        command = (name, "one", "two")
        expected = run(*PYTHON, *command, cwd=tmp_path)
        assert expected.returncode == 0
        assert run(*RUN, *command, cwd=tmp_path).stdout == expected.stdout


@pytest.mark.parametrize("options", [["-h"], ["--version"], ["--", "-x"], ["run", "other.py"]])
def test_what_follows_the_program_belongs_to_it(
    program: Callable[[str], Path], options: list[str]
) -> None:
    path = program("import sys; print(sys.argv[1:])")
    assert run(*RUN, path, *options).stdout == f"{options}\n"


@pytest.mark.parametrize(
    "source",
    [
        "",
        "import sys; sys.exit()",
        "import sys; sys.exit(3)",
        "import sys; sys.exit('in words')",
        "def fail():\n    raise ValueError('on purpose')\n\nfail()",
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise ValueError('on purpose')",
        "no python",
        "'Grüße'.encode('ascii')",
    ],
)
def test_it_ends_as_under_python(program: Callable[[str], Path], source: str) -> None:
    path = program(source)
    expected, actual = run(*PYTHON, path), run(*RUN, path)
    assert actual.returncode == expected.returncode
    assert actual.stderr == expected.stderr


def test_the_hub_is_installed(any_flet: str, program: Callable[[str], Path]) -> None:
    path = program("from flet import PubSubHub\nprint(type(PubSubHub()).__module__)")
    assert run(any_flet, "-m", "pagebus", "run", path).stdout.startswith("pagebus")
    assert run(any_flet, path).stdout.startswith("flet")


def test_assets_are_those_beside_the_program(
    any_flet: str, program: Callable[[str], Path], serve: Serve
) -> None:
    path = program(
        "import flet as ft\n"
        "def main(page): pass\n"
        "(getattr(ft, 'run', None) or ft.app)(main, assets_dir='pictures')\n"
    )
    pictures = path.parent / "pictures"
    pictures.mkdir()
    (pictures / "hello.txt").write_text("from the assets")
    server = serve(any_flet, "-m", "pagebus", "run", path)
    with urllib.request.urlopen(f"{server.url}/hello.txt") as response:
        assert response.read() == b"from the assets"


# ---- the command --------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [PAGEBUS, (SCRIPT,)], ids=["python -m pagebus", "pagebus"])
def test_the_command_names_its_version(command: tuple[object, ...]) -> None:
    assert run(*command, "--version").stdout == f"pagebus {pagebus.__version__}\n"


def test_the_script_runs_a_program_too(program: Callable[[str], Path]) -> None:
    path = program("import sys; sys.exit(len(sys.argv))")
    assert run(SCRIPT, "run", path, "an argument").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "usage"), [(["-h"], "usage: pagebus "), (["run", "-h"], "usage: pagebus run ")]
)
def test_the_command_explains_itself(arguments: list[str], usage: str) -> None:
    result = run(*PAGEBUS, *arguments)
    assert result.returncode == 0
    assert result.stdout.startswith(usage)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "COMMAND"),
        (["walk"], "'walk'"),
        (["run"], "APP.py"),
        (["run", "missing.py"], "pagebus: cannot open 'missing.py': No such file or directory"),
        (["run", "."], "pagebus: cannot open '.': "),
    ],
)
def test_a_wrong_command_is_refused_in_one_line(
    arguments: list[str], complaint: str, tmp_path: Path
) -> None:
    result = run(*PAGEBUS, *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert complaint in result.stderr.splitlines()[-1]


def test_a_flet_that_is_not_supported_is_refused_in_one_line(
    program: Callable[[str], Path], tmp_path: Path
) -> None:
    path = program("raise SystemExit('the program has started')")
    flet = tmp_path / "flet"
    flet.mkdir()
    (flet / "__init__.py").touch()
    (flet / "version.py").write_text("flet_version = '2.0.0'\n")
    result = run(*RUN, path, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert result.returncode == 1
    expected = "pagebus: Flet 2.0.0 is not supported; pagebus.flet works with Flet 0.28.3, "
    assert result.stderr == f"{expected}0.86.x and 1.0.x\n"
