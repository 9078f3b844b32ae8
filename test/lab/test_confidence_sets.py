"""Questions of the sets that the shipped confidence is fitted on."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np

from effovpr_ros.lab.evaluation import confidence_sets


def test_another_clip_of_the_same_floor_is_neither_right_nor_wrong(tmp_path: Path) -> None:
    clips = (
        ("floor3", "f03_hall"),
        ("floor3", "f03_stairs"),
        ("floor8", "f08_hall"),
        ("floor13", "f13_hall"),
        ("floor18", "f18_hall"),
    )
    rows = [
        {"image": f"{floor}/{clip}_{frame}.png", "floor": floor, "clip": clip, "frame": str(frame)}
        for floor, clip in clips
        for frame in range(1, 5)
    ]
    for row in rows:
        path = tmp_path / "images" / row["image"]
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.zeros((48, 64, 3), np.uint8))
    with (tmp_path / "frames.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["image", "floor", "clip", "frame"])
        writer.writeheader()
        writer.writerows(rows)

    scene = next(confidence_sets._tower_floors(tmp_path))

    # Every second picture of three floors is mapped: 0 and 1 are floor 3's hall, 2 and 3 its stairs, 4 to 7 the others.
    assert len(scene.database) == 8
    asked = {question.frame.name.split(" ")[0]: question for question in scene.questions}
    hall = asked["floor3/f03_hall_2.png"]
    assert (hall.right, hall.unclear, hall.hidden) == ({0, 1}, {2, 3}, {0, 1, 2, 3})
    unmapped = asked["floor18/f18_hall_1.png"]
    assert (unmapped.right, unmapped.unclear, unmapped.hidden) == (set(), set(), set())
