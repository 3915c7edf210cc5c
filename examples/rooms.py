"""Three rooms to join and to leave: a topic of ``page.pubsub`` each, on the pagebus hub.

Start it, open the address that it prints in two windows, and join the same room in both.
FLET_SERVER_PORT in the environment chooses another port.
"""

import os

import flet as ft

import pagebus.flet

PORT = int(os.environ.get("FLET_SERVER_PORT", "8551"))
ROOMS = ("Kitchen", "Garden", "Studio")


class Room:
    """One visitor's view of one room: the topic that has its name."""

    def __init__(self, page: ft.Page, name: ft.TextField, topic: str) -> None:
        self.page, self.name, self.topic = page, name, topic
        self.transcript = ft.ListView(expand=True, spacing=8, auto_scroll=True)
        self.door = ft.OutlinedButton()
        self.message = ft.TextField(label=f"Say in {topic}", on_submit=self.say)
        self.close()

    def panel(self) -> ft.Control:
        """The room as a card."""
        title = ft.Text(self.topic, theme_style=ft.TextThemeStyle.TITLE_LARGE, expand=True)
        content = ft.Column([ft.Row([title, self.door]), self.transcript, self.message])
        return ft.Card(ft.Container(content, padding=16), expand=True)

    def join(self) -> None:
        """Hear the room from now on, and tell those who are in it."""
        self.page.pubsub.subscribe_topic(self.topic, self.hear)
        self.page.pubsub.send_others_on_topic(self.topic, f"{self.who()} joined")
        self.show("You joined")
        self.door.content, self.door.on_click = f"Leave {self.topic}", self.leave
        self.message.disabled = False

    def leave(self) -> None:
        """Hear nothing more of the room, and tell those who stay in it."""
        self.page.pubsub.unsubscribe_topic(self.topic)
        self.page.pubsub.send_all_on_topic(self.topic, f"{self.who()} left")
        self.show("You left")
        self.close()

    async def say(self) -> None:
        """Send what is in the message field to everybody in the room."""
        if self.message.value:
            self.page.pubsub.send_all_on_topic(self.topic, f"{self.who()}: {self.message.value}")
            self.message.value = ""
        await self.message.focus()

    async def hear(self, topic: str, text: str) -> None:
        """Show what somebody said in the room."""
        self.show(text)
        self.page.update()

    def show(self, text: str) -> None:
        self.transcript.controls.append(ft.Text(text))

    def close(self) -> None:
        self.door.content, self.door.on_click = f"Join {self.topic}", self.join
        self.message.disabled = True

    def who(self) -> str:
        return self.name.value.strip() or "Somebody"


def main(page: ft.Page) -> None:
    """One visitor's page."""
    page.title = "pagebus rooms"
    name = ft.TextField(label="Your name", width=160, dense=True, autofocus=True)
    page.appbar = ft.AppBar(
        title="Rooms",
        toolbar_height=72,
        bgcolor=ft.Colors.SURFACE_CONTAINER,
        actions=[name],
        actions_padding=16,
    )
    rooms = [Room(page, name, topic) for topic in ROOMS]
    page.add(ft.Row([room.panel() for room in rooms], expand=True))


if __name__ == "__main__":
    pagebus.flet.install()
    print(f"Rooms on http://127.0.0.1:{PORT}", flush=True)
    ft.run(main, host="127.0.0.1", port=PORT, view=ft.AppView.WEB_BROWSER, no_cdn=True)
