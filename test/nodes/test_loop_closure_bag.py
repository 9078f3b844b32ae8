"""A bag of real photographs through the loop closure detector; `make bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")

from harness import Harness
from rclpy.parameter import Parameter

from effovpr_ros.lab.evaluation.ground_truth import from_loops
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.msg import Keyframe, LoopClosure
from effovpr_ros.nodes.bag_player import BagPlayer
from effovpr_ros.nodes.loop_closure_detector import LoopClosureDetectorNode
from effovpr_ros.sources.bag_writer import BagWriter

pytestmark = pytest.mark.benchmark
NAME = "/loop_closure_detector"
RATE = 1.0
"""Of the replay, a frame a second: what a node that shares its machine keeps up with."""


def test_two_laps_of_a_corridor_close(real_images: Path, tmp_path: Path):
    folder = real_images / "rtabmap_loop"
    dataset = from_loops(folder / "images", folder / "loops.csv", min_gap=10)
    with BagWriter(tmp_path / "bag") as bag:
        for number, frame in enumerate(dataset.queries):
            bag.write_image("/image/compressed", (number + 1) * 10**9, frame.load(), "camera", jpeg_quality=95)
    settings: dict[str, Any] = {
        "session_path": str(tmp_path / "session"),
        "image_transport": "compressed",
        "image_reliability": "reliable",
        "device": "cpu",
    }
    h = Harness(LoopClosureDetectorNode, settings)
    keyframes, closures = h.listen(Keyframe, f"{NAME}/keyframe"), h.listen(LoopClosure, f"{NAME}/loop_closure")
    try:
        h.start()
        played = {"bag_path": str(tmp_path / "bag"), "rate": RATE, "start_delay_s": 3.0}
        overrides = [Parameter(name, value=value) for name, value in played.items()]
        player = BagPlayer(context=h.context, parameter_overrides=overrides)
        h.wait(player.finished.is_set, "the end of the bag", 300.0)
        h.wait(lambda: keyframes and keyframes[-1].header.stamp.sec == len(dataset.queries), "the last frame")
        player.destroy_node()
    finally:
        h.close()
    assert [keyframe.header.stamp.sec - 1 for keyframe in keyframes] == list(range(len(dataset.queries)))
    closable = {number for number, positives in enumerate(dataset.positives) if positives}
    pairs = [(closure.query_stamp.sec - 1, closure.match_stamp.sec - 1) for closure in closures]
    right = {query for query, match in pairs if match in dataset.positives[query]}
    wrong = [pair for pair in pairs if pair[0] not in right]
    with PlaceMap.open(tmp_path / "session") as place_map:
        assert len(place_map) == len(dataset.queries)
    spent = sorted(keyframe.insert_ms for keyframe in keyframes)
    print(f"\nclosed {len(right)} of {len(closable)}, wrong {wrong}; insert median {spent[len(spent) // 2]:.1f} ms")
    assert len(closable) == 44
    assert wrong == []
    assert len(right) >= 38
