"""A page of lines in a FastAPI app, which other parts of the program send to as well.

``POST /say?text=...`` sends from an endpoint on the event loop, ``POST /say_from_a_worker`` from
one in a thread of the server; ``POST /say_to_no_app`` names a function that is no app's, and says
how many hubs there are. ``thread: ...`` on standard input is sent by a thread, ``loop: ...``
by one that runs an event loop meanwhile. What they answer is ``sent``, or the error.
``outside.py own`` leaves Flet on its own hub.
"""

import asyncio
import json
import os
import signal
import sys
import threading

import flet as ft
import flet.fastapi
import uvicorn

import pagebus.flet

if sys.argv[1:] != ["own"]:
    pagebus.flet.install()

app = flet.fastapi.FastAPI()


def main(page):
    def show(line):
        page.add(ft.Text(line))

    async def show_async(line):
        show(f"{line}, async")

    try:
        client = pagebus.flet.pubsub(page)
    except TypeError as error:
        show(str(error))
    else:
        client.subscribe(show)
        client.subscribe(show_async)
    show("ready")


def send(line, begin=main):
    try:
        pagebus.flet.hub_of(begin).send_all(line)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "sent"


@app.post("/say")
async def say(text: str):
    return send(text)


@app.post("/say_from_a_worker")
def say_from_a_worker(text: str):
    return send(text)


@app.post("/say_to_no_app")
async def say_to_no_app(text: str):
    return [*(send(text, begin) for begin in (print, lambda page: None)), len(pagebus.flet._hubs())]


def hardware():
    async def send_on_a_loop(line):
        return send(line)

    for line in sys.stdin:
        way, text = line.rstrip("\n").split(": ")
        print(json.dumps(asyncio.run(send_on_a_loop(text)) if way == "loop" else send(text)))


app.mount("/", flet.fastapi.app(main))
threading.Thread(target=hardware, daemon=True).start()
# The server stops when it is told to, and passes the signal on.
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
uvicorn.run(app, port=int(os.environ["FLET_SERVER_PORT"]), log_level="error")
