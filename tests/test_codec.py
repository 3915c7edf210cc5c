"""The codec: a message becomes bytes, and bytes become the same message again, or an error."""

import gc
import importlib
import itertools
import random
import re
import subprocess
import sys
import threading
import time
import tracemalloc
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from datetime import datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, IntEnum, IntFlag
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import attrs
import msgpack
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fuzz.codec
import pagebus
from delivery_modes import in_threads
from pagebus import DecodeError, MessagePack

CODEC = MessagePack()
DEPTH = 100
"""The levels that containers may be nested."""

UTC = timezone.utc
T = TypeVar("T")


def encode(message: Any) -> bytes:
    return CODEC.encode(message)


def decode(data: bytes) -> Any:
    return CODEC.decode(data)


def travelled(message: Any) -> Any:
    return decode(encode(message))


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, and of the same types down to the last one."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, float):
        return repr(one) == repr(other)
    if isinstance(one, datetime):
        return (one, one.fold, one.utcoffset()) == (other, other.fold, other.utcoffset())
    return one == other


# ---- classes that travel ------------------------------------------------------------------------


@pagebus.message(name="chat.User")
@dataclass(frozen=True)
class User:
    name: str
    age: int = 0


class Guest(User):
    """Does not travel."""


@pagebus.message
@dataclass
class Note:
    user: User
    texts: list[str] = field(default_factory=list)


@pagebus.message
@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    kind: ClassVar[str] = "counted"
    text: str
    length: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "length", len(self.text))


@pagebus.message
@attrs.frozen
class Point:
    x: int
    _secret: str = "none"
    sum: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "sum", self.x + 1)


@pagebus.message
@attrs.define
class Place(Generic[T]):
    name: str = attrs.field(converter=str.upper)
    at: T = attrs.field(alias="where")


@pagebus.message
class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True)
    name: str
    tags: tuple[str, ...] = ()
    at: datetime | None = None
    room_id: int = pydantic.Field(default=0, alias="room-id")


@pagebus.message
class ByName(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(validate_by_alias=False, validate_by_name=True)
    room: int = pydantic.Field(validation_alias=pydantic.AliasChoices("the room", "r"))


@pagebus.message
class Choices(pydantic.BaseModel):
    room: int = pydantic.Field(validation_alias=pydantic.AliasChoices("the room", "r"))


@pagebus.message
class Numbers(pydantic.RootModel[list[int]]):
    pass


@pagebus.message
class Pair(NamedTuple):
    one: Any
    two: Any = 2


@pagebus.message
class Colour(Enum):
    RED = "red"
    BLUE = (0, 0, 255)


@pagebus.message
class Level(IntEnum):
    LOW = 1


@pagebus.message
class Right(IntFlag):
    READ = 1
    WRITE = 2


class Animal:
    legs: int
    LIMIT: ClassVar[int] = 8
    COUNT: "ClassVar[int]" = 0


@pagebus.message
class Dog(Animal):
    name: "str"

    def __init__(self, name: str, legs: int = 4) -> None:
        self.name, self.legs = name, legs

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dog) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


@pagebus.message
class Ping:
    def __eq__(self, other: object) -> bool:
        return type(other) is Ping

    def __hash__(self) -> int:
        return 0


@pagebus.message
class Text:
    """Refuses some values, in a way that the value says."""

    text: str

    def __init__(self, text: str) -> None:
        if text == "interrupt":
            raise KeyboardInterrupt
        if text == "memory":
            raise MemoryError
        if text != "fine":
            raise LookupError(text)
        self.text = text


OBJECTS = [
    User("ann", 3),
    Note(User("ann"), ["one", "two"]),
    Counted(text="four"),
    Point(1, "secret"),
    Place("here", (1, 2)),
    Model(name="ann", tags=("a", "b"), at=datetime(2026, 1, 2, tzinfo=UTC), **{"room-id": 7}),
    ByName(room=3),
    Choices(r=3),
    Numbers([1, 2]),
    Pair(1, [2]),
    *Colour,
    Level.LOW,
    Right.READ,
    Right.READ | Right.WRITE,
    Dog("rex", 3),
    Ping(),
]

PLAIN = [
    *(None, True, False, 0, 1, -1, 127, 128, -32, -33, 255, 256, 2**16, -(2**15) - 1, 2**32),
    *(2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**500, -(10**500)),
    *(0.0, -0.0, 1.5, 1e308, 5e-324, float("inf"), -float("inf"), float("nan")),
    *("", "ann", "grüße \U0001f600 \0", "x" * 31, "x" * 32, "x" * 256, "x" * 70_000),
    *(b"", b"\x00\xff", b"x" * 256, b"x" * 70_000),
    *([], [[]], [1, "two", None], list(range(16)), list(range(70_000))),
    *((), ((),), (1, ("two",), [3]), tuple(range(100))),
    *({}, {"a": {"b": [1]}}, {n: str(n) for n in range(2000)}),
    {1: 2, "1": 3, b"1": 4, 1.5: 5, None: 6, (1, (2,)): 7, datetime(2026, 1, 1): 8, 2**70: 9},
    {uuid.UUID(int=1): 1, False: 2, datetime(2026, 1, 1, tzinfo=UTC): 3, float("nan"): 4},
    {User("ann"): 1, Ping(): 2, Level.LOW: 3},
    datetime(2026, 11, 21, 11, 34, 43, 29375),
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=timezone(timedelta(hours=14))),
    datetime(2026, 1, 1, fold=1),
    datetime(2026, 1, 1, tzinfo=timezone(-timedelta(hours=23, minutes=59, microseconds=1))),
    *(uuid.UUID(int=0), uuid.UUID(int=2**128 - 1), uuid.UUID("12345678123456781234567812345678")),
]


