"""A chat to be watched: guests talk in its rooms, one handler is slow and one fails now and then.

``watched_chat.py quiet`` has no guests.
"""

import itertools
import logging
import math
import sys
import threading
import time

import flet as ft

import pagebus
import pagebus.flet

ROOMS = ("kitchen", "garden", "studio", "library", "cellar")
GUESTS = ("Cleo", "Dan", "Eve", "Finn", "Gil")

guests = threading.Lock()
# What fails on purpose need not be read.
logging.getLogger("pagebus").setLevel(logging.CRITICAL)


def main(page):
    chat = pagebus.flet.pubsub(page)
    lines = ft.ListView(expand=True, auto_scroll=True)
    name = ft.TextField(label="Your name")
    message = ft.TextField(label="Message", expand=True)

    async def show(topic, line):
        lines.controls.append(ft.Text(line))
        del lines.controls[:-50]
        page.update()

    def count_words(topic, line):
        time.sleep(0.002 * len(line.split()))

    async def send_mail(topic, line):
        if "@" in line:
            raise ConnectionError("the mail server does not answer")

    def send(event):
        chat.identify(name=name.value)
        chat.send_all_on_topic("room/kitchen", f"{name.value}: {message.value}")
        message.value = ""
        page.update()

    for handler in (show, count_words, send_mail):
        chat.subscribe_topic("room/kitchen", handler)
    page.add(lines, ft.Row([name, message, ft.FilledButton("Send", on_click=send)]))
    if sys.argv[1:] != ["quiet"] and guests.acquire(blocking=False):
        threading.Thread(target=talk, args=(chat.hub,), daemon=True).start()


def talk(hub):
    sessions = [pagebus.PubSub(hub, f"guest-{number}") for number, _ in enumerate(GUESTS)]
    for session, name, room in zip(sessions, GUESTS, itertools.cycle(ROOMS)):
        session.identify(name=name, room=room)
        for topic in {room, "kitchen"}:
            session.subscribe_topic(f"room/{topic}", hear)
    for number in itertools.count():
        session, room = (
            sessions[number % len(sessions)],
            ROOMS[number // (1 + number % 3) % len(ROOMS)],
        )
        line = "Does anybody know what @Bob said?" if number % 97 == 0 else f"line {number}"
        session.send_others_on_topic(f"room/{room}", line)
        time.sleep(0.05 + 0.04 * math.sin(number / 150))


def hear(topic, line):
    """Does nothing with it."""


ft.run(main)
