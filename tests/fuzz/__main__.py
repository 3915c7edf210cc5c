"""``python -m fuzz``: looks for bytes that make the API do something wrong, with Atheris."""

from __future__ import annotations

import argparse
import hashlib
import itertools
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import atheris
from redis_server import RedisServer

with atheris.instrument_imports(include=["fuzz", "pagebus"]):
    from fuzz import codec, link, machine

CORPUS = Path(__file__).parent / "corpus"
"""Inputs that are kept and replayed by the tests."""

WORTH = 4
"""How much that is new makes an input worth keeping."""

FOUND = Path("artifacts")
"""Where the inputs are that a run finds, in a folder for each target."""


def reached(data: bytes) -> set[tuple[object, ...]]:
    """What an input is kept for: operations that follow each other, and calls of handlers."""
    done = machine.run(data)
    pairs = set(itertools.pairwise(done.trail))
    return pairs | {(name, min(done.calls, 50) // 10) for name in done.trail}


def minimise() -> None:
    """Keep the inputs that reach what no shorter one reaches."""
    known: set[tuple[object, ...]] = set()
    found = [
        path.read_bytes() for folder in (CORPUS, FOUND / "fuzz-hub") for path in folder.iterdir()
    ]
    for path in CORPUS.iterdir():
        path.unlink()
    for data in sorted(found, key=lambda data: (len(data), data)):
        new = reached(data) - known
        if len(new) >= WORTH:
            known |= new
            (CORPUS / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


def target(name: str, port: int) -> Callable[[bytes], object]:
    """What gets the inputs."""
    if name == "link":
        return link.Target(port).run
    return codec.run if name == "codec" else machine.run


def run_with_server() -> int:
    """Run once more, with a server: the fuzzer ends its process without a word."""
    with tempfile.TemporaryDirectory() as directory:
        server = RedisServer(Path(directory))
        try:
            command = [sys.executable, "-m", "fuzz", *sys.argv[1:], "--port", str(server.port)]
            return subprocess.run(command, check=False).returncode
        finally:
            server.kill()


def main() -> int:
    """Run as the command line says; what is left of it is libFuzzer's."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=300, help="how long (default: 300)")
    parser.add_argument("--seed", type=int, default=0, help="what to begin with (default: new)")
    parser.add_argument(
        "--target",
        choices=["hub", "codec", "link"],
        default="hub",
        help="what gets them (default: hub)",
    )
    parser.add_argument("--port", type=int, help="the server's, for a link (default: its own)")
    parser.add_argument("--minimise", action="store_true", help="write the corpus anew")
    arguments, others = parser.parse_known_args()
    if arguments.minimise:
        minimise()
        return 0
    if arguments.target == "link" and arguments.port is None:
        return run_with_server()
    found = FOUND / f"fuzz-{arguments.target}"
    found.mkdir(parents=True, exist_ok=True)
    CORPUS.mkdir(exist_ok=True)
    options = [
        f"-artifact_prefix={found}/fault-",
        "-timeout=60",
        "-max_len=1200",
        "-len_control=0",
        *others,
    ]
    options += [f"-max_total_time={arguments.seconds}", f"-seed={arguments.seed}"]
    options += ["-print_final_stats=1", str(found)]
    options += [str(CORPUS)] if arguments.target == "hub" else []
    # A coroutine that is never awaited is what some hostile values leave behind.
    warnings.simplefilter("ignore")
    atheris.Setup([sys.argv[0], *options], target(arguments.target, arguments.port))
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
