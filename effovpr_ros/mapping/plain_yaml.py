"""YAML of plain values: what this package writes, and nothing that costs more to read than it is long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from effovpr_ros.core.errors import MapFormatError

MAX_BYTES = 2**18
_MAX_DEPTH = 8
_MAX_SCALAR = 4000
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_plain_yaml(path: Path) -> Any:
    """Values of a small file.

    Raises:
        MapFormatError: too long, no YAML, or YAML with aliases, tags, deep nesting or very long values.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise MapFormatError(f"{path} has {path.stat().st_size} bytes, a map's has at most {MAX_BYTES}")
        content = path.read_text(encoding="utf-8")
        _require_plain(path, content)
        return yaml.load(content, _LOADER)
    except OSError as error:
        raise MapFormatError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, OverflowError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise MapFormatError(f"{path} cannot be read: {reason}; restore the map from a copy or rebuild it") from error


def _require_plain(path: Path, content: str) -> None:
    depth = 0
    for event in yaml.parse(content, _LOADER):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None) is not None:
            raise MapFormatError(f"{path} has aliases or tags, which no map has; restore it from a copy")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH:
            raise MapFormatError(f"{path} is nested deeper than {_MAX_DEPTH} levels, as no map is")
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > _MAX_SCALAR:
            raise MapFormatError(f"{path} has a value of {len(event.value)} characters, longer than any of a map")
