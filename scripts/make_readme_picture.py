#!/usr/bin/env python3
"""Draw the animated picture of README from what `effovpr demo` left: camera, place, both drives, confidence.

scripts/make_readme_picture.py demo_output docs/images/demo.webp
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from effovpr_ros.core.images import RgbImage, decode_image
from effovpr_ros.lab.simulation import recording
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.sources.bags import BagSource

EVERY, MS_A_FRAME, QUALITY = 6, 220, 38
WIDTH, HEIGHT, PANEL_WH = 660, 512, (320, 240)
PAPER, INK, MAPPED, DRIVEN = (255, 255, 255), (31, 35, 40), (158, 203, 255), (140, 149, 159)
COLOURS = {"MATCH": (26, 127, 55), "AMBIGUOUS": (191, 135, 0), "NO_MATCH": (207, 34, 46)}
PLAN_XY, PLAN_WH = (340, 30), (310, 400)


def main(demo: Path, out: Path) -> None:
    """Write an animated WebP."""
    records = {item["stamp_ns"]: item for item in map(json.loads, (demo / "matches.jsonl").read_text().splitlines())}
    drive = BagSource(demo / "second_drive", image_topic=recording.IMAGE_TOPIC, pose_topic=recording.ODOMETRY_TOPIC)
    with PlaceMap.open(demo / "building_map") as place_map:
        mapped = np.array([place.pose.position_xyz[:2] for place in place_map.places() if place.pose])
        frames = [frame for frame in drive.frames() if frame.pose and frame.stamp_ns in records]
        driven = np.array([frame.pose.position_xyz[:2] for frame in frames if frame.pose])
        everything = np.concatenate([mapped, driven])
        low, size = everything.min(axis=0) - 1.0, np.ptp(everything, axis=0) + 2.0
        scale = float(min(np.array(PLAN_WH) / size))

        def at(xy: NDArray[np.float64]) -> NDArray[np.int32]:
            x, y = (np.atleast_2d(xy) - low).T * scale
            return np.stack([PLAN_XY[0] + x, PLAN_XY[1] + PLAN_WH[1] - y], axis=1).astype(np.int32)

        pictures = []
        for index in range(0, len(frames), EVERY):
            frame, record = frames[index], records[frames[index].stamp_ns]
            place = record["candidates"][0] if record["candidates"] else None
            thumbnail = decode_image(place_map.thumbnail(place["place_id"]), "a place") if place else None
            canvas = np.full((HEIGHT, WIDTH, 3), PAPER, np.uint8)
            cv2.polylines(canvas, [at(mapped)], False, MAPPED, 7, cv2.LINE_AA)
            cv2.polylines(canvas, [at(driven[: index + 1])], False, DRIVEN, 1, cv2.LINE_AA)
            for before in range(0, index + 1, 2):
                colour = COLOURS[records[frames[before].stamp_ns]["status"]]
                cv2.circle(canvas, at(driven[before])[0].tolist(), 2, colour, -1, cv2.LINE_AA)
            show(canvas, frame.load(), thumbnail, record, at, driven[index], place)
            pictures.append(Image.fromarray(canvas))
    out.parent.mkdir(parents=True, exist_ok=True)
    pictures[0].save(
        out, save_all=True, append_images=pictures[1:], duration=MS_A_FRAME, loop=0, quality=QUALITY, method=6
    )
    print(f"{out}: {len(pictures)} frames, {out.stat().st_size / 1e3:.0f} kB")


def show(
    canvas: RgbImage,
    camera: RgbImage,
    thumbnail: RgbImage | None,
    record: dict[str, Any],
    at: Any,
    here: NDArray[np.float64],
    place: dict[str, Any] | None,
) -> None:
    """One answer: both pictures, the line between robot and place, and how sure it is."""
    colour, status = COLOURS[record["status"]], record["status"]
    put(canvas, "camera, second drive", (8, 14))
    canvas[20 : 20 + PANEL_WH[1], 8 : 8 + PANEL_WH[0]] = cv2.resize(camera, PANEL_WH, interpolation=cv2.INTER_AREA)
    if thumbnail is not None:
        panel = cv2.resize(thumbnail, PANEL_WH, interpolation=cv2.INTER_AREA)
        if status == "NO_MATCH":
            panel = (panel * 0.25 + 190).astype(np.uint8)
        canvas[266 : 266 + PANEL_WH[1], 8 : 8 + PANEL_WH[0]] = panel
        cv2.rectangle(canvas, (8, 266), (8 + PANEL_WH[0] - 1, 266 + PANEL_WH[1] - 1), colour, 3)
    put(canvas, "first drive: the map", (PLAN_XY[0] + 4, 14))
    if place is not None and status != "NO_MATCH" and place.get("pose"):
        there = at(np.array(place["pose"][:2]))[0].tolist()
        cv2.line(canvas, at(here)[0].tolist(), there, colour, 2, cv2.LINE_AA)
        cv2.circle(canvas, there, 5, colour, 2, cv2.LINE_AA)
    cv2.circle(canvas, at(here)[0].tolist(), 6, INK, -1, cv2.LINE_AA)
    put(canvas, f"{status}   confidence {record['confidence']:.2f}", (344, 462), colour, 0.55)
    cv2.rectangle(canvas, (344, 474), (644, 490), (209, 217, 224), -1)
    cv2.rectangle(canvas, (344, 474), (344 + round(300 * record["confidence"]), 490), colour, -1)


def put(
    canvas: RgbImage, text: str, at: tuple[int, int], colour: tuple[int, int, int] = INK, size: float = 0.42
) -> None:
    """Words."""
    cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
