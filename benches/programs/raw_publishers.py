"""Publishes as linked hubs do, from many connections.

``-m benches.programs.raw_publishers PORT ROOMS``

Each connection sends one message after the other, so that the server always has a next one, and
each comes by itself, as from many nodes. A line on standard input is how many messages are sent.
"""

from __future__ import annotations

import hashlib
import selectors
import socket
import sys

from benches.buses import SCRIPT
from benches.model import HOUR, KEPT

CONNECTIONS = 64
AT_ONCE = 4_096
ENTRY = b"." * 140
"""As long as an entry with a message of a hundred bytes."""


def command(*parts: bytes) -> bytes:
    """A command as the server reads it."""
    words = [b"$%d\r\n%b\r\n" % (len(part), part) for part in parts]
    return b"*%d\r\n%b" % (len(parts), b"".join(words))


class Publisher:
    """One connection; a node of its own."""

    def __init__(self, port: int, number: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self._name = b"%032x" % number
        self._sequence = 0

    def publish(self, sha: bytes, room: int) -> None:
        """Sends one message; the answer is the place that it got."""
        self._sequence += 1
        name = b"pagebus:{default:troom %d}" % room
        keys = (name + b":log", name + b":state", name + b":by:" + self._name)
        arguments = (b"%d" % self._sequence, ENTRY, b"%d" % KEPT, b"%d" % HOUR, name, b"PUBLISH")
        self.socket.sendall(command(b"EVALSHA", sha, b"3", *keys, *arguments))


def main(port: int, rooms: int) -> None:
    script = SCRIPT.read_bytes()
    sha = hashlib.sha1(script).hexdigest().encode()
    selector = selectors.DefaultSelector()
    publishers = [Publisher(port, number) for number in range(CONNECTIONS)]
    publishers[0].socket.sendall(command(b"SCRIPT", b"LOAD", script))
    publishers[0].socket.recv(AT_ONCE)
    for publisher in publishers:
        selector.register(publisher.socket, selectors.EVENT_READ, publisher)
    print("ready", flush=True)
    for line in sys.stdin:
        left, room, under_way = int(line), 0, 0
        for publisher in publishers:
            publisher.publish(sha, room := (room + 1) % rooms)
            left, under_way = left - 1, under_way + 1
        while under_way:
            for key, _ in selector.select():
                if key.data.socket.recv(AT_ONCE)[:1] != b"$":
                    sys.exit("the server did not take a message")
                under_way -= 1
                if left > 0:
                    key.data.publish(sha, room := (room + 1) % rooms)
                    left, under_way = left - 1, under_way + 1
        print("done", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
