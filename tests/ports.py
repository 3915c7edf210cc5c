"""Ports for the servers that tests start, each of which has its own as long as the tests run."""

import atexit
import random
import socket

PORTS = range(20_000, 32_000)
"""Below those from which systems choose by themselves.

So a port stays free while its server is away: no connection of anybody's begins there, not even
one that tries to reach the server and would meet itself.
"""

_held: list[socket.socket] = []


@atexit.register
def _let_go() -> None:
    for holder in _held:
        holder.close()


def free_port() -> int:
    """A port that nobody uses, nor gets from this function, in whatever process of tests."""
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        # Who has the port of datagrams has that of connections: the tests themselves use none.
        holder = socket.socket(type=socket.SOCK_DGRAM)
        try:
            holder.bind(("127.0.0.1", port))
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            holder.close()
        else:
            _held.append(holder)
            return port
    raise AssertionError("no port is free")
