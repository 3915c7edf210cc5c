"""A board that every visitor reads: a click on its button writes a message on everybody's page.

``board.py sync`` subscribes plain functions, ``board.py async`` coroutine functions. ``board.py
loop`` goes without a hub: the click itself writes on one page after the other.
"""

import asyncio
import itertools
import sys
from collections.abc import Callable
from typing import Any

import flet as ft

KIND = sys.argv[1]
PAGES_AT_ONCE = 5
"""Without a hub: pages to write on before the event loop sends what was written."""

numbers = itertools.count(1)
pages: list[Callable[[str], None]] = []


def next_message() -> str:
    """What nobody has read before."""
    return f"message {next(numbers):06}"


async def write_on_all_pages(event: Any) -> None:
    """What is to be done, by the shortest way."""
    message = next_message()
    for number, show in enumerate(pages, 1):
        show(message)
        if number % PAGES_AT_ONCE == 0:
            await asyncio.sleep(0)


def main(page: ft.Page) -> None:
    """One visitor's page; at first it says whose hub it is on."""
    hub = type(page.pubsub).__module__.partition(".")[0]
    line = ft.Text(f"{hub} is ready")

    def show(message: str) -> None:
        # Replaced, not appended: a page is no larger in the last round than in the first.
        line.value = message
        page.update()

    async def show_async(message: str) -> None:
        show(message)

    def click(event: Any) -> None:
        page.pubsub.send_all(next_message())

    if KIND == "loop":
        pages.append(show)
    else:
        page.pubsub.subscribe(show_async if KIND == "async" else show)
    on_click = write_on_all_pages if KIND == "loop" else click
    page.add(line, ft.FilledButton("Send", on_click=on_click))


ft.run(main)
