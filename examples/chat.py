"""A chat for everybody who opens the page: ``page.pubsub`` to all, on the pagebus hub.

Start it, open the address that it prints in two windows, and talk to yourself.
FLET_SERVER_PORT in the environment chooses another port. With PAGEBUS_LINK=redis://127.0.0.1:6379/0,
several of these are one chat.
"""

import os
from dataclasses import dataclass

import flet as ft

import pagebus
import pagebus.flet

PORT = int(os.environ.get("FLET_SERVER_PORT", "8550"))
COLORS = (ft.Colors.INDIGO, ft.Colors.TEAL, ft.Colors.DEEP_ORANGE, ft.Colors.PURPLE)


@pagebus.message
@dataclass(frozen=True)
class Line:
    """What one person said."""

    author: str
    text: str

    def row(self) -> ft.Control:
        """The line in a transcript: a coloured initial, the name and the words."""
        initial = ft.CircleAvatar(
            content=ft.Text(self.author[0].upper()),
            color=ft.Colors.WHITE,
            bgcolor=COLORS[sum(map(ord, self.author)) % len(COLORS)],
        )
        name = ft.Text(self.author, weight=ft.FontWeight.BOLD)
        words = ft.Column([name, ft.Text(self.text)], spacing=2, expand=True)
        return ft.Row([initial, words], vertical_alignment=ft.CrossAxisAlignment.START)


def main(page: ft.Page) -> None:
    """One visitor's page."""
    page.title = "pagebus chat"
    transcript = ft.ListView(expand=True, spacing=12, auto_scroll=True)
    name = ft.TextField(label="Your name", width=160, dense=True, autofocus=True)
    message = ft.TextField(label="Message", expand=True)

    def author() -> str:
        return name.value.strip() or "Somebody"

    async def hear(line: Line) -> None:
        transcript.controls.append(line.row())
        page.update()

    async def send() -> None:
        if message.value:
            page.pubsub.send_all(Line(author(), message.value))
            message.value = ""
        await message.focus()

    def join() -> None:
        page.pubsub.subscribe(hear)
        door.content, door.on_click = "Leave", leave
        message.disabled = send_button.disabled = False

    def leave() -> None:
        page.pubsub.unsubscribe_all()
        page.pubsub.send_all(Line(author(), "has left the chat"))
        transcript.controls.append(ft.Text("You have left the chat", italic=True))
        door.content, door.on_click = "Join", join
        message.disabled = send_button.disabled = True

    message.on_submit = send
    send_button = ft.FilledButton("Send", icon=ft.Icons.SEND, on_click=send)
    door = ft.OutlinedButton()
    join()
    page.appbar = ft.AppBar(
        title="Chat",
        toolbar_height=72,
        bgcolor=ft.Colors.SURFACE_CONTAINER,
        actions=[ft.Row([name, door])],
        actions_padding=16,
    )
    page.padding = 16
    page.add(transcript, ft.Row([message, send_button]))


if __name__ == "__main__":
    pagebus.flet.install()
    print(f"Chat on http://127.0.0.1:{PORT}", flush=True)
    ft.run(main, host="127.0.0.1", port=PORT, view=ft.AppView.WEB_BROWSER, no_cdn=True)
