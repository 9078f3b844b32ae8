"""The table's own words: an input, what is to become of it, and helpers that write files as people record them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import recorded_pictures as pictures
from PIL import Image
from synthetic import picture

Make = Callable[[Path], list[str]]
ANY: Any = object()


@dataclass(frozen=True)
class Right:
    """What is to be known of one place; ANY is not looked at, None is to be unknown.

    Attributes:
        xyz: metres.
        yaw_deg: counter-clockwise from x.
        geo: latitude, longitude, altitude.
        stamp_ns: 0 if unknown.
        looks: seed of the picture that its thumbnail shows.
    """

    xyz: Any = ANY
    yaw_deg: Any = ANY
    geo: Any = ANY
    stamp_ns: Any = ANY
    looks: int | None = None


@dataclass(frozen=True)
class Input:
    """One input and its expected outcome.

    Attributes:
        name: says what it is.
        make: writes it into an empty folder and gives the arguments of `effovpr map build MAP`.
        places: what is to be in the map, by the name of the source (and its number where a bag repeats the name).
        refused: items that are to be refused, by the source or as unreadable.
        said: what stdout and stderr are to contain.
        code: of the command; 1 where nothing is left to build.
    """

    name: str
    make: Make
    places: dict[str, Right] = field(default_factory=dict)
    refused: int = 0
    said: tuple[str, ...] = ()
    code: int = 0


TABLE: list[Input] = []


def add(
    name: str,
    make: Make,
    places: dict[str, Right] | None = None,
    *,
    refused: int = 0,
    said: str | tuple[str, ...] = (),
    code: int | None = None,
) -> None:
    """Add a row; without places the command is to fail."""
    assert all(row.name != name for row in TABLE), name
    texts = (said,) if isinstance(said, str) else said
    TABLE.append(Input(name, make, places or {}, refused, texts, (0 if places else 1) if code is None else code))


def save(folder: Path, **named: int | bytes) -> None:
    """Write `a_jpg=1` as a.jpg: a picture by its seed, or bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in named.items():
        put(folder / ".".join(name.rsplit("_", 1)), content)


def put(path: Path, content: int | bytes) -> None:
    """Write a picture by its seed, losslessly where the ending allows it, or bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        Image.fromarray(picture(content)).save(path, quality=95)


def folder(**named: int | bytes) -> Make:
    """A folder of images and nothing else."""

    def make(at: Path) -> list[str]:
        save(at / "in", **named)
        return [str(at / "in")]

    return make


def csv(text: str | bytes, *options: str, images: str = "a b", name: str = "poses.csv") -> Make:
    """Images a.png, b.png, ... of seeds 1, 2, ... with a table; text is stripped of its margin."""

    def make(at: Path) -> list[str]:
        for seed, stem in enumerate(images.split(), start=1):
            put(at / "in" / f"{stem}.png", seed)
        content = text if isinstance(text, bytes) else "\n".join(line.strip() for line in text.strip().splitlines())
        (at / name).write_bytes(content if isinstance(content, bytes) else content.encode() + b"\n")
        return [str(at / "in"), "--table", str(at / name), *options]

    return make


def exif_of(gps: dict[int, Any] | None, when: Any = "2024:05:06 07:08:09", orientation: int | None = None) -> bytes:
    """EXIF tags of a photograph, byte by byte, as Pillow writes none that are damaged.

    Args:
        gps: text is written as ASCII, bytes as BYTE, numbers and (numerator, denominator) pairs in tuples as RATIONAL.
        when: DateTime.
        orientation: of the picture.
    """
    main: dict[int, Any] = {}
    if orientation:
        main[0x0112] = orientation
    if when is not None:
        main[0x0132] = when
    if gps is not None:
        main[0x8825] = 0
    size = 2 + 12 * len(main) + 4
    extra = bytearray()
    if gps is not None:
        # The directory of the GPS tags follows the main one and its values.
        room = sum(len(_value(value)[2]) for tag, value in main.items() if tag != 0x8825 and len(_value(value)[2]) > 4)
        main[0x8825] = 8 + size + room
    head = _directory(main, 8, extra, pointer=0x8825)
    body = bytes(head) + bytes(extra)
    if gps is not None:
        values = bytearray()
        body += _directory(gps, 8 + len(body), values) + values
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + body


def _directory(tags: dict[int, Any], at: int, values: bytearray, pointer: int = 0) -> bytes:
    first = at + 2 + 12 * len(tags) + 4
    out = struct.pack("<H", len(tags))
    for tag, value in sorted(tags.items()):
        kind, count, data = (4, 1, struct.pack("<I", value)) if tag == pointer else _value(value)
        if len(data) > 4:
            field_bytes = struct.pack("<I", first + len(values))
            values += data
        else:
            field_bytes = data.ljust(4, b"\0")
        out += struct.pack("<HHI", tag, kind, count) + field_bytes
    return out + bytes(4)


def _value(value: Any) -> tuple[int, int, bytes]:
    """Type, count and bytes of a tag's value."""
    if isinstance(value, str):
        text = value.encode("latin-1") + b"\0"
        return 2, len(text), text
    if isinstance(value, bytes):
        return 1, len(value), value
    if isinstance(value, int):
        return 3, 1, struct.pack("<H", value)
    numbers = value if isinstance(value, list) else [value]
    pairs = [number if isinstance(number, tuple) else (round(number * 1000), 1000) for number in numbers]
    return 5, len(pairs), b"".join(struct.pack("<II", *pair) for pair in pairs)


GPS: dict[int, Any] = {1: "S", 2: [33.0, 30.0, 0.0], 3: "W", 4: [60.0, 3.0, 36.0], 5: b"\x00", 6: 12.5}
"""-33.5, -60.06, 12.5 m."""
GEO = (-33.5, -60.06, 12.5)


def without(*tags: int, **changed: Any) -> dict[int, Any]:
    """The GPS tags above, some missing, some others: `t17=90.0`."""
    return {
        **{tag: value for tag, value in GPS.items() if tag not in tags},
        **{int(k[1:]): v for k, v in changed.items()},
    }


def photograph(exif: bytes, seed: int = 1, format: str = "JPEG") -> bytes:
    """A photograph with tags."""
    return pictures.encoded(format, picture(seed), exif=exif, **({"quality": 95} if format == "JPEG" else {}))


def tagged(gps: dict[int, Any] | None, **options: Any) -> bytes:
    """A photograph with GPS tags."""
    return photograph(exif_of(gps, **options))
