"""Sessions of a running Flet program without a browser: Flet's own protocols, spoken by a test."""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgpack
import pytest
from websockets.asyncio.client import ClientConnection, connect

ANSWER_WITHIN = 60.0


class Session(ABC):
    """One visitor's page: finds controls by what is written on them, and reads what it is sent."""

    id_key: str
    """Under which key a control carries its id."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._controls: list[dict[Any, Any]] = []

    async def reads(self, text: str) -> None:
        """Return when ``text`` has come to the page."""
        while text not in self.texts:
            await self.read()

    async def control(self, label: str) -> Any:
        """The id of the control that has ``label`` among its properties."""
        while True:
            for control in self._controls:
                if label in control.values():
                    return control[self.id_key]
            await self.read()

    async def fill(self, label: str, value: str) -> None:
        """Write ``value`` into the text field ``label``."""
        await self.set_property(await self.control(label), "value", value)

    async def click(self, label: str) -> None:
        """Click the button ``label``."""
        await self.trigger(await self.control(label), "click")

    async def read(self) -> None:
        """Read one frame."""
        try:
            frame = await asyncio.wait_for(self.receive(), ANSWER_WITHIN)
        except asyncio.TimeoutError:
            pytest.fail(f"nothing more comes after {self.texts[-10:]}")
        for node in _nodes(frame):
            if isinstance(node, str):
                self.texts.append(node)
            elif self.id_key in node:
                self._controls.append(node)

    @abstractmethod
    async def receive(self) -> Any:
        """The next frame, decoded."""

    @abstractmethod
    async def set_property(self, control: Any, name: str, value: str) -> None:
        """Tell the program that a control's property has another value now."""

    @abstractmethod
    async def trigger(self, control: Any, event: str) -> None:
        """Tell the program that something has happened to a control."""

    @abstractmethod
    async def close(self) -> None:
        """Leave, as closing the window does."""


@asynccontextmanager
async def visitors(kind: Any, port: int, count: int, route: str = "/") -> AsyncIterator[list[Any]]:
    """``count`` sessions of the class ``kind``, which all end with the block."""
    sessions = await asyncio.gather(*(kind.open(port, route) for _ in range(count)))
    try:
        yield list(sessions)
    finally:
        await asyncio.gather(*(session.close() for session in sessions))


def _nodes(value: Any) -> Iterator[Any]:
    """Every string and every dict in ``value``, at any depth."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _nodes(item)


# ---- flet 0.86 and later: msgpack frames --------------------------------------------------------

REGISTER, EVENT, UPDATE = 1, 3, 4


class MsgpackSession(Session):
    """A session of flet 0.86 or later."""

    id_key = "_i"

    async def register(self, route: str) -> None:
        """Become a new session of the program, on that page of it."""
        page = {"route": route, "width": 800, "height": 600}
        await self.send(REGISTER, {"session_id": "", "page_name": "", "page": page})

    async def send(self, action: int, body: dict[str, Any]) -> None:
        """Send one message of the protocol."""
        await self.send_packet(b"\x00" + msgpack.packb([action, body]))

    async def receive(self) -> Any:
        packet = await self.receive_packet()
        return msgpack.unpackb(packet[1:], strict_map_key=False)

    async def set_property(self, control: Any, name: str, value: str) -> None:
        await self.send(UPDATE, {"id": control, "props": {name: value}})

    async def trigger(self, control: Any, event: str) -> None:
        await self.send(EVENT, {"target": control, "name": event, "data": None})

    @abstractmethod
    async def send_packet(self, packet: bytes) -> None:
        """Send one packet: a byte for its type, then msgpack."""

    @abstractmethod
    async def receive_packet(self) -> bytes:
        """The next packet."""


class WebSession(MsgpackSession):
    """A session of the web app: one websocket frame is one packet."""

    def __init__(self, socket: ClientConnection) -> None:
        super().__init__()
        self.socket = socket

    @classmethod
    async def open(cls, port: int, route: str = "/") -> "WebSession":
        """A new session of the program that listens on ``port``."""
        session = cls(
            await connect(f"ws://127.0.0.1:{port}/ws", max_size=None, open_timeout=ANSWER_WITHIN)
        )
        await session.register(route)
        return session

    async def send_packet(self, packet: bytes) -> None:
        await self.socket.send(packet)

    async def receive_packet(self) -> bytes:
        packet = await self.socket.recv()
        assert isinstance(packet, bytes)
        return packet

    async def close(self) -> None:
        await self.socket.close()


class DesktopSession(MsgpackSession):
    """The session of the desktop app: packets on a TCP stream, each after its length."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__()
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int, route: str = "/") -> "DesktopSession":
        """The session of the program that listens on ``port``."""
        session = cls(*await asyncio.open_connection("127.0.0.1", port))
        await session.register(route)
        return session

    async def send_packet(self, packet: bytes) -> None:
        self._writer.write(len(packet).to_bytes(4, "little") + packet)
        await self._writer.drain()

    async def receive_packet(self) -> bytes:
        length = int.from_bytes(await self._reader.readexactly(4), "little")
        return await self._reader.readexactly(length)

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


# ---- flet 0.28: JSON frames ---------------------------------------------------------------------

CLIENT_DETAILS = (
    "pageName pageRoute pageWidth pageHeight windowWidth windowHeight windowTop windowLeft isPWA"
    " isWeb isDebug platform platformBrightness media sessionId"
)


class JsonSession(Session):
    """A session of the web app of flet 0.28."""

    id_key = "i"

    def __init__(self, socket: ClientConnection) -> None:
        super().__init__()
        self._socket = socket

    @classmethod
    async def open(cls, port: int, route: str = "/") -> "JsonSession":
        """A new session of the program that listens on ``port``."""
        session = cls(
            await connect(f"ws://127.0.0.1:{port}/ws", max_size=None, open_timeout=ANSWER_WITHIN)
        )
        details = dict.fromkeys(CLIENT_DETAILS.split(), "")
        details |= {"pageRoute": route, "media": "{}", "isWeb": "true"}
        await session.send("registerWebClient", details)
        return session

    async def send(self, action: str, payload: dict[str, Any]) -> None:
        """Send one message of the protocol."""
        await self._socket.send(json.dumps({"action": action, "payload": payload}))

    async def receive(self) -> Any:
        return json.loads(await self._socket.recv())

    async def set_property(self, control: Any, name: str, value: str) -> None:
        await self.send("updateControlProps", {"props": [{"i": control, name: value}]})

    async def trigger(self, control: Any, event: str) -> None:
        payload = {"eventTarget": control, "eventName": event, "eventData": ""}
        await self.send("pageEventFromWeb", payload)

    async def close(self) -> None:
        await self._socket.close()
