"""A page with a button: a click sends a line to all, and every visitor's page shows it.

``board.py async`` subscribes coroutine functions, ``board.py sync`` plain ones. What stands on
standard input is answered on standard output, in JSON: ``stats`` with the hub's counters, anything
else is sent to all from a thread that is not Flet's.
"""

import json
import sys
import threading

import flet as ft

COUNTERS = ("sessions", "subscriptions", "topics", "pending", "failed")

hubs = []


def main(page):
    hubs.append(page.pubsub.hub)
    lines = ft.Column()

    def show(line):
        lines.controls.append(ft.Text(line))
        page.update()

    async def show_async(line):
        show(line)

    def click(event):
        page.pubsub.send_all("clicked")

    page.pubsub.subscribe(show_async if sys.argv[1] == "async" else show)
    page.pubsub.subscribe_topic("news", lambda topic, message: None)
    page.add(lines, ft.FilledButton("Click", on_click=click), ft.Text("ready"))


def answer():
    for line in sys.stdin:
        question = line.rstrip("\n")
        if question == "stats":
            stats = hubs[0].stats()
            print(json.dumps({name: getattr(stats, name) for name in COUNTERS}))
        else:
            hubs[0].send_all(question)
            print(json.dumps("sent"))


threading.Thread(target=answer, daemon=True).start()
(getattr(ft, "run", None) or ft.app)(main)
