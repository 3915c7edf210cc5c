"""The FastAPI chat and a chat of Flet pages, for servers with several worker processes.

Each says in its answer which worker it is.
"""

import os

import flet as ft
import flet.fastapi

import fastapi_chat
import pagebus.flet

pagebus.flet.install()


def main(page):
    """A page that shows what anybody writes into the field and sends."""
    lines, message = ft.Column(), ft.TextField(label="Message")

    async def hear(line):
        lines.controls.append(ft.Text(line))
        page.update()

    def send():
        page.pubsub.send_all(message.value)

    page.pubsub.subscribe(hear)
    page.add(lines, message, ft.FilledButton("Send", on_click=send))


def signed(app):
    """The same app; who opens a websocket is told the process id."""

    async def call(scope, receive, send):
        async def send_signed(message):
            if message["type"] == "websocket.accept":
                header = (b"x-worker", str(os.getpid()).encode())
                message = {**message, "headers": [*message.get("headers", ()), header]}
            await send(message)

        await app(scope, receive, send_signed)

    return call


websockets = signed(fastapi_chat.app)
pages = signed(flet.fastapi.app(main))
