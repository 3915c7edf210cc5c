"""Bytes are read as a message, and as advice how to write one: nearly right, and wrong somewhere.

Either is a message that travels again, or is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import pagebus
from fuzz.world import Bytes

CODEC = pagebus.MessagePack()
DEPTH = 8
"""How deep what is written is nested, where nothing is wrong."""
WRONG = 40
"""One part of so many is wrong."""


@pagebus.message(name="P")
@dataclass(frozen=True)
class Point:
    """Can be a key, if its fields can."""

    x: Any
    y: Any


@pagebus.message(name="E")
class Choice(Enum):
    """Takes some values only."""

    ONE = 1
    PAIR = (1, 2)


@pagebus.message(name="Q")
class Picky:
    """Refuses some values, and cannot be a key."""

    one: Any
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, one: Any) -> None:
        if one in (0, 1, 2, 3):
            raise ArithmeticError
        self.one = one

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Picky)


class Writer:
    """Writes a message as the input says."""

    def __init__(self, data: bytes) -> None:
        self._bytes = Bytes(data)

    def value(self, depth: int = 0) -> bytes:
        """Any value. Where the input has ended, the plainest."""
        if self._bytes.below(WRONG) == WRONG - 1:
            return self._some(self._bytes.below(20))
        way: Way = self._bytes.chosen(PLAIN if depth > DEPTH else PLAIN + NESTED)
        return way(self, depth + 1)

    def _some(self, count: int) -> bytes:
        return bytes(self._bytes.below(256) for _ in range(count))

    def _length(self, head: int, length: int) -> bytes:
        """A head with a length of one, two or four bytes, which is sometimes another one."""
        size = self._bytes.below(3)
        if self._bytes.below(WRONG) == WRONG - 1:
            length = self._bytes.chosen([0, length + 1, 255, 2**31, 2**32 - 1])
        return bytes([head + size]) + length.to_bytes(8, "big")[-(1, 2, 4)[size] :]

    def _number(self, _: int) -> bytes:
        byte = self._bytes.chosen([0, 1, 0xE0, 0xC0, 0xC2, 0xC3, *range(0xCA, 0xD4)])
        return bytes([byte]) + self._some({0xCA: 4, 0xCB: 8}.get(byte, 1 << (byte & 3)))

    def _small(self, _: int) -> bytes:
        return bytes([self._bytes.below(128)])

    def _text(self, _: int) -> bytes:
        text: bytes = self._bytes.chosen(TEXTS)
        return self._length(0xD9, len(text)) + text

    def _binary(self, _: int) -> bytes:
        body = self._some(self._bytes.below(5))
        return self._length(0xC4, len(body)) + body

    def _list(self, depth: int) -> bytes:
        items = [self.value(depth) for _ in range(self._bytes.below(5))]
        return bytes([0x90 + len(items)]) + b"".join(items)

    def _long_list(self, depth: int) -> bytes:
        items = [self.value(depth) for _ in range(self._bytes.below(5))]
        return b"\xdc" + struct.pack(">H", len(items)) + b"".join(items)

    def _dict(self, depth: int) -> bytes:
        items = [self.value(depth) + self.value(depth) for _ in range(self._bytes.below(4))]
        return bytes([0x80 + len(items)]) + b"".join(items)

    def _extension(self, code: int, body: bytes) -> bytes:
        if self._bytes.below(WRONG) == WRONG - 1:
            code, body = self._bytes.below(8), body[: self._bytes.below(len(body) + 1)]
        return self._length(0xC7, len(body)) + bytes([code]) + body

    def _tuple(self, depth: int) -> bytes:
        return self._extension(1, b"".join(self.value(depth) for _ in range(self._bytes.below(4))))

    def _large_int(self, _: int) -> bytes:
        return self._extension(2, self._some(1 + self._bytes.below(20)))

    def _datetime(self, _: int) -> bytes:
        parts = [self._bytes.below(limit) for limit in (14, 32, 25, 61, 61, 2)]
        body = struct.pack(">H6BI", 1 + self._bytes.below(255) * 40, *parts, self._bytes.below(99))
        offset = struct.pack(">q", (self._bytes.below(256) - 128) * 700_000_001)
        return self._extension(3, body + offset * self._bytes.below(2))

    def _uuid(self, _: int) -> bytes:
        return self._extension(4, self._some(16))

    def _object(self, depth: int) -> bytes:
        name, *fields = self._bytes.chosen(OBJECTS)
        if self._bytes.below(WRONG) == WRONG - 1:
            fields = self._bytes.chosen([fields[:-1], [*fields, "x"], [*fields, "__class__"]])
        parts = [CODEC.encode(field) + self.value(depth) for field in fields]
        return self._extension(5, CODEC.encode(name) + b"".join(parts))

    def _deep(self, _: int) -> bytes:
        head: bytes = self._bytes.chosen([b"\x91", b"\x81\x01", b"\x81"])
        return head * (90 + self._bytes.below(20)) + b"\x01"


Way = Callable[[Writer, int], bytes]
PLAIN: list[Way] = [
    *(Writer._small, Writer._number, Writer._text, Writer._binary),
    *(Writer._large_int, Writer._datetime, Writer._uuid),
]
NESTED: list[Way] = [
    *(Writer._list, Writer._long_list, Writer._dict, Writer._tuple, Writer._object) * 2,
    Writer._deep,
]

TEXTS = [b"", b"x", b"y", b"P", "h\xe9\U0001f600".encode(), b"\xed\xa0\x80"]
OBJECTS = [["P", "x", "y"], ["P", "y", "x"], ["E", "value"], ["Q", "one"], ["nobody"]]

REASONS = (
    *("end too early", "after the message", "does not use", "not UTF-8", "cannot be one"),
    *("same key twice", "than there are bytes", "is unknown", "has no bytes", "time is none"),
    *("offset that is none", "not 16 bytes", "not a text", "no class", "lacks the field"),
    *("has no field", "only one field", "does not take", "nested deeper"),
)


def outcome(data: bytes) -> str:
    """Decode, and tell what it came to; an ``AssertionError`` says what the codec did wrong."""
    try:
        message = CODEC.decode(data)
    except pagebus.DecodeError as error:
        reason = str(error)
        assert reason.startswith("not a message: "), reason
        known = [known for known in REASONS if known in reason]
        assert len(known) == 1, reason
        return known[0]
    again = CODEC.encode(message)
    assert CODEC.encode(CODEC.decode(again)) == again, message
    return "a message"


def run(data: bytes) -> tuple[str, str]:
    """Run the input, as it is and as advice."""
    return outcome(data), outcome(Writer(data).value())