def kind_of(value: Any) -> str:
    return type(value).__name__


@pytest.mark.parametrize("value", PLAIN + OBJECTS, ids=kind_of)
def test_what_travels_arrives_as_it_was_sent(value: Any):
    assert same(travelled(value), value)
    assert same(travelled({"in": [value]}), {"in": [value]})


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.uuids()
    | st.datetimes()
    | st.datetimes(timezones=st.timezones())
    | st.builds(User, st.text(), st.integers())
)
KEYS = st.recursive(
    st.none() | st.integers() | st.text() | st.binary() | st.uuids() | st.datetimes(),
    lambda keys: st.lists(keys, max_size=3).map(tuple) | st.builds(User, keys, keys),
    max_leaves=5,
)
VALUES = st.recursive(
    LEAVES,
    lambda values: (
        st.lists(values)
        | st.lists(values).map(tuple)
        | st.dictionaries(KEYS, values)
        | st.builds(Note, values, values)
        | st.builds(Pair, values, values)
    ),
    max_leaves=30,
)


@settings(deadline=None, max_examples=500)
@given(VALUES)
def test_any_nested_value_arrives_as_it_was_sent(value: Any):
    data = encode(value)
    assert encode(decode(data)) == data
    # Two times of the hour that comes twice are never equal in two zones, so this looks at parts.
    assert arrived_as(value, decode(data))


def arrived_as(sent: Any, got: Any) -> bool:
    if isinstance(sent, datetime):
        offsets = sent.utcoffset(), got.utcoffset()
        return same(sent.replace(tzinfo=None), got.replace(tzinfo=None)) and len({*offsets}) == 1
    if isinstance(sent, (list, tuple)):
        parts = len(sent) == len(got) and all(map(arrived_as, sent, got))
        return type(sent) is type(got) and parts
    if isinstance(sent, dict):
        return type(got) is dict and arrived_as(list(sent.items()), list(got.items()))
    if isinstance(sent, Note):
        return type(got) is Note and arrived_as([sent.user, sent.texts], [got.user, got.texts])
    return same(sent, got)


# ---- the format ---------------------------------------------------------------------------------

VECTORS = [
    (None, "c0"),
    (True, "c3"),
    (5, "05"),
    (-1, "ff"),
    (300, "cd 01 2c"),
    (2**64 - 1, "cf ff ff ff ff ff ff ff ff"),
    (2**64, "c7 09 02 01 00 00 00 00 00 00 00 00"),
    (-(2**63) - 1, "c7 09 02 ff 7f ff ff ff ff ff ff ff"),
    (1.5, "cb 3f f8 00 00 00 00 00 00"),
    ("hé", "a3 68 c3 a9"),
    (b"\x00", "c4 01 00"),
    ([1, [2]], "92 01 91 02"),
    ((), "c9 00 00 00 00 01"),
    ((1, (2,)), "c9 00 00 00 08 01 01 c9 00 00 00 01 01 02"),
    ({"a": 1}, "81 a1 61 01"),
    (datetime(2026, 11, 21, 13, 5, 59, 7), "c7 0c 03 07 ea 0b 15 0d 05 3b 00 00 00 00 07"),
    (
        datetime(2026, 11, 21, 13, 5, 59, 7, timezone(-timedelta(hours=5)), fold=1),
        "c7 14 03 07 ea 0b 15 0d 05 3b 01 00 00 00 07 ff ff ff fb cf 1d cc 00",
    ),
    (
        uuid.UUID("00112233-4455-6677-8899-aabbccddeeff"),
        "d8 04 00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff",
    ),
    (
        User("ann", 3),
        "c9 00 00 00 18 05 a9 63 68 61 74 2e 55 73 65 72 a4 6e 61 6d 65 a3 61 6e 6e a3 61 67 65 03",
    ),
]


@pytest.mark.parametrize(("value", "data"), VECTORS, ids=kind_of)
def test_a_value_has_these_bytes_and_they_have_this_value(value: Any, data: str):
    assert encode(value).hex(" ") == data
    assert same(decode(bytes.fromhex(data)), value)


