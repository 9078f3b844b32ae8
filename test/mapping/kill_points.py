"""kill -9 before every file operation and sync of what writes to a map: `python test/mapping/kill_points.py`.

A shim below this process counts open for writing, write, sync, rename, unlink, mkdir and the like, and kills the
process before the one that is asked for. Python, SQLite and FAISS all pass it. After each kill all maps must open,
hold what was acknowledged and answer each place with itself; then the same command must end well, and what is on the
disk must equal what the undisturbed command leaves. Children are forked from one process that has imported all.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
static long done = 0, last = -1;
void kill_before(long number) { done = 0; last = number; }
long operations(void) { return done; }
static void step(void) { if (last >= 0 && done++ == last) { kill(getpid(), SIGKILL); for (;;) pause(); } }
static int regular(int fd) { struct stat s; return !fstat(fd, &s) && S_ISREG(s.st_mode); }
#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define ON_FILE(type, name, args, call) type name args { REAL(name); if (regular(fd)) step(); return real call; }
#define ON_PATH(name, args, call) int name args { REAL(name); step(); return real call; }
ON_FILE(ssize_t, write, (int fd, const void *b, size_t n), (fd, b, n))
ON_FILE(ssize_t, pwrite, (int fd, const void *b, size_t n, off_t o), (fd, b, n, o))
ON_FILE(ssize_t, pwrite64, (int fd, const void *b, size_t n, off64_t o), (fd, b, n, o))
ON_FILE(int, ftruncate, (int fd, off_t n), (fd, n))
ON_FILE(int, ftruncate64, (int fd, off64_t n), (fd, n))
ON_PATH(fsync, (int fd), (fd))
ON_PATH(fdatasync, (int fd), (fd))
ON_PATH(rename, (const char *a, const char *b), (a, b))
ON_PATH(renameat2, (int c, const char *a, int d, const char *b, unsigned f), (c, a, d, b, f))
ON_PATH(unlink, (const char *a), (a))
ON_PATH(unlinkat, (int d, const char *a, int f), (d, a, f))
ON_PATH(mkdir, (const char *a, mode_t m), (a, m))
ON_PATH(rmdir, (const char *a), (a))
#define OPENS(name) int name(const char *p, int f, ...) { REAL(name); va_list v; va_start(v, f); \
    mode_t m = va_arg(v, mode_t); va_end(v); if (f & (O_CREAT | O_TRUNC)) step(); return real(p, f, m); }
OPENS(open)
OPENS(open64)
FILE *fopen(const char *p, const char *m) { REAL(fopen); if (m[0] != 'r') step(); return real(p, m); }
FILE *fopen64(const char *p, const char *m) { REAL(fopen64); if (m[0] != 'r') step(); return real(p, m); }
size_t fwrite(const void *b, size_t s, size_t n, FILE *f)
{ REAL(fwrite); if (regular(fileno(f))) step(); return real(b, s, n, f); }
"""
TESTS = Path(__file__).resolve().parents[1]


