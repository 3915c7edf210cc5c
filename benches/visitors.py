"""Visitors of a running Flet web app: many open pages, all in this process, without a browser.

What arrives while it is timed is noted, and read afterwards: the measuring side must cost next to
nothing, or it would be what is measured.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Iterator
from statistics import median
from typing import Any

import msgpack
from pyperf import perf_counter
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame
from websockets.protocol import State
from websockets.uri import parse_uri

from benches.contest import Values

ANSWER_WITHIN = 60.0
AT_ONCE = 65_536
"""Bytes received at once."""

# Flet's protocol: a packet is a byte for its kind, then msgpack.
PACKET = b"\x00"
REGISTER, EVENT = 1, 3
PAGE = {"route": "/", "width": 800, "height": 600}


class Visitor:
    """One visitor, whose page is open when it has said ``greeting``."""

    def __init__(self, port: int, greeting: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_WITHIN)
        # Browsers offer compression, and Flet's web server takes it.
        self._protocol = ClientProtocol(
            parse_uri(f"ws://127.0.0.1:{port}/ws"),
            extensions=[ClientPerMessageDeflateFactory()],
            max_size=None,
        )
        self._protocol.send_request(self._protocol.connect())
        self._flush()
        while self._protocol.state is not State.OPEN:
            self.read(self.socket.recv(AT_ONCE))
        self.send(REGISTER, {"session_id": "", "page_name": "", "page": PAGE})
        self.page: list[bytes] = []
        while not any(greeting.encode() in packet for packet in self.page):
            self.page += self.read(self.socket.recv(AT_ONCE))

    def control(self, label: str) -> int:
        """The id of the control that has ``label`` among its properties."""
        for packet in self.page:
            for node in _nodes(msgpack.unpackb(packet[1:], strict_map_key=False)):
                if label in node.values():
                    return int(node["_i"])
        raise LookupError(label)

    def click(self, control: int) -> None:
        """Clicks a button."""
        self.send(EVENT, {"target": control, "name": "click", "data": None})

    def send(self, action: int, body: dict[str, Any]) -> None:
        """Sends one message of Flet's protocol."""
        self._protocol.send_binary(PACKET + msgpack.packb([action, body]))
        self._flush()

    def read(self, received: bytes) -> list[bytes]:
        """The packets that are complete with what was received; pings are answered."""
        if not received:
            raise ConnectionError("the app hung up")
        self._protocol.receive_data(received)
        if self._protocol.handshake_exc:
            raise self._protocol.handshake_exc
        self._flush()
        events = self._protocol.events_received()
        return [bytes(event.data) for event in events if isinstance(event, Frame)]

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            self.socket.sendall(data)


def _nodes(value: Any) -> Iterator[dict[Any, Any]]:
    """Every dict in ``value``, at any depth."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _nodes(item)


class Crowd:
    """Visitors of one app, whose first one clicks."""

    def __init__(self, port: int, size: int, greeting: str) -> None:
        self._visitors = [Visitor(port, greeting) for _ in range(size)]
        self._button = self._visitors[0].control("Send")
        self._clicks = 0
        self._selector = selectors.DefaultSelector()
        for visitor in self._visitors:
            visitor.socket.setblocking(False)
            self._selector.register(visitor.socket, selectors.EVENT_READ, visitor)

    def close(self) -> None:
        """Lets all visitors leave."""
        self._selector.close()
        for visitor in self._visitors:
            visitor.socket.close()

    def click(self) -> Values:
        """How long after a click the first, the median and the last page have the patch."""
        self._clicks += 1
        news = f"message {self._clicks:06}".encode()
        self._catch_up()
        waiting, moments = set(self._visitors), []
        start = perf_counter()
        self._visitors[0].click(self._button)
        while waiting:
            # Whoever got something else than the news goes on waiting.
            for moment, visitor, received in self._receive(set(waiting)):
                if any(news in packet for packet in visitor.read(received)) and visitor in waiting:
                    waiting.remove(visitor)
                    moments.append(moment - start)
        return {"first": min(moments), "median": median(moments), "last": max(moments)}

    def _catch_up(self) -> None:
        """Reads what came since the last click: pings, above all."""
        while ready := self._selector.select(0):
            for key, _ in ready:
                key.data.read(key.data.socket.recv(AT_ONCE))

    def _receive(self, waiting: set[Visitor]) -> list[tuple[float, Visitor, bytes]]:
        """What arrives, and when, until all who wait got something; nothing of it is looked at."""
        arrived = []
        while waiting:
            ready = self._selector.select(ANSWER_WITHIN)
            moment = perf_counter()
            if not ready:
                raise TimeoutError(f"{len(waiting)} visitors wait in vain")
            for key, _ in ready:
                arrived.append((moment, key.data, key.data.socket.recv(AT_ONCE)))
                waiting.discard(key.data)
        return arrived
