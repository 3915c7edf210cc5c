"""How a message becomes bytes: what a codec is, and which classes of yours travel."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import operator
import re
import sys
from collections.abc import Callable
from enum import Enum
from types import BuiltinMethodType
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar, get_origin, overload

from pagebus._core import _register

_C = TypeVar("_C", bound=type)


class Codec(Protocol):
    """Turns messages into bytes and back; :class:`MessagePack` is one.

    Several threads may call it at once.
    """

    def encode(self, message: Any, /) -> bytes:
        """Give the bytes of a message. What it raises is raised by the send."""

    def decode(self, data: bytes, /) -> Any:
        """Give the message of which these are the bytes, or raise :class:`DecodeError`."""


@overload
def message(cls: _C, /, *, name: str | None = None) -> _C: ...
@overload
def message(cls: None = None, /, *, name: str | None = None) -> Callable[[_C], _C]: ...
def message(cls: Any = None, /, *, name: str | None = None) -> Any:
    """Let the objects of a class travel between processes: ``@pagebus.message``.

    They travel by the name of the class and the values of its fields, and are made again by the
    class itself, with its fields as keyword arguments. Fields are those of a dataclass, of an attrs
    class, of a pydantic model or of a named tuple, an enum's value, and else the annotated
    attributes, which ``__init__`` must take. Subclasses are classes of their own.

    Args:
        cls: The class.
        name: What the class is called in bytes: the same in all processes. Default: its module and
            its qualified name.

    Raises:
        TypeError: ``cls`` is not a class, or cannot be made of its fields.
        ValueError: Another class has the name, or the class has another one. (A class that is
            there again because its module was loaded again takes the place of the old one.)
    """
    if name is not None:
        _check_name(name)
    if cls is None:
        return functools.partial(_enter, name=name)
    return _enter(cls, name)


def _check_name(name: Any) -> None:
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, not {type(name).__name__}")
    try:
        is_empty = not name.encode()
    except UnicodeEncodeError:
        raise ValueError("name has a lone surrogate, which UTF-8 has no form for") from None
    if is_empty:
        raise ValueError("name is empty")


def _enter(cls: Any, name: str | None) -> Any:
    if not isinstance(cls, type):
        kind = type(cls).__name__
        raise TypeError(f"message: a class is needed, not {kind}; a name is given as name=...")
    shape = _shape_of(cls)
    read = operator.attrgetter(*shape.keywords) if shape.keywords else None
    name = name or f"{cls.__module__}.{cls.__qualname__}"
    _register(cls, name, list(shape.keywords.items()), read, shape.build)
    return cls


# ---- what an object is made of ------------------------------------------------------------------


class _Shape(NamedTuple):
    """The fields of a class."""

    keywords: dict[str, str]
    """The attributes that are fields, each with the keyword argument that sets it."""
    build: Callable[..., object]
    """Makes an object of these keyword arguments."""


def _shape_of(cls: type) -> _Shape:
    if issubclass(cls, Enum):
        return _Shape({"value": "value"}, cls)
    if issubclass(cls, tuple) and isinstance(names := getattr(cls, "_fields", None), tuple):
        return _checked(cls, {name: name for name in names})
    _check_content(cls)
    # A class that only inherits from a dataclass may have fields that the dataclass does not know.
    if "__dataclass_fields__" in vars(cls):
        return _of_dataclass(cls)
    if "__attrs_attrs__" in vars(cls):
        return _of_attrs(cls)
    # Where nobody has imported pydantic, this is no model.
    model = getattr(sys.modules.get("pydantic"), "BaseModel", None)
    if model is not None and issubclass(cls, model) and hasattr(cls, "model_fields"):
        return _of_pydantic(cls)
    return _checked(cls, {name: name for name in _annotated(cls)})


def _check_content(cls: type) -> None:
    """Refuse what has content beside its fields: that would be lost on the way."""
    for base in cls.__mro__[:-1]:
        # What copyreg looks for too: a class that is written in C.
        if not base.__flags__ & 1 << 9 or isinstance(vars(base).get("__new__"), BuiltinMethodType):
            raise TypeError(
                f"message: {cls.__qualname__} is a {base.__qualname__}, whose content is in no "
                f"field and would not travel; make it a field"
            )


def _of_dataclass(cls: Any) -> _Shape:
    fields = dataclasses.fields(cls)
    return _checked(
        cls,
        {field.name: field.name for field in fields if field.init},
        [field.name for field in fields if not field.init],
    )


def _of_attrs(cls: Any) -> _Shape:
    fields = cls.__attrs_attrs__
    # attrs before 22.2 has no aliases.
    return _checked(
        cls,
        {
            field.name: getattr(field, "alias", None) or field.name.lstrip("_")
            for field in fields
            if field.init
        },
        [field.name for field in fields if not field.init],
    )


def _of_pydantic(cls: Any) -> _Shape:
    if cls.model_config.get("extra") == "allow":
        raise TypeError(
            f"message: {cls.__qualname__} allows extra fields, which would not travel; "
            f"declare them, or one field that is a dict"
        )
    by_alias = cls.model_config.get("validate_by_alias") is not False
    return _Shape(
        {
            name: _alias_of(cls, name, field) if by_alias else name
            for name, field in cls.model_fields.items()
        },
        cls,
    )


def _alias_of(cls: type, name: str, field: Any) -> str:
    alias = field.validation_alias or field.alias or name
    for choice in [alias, *getattr(alias, "choices", [])]:
        if isinstance(choice, str):
            return choice
    raise TypeError(
        f"message: the field {name!r} of {cls.__qualname__} has an alias that is no name"
    )


_CLASS_VAR = re.compile(r"([\w.]+\.)?ClassVar\b")


def _annotated(cls: type) -> list[str]:
    """Attributes with an annotation, those of base classes first."""
    annotations: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        annotations |= _annotations_of(base)
    return [name for name, kind in annotations.items() if not _is_of_class(kind)]


# From 3.14 on, asking for annotations evaluates them, names that are not there yet included.
if sys.version_info >= (3, 14):
    from annotationlib import Format, get_annotations

    _annotations_of = functools.partial(get_annotations, format=Format.FORWARDREF)
    _signature_of = functools.partial(inspect.signature, annotation_format=Format.FORWARDREF)
else:
    _annotations_of = inspect.get_annotations
    _signature_of = inspect.signature


def _is_of_class(kind: Any) -> bool:
    if isinstance(kind, str):
        return _CLASS_VAR.match(kind) is not None
    return kind is ClassVar or get_origin(kind) is ClassVar


def _checked(cls: Any, keywords: dict[str, str], later: list[str] | None = None) -> _Shape:
    """Check that ``cls`` takes these keywords. Fields for ``later`` are those it sets itself."""
    try:
        _signature_of(cls).bind(**dict.fromkeys(keywords.values()))
    except (TypeError, ValueError) as error:
        fields = ", ".join(keywords) or "none"
        raise TypeError(
            f"message: {cls.__qualname__} cannot be made of its fields ({fields}): {error}; its "
            f"annotated attributes and the arguments of its __init__ must have the same names, and "
            f"@pagebus.message stands above @dataclass and the like"
        ) from error
    if not later:
        return _Shape(keywords, cls)
    # No argument of an __init__ is called like that.
    set_later = {f".{name}": name for name in later}
    keywords = keywords | {name: keyword for keyword, name in set_later.items()}
    return _Shape(keywords, functools.partial(_build_and_set, cls, set_later))


def _build_and_set(cls: Any, set_later: dict[str, str], /, **values: Any) -> object:
    attributes = {name: values.pop(keyword) for keyword, name in set_later.items()}
    made = cls(**values)
    for name, value in attributes.items():
        # Past what freezes the object: it has just been made.
        object.__setattr__(made, name, value)
    return made
