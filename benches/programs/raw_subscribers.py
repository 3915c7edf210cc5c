"""Connections that only take what is pushed.

``-m benches.programs.raw_subscribers PORT ROOMS EACH``

Each of so many rooms has so many subscribers; a message seldom finds another one on its way to the
same connection. Ends with its standard input.
"""

from __future__ import annotations

import selectors
import socket
import sys

CONNECTIONS = 64
AT_ONCE = 65_536


def main(port: int, rooms: int, each: int) -> None:
    wanted: list[list[bytes]] = [[] for _ in range(CONNECTIONS)]
    place = 0
    for room in range(rooms):
        for _ in range(each):
            wanted[place % CONNECTIONS].append(b"pagebus:{default:troom %d}" % room)
            place += 1
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    for names in wanted:
        connection = socket.create_connection(("127.0.0.1", port))
        for name in names:
            connection.sendall(b"*2\r\n$9\r\nSUBSCRIBE\r\n$%d\r\n%b\r\n" % (len(name), name))
        answered = 0
        while answered < len(names):
            answered += connection.recv(AT_ONCE).count(b"subscribe\r\n")
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            if not isinstance(key.fileobj, socket.socket):
                return
            key.fileobj.recv(AT_ONCE)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
