"""The relative pose of a closure: by keyframes beside the match, by depth, and why there is none."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from posed_scene import CAMERA, MOUNTED, PosedScene, corridor, error, seen_in, shifted
from synthetic import FINGERPRINT

from effovpr_ros.core.mounted_cameras import MountedCamera
from effovpr_ros.core.poses import Pose
from effovpr_ros.geometry.measured_pose import WITHIN_99
from effovpr_ros.geometry.points import XFEAT, Points, no_points
from effovpr_ros.geometry.pose_config import PoseConfig
from effovpr_ros.loop_closure.closing import SessionCamera
from effovpr_ros.loop_closure.closure_pose import ClosurePose, ClosurePoses, MeasuredBy
from effovpr_ros.mapping.growing_map import GrowingMap
from effovpr_ros.mapping.session_cameras import read_cameras, set_session_camera
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.third_stage import ThirdStage

WAY = tuple(Pose.from_yaw(0.6 * step, 0.1 * (step % 2), math.radians(3.0 * (step % 3))) for step in range(5))
QUERY = Pose.from_yaw(1.0, 0.5, math.radians(10.0))
MATCH = 2


class Session:
    """A map of keyframes along a way, in the frame of an odometry."""

    def __init__(self, folder: Path, scene: PosedScene, way: Sequence[Pose] = WAY, session: str = "a") -> None:
        self.scene = scene
        self.map = GrowingMap.create(folder / "map", fingerprint=FINGERPRINT)
        self.map.add([scene.place(pose, number, session) for number, pose in enumerate(way)])
        set_session_camera(self.map, session, scene.mounted)
        third_stage = ThirdStage(self.map, RecognizerConfig())
        self.poses = ClosurePoses(self.map, third_stage, PoseConfig(), 20.0)

    def measure(
        self,
        query: Pose = QUERY,
        *,
        camera: MountedCamera | None = MOUNTED,
        points: Callable[[], Points] | None = None,
        depth: bool = False,
        query_id: int = 100,
    ) -> ClosurePose:
        seen = points or functools.partial(self.scene.seen, query)
        depths = functools.partial(self.scene.depth, query) if depth else None
        return self.poses.measure(self.map.place(MATCH), query_id, seen, None, camera, depths)


def within(pose: ClosurePose, truth: Pose) -> float:
    assert pose.relative_pose is not None, pose.reason
    assert pose.covariance is not None
    wrong = error(pose.relative_pose, truth)
    return float(wrong @ np.linalg.solve(pose.covariance, wrong))


def test_the_neighbours_of_the_match_tell_the_relative_pose_in_metres(tmp_path: Path):
    pose = Session(tmp_path, PosedScene(corridor())).measure()
    assert pose.measured_by is MeasuredBy.NEIGHBOURS
    truth = seen_in(WAY[MATCH], QUERY)
    # By hand: the match is at (1.2, 0) and turned by 6 degrees, the query half a metre to its left.
    assert truth.position_xyz[:2] == pytest.approx(
        (-0.2 * 0.99452 + 0.5 * 0.10453, 0.2 * 0.10453 + 0.5 * 0.99452), abs=1e-4
    )
    assert error(pose.relative_pose, truth) == pytest.approx(np.zeros(6), abs=0.02)
    assert within(pose, truth) < WITHIN_99
    assert np.linalg.eigvalsh(pose.covariance).min() > 0.0


def test_where_the_odometry_has_drifted_to_does_not_matter(tmp_path: Path):
    """A frame 100 m off, turned by a right angle: the relative pose and its covariance are the same."""
    scene = PosedScene(corridor())
    turned = [
        Pose.from_yaw(100.0 - pose.position_xyz[1], pose.position_xyz[0], pose.known_yaw_rad + math.pi / 2)
        for pose in WAY
    ]
    session = Session(tmp_path, scene)
    session.map = GrowingMap.create(tmp_path / "drifted", fingerprint=FINGERPRINT)
    session.map.add(
        [scene.place(said, number, seen_from=real) for number, (said, real) in enumerate(zip(turned, WAY, strict=True))]
    )
    set_session_camera(session.map, "a", MOUNTED)
    session.poses = ClosurePoses(session.map, ThirdStage(session.map, RecognizerConfig()), PoseConfig(), 20.0)
    pose = session.measure()
    truth = seen_in(WAY[MATCH], QUERY)
    assert error(pose.relative_pose, truth) == pytest.approx(np.zeros(6), abs=0.02)
    assert within(pose, truth) < WITHIN_99


def test_errors_are_as_large_as_foretold_when_the_odometry_drifts(tmp_path: Path):
    """Odometry that reads 2 % too long and turns by a quarter of a degree a metre too far."""
    distances = []
    for seed in range(12):
        random = np.random.default_rng(seed)
        scene = PosedScene(corridor(seed=seed), seed=seed)
        said = [WAY[0]]
        for before, after in itertools.pairwise(WAY):
            step = seen_in(before, after)
            driven = math.hypot(*step.position_xyz[:2]) * (1.02 + random.normal(0.0, 0.02))
            yaw = said[-1].known_yaw_rad + math.atan2(step.position_xyz[1], step.position_xyz[0])
            turned = said[-1].known_yaw_rad + step.known_yaw_rad + math.radians(0.25) * driven
            x, y, _ = said[-1].position_xyz
            said.append(Pose.from_yaw(x + driven * math.cos(yaw), y + driven * math.sin(yaw), turned))
        folder = tmp_path / str(seed)
        folder.mkdir()
        session = Session(folder, scene)
        session.map = GrowingMap.create(folder / "said", fingerprint=FINGERPRINT)
        session.map.add(
            [
                scene.place(pose, number, seen_from=real)
                for number, (pose, real) in enumerate(zip(said, WAY, strict=True))
            ]
        )
        set_session_camera(session.map, "a", MOUNTED)
        session.poses = ClosurePoses(session.map, ThirdStage(session.map, RecognizerConfig()), PoseConfig(), 20.0)
        query = Pose.from_yaw(
            float(random.uniform(0.6, 1.6)), float(random.uniform(-0.6, 0.6)), float(random.normal(0.0, 0.1))
        )
        distances.append(within(session.measure(query), seen_in(WAY[MATCH], query)))
    assert max(distances) < WITHIN_99


def test_depth_gives_the_pose_by_the_match_alone(tmp_path: Path):
    pose = Session(tmp_path, PosedScene(corridor()), WAY[: MATCH + 1]).measure(depth=True)
    assert pose.measured_by is MeasuredBy.DEPTH, pose.reason
    truth = seen_in(WAY[MATCH], QUERY)
    assert error(pose.relative_pose, truth) == pytest.approx(np.zeros(6), abs=0.03)
    assert within(pose, truth) < WITHIN_99


def test_depth_that_is_nowhere_known_leaves_the_neighbours(tmp_path: Path):
    session = Session(tmp_path, PosedScene(corridor()))
    unknown = np.full((480, 640), np.nan, np.float32)
    pose = session.poses.measure(
        session.map.place(MATCH), 100, lambda: session.scene.seen(QUERY), None, MOUNTED, lambda: unknown
    )
    assert pose.measured_by is MeasuredBy.NEIGHBOURS


@pytest.mark.parametrize(
    ("camera", "says"),
    [
        (None, "no calibration: no usable camera_info"),
        (replace(MOUNTED, body_from_camera=None), "mounting is unknown: set camera_pose"),
        (MountedCamera(CAMERA.scaled((640, 640)), MOUNTED.body_from_camera), "not of the calibrated camera"),
    ],
)
def test_without_a_usable_camera_the_reason_is_told(tmp_path: Path, camera: MountedCamera | None, says: str):
    pose = Session(tmp_path, PosedScene(corridor())).measure(camera=camera)
    assert (pose.measured_by, pose.relative_pose, pose.covariance) == (MeasuredBy.NOTHING, None, None)
    assert says in pose.reason


def test_a_match_of_a_session_without_camera_has_no_pose(tmp_path: Path):
    session = Session(tmp_path, PosedScene(corridor()))
    session.map.set_property("session_cameras", b"{}")
    assert "the map keeps none for session 'a'" in session.measure().reason


def test_keyframes_without_odometry_and_such_on_one_spot_have_no_pose(tmp_path: Path):
    scene = PosedScene(corridor())
    (tmp_path / "spot").mkdir()
    turning = [Pose.from_yaw(0.0, 0.0, 0.05 * step) for step in range(5)]
    # The camera's lever makes few centimetres of a turn.
    assert "too close together" in Session(tmp_path / "spot", scene, turning).measure().reason
    (tmp_path / "none").mkdir()
    session = Session(tmp_path / "none", scene)
    session.map = GrowingMap.create(tmp_path / "blind", fingerprint=FINGERPRINT)
    session.map.add([scene.place(None, number, seen_from=pose) for number, pose in enumerate(WAY)])
    set_session_camera(session.map, "a", MOUNTED)
    session.poses = ClosurePoses(session.map, ThirdStage(session.map, RecognizerConfig()), PoseConfig(), 20.0)
    assert "keyframe 2 has no odometry" in session.measure().reason


def test_only_keyframes_of_the_track_and_before_the_query_are_neighbours(tmp_path: Path):
    """The keyframe before the match is of another session, those after it are not there yet."""
    scene = PosedScene(corridor())
    session = Session(tmp_path, scene)
    session.map = GrowingMap.create(tmp_path / "two", fingerprint=FINGERPRINT)
    sessions = ("b", "b", "a", "a")
    session.map.add(
        [scene.place(pose, number, name) for number, (pose, name) in enumerate(zip(WAY, sessions, strict=False))]
    )
    set_session_camera(session.map, "a", MOUNTED)
    session.poses = ClosurePoses(session.map, ThirdStage(session.map, RecognizerConfig()), PoseConfig(), 20.0)
    assert session.measure().measured_by is MeasuredBy.NEIGHBOURS
    assert "1 pictures within 0.00 m" in session.measure(query_id=3).reason


def test_forgotten_keyframes_are_passed_over(tmp_path: Path):
    session = Session(tmp_path, PosedScene(corridor()))
    session.map.forget([1, 3])
    assert session.measure().measured_by is MeasuredBy.NEIGHBOURS


def test_a_picture_without_texture_and_unusable_weights_have_no_pose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    session = Session(tmp_path, PosedScene(corridor()))
    pose = session.measure(points=lambda: no_points(XFEAT, (640, 480)))
    assert "too few points agree" in pose.reason
    monkeypatch.setattr(ThirdStage, "load", lambda _: False)
    assert "network of the points cannot be used" in session.measure().reason


def test_structure_that_repeats_gives_no_confident_pose(tmp_path: Path):
    """Half of what the query sees is one period, 1.5 m, along the way."""
    scene = PosedScene(corridor(800))
    session = Session(tmp_path, scene)
    for by_m in ((1.5, 0.0, 0.0), (0.0, 1.5, 0.0), (-1.5, 0.0, 0.0)):
        pose = session.measure(points=functools.partial(shifted(scene, by_m).seen, QUERY))
        if pose.relative_pose is not None:
            assert np.linalg.norm(error(pose.relative_pose, seen_in(WAY[MATCH], QUERY))[:3]) < 0.1, pose.reason


def test_the_camera_of_a_session_is_kept_and_another_one_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    place_map = GrowingMap.create(tmp_path / "map", fingerprint=FINGERPRINT)
    camera = SessionCamera(place_map, "a")
    assert camera.keep(None) is None
    unmounted = replace(MOUNTED, body_from_camera=None)
    assert camera.keep(unmounted) is unmounted
    assert read_cameras(place_map) == {}
    assert camera.keep(MOUNTED) is MOUNTED
    assert read_cameras(place_map) == {"a": MOUNTED}
    place_map.add([PosedScene(corridor()).place(WAY[0], 0)])
    other = MountedCamera(CAMERA.scaled((320, 240)), MOUNTED.body_from_camera)
    assert camera.keep(other) is None
    assert camera.keep(other) is None
    assert sum("has another camera" in record.message for record in caplog.records) == 1
    assert camera.keep(MOUNTED) is MOUNTED
