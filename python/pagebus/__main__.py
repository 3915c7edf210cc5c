"""The command line: ``pagebus run app.py`` runs an unchanged Flet program on the pagebus hub."""

import argparse
import builtins
import io
import os
import sys
from importlib.machinery import SourceFileLoader
from types import ModuleType

import pagebus
import pagebus.flet


def main() -> int:
    """Do what ``sys.argv`` asks for and return the exit status."""
    parser = _parser()
    # What follows the program's name is the program's own, options included.
    command_line, program_arguments = sys.argv[1:3], sys.argv[3:]
    program = parser.parse_args(command_line).program
    path = os.path.abspath(program)
    try:
        with io.open_code(path) as file:
            source = file.read()
    except OSError as error:
        parser.exit(2, f"pagebus: cannot open {program!r}: {error.strerror}\n")
    try:
        pagebus.flet.install()
    except pagebus.flet.UnsupportedFletError as error:
        parser.exit(1, f"pagebus: {error}\n")
    sys.argv = [program, *program_arguments]
    return _run_as_main(path, source)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pagebus", description="Flet's page.pubsub on a Rust core."
    )
    parser.add_argument("--version", action="version", version=f"pagebus {pagebus.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        usage="pagebus run [-h] APP.py [ARGUMENT ...]",
        help="run an unchanged Flet program on the pagebus hub",
        description="What `python APP.py ARGUMENT ...` does, on the pagebus hub.",
    )
    run.add_argument("program", metavar="APP.py", help="the program's file")
    return parser


def _run_as_main(path: str, source: bytes) -> int:
    """Run ``source`` as Python runs the file that it is given, and return the exit status."""
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = os.path.dirname(os.path.realpath(path))
    program = ModuleType("__main__")
    program.__file__ = path
    program.__loader__ = SourceFileLoader("__main__", path)
    program.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = program
    try:
        exec(compile(source, path, "exec", dont_inherit=True), program.__dict__)
    except Exception as error:
        # Without the frame of this function: the traceback that Python itself would show.
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
