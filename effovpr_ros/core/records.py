"""Plain values of JSON to frozen dataclasses, each value checked against the annotation of its field."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Hashable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar

from effovpr_ros.core.errors import ConfigError

Record = TypeVar("Record")
_SHOWN = 60


def read_record(kind: type[Record], values: object, where: str) -> Record:
    """A dataclass of JSON's values; fields that it does not know are passed over, so that a newer writer may add some.

    Understood are dataclasses, str, int, float, bool, tuples of fixed and of any length, and unions with None.

    Args:
        kind: a dataclass.
        values: a mapping of names to values.
        where: they come from, for the message.

    Raises:
        ConfigError: a field is missing, of another type, or a number that is not finite; names it.
    """
    if not isinstance(values, Mapping):
        raise _refuse(values, where, "a table of names and values")
    made: dict[str, Any] = {}
    hints = _hints(typing.cast(Hashable, kind))
    for entry in fields(kind):  # type: ignore[arg-type]
        if entry.name in values:
            made[entry.name] = _value(hints[entry.name], values[entry.name], f"{entry.name} of {where}")
        elif entry.default is MISSING and entry.default_factory is MISSING:
            raise ConfigError(f"{where} lacks {entry.name!r}")
    return kind(**made)


@cache
def _hints(kind: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _value(kind: Any, value: object, what: str) -> Any:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in parts:
            return None
        (kind,) = (part for part in parts if part is not type(None))
        return _value(kind, value, what)
    if origin is tuple:
        return _items(parts, value, what)
    if is_dataclass(kind) and isinstance(kind, type):
        return read_record(kind, value, what)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if abs(value) < math.inf:
            return float(value)
        raise _refuse(value, what, "a finite number")
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise _refuse(value, what, {str: "text", int: "a whole number", float: "a number", bool: "true or false"}[kind])


def _items(parts: tuple[Any, ...], value: object, what: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _refuse(value, what, "a list")
    if len(parts) == 2 and parts[1] is Ellipsis:
        parts = (parts[0],) * len(value)
    if len(parts) != len(value):
        raise _refuse(value, what, f"a list of {len(parts)}")
    return tuple(_value(part, item, what) for part, item in zip(parts, value, strict=True))


def _refuse(value: object, what: str, wanted: str) -> ConfigError:
    shown = repr(value)
    return ConfigError(f"{what} is {shown if len(shown) <= _SHOWN else shown[:_SHOWN] + '...'}, not {wanted}")
