"""Damaged and crafted files of maps, tails, weights and caches: `python test/mapping/damaged_files.py --count 3000`.

Whatever a file holds, the answer is an error of the package or a right answer, within five seconds; memory stays flat.
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import json
import random
import resource
import shutil
import sqlite3
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from synthetic import new_place, picture, tiny_extractor, tiny_weights

from effovpr_ros.core.errors import EffoVPRError
from effovpr_ros.engines.agreement import Agreement
from effovpr_ros.engines.cache import read_record
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.tail_file import Tail, TailInfo, write_tail
from effovpr_ros.features.tails import find_tail
from effovpr_ros.features.weights import load_weights
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.recognition.confidence import read_confidence_models, shipped, store_confidence_model

LIMIT_S = 5.0
MOST_GROWTH_KIB = 300 * 1024
YAML_VALUES = [
    "9223372036854775808", "-1", "null", ".nan", ".inf", "[]", "{}", "'text'", "1e400", "true",
    "!!python/object:os.x {}",
    "&a [*a]", "[" * 3000, "{a: " * 3000, "1:" * 900 + "1", "2001-99-99", "'" + "x" * 100_000 + "'", "0x" + "f" * 3000,
]  # fmt: skip
SQL = [
    "UPDATE places SET {column} = {value}",
    "UPDATE places SET {column} = {value} WHERE id = 2",
    "UPDATE global_descriptors SET descriptor = {value}",
    "UPDATE local_descriptors SET codes = {value}",
    "UPDATE local_descriptors SET cells = {value}, checksum = {value}",
    "UPDATE thumbnails SET jpeg = {value}",
    "UPDATE properties SET value = {value}",
    "DELETE FROM properties WHERE key LIKE '%/crc32'; UPDATE properties SET value = {value}",
    "DELETE FROM {table}",
    "DELETE FROM {table} WHERE rowid = 2",
    "DROP TABLE {table}",
    "DROP TABLE places; CREATE VIEW places AS WITH RECURSIVE n(id) AS (SELECT 0 UNION ALL SELECT id + 1 FROM n) "
    "SELECT id, 'a' AS session, 0 AS checksum FROM n",
    "CREATE TRIGGER t AFTER INSERT ON places BEGIN DELETE FROM places; END",
    "CREATE INDEX i ON places (abs(id))",
    "ALTER TABLE places ADD COLUMN more AS (randomblob(1000000000))",
]
COLUMNS = [
    "session",
    "stamp_ns",
    "source",
    "x",
    "qw",
    "latitude",
    "image_width",
    "grid_columns",
    "grid_rows",
    "checksum",
]
VALUES = [
    "NULL", "-1", "'text'", "x'ff00'", "9e999", "9223372036854775807", "zeroblob(1000000)", "0", "1e300",
    "CAST(x'fffe' AS TEXT)", "'" + "[" * 3000 + "'", "CAST('" + "[" * 3000 + "' AS BLOB)",
]  # fmt: skip
TABLES = ["places", "global_descriptors", "local_descriptors", "thumbnails", "properties", "points"]


def make(folder: Path) -> FeatureExtractor:
    """A map with PCA and a confidence model, a tail and a record."""
    extractor = tiny_extractor(folder)
    with PlaceMap.create(folder / "map", fingerprint=extractor.fingerprint) as place_map:
        described = extractor.extract([picture(number) for number in range(8)])
        place_map.add([new_place(number, features=item) for number, item in enumerate(described)])
        store_confidence_model(place_map, shipped()[0])
        place_map.fit_pca(4)
    base = load_weights("vit_tiny_test_patch14", str(tiny_weights(folder)))
    info = TailInfo("vit_tiny_test_patch14", base.sha256, 0, "cls", 0, "value", True, (24,), 56)
    write_tail(folder / "tail.safetensors", Tail(info, {}, {}, "tail"))
    record = {"agreement": Agreement(1.0, 1.0, 1.0, 1.0).to_dict()}
    (folder / "record.json").write_text(json.dumps(record))
    return extractor


def bent(data: bytes, rng: random.Random) -> bytes:
    """Some bits, the end, or a stretch of a file changed."""
    content, kind = bytearray(data), rng.randrange(5)
    if kind == 0:
        return bytes(content[: rng.randrange(len(content))])
    if kind == 1:
        start = rng.randrange(len(content))
        content[start : start + rng.randrange(1, 200)] = rng.randbytes(rng.randrange(1, 200))
    elif kind == 2:
        number = rng.choice([0, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1])
        start = rng.randrange(max(1, min(len(content), 400) - 8))
        content[start : start + 8] = struct.pack("<Q", number)
    else:
        for _ in range(rng.randrange(1, 20)):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def with_checksum(folder: Path, before: bytes) -> None:
    """Let the manifest fit an index that was changed."""
    old, new = (hashlib.sha256(data).hexdigest() for data in (before, (folder / "index.faiss").read_bytes()))
    path = folder / "map.yaml"
    path.write_text(path.read_text().replace(old, new))


def damage(folder: Path, rng: random.Random) -> str:
    """Change one file; says which and how."""
    place_map, kind = folder / "map", rng.randrange(9)
    if kind == 0:
        lines = (place_map / "map.yaml").read_text().splitlines()
        number, value = rng.randrange(len(lines)), rng.choice(YAML_VALUES)
        lines[number] = f"{lines[number].split(':')[0]}: {value}"
        (place_map / "map.yaml").write_text("\n".join(lines))
        return f"map.yaml, {lines[number][:60]}"
    if kind in (1, 2):
        fill = {"column": rng.choice(COLUMNS), "value": rng.choice(VALUES), "table": rng.choice(TABLES)}
        statement = rng.choice(SQL).format(**fill)
        with closing(sqlite3.connect(place_map / "places.sqlite3")) as connection:
            try:
                connection.executescript(statement)
                connection.commit()
            except sqlite3.Error:
                return "nothing"
        return statement[:100]
    if kind == 3:
        before = (place_map / "index.faiss").read_bytes()
        (place_map / "index.faiss").write_bytes(bent(before, rng))
        with_checksum(place_map, before)
        return "index.faiss with its checksum"
    names = ["map/map.yaml", "map/places.sqlite3", "map/places.sqlite3", "map/index.faiss", "tail.safetensors"]
    name = rng.choice([*names, "record.json", "vit_tiny_test_patch14.safetensors"])
    (folder / name).write_bytes(bent((folder / name).read_bytes(), rng))
    return name


def use(folder: Path, descriptor: np.ndarray) -> None:
    """Open, ask, check and load what may be damaged."""
    steps: list[Callable[[], object]] = [
        lambda: ask(folder / "map", descriptor),
        lambda: PlaceMap.open(folder / "map", writable=True).close(),
        lambda: find_tail("vit_tiny_test_patch14", str(folder / "tail.safetensors"), "none"),
        lambda: load_weights("vit_tiny_test_patch14", str(folder / "vit_tiny_test_patch14.safetensors")),
        lambda: Agreement.from_record((read_record(folder / "record.json") or {}).get("agreement")),
    ]
    for step in steps:
        try:
            step()
        except EffoVPRError as error:
            assert "\n" not in str(error).strip(), f"more than one line: {error}"
            assert len(str(error)) < 1500, f"{len(str(error))} characters: {str(error)[:200]}"


def ask(path: Path, descriptor: np.ndarray) -> None:
    with PlaceMap.open(path) as place_map:
        for question in (
            lambda: place_map.places(),
            lambda: place_map.search(descriptor, 5),
            lambda: place_map.local_features([place.place_id for place in place_map.places()]),
            lambda: place_map.thumbnail(1),
            lambda: place_map.rows_near((0.0, 0.0), 5.0),
            lambda: place_map.bytes_by_part(),
            lambda: read_confidence_models(place_map),
            lambda: place_map.check(),
        ):
            try:
                question()
            except EffoVPRError:
                continue


def run(count: int, seed: int, first: int = 0) -> int:
    """`count` cases from the `first` on; the exit code. A case is told by its seed and number alone."""
    wrong, slowest, started_kib = [], 0.0, 0
    with tempfile.TemporaryDirectory(prefix="damaged_") as name:
        base = Path(name) / "base"
        base.mkdir()
        extractor = make(base)
        descriptor = extractor.extract([picture(3)])[0].global_descriptor
        for number in range(first, first + count):
            work = Path(shutil.copytree(base, Path(name) / "work"))
            what = damage(work, random.Random(seed * 1_000_003 + number))
            started = time.monotonic()
            try:
                use(work, descriptor)
            except Exception as error:
                wrong.append(f"case {number}, {what}: {type(error).__name__}: {str(error)[:200]}")
                print(wrong[-1], flush=True)
            took = time.monotonic() - started
            slowest = max(slowest, took)
            if took > LIMIT_S:
                wrong.append(f"case {number}, {what}: {took:.1f} s")
                print(wrong[-1], flush=True)
            shutil.rmtree(work)
            if number == first + count // 10:
                started_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - started_kib
    if grown_kib > MOST_GROWTH_KIB:
        wrong.append(f"memory grew by {grown_kib // 1024} MiB")
    print(
        f"{count} files, {len(wrong)} wrong, slowest {slowest:.1f} s, memory grew by {grown_kib // 1024} MiB",
        flush=True,
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    faulthandler.enable()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first case, to go on after a run")
    given = parser.parse_args()
    sys.exit(run(given.count, given.seed, given.first))