def under_the_shim(arguments: Sequence[str]) -> int:
    """Compile the shim and run this file again below it; returns the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "shim.c", Path(folder) / "shim.so"
        source.write_text(SHIM)
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-w", "-o", library, source, "-ldl"], check=True)
        environment = {**os.environ, "LD_PRELOAD": str(library), "KILL_SHIM": str(library), "OMP_NUM_THREADS": "1"}
        return subprocess.run([sys.executable, "-P", __file__, *arguments], env=environment, check=False).returncode


class Operation:
    """What is killed: a command on the maps of a folder."""

    def __init__(self, name: str, prepare: Callable[[Path], None], run: Callable[[Path, int], int]) -> None:
        """`prepare` fills a folder; `run` works in it, tells what is acknowledged by a pipe, returns an exit code."""
        self.name, self.prepare, self.run = name, prepare, run


def operations(material: Path) -> list[Operation]:
    """All that write to maps."""
    import cv2
    import numpy as np
    from synthetic import FINGERPRINT, new_place, picture, tiny_extractor, tiny_weights

    from effovpr_ros.cli.main import main
    from effovpr_ros.features import local_projection
    from effovpr_ros.features.local_projection import LocalProjection
    from effovpr_ros.loop_closure.keyframe_map import open_session_map
    from effovpr_ros.mapping import builder, compact, merge
    from effovpr_ros.mapping.growing_map import GrowingMap
    from effovpr_ros.mapping.place_map import PlaceMap
    from effovpr_ros.recognition.confidence import shipped, store_confidence_model

    builder._COMMIT_PLACES = compact._COMMIT_PLACES = merge._COMMIT_PLACES = 3
    weights = str(tiny_weights(material))
    full = tiny_extractor(material)
    components = np.linalg.qr(np.random.default_rng(0).normal(size=(24, 24)))[0][:8].astype(np.float32)
    short = LocalProjection("tiny-pca8", full.facet_source, components)
    for folder, numbers in (("images", range(10)), ("more", range(10, 17))):
        (material / folder).mkdir()
        for number in numbers:
            name = f"@{500000 + number}.0@{5300000.0}@32@U@{number}.png"
            cv2.imwrite(str(material / folder / name), picture(number))
    model = ["--model", "vit_tiny_test_patch14", "--weights", weights, "--size", "56", "--device", "cpu"]
    build = [*model, "--batch-size", "1", "--points", "none"]
    add = PlaceMap.add

    def commanded(pipe: int, *words: str) -> int:
        def told(self: PlaceMap, places: Any) -> list[int]:
            place_ids = add(self, places)
            # What is made in a working folder is acknowledged when it appears under its name.
            if not self.path.parent.name.startswith("."):
                os.write(pipe, f"{self.path.name} {len(self)}\n".encode())
            return place_ids

        PlaceMap.add = told  # type: ignore[method-assign]
        local_projection.shipped_projections = lambda: (short,)  # type: ignore[assignment]
        return main(words)

    def built(folder: Path, pipe: int) -> int:
        return commanded(pipe, "map", "build", str(folder / "map"), str(material / "images"), *build)

    def built_with_pca(folder: Path, pipe: int) -> int:
        return commanded(pipe, "map", "build", str(folder / "map"), str(material / "images"), *build, "--pca", "4")

    def appended(folder: Path, pipe: int) -> int:
        again = ["--weights", weights, "--device", "cpu", "--batch-size", "1", "--points", "none"]
        return commanded(pipe, "map", "build", str(folder / "map"), str(material / "more"), *again, "--session", "two")

    def with_two(folder: Path) -> None:
        for name, numbers in (("a", range(5)), ("b", range(5, 9))):
            with PlaceMap.create(folder / name, fingerprint=FINGERPRINT) as place_map:
                place_map.add([new_place(number, session=name) for number in numbers])
                place_map.flush()

    def with_full(folder: Path) -> None:
        described = full.extract([picture(number) for number in range(9)])
        with PlaceMap.create(folder / "map", fingerprint=full.fingerprint) as place_map:
            place_map.add([new_place(number, features=item) for number, item in enumerate(described)])
            place_map.flush()

    def calibrated(folder: Path, pipe: int) -> int:
        with PlaceMap.open(folder / "a", writable=True) as place_map:
            for fitted in shipped()[:3]:
                store_confidence_model(place_map, fitted)
        return 0

    def grown(folder: Path, pipe: int) -> int:
        place_map = open_session_map(folder / "session", FINGERPRINT)
        with closing(place_map):
            for number in range(place_map.next_id, 14):
                place_map.add([new_place(number)])
                os.write(pipe, f"session {len(place_map)}\n".encode())
                if number == 7:
                    place_map.flush()
            there = {place.place_id for place in place_map.places()}
            if {2, 5} <= there:
                os.write(pipe, f"session {len(place_map) - 2}\n".encode())
                place_map.forget([2, 5])
            place_map.flush()
        return 0

    def saved(folder: Path, pipe: int) -> int:
        with GrowingMap.open(folder / "a", writable=True) as place_map:
            place_map.save_copy(folder / "copy")
        return 0

    return [
        Operation("build", lambda folder: None, built),
        Operation("build --pca", lambda folder: None, built_with_pca),
        Operation("append", lambda folder: built(folder, os.open(os.devnull, os.O_WRONLY)) and None, appended),
        Operation("compact", with_full, lambda folder, pipe: commanded(pipe, "map", "compact", str(folder / "map"))),
        Operation(
            "compact --out",
            with_full,
            lambda folder, pipe: commanded(pipe, "map", "compact", str(folder / "map"), "--out", str(folder / "small")),
        ),
        Operation(
            "merge",
            with_two,
            lambda folder, pipe: commanded(
                pipe, "map", "merge", str(folder / "site"), str(folder / "a"), str(folder / "b")
            ),
        ),
        Operation("calibrate", with_two, calibrated),
        Operation("save", with_two, saved),
        Operation("growth", lambda folder: None, grown),
    ]


def in_child(work: Callable[[int], int], before: int = -1) -> tuple[int, dict[str, int], int]:
    """Run in a fork, killed before an operation; wait status, places acknowledged by map, operations done."""
    shim = ctypes.CDLL(os.environ["KILL_SHIM"])
    shim.operations.restype = ctypes.c_long
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        if before >= 0:
            os.dup2(quiet, 2)
        code = 9
        try:
            shim.kill_before(ctypes.c_long(before if before >= 0 else 2**40))
            code = work(writing)
            os.write(writing, f"operations {shim.operations()}\n".encode())
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as told:
        lines = [line.split() for line in told.read().splitlines()]
    _, status = os.waitpid(child, 0)
    counts = {name: int(number) for name, number in lines}
    return status, counts, counts.pop("operations", -1)


def content(folder: Path) -> dict[str, str]:
    """Digests of all that a command left, without times, and without the space that SQLite left unused."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name == "map.yaml":
            lines = [line for line in path.read_text().splitlines() if not line.startswith(("created:", "updated:"))]
            found[name] = "\n".join(lines)
        elif path.name == "places.sqlite3":
            with closing(sqlite3.connect(path)) as connection:
                whole = hashlib.sha256()
                tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
                for (table,) in tables.fetchall():
                    whole.update(
                        repr((table, connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall())).encode()
                    )
            found[name] = whole.hexdigest()
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
    return found


