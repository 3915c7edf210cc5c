"""Where the tests find the project, and the interpreters of its test environments."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(__file__).parent / "programs"

FLET_1_0, FLET_0_86, FLET_0_28 = VERSIONS = ("flet-1.0", "flet-0.86", "flet-0.28")


def interpreter(version: str) -> Path:
    """The interpreter of an environment, whether it exists or not; the tests run on Flet 1.0."""
    if version == FLET_1_0:
        return Path(sys.executable)
    binaries = "Scripts/python.exe" if sys.platform == "win32" else "bin/python"
    return ROOT / ".envs" / version / binaries
