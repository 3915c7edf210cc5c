"""A chat as Flet's tutorials write it: nothing in it knows of pagebus."""

import flet as ft


def main(page: ft.Page):
    chat = ft.Column()
    name = ft.TextField(hint_text="Your name", width=150)
    message = ft.TextField(hint_text="Your message...", expand=True)

    def on_message(text):
        chat.controls.append(ft.Text(text))
        page.update()

    def send_click(e):
        page.pubsub.send_all(f"{name.value}: {message.value}")
        message.value = ""
        page.update()

    page.pubsub.subscribe(on_message)
    page.add(chat, ft.Row([name, message, ft.ElevatedButton("Send", on_click=send_click)]))


ft.app(target=main, view=ft.AppView.WEB_BROWSER)
