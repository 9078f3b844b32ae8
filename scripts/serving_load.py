#!/usr/bin/env python3
"""Ask a server of maps by many clients at a time, and say how long answers take and how many fail.

    scripts/serving_load.py URL PICTURES [--clients 32] [--seconds 300] [--jpeg 8] [--kill PATTERN --every 20]

PICTURES is a folder; --jpeg of the clients send pictures, the others features with points. --kill ends by -9, one at a
time, a random process of this machine whose command line holds the pattern, as `ServeReplica:effovpr`.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np

from effovpr_ros.core.errors import ServerError
from effovpr_ros.core.images import read_image
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import config_for_fingerprint
from effovpr_ros.mapping.builder import make_thumbnail
from effovpr_ros.recognition.third_stage import point_extractor
from effovpr_ros.remote.client import MapServer
from effovpr_ros.remote.queries import FeatureQuery, encode_query
from effovpr_ros.remote.tokens import read_tokens


class Load:
    """What the clients measured."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.seconds: dict[str, list[float]] = {"features": [], "jpeg": []}
        self.beyond_model_s: list[float] = []
        self.failures: Counter[str] = Counter()
        self.revisions: Counter[str] = Counter()
        self.repeated = 0


def ask(url: str, token: str, kind: str, bodies: list[bytes], load: Load, ends_s: float, seed: int) -> None:
    """One client: question after question."""
    rng = random.Random(seed)
    with MapServer(url, token=token, timeout_s=120.0) as server:
        while time.monotonic() < ends_s:
            started_s = time.perf_counter()
            try:
                body = rng.choice(bodies)
                answers = server.localize_features(body) if kind == "features" else server.localize_image(body)
            except ServerError as error:
                with load.lock:
                    load.failures[str(error)[:150]] += 1
                time.sleep(0.2)
                continue
            took_s = time.perf_counter() - started_s
            with load.lock:
                load.seconds[kind].append(took_s)
                load.revisions[answers.revision] += 1
                load.beyond_model_s.append(took_s - answers.results[0].latency_ms.extract / 1e3)
        with load.lock:
            load.repeated += server.repeated


def kill(pattern: str, every_s: float, ends_s: float, killed: Counter[str]) -> None:
    """End a random process whose command line holds a pattern, again and again."""
    while time.monotonic() + 2.0 * every_s < ends_s:
        time.sleep(every_s)
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if pattern in line and int(folder.name) != os.getpid():
                found.append((int(folder.name), line.strip()))
        if found:
            number, line = random.choice(found)
            os.kill(number, signal.SIGKILL)
            killed[line[:60]] += 1
            print(f"killed {number}: {line[:80]}", flush=True)


def main() -> None:
    """Run the clients, print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--jpeg", type=int, default=8)
    parser.add_argument("--kill", default="")
    parser.add_argument("--every", type=float, default=20.0)
    options = parser.parse_args()
    token = (read_tokens("", "") or [""])[0]
    images = [read_image(path) for path in sorted(options.pictures.glob("*.[jp][pn]g"))]
    with MapServer(options.url, token=token, timeout_s=120.0) as server:
        info = server.info()
    extractor = FeatureExtractor(config_for_fingerprint(info.model, device="cpu", engine="torch"))
    points = point_extractor("cpu")
    bodies: dict[str, list[bytes]] = {"jpeg": [make_thumbnail(image, 640) for image in images], "features": []}
    for image in images:
        query = FeatureQuery(extractor.extract([image])[0], (image.shape[1], image.shape[0]), points.extract(image))
        bodies["features"].append(encode_query(query, extractor.fingerprint))
    sizes = {kind: f"{np.mean([len(body) for body in found]) / 1e3:.1f} kB" for kind, found in bodies.items()}
    print(f"map {info.name}, {info.places} places, {info.shards} shards; {len(images)} pictures, {sizes}", flush=True)
    load, killed, ends_s = Load(), Counter[str](), time.monotonic() + options.seconds
    threads = [
        threading.Thread(target=ask, args=(options.url, token, kind, bodies[kind], load, ends_s, number))
        for number in range(options.clients)
        for kind in ["jpeg" if number < options.jpeg else "features"]
    ]
    if options.kill:
        threads.append(threading.Thread(target=kill, args=(options.kill, options.every, ends_s, killed)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for kind, seconds in load.seconds.items():
        if seconds:
            p50, p95, p99 = np.percentile(seconds, [50, 95, 99]) * 1e3
            print(
                f"{kind}: {len(seconds)} answers, p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms, "
                f"max {max(seconds):.2f} s"
            )
    if load.beyond_model_s:
        print(f"beyond the model: p50 {np.percentile(load.beyond_model_s, 50) * 1e3:.0f} ms")
    total = sum(map(len, load.seconds.values()))
    print(
        f"{total / options.seconds:.1f} answers a second; {sum(load.failures.values())} failed, "
        f"{load.repeated} made again"
    )
    print(
        f"revisions: {dict(load.revisions)}; killed: {sum(killed.values())} {dict(killed)}; "
        f"failures: {dict(load.failures)}"
    )


if __name__ == "__main__":
    main()
