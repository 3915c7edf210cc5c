"""Programs that run in a process of their own, where a test ends, forks or interrupts one."""

import signal
import subprocess
import sys
import textwrap


def run(body: str, *options: str, seconds: float = 60) -> "subprocess.CompletedProcess[str]":
    """Run ``body`` as a program, with options of the interpreter, and return what came of it.

    Of one that does not end in time, the error says where its threads are.
    """
    command = [sys.executable, "-X", "faulthandler", *options, "-c", textwrap.dedent(body)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as program:
        try:
            out, err = program.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            program.send_signal(signal.SIGABRT)
            out, err = program.communicate()
            raise AssertionError(f"no end after {seconds} s: {out}\n{err}") from None
    return subprocess.CompletedProcess(command, program.returncode, out, err)
