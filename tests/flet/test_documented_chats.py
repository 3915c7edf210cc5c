"""The chats of Flet's documentation run unchanged under ``pagebus run``, on older Flets too."""

import asyncio
from pathlib import Path

import pytest

from environments import PROGRAMS, ROOT
from flet_servers import Serve
from flet_sessions import JsonSession, visitors
from flet_windows import Meet

TUTORIAL = PROGRAMS / "tutorial_chat.py"
DOCUMENTED = [
    ROOT.parent / "shared" / "documented_chats" / f"seed_00{number}_chat.py" for number in range(3)
]
STARTED_BY_RUN, *STARTED_BY_APP = DOCUMENTED


def each(*programs: Path) -> pytest.MarkDecorator:
    """Run the test with each program; those that this machine does not have are skipped."""
    return pytest.mark.parametrize(
        "program",
        [
            pytest.param(
                program,
                id=program.stem,
                marks=pytest.mark.skipif(not program.exists(), reason="no documented chats here"),
            )
            for program in programs
        ],
    )


@pytest.mark.browser
@each(TUTORIAL, *DOCUMENTED)
def test_two_windows_on_flet_0_86_read_each_other(
    flet_0_86: str, serve: Serve, meet: Meet, program: Path
) -> None:
    server = serve(flet_0_86, "-m", "pagebus", "run", program)
    ada, bob = meet(server)
    ada.type("Your message...", "do you read me?")
    ada.click("Send")
    bob.reads("Ada: do you read me?")
    bob.type("Your message...", "I do")
    bob.click("Send")
    ada.reads("Bob: I do")
    for window in (ada, bob):
        window.picture("has-talked")


@each(TUTORIAL, *STARTED_BY_APP)
def test_two_sessions_on_flet_0_28_read_each_other(
    flet_0_28: str, serve: Serve, program: Path
) -> None:
    server = serve(flet_0_28, "-m", "pagebus", "run", program)

    async def talk() -> None:
        async with visitors(JsonSession, server.port, 2) as [ada, bob]:
            await ada.fill("Your name", "Ada")
            await bob.fill("Your name", "Bob")
            await ada.fill("Your message...", "do you read me?")
            await ada.click("Send")
            await bob.reads("Ada: do you read me?")
            await bob.fill("Your message...", "I do")
            await bob.click("Send")
            await ada.reads("Bob: I do")

    asyncio.run(talk())
