"""A busy hub with a thousand async handlers in a Flet app, whose page is a monitor of it.

A line on standard input is a number of seconds, to be answered with the deliveries in them for each
second of processor time that the process took; or ``beside PORT``, which starts a monitor beside
the program; or ``alone``, which ends it.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from typing import Any

import flet as ft

import pagebus.flet
from pagebus import PubSub, PubSubHub
from pagebus._beside import Beside

SESSIONS, TOPICS = 1_000, 10

busy: list[PubSubHub] = []


def main(page: ft.Page) -> None:
    """A visitor's page: the monitor, in the same process and on the same loop as the handlers."""
    page.add(pagebus.flet.Monitor(busy[0]))


async def keep_busy() -> None:
    """Send, and send again when everybody has got it."""
    hub, heard = PubSubHub(asyncio.get_running_loop()), asyncio.Event()

    async def hear(topic: str, message: Any) -> None:
        if message is last:
            heard.set()

    for number in range(SESSIONS):
        session = PubSub(hub, f"session {number}")
        session.identify(number=number)
        session.subscribe_topic(f"topic {number % TOPICS}", hear)
    busy.append(hub)
    while True:
        for number in range(TOPICS):
            last = object() if number == TOPICS - 1 else None
            hub.send_all_on_topic(f"topic {number}", last)
        await heard.wait()
        heard.clear()
        # Not even a busy app leaves nothing to its pages.
        await asyncio.sleep(0)


def answer() -> None:
    """Do what the lines on standard input ask for."""
    beside: Beside | None = None
    for line in sys.stdin:
        match line.split():
            case ["beside", port]:
                beside = Beside("watched.py", int(port))
            case ["alone"]:
                if beside is not None:
                    beside.close()
            case [seconds]:
                print(deliveries(float(seconds)), flush=True)


def deliveries(seconds: float) -> float:
    """Deliveries from now on, for each second of this process on a processor.

    Whatever else the machine does meanwhile takes time, but not from these seconds.
    """
    hub = busy[0]
    delivered, begin = hub.stats().delivered, time.process_time()
    time.sleep(seconds)
    return (hub.stats().delivered - delivered) / (time.process_time() - begin)


async def run() -> None:
    """Serve the page, and keep the hub busy on the same loop."""
    work = asyncio.create_task(keep_busy())
    threading.Thread(target=answer, daemon=True).start()
    await ft.run_async(main)
    work.cancel()


pagebus.flet.install()
asyncio.run(run())
