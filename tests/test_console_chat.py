"""The console chat, as people run it: one process each, real sockets, and they read each other."""

import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from delivery_modes import DEADLINE

pytestmark = pytest.mark.thread_unsafe(reason="it is about other processes")

PROGRAM = Path(__file__).parent.parent / "examples" / "console_chat.py"


class Person:
    """Somebody at a terminal: types lines and reads what the program prints."""

    def __init__(self, name: str, port: int) -> None:
        command = [sys.executable, str(PROGRAM), name, "--port", str(port)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))

    def types(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def reads(self) -> str:
        """The next line on the screen."""
        return self._lines.get(timeout=DEADLINE)

    def leaves(self) -> str:
        """Quit; returns what the program complained about."""
        self.types("/quit")
        assert self._process.wait(DEADLINE) == 0
        return self.ended()

    def ended(self) -> str:
        self._process.kill()
        _, errors = self._process.communicate(timeout=DEADLINE)
        self._reader.join(DEADLINE)
        return errors


@pytest.fixture
def people() -> Iterator[tuple[Person, Person]]:
    """Ann, who hosts the chat, and Bob, who has joined her."""
    with ExitStack() as at_the_end:
        ann = Person("ann", 0)
        at_the_end.callback(ann.ended)
        port = int(ann.reads().rpartition(" ")[2])
        assert ann.reads() == "* ann is here"
        bob = Person("bob", port)
        at_the_end.callback(bob.ended)
        assert ann.reads() == "* bob is here"
        assert bob.reads() == "* bob is here"
        yield ann, bob


def test_two_people_read_each_other(people: tuple[Person, Person]):
    ann, bob = people

    ann.types("hello bob")
    assert ann.reads() == bob.reads() == "ann: hello bob"
    bob.types("grüß dich, ann 🚌")
    assert ann.reads() == bob.reads() == "bob: grüß dich, ann 🚌"


def test_fifty_lines_arrive_in_order(people: tuple[Person, Person]):
    ann, bob = people

    for number in range(50):
        ann.types(f"line {number}")

    expected = [f"ann: line {number}" for number in range(50)]
    assert [bob.reads() for _ in expected] == expected
    assert [ann.reads() for _ in expected] == expected


def test_what_is_said_in_a_room_stays_there(people: tuple[Person, Person]):
    ann, bob = people

    ann.types("/join kitchen")
    assert ann.reads() == "[kitchen] * ann joined"
    ann.types("is anybody here?")
    assert ann.reads() == "[kitchen] ann: is anybody here?"

    bob.types("/join kitchen")
    assert ann.reads() == bob.reads() == "[kitchen] * bob joined"
    bob.types("I am")
    assert ann.reads() == bob.reads() == "[kitchen] bob: I am"

    ann.types("/leave")
    assert bob.reads() == "[kitchen] * ann left"
    ann.types("back in the hall")
    assert ann.reads() == bob.reads() == "ann: back in the hall"


def test_who_leaves_is_missed_and_nobody_gets_an_error(people: tuple[Person, Person]):
    ann, bob = people

    assert bob.leaves() == ""
    assert ann.reads() == "* bob is gone"
    ann.types("so quiet")
    assert ann.reads() == "ann: so quiet"
    assert ann.leaves() == ""
