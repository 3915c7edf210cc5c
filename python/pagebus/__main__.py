"""The command line: ``pagebus run app.py`` runs an unchanged Flet program on the pagebus hub.

``pagebus monitor app.py`` does the same, and opens the monitor beside it; ``pagebus send`` and
``pagebus listen`` talk to linked hubs.
"""

import argparse
import builtins
import importlib.util
import io
import os
import sys
from contextlib import ExitStack, closing
from importlib.machinery import SourceFileLoader
from types import ModuleType

import pagebus
import pagebus._talk
import pagebus.flet


def main() -> int:
    """Do what ``sys.argv`` asks for and return the exit status."""
    parser = _parser()
    command_line, program_arguments = _split(sys.argv[1:])
    options = parser.parse_args(command_line)
    if hasattr(options, "do"):
        return pagebus._talk.run(options)
    program = options.program
    path = os.path.abspath(program)
    try:
        with io.open_code(path) as file:
            source = file.read()
    except OSError as error:
        parser.exit(2, f"pagebus: cannot open {program!r}: {error.strerror}\n")
    try:
        pagebus.flet.install(link=options.link)
        if options.is_monitored:
            pagebus.flet._check_monitor()
    except pagebus.flet.UnsupportedFletError as error:
        parser.exit(1, f"pagebus: {error}\n")
    except ValueError as error:
        parser.exit(2, f"pagebus: {error}\n")
    if options.is_monitored and importlib.util.find_spec("flet_web") is None:
        parser.exit(1, "pagebus: the monitor needs the package flet-web\n")
    sys.argv = [program, *program_arguments]
    with ExitStack() as at_the_end:
        if options.is_monitored:
            from pagebus._beside import Beside

            at_the_end.enter_context(closing(Beside(os.path.basename(path), options.port)))
        return _run_as_main(path, source)


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Part pagebus's own arguments from the program's: what follows its name, options included."""
    if arguments[:1] not in (["run"], ["monitor"]):
        return arguments, []
    for index, argument in enumerate(arguments[1:], 1):
        if not argument.startswith("-") and arguments[index - 1] not in ("--port", "--link"):
            return arguments[: index + 1], arguments[index + 1 :]
    return arguments, []


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pagebus", description="Flet's page.pubsub on a Rust core."
    )
    parser.add_argument("--version", action="version", version=f"pagebus {pagebus.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        usage="pagebus run [-h] [--link URL] APP.py [ARGUMENT ...]",
        help="run an unchanged Flet program on the pagebus hub",
        description="What `python APP.py ARGUMENT ...` does, on the pagebus hub.",
    )
    monitor = commands.add_parser(
        "monitor",
        usage="pagebus monitor [-h] [--port PORT] [--link URL] APP.py [ARGUMENT ...]",
        help="run it, and open a page that shows what its hubs do",
        description="What `pagebus run` does, and a page beside it that shows what its hubs do.",
    )
    monitor.add_argument(
        "--port", type=int, default=0, help="where the monitor's page is; default: any free port"
    )
    for command, is_monitored in ((run, False), (monitor, True)):
        command.add_argument(
            "--link",
            metavar="URL",
            help="a Redis or Valkey server that connects the processes of the app",
        )
        command.add_argument("program", metavar="APP.py", help="the program's file")
        command.set_defaults(is_monitored=is_monitored)
    pagebus._talk.add_commands(commands)
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