def problems_of(folder: Path, acknowledged: dict[str, int]) -> list[str]:
    """What is wrong with the maps that a kill left."""
    from effovpr_ros.core.errors import EffoVPRError
    from effovpr_ros.mapping.place_map import PlaceMap

    problems = [f"{name} with places is gone" for name in acknowledged if not (folder / name).exists()]
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not (path / "map.yaml").is_file():
            if acknowledged.get(path.name):
                problems.append(f"{path.name} has places and no map.yaml")
            continue
        try:
            with PlaceMap.open(path) as place_map:
                if len(place_map) < acknowledged.get(path.name, 0):
                    problems.append(f"{path.name} holds {len(place_map)} of {acknowledged[path.name]} places")
                own = place_map.global_descriptors()
                found = [place_map.search(row, 1)[0].place.place_id for row in own]
                if found != [place.place_id for place in place_map.places()]:
                    problems.append(f"{path.name} answers places with others")
                checked = [
                    line for line in place_map.check() if "index.faiss" not in line and "was interrupted" not in line
                ]
                problems += [f"{path.name}: {line}" for line in checked]
        except EffoVPRError as error:
            problems.append(f"{path.name} does not open: {error}")
    return problems


def kill_everywhere(operation: Operation, base: Path, stride: int) -> tuple[int, list[str]]:
    """Kill before each `stride`-th operation; number of points, and what went wrong."""
    template, clean = base / "template", base / "clean"
    template.mkdir(parents=True)
    status, _, _ = in_child(lambda pipe: operation.prepare(template) or 0)
    assert status == 0, f"{operation.name} cannot be prepared"

    def fresh() -> Path:
        # One path for all, since maps know their folder's name.
        shutil.rmtree(base / "work", ignore_errors=True)
        return Path(shutil.copytree(template, base / "work"))

    work = fresh()
    status, _, count = in_child(partial(operation.run, work))
    assert status == 0 and count > 0, f"{operation.name} fails undisturbed"
    wanted = content(work)
    wrong = []
    numbers = range(0, count, stride)
    for number in numbers:
        work = fresh()
        status, acknowledged, _ = in_child(partial(operation.run, work), number)
        found = [] if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL else [f"ended with {status}"]
        found += problems_of(work, acknowledged)
        status, _, _ = in_child(partial(operation.run, work))
        if status:
            found.append(f"the repetition ended with {os.waitstatus_to_exitcode(status)}")
        left = content(work)
        found += [f"{name} differs" for name in sorted({*wanted, *left}) if wanted.get(name) != left.get(name)]
        wrong += [f"{operation.name}, before operation {number} of {count}: {line}" for line in found]
    shutil.rmtree(clean, ignore_errors=True)
    return len(numbers), wrong


def run(stride: int, only: Sequence[str]) -> int:
    """All operations; returns the exit code."""
    sys.path.insert(0, str(TESTS))
    import torch

    torch.set_num_threads(1)
    total, wrong = 0, []
    with tempfile.TemporaryDirectory(prefix="kill_points_") as folder:
        (Path(folder) / "material").mkdir()
        for operation in operations(Path(folder) / "material"):
            if only and operation.name not in only:
                continue
            started = time.monotonic()
            points, found = kill_everywhere(operation, Path(folder) / operation.name.replace(" ", "_"), stride)
            total += points
            wrong += found
            print(
                f"{operation.name}: {points} points, {len(found)} wrong, {time.monotonic() - started:.0f} s", flush=True
            )
            print("\n".join(found[:20]), flush=True)
    print(f"{total} points, {len(wrong)} wrong", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    if "KILL_SHIM" not in os.environ:
        sys.exit(under_the_shim(sys.argv[1:]))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stride", type=int, default=1, help="every so many operations")
    parser.add_argument("--only", nargs="*", default=[], help="names of operations")
    given = parser.parse_args()
    sys.exit(run(given.stride, given.only))
