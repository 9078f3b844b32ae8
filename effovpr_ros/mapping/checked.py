"""Values that come from the files of a map: each has a type and a range, whatever the file holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from effovpr_ros.core.errors import MapFormatError

MAX_TEXT = 1000
"""Characters of a name."""
MAX_COUNT = 2**40
MAX_INT64 = 2**63 - 1
_SHOWN = 60


def refuse(value: object, what: str, wanted: str) -> MapFormatError:
    """The error for a value that cannot be meant.

    Args:
        value: as read.
        what: it is.
        wanted: instead.
    """
    try:
        shown = repr(value)
    except ValueError:  # Python prints no integer of thousands of digits
        shown = "a number of thousands of digits"
    if len(shown) > _SHOWN:
        shown = f"{shown[:_SHOWN]}..."
    return MapFormatError(f"{what} is {shown}, not {wanted}; restore the map from a copy or rebuild it")


def integer(value: object, what: str, low: int = 0, high: int = MAX_COUNT) -> int:
    """A whole number from `low` to `high`."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise refuse(value, what, f"a whole number from {low} to {high}")
    return value


def real(value: object, what: str, low: float = -1e12, high: float = 1e12) -> float:
    """A finite number from `low` to `high`."""
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    # Written so that NaN is refused too.
    if not low <= number <= high:
        raise refuse(value, what, f"a number from {low:g} to {high:g}")
    return float(number)


def text(value: object, what: str, longest: int = MAX_TEXT) -> str:
    """Text of at most so many characters."""
    if not isinstance(value, str) or len(value) > longest:
        raise refuse(value, what, f"text of at most {longest} characters")
    return value


def truth(value: object, what: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise refuse(value, what, "true or false")
    return value


def table(value: object, what: str) -> Mapping[str, Any]:
    """Values by name."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise refuse(value, what, "a table of names and values")
    return value


def entry(values: Mapping[str, Any], name: str, what: str) -> Any:
    """A value that a table must have."""
    if name not in values:
        raise MapFormatError(f"{what} lacks {name!r}; restore the map from a copy or rebuild it")
    return values[name]


def blob(value: object, what: str, longest: int) -> bytes:
    """Bytes, at most so many."""
    if not isinstance(value, bytes) or len(value) > longest:
        raise refuse(value, what, f"at most {longest} bytes")
    return value
