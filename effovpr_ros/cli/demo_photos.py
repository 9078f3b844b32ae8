"""`effovpr demo photos`: a first answer within a minute, from pictures that come with the package."""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path

from tqdm import tqdm

from effovpr_ros.api import Recognizer, build_map, open_map
from effovpr_ros.cli.answer_page import Card, answer_card, write_page
from effovpr_ros.cli.options import print_json
from effovpr_ros.lab import demo_photos
from effovpr_ros.recognition.answer import Recognition

PAGE_NAME = "photos.html"
MAP_NAME = "photo_map"


def run_photos(options: argparse.Namespace) -> int:
    """Build the map, ask it, write the page."""
    started = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    folder, photos, queries = options.out / MAP_NAME, demo_photos.FOLDER / "map", demo_photos.FOLDER / "queries"
    runs = {"weights": options.weights, "device": options.device, "engine": options.engine}
    with tqdm(total=len(list(photos.glob("*.jpg"))), unit="image", desc=MAP_NAME, disable=None) as bar:
        built = build_map(folder, photos, table=photos / "poses.csv", **runs, progress=lambda done: bar.update(done))
    truth = _positions(queries / "poses.csv")
    results, cards = [], []
    with open_map(folder, **runs, precision=options.number_precision) as recognizer:
        for path in sorted(queries.glob("*.jpg")):
            answer = recognizer.recognize(path)
            card, result = _judged(recognizer, path, answer, truth.get(path.name))
            cards.append(card)
            results.append(result)
    page = options.out / PAGE_NAME
    write_page(page, f"{len(cards)} images asked of a map of {built.places} pictures", cards)
    if options.json:
        print_json({"map": str(folder), "page": str(page), "results": results})
    else:
        for card in cards:
            print(f"{card.name:18}{card.status:10}{card.says}")
        print(f"page with matches: {page.resolve()}")
    print(
        f"photos: {time.monotonic() - started:.0f} s; now with your own: effovpr map build MAP PHOTOS/", file=sys.stderr
    )
    return 0


def _judged(
    recognizer: Recognizer, path: Path, answer: Recognition, true_xy: tuple[float, float] | None
) -> tuple[Card, dict[str, object]]:
    """A card that says the truth too, and the same for programs."""
    distance_m = None
    if true_xy is not None and answer.pose is not None:
        x, y = answer.pose.position_xyz[:2]
        distance_m = ((x - true_xy[0]) ** 2 + (y - true_xy[1]) ** 2) ** 0.5
    elsewhere = "in truth another building" if true_xy is None else ""
    says = elsewhere if distance_m is None else f"{distance_m:.1f} m from the truth"
    result: dict[str, object] = {
        "image": path.name,
        "status": answer.status.name,
        "confidence": answer.confidence,
        "place": answer.place.source if answer.place else None,
        "in_the_map": true_xy is not None,
        "distance_m": distance_m,
    }
    return answer_card(recognizer, path, answer, says), result


def _positions(table: Path) -> dict[str, tuple[float, float]]:
    with table.open(encoding="utf-8", newline="") as file:
        return {row["image"]: (float(row["x"]), float(row["y"])) for row in csv.DictReader(file)}