def test_the_page_about_codecs_tells_the_same_bytes():
    page = Path(__file__).parents[1] / "docs" / "codecs.md"
    rows = re.findall(r"^\| `([^`]+)` \| `([0-9a-f ]+)` \|$", page.read_text("utf-8"), re.M)
    names = {"datetime": datetime, "timedelta": timedelta, "timezone": timezone, "UUID": uuid.UUID}
    told = [(eval(value, {"User": User, **names}), data) for value, data in rows]
    assert len(told) > 10
    assert [(value, encode(value).hex(" ")) for value, _ in told] == told


def test_other_readers_and_writers_of_messagepack_understand_the_plain_part():
    value = {"text": ["hé", b"\0", 1, -(2**40), 1.5, None, True, {1: []}]}
    assert msgpack.unpackb(encode(value), strict_map_key=False) == value
    assert same(decode(msgpack.packb(value)), value)
    assert same(decode(msgpack.packb([1.5, 0.25], use_single_float=True)), [1.5, 0.25])


def test_forms_that_are_longer_than_needed_are_read_too():
    longer = ["cc 05", "cd 00 05", "ce 00 00 00 05", "cf 00 00 00 00 00 00 00 05"]
    longer += ["d0 05", "d1 00 05", "d2 00 00 00 05", "d3 00 00 00 00 00 00 00 05", "d4 02 05"]
    assert [decode(bytes.fromhex(data)) for data in longer] == [5] * len(longer)
    for data in ["d9 01 61", "da 00 01 61", "db 00 00 00 01 61"]:
        assert decode(bytes.fromhex(data)) == "a"
    for data in ["c4 01 61", "c5 00 01 61", "c6 00 00 00 01 61"]:
        assert decode(bytes.fromhex(data)) == b"a"
    for data in ["91 05", "dc 00 01 05", "dd 00 00 00 01 05"]:
        assert decode(bytes.fromhex(data)) == [5]
    for data in ["81 05 06", "de 00 01 05 06", "df 00 00 00 01 05 06"]:
        assert decode(bytes.fromhex(data)) == {5: 6}
    for data in ["d4 01 05", "c7 01 01 05", "c8 00 01 01 05", "c9 00 00 00 01 01 05"]:
        assert same(decode(bytes.fromhex(data)), (5,))
    tuples = {size: decode(bytes([byte, 1, *[5] * size])) for byte, size in FIXED_EXTENSIONS}
    assert tuples == {size: (5,) * size for size in tuples}


FIXED_EXTENSIONS = [(0xD4, 1), (0xD5, 2), (0xD6, 4), (0xD7, 8), (0xD8, 16)]


def test_of_a_time_zone_the_offset_arrives():
    class Berlin(tzinfo):
        def utcoffset(self, when: datetime | None) -> timedelta:
            return timedelta(hours=2)

    got = travelled(datetime(2026, 7, 1, 12, tzinfo=Berlin()))

    assert got == datetime(2026, 7, 1, 10, tzinfo=UTC)
    assert got.tzinfo == timezone(timedelta(hours=2))


def test_a_time_whose_zone_has_no_offset_arrives_without_a_zone():
    class Nowhere(tzinfo):
        def utcoffset(self, when: datetime | None) -> None:
            return None

    assert same(travelled(datetime(2026, 7, 1, tzinfo=Nowhere())), datetime(2026, 7, 1))


def test_what_a_time_zone_raises_is_raised():
    class Broken(tzinfo):
        def utcoffset(self, when: datetime | None) -> timedelta:
            raise LookupError("broken")

    with pytest.raises(LookupError, match="broken"):
        encode([datetime(2026, 7, 1, tzinfo=Broken())])


# ---- registering --------------------------------------------------------------------------------

numbers = itertools.count()


def fresh_name() -> str:
    """A name that no class has yet, in whichever thread this runs."""
    return f"fresh.{next(numbers)}"


def test_a_class_is_called_by_its_module_and_its_name_or_as_it_is_said():
    assert b"test_codec.Note" in encode(Note(User("ann")))
    assert b"chat.User" in encode(User("ann"))
    assert b"test_codec.User" not in encode(User("ann"))


def test_registering_leaves_the_class_as_it_is():
    class Plain:
        pass

    before = dict(vars(Plain))
    assert pagebus.message(name=fresh_name())(Plain) is Plain
    assert dict(vars(Plain)) == before


def test_a_subclass_is_a_class_of_its_own():
    @pagebus.message(name=fresh_name())
    @dataclass(frozen=True)
    class Admin(User):
        pass

    assert same(travelled(Admin("ann")), Admin("ann"))
    with pytest.raises(TypeError, match=r"Guest, which does not travel: put @pagebus\.message"):
        encode(Guest("bob"))


def test_two_classes_cannot_have_one_name():
    @dataclass
    class Other:
        name: str

    with pytest.raises(ValueError, match=r'"chat\.User" is the name of another class.*\.User'):
        pagebus.message(name="chat.User")(Other)
    with pytest.raises(TypeError, match="does not travel"):
        encode(Other("ann"))
    assert same(travelled(User("ann")), User("ann"))


