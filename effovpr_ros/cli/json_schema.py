"""JSON schemas of frozen dataclasses: types from the annotations, meanings from the docstrings."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


def json_schema(kind: Any, title: str, *, closed: bool = False) -> dict[str, Any]:
    """The schema of what `dataclasses.asdict` gives of a dataclass, with one definition for each dataclass within.

    Every field is required, since `asdict` leaves none out.

    Args:
        kind: a dataclass, or a union of several.
        title: of the schema.
        closed: refuse fields that are not named, which a later version may add.

    Raises:
        TypeError: an annotation that JSON cannot hold.
    """
    definitions: dict[str, Any] = {}
    whole = _schema(kind, definitions, closed)
    return {"$schema": DIALECT, "title": title, **whole, "$defs": dict(sorted(definitions.items()))}


def meanings(kind: type) -> tuple[str, dict[str, str]]:
    """What a dataclass is, and what its fields mean, as its docstring and those of its bases say."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if is_dataclass(base):
            _, _, listed = _docstring(base).partition("Attributes:\n")
            for name, text in re.findall(r"^    (\w+): (.*(?:\n        .*)*)", listed.partition("\n\n")[0], re.M):
                found[name] = " ".join(text.split())
    summary = re.split(r"\n\n(?:Attributes|Raises):", _docstring(kind))[0]
    return " ".join(summary.split()), found


def field_types(kind: type) -> dict[str, Any]:
    """Annotations of the fields of a dataclass, in the order in which they are written."""
    hints = typing.get_type_hints(kind)
    return {entry.name: hints[entry.name] for entry in fields(kind)}


def _docstring(kind: type) -> str:
    text = inspect.getdoc(kind) or ""
    # Without a docstring of its own, a dataclass has its signature for one.
    return "" if text.startswith(f"{kind.__name__}(") else text


def _schema(kind: Any, definitions: dict[str, Any], closed: bool) -> dict[str, Any]:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return {}
    if kind in _PLAIN:
        return {"type": _PLAIN[kind]}
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [_schema(part, definitions, closed) for part in parts]}
    if origin is tuple and parts[1:] != (Ellipsis,):
        items = [_schema(part, definitions, closed) for part in parts]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _schema(parts[1], definitions, closed)}
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return {"type": "array", "items": _schema(parts[0], definitions, closed)}
    if isinstance(kind, type) and is_dataclass(kind):
        if kind.__name__ not in definitions:
            definitions[kind.__name__] = {}
            definitions[kind.__name__] = _object(kind, definitions, closed)
        return {"$ref": f"#/$defs/{kind.__name__}"}
    raise TypeError(f"{kind} has no JSON schema; use dataclasses, str, int, float, bool, sequences and mappings")


def _object(kind: type, definitions: dict[str, Any], closed: bool) -> dict[str, Any]:
    summary, texts = meanings(kind)
    properties = {
        name: {**_schema(annotation, definitions, closed), "description": texts.get(name, "")}
        for name, annotation in field_types(kind).items()
    }
    made = {"type": "object", "description": summary, "properties": properties, "required": list(properties)}
    return {**made, "additionalProperties": False} if closed else made
