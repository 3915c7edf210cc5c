"""The page really shows it: ``examples/chat.py`` in two browser windows."""

import pytest

from environments import ROOT
from flet_servers import Serve
from flet_windows import Meet, Window

pytestmark = pytest.mark.browser

CHAT = ROOT / "examples" / "chat.py"


@pytest.fixture
def people(flet_1_0: str, serve: Serve, meet: Meet) -> tuple[Window, Window]:
    """The windows of two people in the chat."""
    server = serve(flet_1_0, CHAT)
    assert server.read_line() == f"Chat on {server.url}"
    return meet(server)


def say(window: Window, text: str) -> None:
    window.type("Message", text)
    window.click("Send")
    window.reads(text)
    window.is_empty("Message")


def test_what_one_types_the_other_reads(people: tuple[Window, Window]) -> None:
    ada, bob = people
    say(ada, "Hello, is anybody there?")
    bob.reads("Hello, is anybody there?")
    say(bob, "Yes, and I can read you.")
    ada.reads("Yes, and I can read you.")
    ada.picture("has-been-answered")
    bob.picture("has-answered")


def test_enter_sends_too(people: tuple[Window, Window]) -> None:
    ada, bob = people
    ada.type("Message", "sent with the Enter key")
    ada.press_enter()
    bob.reads("sent with the Enter key")


def test_both_read_the_same_transcript(people: tuple[Window, Window]) -> None:
    ada, bob = people
    for number in range(4):
        say(ada, f"question {number}")
        say(bob, f"answer {number}")
    for window in people:
        window.reads("answer 3")
        window.picture("transcript")
    assert transcript(ada) == transcript(bob)


def transcript(window: Window) -> list[str]:
    return [line for line in window.text().splitlines() if "question" in line or "answer" in line]


def test_who_has_left_reads_nothing_until_he_joins_again(people: tuple[Window, Window]) -> None:
    ada, bob = people
    ada.click("Leave")
    bob.reads("has left the chat")
    ada.reads("You have left the chat")
    ada.picture("has-left")
    say(bob, "now that she is away")
    bob.reads("now that she is away")
    ada.click("Join")
    ada.reads("Leave")
    say(bob, "welcome back")
    # Messages come in the order in which they were sent: the earlier one would be here by now.
    ada.reads("welcome back")
    assert "now that she is away" not in ada.text()
    ada.picture("is-back")
