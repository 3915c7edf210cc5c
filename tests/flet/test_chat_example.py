"""The page really shows it: ``examples/chat.py`` in two browser windows."""

from collections.abc import Callable
from typing import Any

import pytest
from environments import ROOT

pytestmark = pytest.mark.browser

CHAT = ROOT / "examples" / "chat.py"


@pytest.fixture
def two_windows(
    flet_1_0: str, serve: Callable[..., Any], open_window: Callable[..., Any]
) -> tuple[Any, Any]:
    """The windows of two people in the chat."""
    server = serve(flet_1_0, CHAT)
    assert server.read_line() == f"Chat on {server.url}"
    ada, bob = open_window(server, "ada"), open_window(server, "bob")
    ada.type("Your name", "Ada")
    bob.type("Your name", "Bob")
    return ada, bob


def say(window: Any, text: str) -> None:
    window.type("Message", text)
    window.click("Send")
    window.reads(text)
    window.is_empty("Message")


def test_what_one_types_the_other_reads(two_windows: tuple[Any, Any]) -> None:
    ada, bob = two_windows
    say(ada, "Hello, is anybody there?")
    bob.reads("Hello, is anybody there?")
    say(bob, "Yes, and I can read you.")
    ada.reads("Yes, and I can read you.")
    ada.picture("has-been-answered")
    bob.picture("has-answered")


def test_enter_sends_too(two_windows: tuple[Any, Any]) -> None:
    ada, bob = two_windows
    ada.type("Message", "sent with the Enter key")
    ada.press_enter()
    bob.reads("sent with the Enter key")


def test_both_read_the_same_transcript(two_windows: tuple[Any, Any]) -> None:
    ada, bob = two_windows
    for number in range(4):
        say(ada, f"question {number}")
        say(bob, f"answer {number}")
    for window in two_windows:
        window.reads("answer 3")
        window.picture("transcript")
    assert transcript(ada) == transcript(bob)


def transcript(window: Any) -> list[str]:
    return [line for line in window.text().splitlines() if "question" in line or "answer" in line]


def test_who_has_left_reads_nothing_until_he_joins_again(two_windows: tuple[Any, Any]) -> None:
    ada, bob = two_windows
    ada.click("Leave")
    bob.reads("has left the chat")
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
