"""Nodes that nothing is sent to: ``-m benches.programs.bystanders PORT COUNT``.

Each is a linked hub with a subscriber on a topic. A line on standard input is a number of seconds,
to be answered with the seconds of processor time that the process takes in them.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time

from pagebus import PubSubHub

BEAT = 1.0
"""Seconds between two signs of life of a node."""


async def linked(port: int, count: int, heard: list[object]) -> list[PubSubHub]:
    """So many nodes, whose subscribers note what they hear."""

    def hear(topic: str, message: object) -> None:
        heard.append(message)

    hubs = []
    for number in range(count):
        hub = PubSubHub(link=f"redis://127.0.0.1:{port}/0")
        await hub.subscribe_topic("reader", f"of bystander {number}", hear).ready()
        hubs.append(hub)
        # They beat one after the other: in any second there is the same to do.
        await asyncio.sleep(BEAT / count)
    return hubs


def main(port: int, count: int) -> None:
    heard: list[object] = []
    hubs = asyncio.run(linked(port, count, heard))
    print("ready", flush=True)
    for line in sys.stdin:
        gc.collect()
        begin = time.process_time()
        time.sleep(float(line))
        print(time.process_time() - begin, flush=True)
    if heard or any(hub.link_state != "connected" for hub in hubs):
        sys.exit("something was sent to them")
    for hub in hubs:
        hub.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