def test_one_class_cannot_have_two_names():
    with pytest.raises(ValueError, match=r'User is registered already, as "chat\.User"'):
        pagebus.message(name=fresh_name())(User)
    assert b"chat.User" in encode(User("ann"))


def test_the_same_class_may_be_registered_again():
    assert pagebus.message(name="chat.User")(User) is User
    assert same(travelled(User("ann")), User("ann"))


@pytest.mark.thread_unsafe(reason="there is one module of a name")
def test_a_module_may_be_loaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(tmp_path)
    source = "import dataclasses, pagebus\n@pagebus.message\n@dataclasses.dataclass\nclass Sent:\n"
    path = tmp_path / "reloaded_messages.py"
    path.write_text(source + "    one: int\n")
    module = importlib.import_module("reloaded_messages")
    try:
        old, data = module.Sent(1), encode(module.Sent(1))
        path.write_text(source + "    one: int\n    two: int = 2\n# longer\n")
        importlib.invalidate_caches()
        module = importlib.reload(module)
        new = module.Sent(1)

        assert type(travelled(new)) is type(new)
        with pytest.raises(
            TypeError, match="replaced by a newer one of the same name: make the object anew"
        ):
            encode(old)
        with pytest.raises(DecodeError, match='lacks the field "two"'):
            decode(data)
    finally:
        del sys.modules["reloaded_messages"]


def plain_without_keyword() -> type:
    class Wrong:
        one: int
        two: int

        def __init__(self, one: int) -> None:
            pass

    return Wrong


def plain_with_more_arguments() -> type:
    class Wrong:
        one: int

        def __init__(self, one: int, more: int) -> None:
            pass

    return Wrong


def plain_positional() -> type:
    class Wrong:
        one: int

        def __init__(self, one: int, /) -> None:
            pass

    return Wrong


def dataclass_that_is_none_yet() -> type:
    class Wrong:
        one: int

    return Wrong


def dataclass_with_init_var() -> type:
    @dataclass
    class Wrong:
        one: int
        more: InitVar[int]

    return Wrong


def subclass_with_fields_that_the_dataclass_does_not_know() -> type:
    class Wrong(User):
        more: int

    return Wrong


@pytest.mark.parametrize(
    "make",
    [
        plain_without_keyword,
        plain_with_more_arguments,
        plain_positional,
        dataclass_that_is_none_yet,
        dataclass_with_init_var,
        subclass_with_fields_that_the_dataclass_does_not_know,
    ],
)
def test_a_class_that_cannot_be_made_of_its_fields_is_refused_at_once(make: Callable[[], type]):
    cls = make()
    with pytest.raises(TypeError, match=r"Wrong cannot be made of its fields \((\w+, )*\w+\): "):
        pagebus.message(cls)


@pytest.mark.parametrize("base", [str, int, dict, list, set, bytes, deque, OrderedDict, Exception])
def test_a_class_whose_content_is_in_no_field_is_refused_at_once(base: type):
    class Wrong(base):  # type: ignore[misc, valid-type]
        pass

    with pytest.raises(TypeError, match=rf"Wrong is a {base.__name__}, whose content"):
        pagebus.message(Wrong)


def test_a_model_that_takes_any_field_is_refused_at_once():
    class Wrong(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="allow")

    with pytest.raises(TypeError, match="Wrong allows extra fields"):
        pagebus.message(Wrong)


def test_a_model_with_an_alias_that_is_a_path_is_refused_at_once():
    class Wrong(pydantic.BaseModel):
        one: int = pydantic.Field(validation_alias=pydantic.AliasPath("a", 0))

    with pytest.raises(TypeError, match=r"'one' of .*Wrong has an alias that is no name"):
        pagebus.message(Wrong)


@pytest.mark.parametrize("wrong", ["chat.User", 1, User("ann"), lambda: None])
def test_only_classes_are_registered(wrong: Any):
    with pytest.raises(TypeError, match=r"a class is needed, not \w+; a name is given as name="):
        pagebus.message(wrong)


@pytest.mark.parametrize(
    ("name", "error"), [(1, TypeError), (b"x", TypeError), ("", ValueError), ("\ud800", ValueError)]
)
def test_a_name_is_a_text(name: Any, error: type[Exception]):
    with pytest.raises(error, match=r"^name "):
        pagebus.message(name=name)


