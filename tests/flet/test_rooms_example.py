"""The page really shows it: ``examples/rooms.py``, three topics in two browser windows."""

import pytest

from environments import ROOT
from flet_servers import Serve
from flet_windows import Meet, Window

pytestmark = pytest.mark.browser

ROOMS = ROOT / "examples" / "rooms.py"


@pytest.fixture
def people(flet_1_0: str, serve: Serve, meet: Meet) -> tuple[Window, Window]:
    """The windows of two people, both outside of every room."""
    server = serve(flet_1_0, ROOMS)
    assert server.read_line() == f"Rooms on {server.url}"
    return meet(server)


def join(window: Window, room: str) -> None:
    window.click(f"Join {room}")
    window.reads(f"Leave {room}")


def say(window: Window, room: str, text: str) -> None:
    window.type(f"Say in {room}", text)
    window.press_enter()
    window.reads(text)
    window.is_empty(f"Say in {room}")


def test_those_in_a_room_are_told_who_joined(people: tuple[Window, Window]) -> None:
    ada, bob = people
    join(ada, "Kitchen")
    join(bob, "Kitchen")
    ada.reads("Bob joined")
    assert "Bob joined" not in bob.text()


def test_three_rooms_are_three_conversations(people: tuple[Window, Window]) -> None:
    ada, bob = people
    for room in ("Kitchen", "Garden", "Studio"):
        join(ada, room)
    join(bob, "Kitchen")
    join(bob, "Studio")
    for room in ("Kitchen", "Garden", "Studio"):
        say(ada, room, f"hello from the {room}")
    # One order for all: what was said in the Garden would be here before what came after it.
    bob.reads("Ada: hello from the Studio")
    assert "Ada: hello from the Kitchen" in bob.text()
    assert "Ada: hello from the Garden" not in bob.text()
    ada.picture("is-in-three-rooms")
    bob.picture("is-in-two-rooms")


def test_who_leaves_one_room_still_hears_the_others(people: tuple[Window, Window]) -> None:
    ada, bob = people
    for window in people:
        join(window, "Kitchen")
        join(window, "Garden")
    bob.click("Leave Kitchen")
    ada.reads("Bob left")
    say(ada, "Kitchen", "he cannot hear this")
    say(ada, "Garden", "but this he can")
    bob.reads("Ada: but this he can")
    assert "he cannot hear this" not in bob.text()
    bob.picture("has-left-the-kitchen")
