"""Bytes are read as what a hostile program does to a broker: entries that are nearly right.

A hub that hears of it goes on, and hears what is right.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import pagebus
from fuzz.codec import Writer
from fuzz.world import Bytes

CHANNEL = b"pagebus:{default:tnews}"
PATIENCE = 30.0
WRONG = 12
"""One part of so many is wrong."""


class Broker:
    """A connection to a server, for whoever may say anything there."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self._answers = self._socket.makefile("rb")

    def ask(self, *command: bytes) -> bytes | None:
        """The answer to one command, if it is no array; ``None`` for an error."""
        parts = [b"*%d\r\n" % len(command)]
        parts += [b"$%d\r\n%b\r\n" % (len(part), part) for part in command]
        self._socket.sendall(b"".join(parts))
        head = self._answers.readline()
        if head.startswith(b"$") and not head.startswith(b"$-"):
            return self._answers.read(int(head[1:]) + 2)[:-2]
        return None if head.startswith(b"-") else head[1:-2]

    def close(self) -> None:
        self._answers.close()
        self._socket.close()


class Hostile:
    """What an input does to a broker."""

    def __init__(self, broker: Broker, data: bytes) -> None:
        self._broker, self._bytes, self._data = broker, Bytes(data), data

    def act(self) -> None:
        """Do one of these things."""
        acts = [Hostile.record, Hostile.record, Hostile.push, Hostile.append]
        act: Act = self._bytes.chosen(acts)
        act(self)

    def record(self) -> None:
        """An entry as nodes publish it: counted, in the log, and pushed."""
        epoch = self._broker.ask(b"HGET", CHANNEL + b":state", b"e") or b"1"
        number = self._broker.ask(b"HINCRBY", CHANNEL + b":state", b"n", b"1") or b"1"
        place, entry = b"%b-%b" % (epoch, number), self.entry()
        self._broker.ask(b"XADD", CHANNEL + b":log", place, b"d", entry)
        self._broker.ask(b"PUBLISH", CHANNEL, place + b":" + entry)

    def push(self) -> None:
        """A push of something that is not in the log."""
        self._broker.ask(b"PUBLISH", CHANNEL, self.place() + b":" + self.entry())

    def append(self) -> None:
        """Something in the log that nobody pushes, where the server takes it."""
        field = self._bytes.chosen([b"d", b"d", b"x", b"\xff", b""])
        self._broker.ask(b"XADD", CHANNEL + b":log", b"*", field, self.entry())

    def place(self) -> bytes:
        """Some place, or none."""
        numbers = [b"0", b"1", b"7", b"1795268209780", b"18446744073709551615", b"", b"-1", b"x"]
        place: bytes = self._bytes.chosen(numbers) + b"-" + self._bytes.chosen(numbers)
        return place

    def entry(self) -> bytes:
        """An entry, with something wrong here and there."""
        if self._is_wrong():
            return self._data
        version = self._bytes.chosen([1, 2, 0, 255]) if self._is_wrong() else 1
        messages = [self._message() for _ in range(1 + self._bytes.below(3))]
        count = self._bytes.below(256) if self._is_wrong() else len(messages)
        publisher = self._binary(bytes(self._bytes.below(256) for _ in range(16)))
        sequence = b"\xcf" + bytes(self._bytes.below(256) for _ in range(8))
        head = b"\x95" if self._is_wrong() else b"\x94"
        parts = [head, publisher, sequence, b"\xcf", bytes(8), b"\xdc\x00", bytes([count])]
        return bytes([version]) + b"".join(parts) + b"".join(messages)

    def _message(self) -> bytes:
        other = self._binary(b"ann") if self._bytes.below(4) == 3 else b"\xc0"
        payload = Writer(bytes(self._bytes.below(256) for _ in range(40))).value()
        return (b"\x93" if self._is_wrong() else b"\x92") + other + self._binary(payload)

    def _binary(self, body: bytes) -> bytes:
        length = self._bytes.chosen([0, 255, 2**31, 2**32 - 1]) if self._is_wrong() else len(body)
        return b"\xc6" + length.to_bytes(4, "big") + body

    def _is_wrong(self) -> bool:
        return self._bytes.below(WRONG) == WRONG - 1


Act = Callable[[Hostile], None]


class Target:
    """A linked hub that hears all of it, and another one that says what is right."""

    def __init__(self, port: int) -> None:
        url = f"redis://127.0.0.1:{port}/0"
        self.hub, self._other = pagebus.PubSubHub(link=url), pagebus.PubSubHub(link=url)
        self._broker, self._probes = Broker(port), 0
        self._heard = threading.Condition()
        self._last: object = None
        self.hub.subscribe_topic("ann", "news", self._hear)
        self._probe()

    def run(self, data: bytes) -> None:
        """Let the input do what it does, and see that the hub goes on."""
        Hostile(self._broker, data).act()
        self._probe()

    def close(self) -> None:
        self._broker.close()
        self.hub.close(1)
        self._other.close(1)

    def _hear(self, _: str, message: Any) -> None:
        with self._heard:
            self._last = message
            self._heard.notify_all()

    def _probe(self) -> None:
        """What is said now is heard, once the hub listens."""
        self._probes += 1
        probe = ["probe", self._probes]
        while not self._is_heard(probe, 0.5 if self._probes == 1 else PATIENCE):
            assert self._probes == 1, f"not heard: {self.hub.stats()}"

    def _is_heard(self, probe: list[object], seconds: float) -> bool:
        self._other.send_all_on_topic("news", probe)
        with self._heard:
            return self._heard.wait_for(lambda: self._last == probe, seconds)