def test_neither_attrs_nor_pydantic_is_needed():
    program = """
import sys
sys.modules["attr"] = sys.modules["attrs"] = sys.modules["pydantic"] = None
import pagebus
@pagebus.message
class Note:
    text: str
    def __init__(self, text): self.text = text
codec = pagebus.MessagePack()
assert codec.decode(codec.encode(Note("hello"))).text == "hello"
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# ---- what is refused when a message is sent -----------------------------------------------------


class Unknown:
    pass


class Name(str):
    __slots__ = ()


class Loud(IntEnum):
    ON = 1


class NotModel(pydantic.BaseModel):
    pass


UNKNOWN = [
    Unknown(),
    Unknown,
    Name("ann"),
    Loud.ON,
    OrderedDict(a=1),
    defaultdict(list),
    Counter("a"),
    *({1}, frozenset({1}), deque([1]), bytearray(b"x"), memoryview(b"x"), range(3)),
    *(1j, Decimal(1), Fraction(1), object(), print, ..., timedelta(1), datetime.now().date()),
    *(Path(), ValueError("x"), NotModel(), (n for n in ())),
]


@pytest.mark.parametrize("value", UNKNOWN, ids=kind_of)
def test_a_type_that_does_not_travel_is_refused_by_name(value: Any):
    name = re.escape(type(value).__name__)
    with pytest.raises(TypeError, match=rf"^message is of the type .*{name}, .*@pagebus\.message"):
        encode(value)
    with pytest.raises(TypeError, match=rf"^message\['a'\]\[0\] is of the type .*{name}, "):
        encode({"a": [value]})


@pytest.mark.parametrize(
    ("message", "place"),
    [
        ({"user": Note(User(Unknown()), [])}, "message['user'].user.name"),
        ([[], ({1: {"k": (0, Unknown())}},)], "message[1][0][1]['k'][1]"),
        ({Unknown(): 1}, "a key of message"),
        ([{"a": {(1, Unknown()): 1}}], "a key of message[0]['a']"),
        ({(1, 2): Unknown()}, "message[...]"),
        ({10**5000: Unknown()}, "message[...]"),
        ({"x" * 500: Unknown()}, "message['" + "x" * 59 + "...]"),
        (Pair(1, Unknown()), "message.two"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_error_says_where_in_the_message(message: Any, place: str):
    with pytest.raises(TypeError, match=rf"^{re.escape(place)} is of the type .*Unknown, "):
        encode(message)


def test_a_long_way_into_a_message_is_shown_by_its_ends():
    message: Any = Unknown()
    for number in range(50):
        message = [0] * (number % 7) + [message]
    with pytest.raises(TypeError, match=r"^message(\[\d\]){6}\.\.\.(\[\d\]){6} is of the type"):
        encode(message)


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb" * 3])
def test_a_lone_surrogate_is_refused_as_such(text: str):
    with pytest.raises(ValueError, match=r"^message\['a'\]\.name is a text with a lone surrogate"):
        encode({"a": User(text)})
    with pytest.raises(ValueError, match=r"^a key of message is a text with a lone surrogate"):
        encode({text: 1})


NESTINGS: dict[str, Callable[[Any], Any]] = {
    "list": lambda inner: [inner],
    "tuple": lambda inner: (inner,),
    "dict": lambda inner: {"a": inner},
    "object": lambda inner: Pair(inner),
}


@pytest.mark.parametrize("kind", [*NESTINGS, "key"])
def test_a_message_is_nested_a_hundred_levels_deep_and_no_more(kind: str):
    message: Any = "a"
    for _ in range(DEPTH - 1):
        message = NESTINGS["tuple" if kind == "key" else kind](message)
    message = {message: 1} if kind == "key" else NESTINGS[kind](message)
    assert same(travelled(message), message)

    with pytest.raises(ValueError, match="nested deeper than 100 levels, or contains itself"):
        encode([message])
    with pytest.raises(DecodeError, match="nested deeper than 100 levels"):
        decode(b"\x91" + encode(message))


def test_a_message_that_contains_itself_is_refused():
    listed: list[Any] = []
    listed.append(listed)
    mapped: dict[str, Any] = {}
    mapped["a"] = [mapped]
    noted = Note(User("ann"))
    noted.texts = [noted]  # type: ignore[list-item]
    for message in [listed, mapped, noted]:
        with pytest.raises(ValueError, match="contains itself"):
            encode(message)


def test_an_object_that_has_lost_an_attribute_is_refused():
    note = Note(User("ann"))
    del note.texts
    with pytest.raises(ValueError, match=r"^message\[0\] lacks one of the fields of") as error:
        encode([note])
    assert isinstance(error.value.__cause__, AttributeError)


def test_what_an_attribute_raises_is_raised():
    class Broken:
        one: int

        def __init__(self, one: int = 1) -> None:
            pass

        @property
        def one(self) -> int:  # type: ignore[no-redef]
            raise LookupError("broken")

    pagebus.message(name=fresh_name())(Broken)
    with pytest.raises(LookupError, match="broken"):
        encode([Broken()])


def test_a_list_and_a_dict_that_change_meanwhile_travel_as_they_were():
    class Meddler:
        change: object

        def __init__(self, change: Any = None) -> None:
            self._change = change

        @property
        def change(self) -> None:  # type: ignore[no-redef]
            self._change()

    pagebus.message(name=fresh_name())(Meddler)
    listed: list[Any] = [1, 2, 3]
    listed.insert(1, Meddler(listed.clear))
    mapped: dict[Any, Any] = {"a": 1, "c": 3}
    grown: dict[Any, Any] = {"a": Meddler(lambda: grown.update(dict.fromkeys(range(1000)))), "b": 2}
    mapped["b"] = Meddler(mapped.clear)
    mapped["d"] = 4

    data = encode(listed), encode(mapped), encode(grown)

    assert [value for value in decode(data[0]) if type(value) is int] == [1, 2, 3]
    assert [*decode(data[1])] == ["a", "c", "b", "d"]
    assert [*decode(data[2])] == ["a", "b"]
    assert (listed, mapped, len(grown)) == ([], {}, 1002)


# ---- what is refused when bytes come ------------------------------------------------------------


def object_data(name: str, *parts: Any) -> bytes:
    """The bytes of an object that may not be one."""
    body = b"".join(encode(part) for part in [name, *parts])
    return b"\xc9" + len(body).to_bytes(4, "big") + b"\x05" + body


def extension(code: int, body: bytes) -> bytes:
    return bytes([0xC7, len(body), code & 0xFF]) + body


NAIVE = encode(datetime(2026, 1, 1))[3:]
AWARE = encode(datetime(2026, 1, 1, tzinfo=UTC))[3:]


def offset(microseconds: int) -> bytes:
    return NAIVE + microseconds.to_bytes(8, "big", signed=True)


DAY = 86_400_000_000

MALFORMED = {
    "nothing": (b"", "the bytes end too early"),
    "more": (b"\x01\x01", "bytes after the message"),
    "an unused byte": (b"\xc1", "a byte that MessagePack does not use"),
    "an unused byte inside": (b"\x91\xc1", "a byte that MessagePack does not use"),
    "no UTF-8": (b"\xa1\xff", "a text is not UTF-8"),
    "a surrogate": (b"\xa3\xed\xa0\x80", "a text is not UTF-8"),
    "no UTF-8 in a key": (b"\x81\xa1\xff\x01", "a text is not UTF-8"),
    "a list as a key": (b"\x81\x90\x01", "a key that cannot be one"),
    "a dict as a key": (b"\x81\x80\x01", "a key that cannot be one"),
    "a list in a tuple as a key": (b"\x81" + encode(([],)) + b"\x01", "a key that cannot be one"),
    "an object as a key": (b"\x81" + encode(Dog("rex")) + b"\x01", "a key that cannot be one"),
    "a key twice": (b"\x82\xa1a\x01\xa1a\x02", "the same key twice"),
    "equal keys": (b"\x82\x01\x01\xc3\x02", "the same key twice"),
    "another extension": (extension(6, b""), "extension type 6 is unknown"),
    "a timestamp": (msgpack.packb(msgpack.Timestamp(1)), "extension type -1 is unknown"),
    "an int of no bytes": (extension(2, b""), "an int has no bytes"),
    "a short date": (extension(3, NAIVE[:-1]), "a date and time is none"),
    "an empty date": (extension(3, b""), "a date and time is none"),
    "a date with half an offset": (extension(3, AWARE[:-1]), "an offset that is none"),
    "a long date": (extension(3, AWARE + b"\0"), "an offset that is none"),
    "an offset of a day": (extension(3, offset(DAY)), "an offset that is none"),
    "an offset of minus a day": (extension(3, offset(-DAY)), "an offset that is none"),
    "the least offset": (extension(3, offset(-(2**63))), "an offset that is none"),
    "year 0": (extension(3, b"\0\0" + NAIVE[2:]), "a date and time is none"),
    "year 65535": (extension(3, b"\xff\xff" + NAIVE[2:]), "a date and time is none"),
    "month 13": (extension(3, NAIVE[:2] + b"\x0d" + NAIVE[3:]), "a date and time is none"),
    "fold 2": (extension(3, NAIVE[:7] + b"\x02" + NAIVE[8:]), "a date and time is none"),
    "microsecond 2**32-1": (extension(3, NAIVE[:8] + b"\xff" * 4), "a date and time is none"),
    "a short UUID": (extension(4, b"x" * 15), "a UUID has not 16 bytes"),
    "a long UUID": (extension(4, b"x" * 17), "a UUID has not 16 bytes"),
    "an empty object": (extension(5, b""), "the bytes end too early"),
    "an object without a name": (extension(5, b"\x01"), "a name is not a text"),
    "a name that is no UTF-8": (extension(5, b"\xa1\xff"), "a text is not UTF-8"),
    "an unknown name": (object_data("os.system", "x", 1), 'no class is registered as "os.system"'),
    "a name by path": (object_data("pagebus.PubSubHub"), "no class is registered as"),
    "a long name": (object_data("x" * 100_000), f'no class is registered as "{"x" * 100}"$'),
    "a name with an escape": (object_data("\x1b[1m\n"), r'registered as "\\u\{1b\}\[1m\\n"$'),
    "a field too few": (object_data("chat.User", "name", "ann"), 'User" lacks the field "age"'),
    "no field": (object_data("chat.User"), '"chat.User" lacks the field "name"'),
    "a field too many": (
        object_data("chat.User", "name", "ann", "age", 1, "more", 1),
        '"chat.User" has no field "more"',
    ),
    "a field that is none": (
        object_data("chat.User", "name", "ann", "__class__", 1),
        '"chat.User" has no field "__class__"',
    ),
    "a field of a marker": (object_data("test_codec.Ping", "one", 1), 'has no field "one"'),
    "a field twice": (
        object_data("chat.User", "name", "ann", "name", "bob"),
        '"chat.User" has only one field "name"',
    ),
    "a field without a value": (object_data("chat.User", "name"), "the bytes end too early"),
    "a field whose name is a number": (object_data("chat.User", 1, 1), "a name is not a text"),
    "a keyword that is no field": (object_data("test_codec.Point", "secret", 1), "has no field"),
    "a value that is not taken": (
        object_data("test_codec.Model", "name", 1, "tags", (), "at", None, "room_id", 1),
        r'"test_codec.Model" does not take these values \(ValidationError\)',
    ),
    "no member": (object_data("test_codec.Colour", "value", "green"), r"\(ValueError\)"),
    "an unhashable member": (object_data("test_codec.Colour", "value", []), r"\(ValueError\)"),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_bytes_that_are_no_message_are_refused_with_a_reason(what: str):
    data, reason = MALFORMED[what]
    with pytest.raises(DecodeError, match=f"^not a message: .*{reason}"):
        decode(data)
    with pytest.raises(ValueError, match=r"^not a message: "):
        decode(b"\x93\x01" + data + b"\x02")


@pytest.mark.parametrize("wrong", [None, "text", bytearray(b"\x01"), memoryview(b"\x01"), 1])
def test_only_bytes_are_decoded(wrong: Any):
    with pytest.raises(TypeError, match=f"^data must be bytes, not {type(wrong).__name__}$"):
        decode(wrong)


def test_what_a_class_raises_is_the_cause():
    with pytest.raises(
        DecodeError, match=r"Text\" does not take these .* \(LookupError\)"
    ) as error:
        decode(object_data("test_codec.Text", "text", "other"))
    assert repr(error.value.__cause__) == "LookupError('other')"


@pytest.mark.parametrize(
    ("text", "error"), [("interrupt", KeyboardInterrupt), ("memory", MemoryError)]
)
def test_what_is_no_fault_of_the_bytes_is_raised_as_it_is(text: str, error: type[BaseException]):
    with pytest.raises(error):
        decode(object_data("test_codec.Text", "text", text))


def test_nothing_is_imported_for_a_name():
    assert "this" not in sys.modules
    with pytest.raises(DecodeError, match="no class is registered"):
        decode(object_data("this.Zen"))
    assert "this" not in sys.modules


def test_an_object_of_which_nothing_comes_is_let_go():
    made: list[int] = []

    class Noted:
        number: int

        def __init__(self, number: int) -> None:
            self.number = number
            made.append(number)

        def __del__(self) -> None:
            made.remove(self.number)

        def __hash__(self) -> int:
            return 1

    pagebus.message(name=fresh_name())(Noted)
    data = encode([Noted(1), {Noted(2): (Noted(3), Pair(Noted(4)))}])
    gc.collect()
    assert made == []

    got = decode(data)
    assert sorted(made) == [1, 2, 3, 4]
    del got
    gc.collect()
    assert made == []
    for end in range(len(data)):
        with pytest.raises(DecodeError):
            decode(data[:end])
    gc.collect()
    assert made == []


CONTAINERS = {
    "lists": b"\x91",
    "long lists": b"\xdd\x00\x00\x00\x01",
    "dicts": b"\x81\x01",
    "keys": b"\x81",
    "tuples": b"\xd4\x01",
    "objects": b"\xd4\x05",
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_bytes_that_nest_a_hundred_thousand_levels_are_refused(kind: str):
    with pytest.raises(DecodeError):
        decode(CONTAINERS[kind] * 100_000 + b"\x01")


def test_tuples_that_nest_properly_a_hundred_thousand_levels_are_refused():
    size = 100_000 * 6
    heads = b"".join(
        b"\xc9" + (size - place - 6).to_bytes(4, "big") + b"\x01" for place in range(0, size, 6)
    )
    with pytest.raises(DecodeError, match="nested deeper than 100 levels"):
        decode(heads)


@pytest.mark.parametrize("byte", [0xC6, 0xC9, 0xDB, 0xDD, 0xDF], ids=hex)
@pytest.mark.parametrize("length", [2**32 - 1, 2**31, 1000])
def test_a_length_that_is_not_there_is_refused_before_there_is_room_for_it(byte: int, length: int):
    data = bytes([byte]) + length.to_bytes(4, "big") + b"\x01" * 500
    with pytest.raises(DecodeError, match=r"end too early|than there are bytes"):
        decode(data)


@pytest.mark.thread_unsafe(reason="it measures the memory of the process")
def test_lists_that_all_announce_the_rest_take_no_room_for_it():
    rest = 1 << 20
    heads = [b"\xdd" + (rest - 1000).to_bytes(4, "big")] * (DEPTH - 1)
    data = b"".join(heads) + b"\x01" * rest
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            decode(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * rest


def test_bytes_that_are_cut_anywhere_are_refused():
    data = encode([OBJECTS, PLAIN[:20], {"a": (1, 2.5, b"bytes", datetime.now(), uuid.uuid4())}])
    for end in range(len(data)):
        with pytest.raises(DecodeError):
            decode(data[:end])


def test_bytes_that_are_changed_anywhere_are_a_message_or_refused():
    data = encode([OBJECTS, {"a": (1, 2.5, b"bytes", datetime.now(UTC), uuid.uuid4(), 2**70)}])
    for place, change in itertools.product(range(len(data)), [1, 0x10, 0x80, 0xFF]):
        broken = bytearray(data)
        broken[place] ^= change
        survives(bytes(broken))


def survives(data: bytes) -> bool:
    """Whether the bytes are a message; anything but that or a DecodeError is a fault."""
    try:
        message = decode(data)
    except DecodeError:
        return False
    assert same(travelled(message), message) or "nan" in repr(message)
    return True


@settings(deadline=None, max_examples=2000)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(data: bytes):
    survives(data)


def test_what_is_written_nearly_right_for_two_seconds_meets_every_reason_and_no_fault():
    dice, met = random.Random(7), Counter[str]()
    end = time.process_time() + 2
    while time.process_time() < end:
        for _ in range(200):
            met.update(fuzz.codec.run(dice.randbytes(dice.randrange(100))))
    assert {*met} == {"a message", *fuzz.codec.REASONS}


@pytest.mark.parametrize("step", [2**61 - 1, 2 * (2**61 - 1)], ids=["int", "even"])
def test_keys_that_are_made_to_collide_are_refused_before_they_take_long(step: int):
    """All of them have the same hash: each would be compared with all that came before."""
    count = 50_000
    pairs = b"".join(encode(number * step) + b"\x01" for number in range(count))
    with pytest.raises(DecodeError, match="too many keys of a dict have the same hash"):
        decode(b"\xdf" + count.to_bytes(4, "big") + pairs)


def test_a_thousand_keys_may_have_the_same_hash():
    message = {number * (2**61 - 1): number for number in range(1000)}
    assert travelled(message) == message


# ---- several threads, and messages inside of messages -------------------------------------------


def test_a_class_may_use_the_codec_while_it_is_made():
    class Sealed:
        data: bytes

        def __init__(self, data: bytes) -> None:
            self.data, self.opened = data, decode(data)

    pagebus.message(name=fresh_name())(Sealed)
    inner = Sealed(encode(User("ann")))
    outer = Sealed(encode([inner, inner]))

    got = travelled([outer])

    assert [each.opened for each in got[0].opened] == [User("ann"), User("ann")]


def test_a_class_may_register_another_one_while_it_is_made():
    class Late:
        pass

    class Early:
        name: str

        def __init__(self, name: str) -> None:
            self.name = name
            pagebus.message(name=name)(Late)

    pagebus.message(name=fresh_name())(Early)
    name = fresh_name()
    got = travelled([Early(name), Late()])

    assert [type(each) for each in got] == [Early, Late]


def test_eight_threads_encode_and_decode_while_others_register():
    messages: list[Any] = [OBJECTS, {"note": Note(User("ann", 3), ["a"] * 10)}]
    data = [encode(message) for message in messages]
    rounds, over = 300, threading.Event()

    def work() -> None:
        for _ in range(rounds):
            for message, expected in zip(messages, data, strict=True):
                assert encode(message) == expected
                assert same(decode(expected), message)

    def register() -> None:
        while not over.is_set():
            cls = pagebus.message(name=fresh_name())(type("Fresh", (), {}))
            assert type(travelled([cls()])[0]) is cls
            pagebus.message(name="chat.User")(User)

    registrars = [threading.Thread(target=register) for _ in range(2)]
    for thread in registrars:
        thread.start()
    try:
        in_threads(*[work] * 8)
    finally:
        over.set()
        for thread in registrars:
            thread.join()


def test_what_others_change_meanwhile_is_encoded_or_refused():
    listed: list[Any] = list(range(100))
    mapped: dict[Any, Any] = {n: n for n in range(100)}
    over = threading.Event()

    def meddle() -> None:
        while not over.is_set():
            listed.extend(range(50))
            mapped.update({n: n for n in range(100, 200)})
            del listed[100:]
            for number in range(100, 200):
                mapped.pop(number, None)

    meddler = threading.Thread(target=meddle)
    meddler.start()
    try:
        for _ in range(2000):
            got = travelled([listed, mapped])
            assert got[0][:100] == list(range(100))
            assert all(key == value for key, value in got[1].items())
            assert [*got[1]][:100] == list(range(100))
    finally:
        over.set()
        meddler.join()
