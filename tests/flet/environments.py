"""Makes ``.envs/flet-0.86`` and ``.envs/flet-0.28``: the environments for testing other Flets.

They hold what the dependency groups of pyproject.toml name, and the pagebus that was built into
the source tree. Running it again brings them up to date.
"""

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GROUPS = {"flet-0.86": "flet-0_86", "flet-0.28": "flet-0_28"}


def python_of(name: str) -> Path:
    """The interpreter of the environment ``name``, whether it exists or not."""
    directory = ROOT / ".envs" / name
    return directory / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def provide(name: str) -> None:
    """Create the environment ``name`` if it is missing, and install what it needs."""
    python = python_of(name)
    if not python.exists():
        venv.create(python.parents[1], symlinks=sys.platform != "win32")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*pip, "--group", f"{ROOT / 'pyproject.toml'}:{GROUPS[name]}"], check=True)
    link_source_tree(python)


def link_source_tree(python: Path) -> None:
    """Let ``python`` import pagebus from the source tree, so that it is always the newest build."""
    where = "import sysconfig; print(sysconfig.get_path('platlib'))"
    result = subprocess.run([python, "-c", where], check=True, capture_output=True, text=True)
    packages = Path(result.stdout.strip())
    (packages / "pagebus.pth").write_text(f"{ROOT / 'python'}\n")


if __name__ == "__main__":
    for name in GROUPS:
        provide(name)
