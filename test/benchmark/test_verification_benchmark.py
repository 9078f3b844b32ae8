"""How exact relative poses of closures are, by depth and by neighbours: the figures of docs/verification.md."""

from __future__ import annotations

import functools
import math
import time
from pathlib import Path

import numpy as np
import pytest
from posed_scene import error, seen_in
from synthetic import FINGERPRINT, features, jpeg

from effovpr_ros.core.images import RgbImage
from effovpr_ros.core.mounted_cameras import MountedCamera
from effovpr_ros.core.poses import Pose
from effovpr_ros.geometry.measured_pose import WITHIN_99
from effovpr_ros.geometry.point_codec import encode_points
from effovpr_ros.geometry.pose_config import PoseConfig
from effovpr_ros.loop_closure.closure_pose import ClosurePose, ClosurePoses
from effovpr_ros.mapping.growing_map import GrowingMap
from effovpr_ros.mapping.place import NewPlace
from effovpr_ros.mapping.session_cameras import set_session_camera
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.third_stage import ThirdStage

pytestmark = pytest.mark.benchmark

NUM_SPOTS = 40
STEP_M = 0.6
KEYFRAMES = 5


def test_rendered_closures_by_depth_and_by_neighbours(tmp_path: Path):
    """Five keyframes on a straight way of the demo's building with drifting odometry, the query within 0.8 m of one."""
    pytest.importorskip("vizdoom")
    from effovpr_ros.lab.simulation.drive import LEVEL
    from effovpr_ros.lab.simulation.level import CAMERA, CAMERA_MOUNTING, Level
    from effovpr_ros.lab.simulation.odometry import DriftingOdometry, OdometryConfig

    mounted = MountedCamera(CAMERA, CAMERA_MOUNTING)
    place_map = GrowingMap.create(tmp_path / "map", fingerprint=FINGERPRINT)
    third_stage = ThirdStage(place_map, RecognizerConfig())
    extractor = third_stage.extractor
    rng, spots = np.random.default_rng(11), []
    with Level(LEVEL, depth=True) as level:
        floor = level.free_floor()
        roomy = np.argwhere(floor.clearance_m > 1.2)

        def view(x: float, y: float, yaw: float) -> tuple[RgbImage, Pose]:
            image, (x, y, yaw) = level.view(x, y, yaw)
            return image, Pose.from_yaw(x, y, yaw)

        while len(spots) < NUM_SPOTS:
            x, y = floor.position_m(tuple(roomy[rng.integers(len(roomy))].tolist()))
            yaw = rng.uniform(-math.pi, math.pi)
            if floor.free_ahead_m(x, y, yaw) < KEYFRAMES * STEP_M + 1.0:
                continue
            session, odometry = f"s{len(spots)}", DriftingOdometry(OdometryConfig(seed=len(spots)))
            set_session_camera(place_map, session, mounted)
            truths = []
            for step in range(KEYFRAMES):
                along = step * STEP_M
                image, truth = view(
                    x + along * math.cos(yaw), y + along * math.sin(yaw), yaw + rng.normal(0.0, math.radians(3.0))
                )
                truths.append(truth)
                points = encode_points(extractor.extract(image))
                size_wh = (image.shape[1], image.shape[0])
                stored = (jpeg(image[::4, ::4]), features((1.0, 0.0, 0.0, 0.0)), points)
                said = odometry.advance(truth)
                place_map.add([NewPlace(session, len(place_map), f"{len(place_map)}", said, None, size_wh, *stored)])
            match = truths[KEYFRAMES // 2]
            (mx, my), (dx, dy) = match.position_xyz[:2], rng.uniform(-0.55, 0.55, 2)
            image, query = view(mx + dx, my + dy, match.known_yaw_rad + rng.normal(0.0, math.radians(8.0)))
            match_id = place_map.next_id - 1 - KEYFRAMES // 2
            spots.append((match_id, seen_in(match, query), extractor.extract(image), level.depth_m()))
    poses = ClosurePoses(place_map, third_stage, PoseConfig(), 20.0)
    for name in ("depth", "neighbours"):
        found: list[tuple[ClosurePose, Pose]] = []
        times = []
        for match_id, truth, points, depth_m in spots:
            started = time.perf_counter()
            depth = functools.partial(lambda known: known, depth_m) if name == "depth" else None
            pose = poses.measure(place_map.place(match_id), 10**6, lambda seen=points: seen, None, mounted, depth)
            times.append((time.perf_counter() - started) * 1e3)
            if pose.measured_by.name.lower() == name:
                found.append((pose, truth))
        errors = np.array([error(pose.relative_pose, truth) for pose, truth in found])
        nees = [wrong @ np.linalg.solve(pose.covariance, wrong) for wrong, (pose, _) in zip(errors, found, strict=True)]
        stds = [math.sqrt(np.trace(pose.covariance[:3, :3])) for pose, _ in found]
        position, yaw_deg = np.linalg.norm(errors[:, :3], axis=1), np.degrees(np.abs(errors[:, 5]))
        inside = float(np.mean(np.array(nees) <= WITHIN_99))
        print(
            f"\n{name}: {len(found)} of {len(spots)}; position {np.median(position):.3f} median, "
            f"{np.percentile(position, 95):.3f} p95, {position.max():.3f} most [m], foretold {np.median(stds):.3f}; "
            f"yaw {np.median(yaw_deg):.2f} median, {np.percentile(yaw_deg, 95):.2f} p95 [deg]; {inside:.3f} inside "
            f"99 %; {np.median(times):.0f} ms"
        )
        assert len(found) > 0.7 * len(spots)
        assert np.median(position) < 0.03
        assert np.median(yaw_deg) < 0.3
        assert inside > 0.9
