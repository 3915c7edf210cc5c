"""Prints the folder of this interpreter's libpython, for the Rust tests, which link it."""

import sys
import sysconfig
from pathlib import Path

version = sysconfig.get_config_var("LDVERSION")
for folder in filter(None, map(sysconfig.get_config_var, ("LIBDIR", "LIBPL"))):
    if any(Path(folder, f"libpython{version}.{kind}").exists() for kind in ("so", "dylib", "a")):
        print(folder)
        sys.exit()
sys.exit(f"no libpython{version}")
