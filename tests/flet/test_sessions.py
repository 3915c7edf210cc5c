"""Many sessions of a running Flet program, at the level of Flet's own protocols."""

import asyncio
import sys
import time

import pytest

from environments import PROGRAMS
from flet_servers import Serve
from flet_sessions import DesktopSession, JsonSession, Session, WebSession, visitors

VISITORS = 200
NOTHING = {"sessions": 0, "subscriptions": 0, "topics": 0, "pending": 0, "failed": 0}
EVERYBODY = {"sessions": 3, "subscriptions": 6, "topics": 1, "pending": 0, "failed": 0}


async def all_read(sessions: list[Session], text: str) -> None:
    await asyncio.gather(*(session.reads(text) for session in sessions))


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_one_click_reaches_the_pages_of_200_visitors(
    flet_1_0: str, board: Serve, kind: str
) -> None:
    server = board(flet_1_0, kind)

    async def visit() -> None:
        async with visitors(WebSession, server.port, VISITORS) as sessions:
            await all_read(sessions, "ready")
            await sessions[0].click("Click")
            await all_read(sessions, "clicked")
        assert server.ask("stats")["sessions"] == VISITORS

    asyncio.run(visit())


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_flets_context_in_a_handler_is_that_of_its_own_page(
    flet_1_0: str, serve: Serve, kind: str
) -> None:
    program = PROGRAMS / "whose_page.py"
    server = serve(flet_1_0, "-m", "pagebus", "run", program, kind)

    async def visit() -> None:
        async with visitors(WebSession, server.port, 3) as sessions:
            await all_read(sessions, "ready")
            await sessions[0].click("Click")
            await all_read(sessions, "clicked on my own page")

    asyncio.run(visit())


@pytest.mark.skipif(sys.platform == "win32", reason="pretends to have a display")
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_idle_desktop_app_shows_a_message_at_once(
    flet_1_0: str, board: Serve, kind: str
) -> None:
    # Nothing else ever happens on this event loop: a message that does not wake it stays unseen.
    settings = {"FLET_FORCE_WEB_SERVER": "", "FLET_DISPLAY_URL_PREFIX": "at", "DISPLAY": ":0"}
    server = board(flet_1_0, kind, **settings)
    assert server.read_line().startswith("at tcp://")

    async def watch() -> None:
        async with visitors(DesktopSession, server.port, 1) as [session]:
            await session.reads("ready")
            for number in range(20):
                assert server.ask(f"message {number}") == "sent"
                await session.reads(f"message {number}")

    asyncio.run(watch())


def test_a_session_that_flet_expires_leaves_nothing_in_the_hub(
    any_flet: str, flet_0_28: str, board: Serve
) -> None:
    server = board(any_flet, "sync", FLET_SESSION_TIMEOUT="1")
    session_kind = JsonSession if any_flet == flet_0_28 else WebSession

    async def come_and_go() -> None:
        async with visitors(session_kind, server.port, 3) as sessions:
            await all_read(sessions, "ready")
            assert server.ask("stats") == EVERYBODY
            await sessions[0].click("Click")
            await all_read(sessions, "clicked")

    asyncio.run(come_and_go())
    # Flet looks for expired sessions every ten seconds.
    deadline = time.monotonic() + 60
    while server.ask("stats")["sessions"] and time.monotonic() < deadline:
        time.sleep(0.5)
    assert server.ask("stats") == NOTHING
