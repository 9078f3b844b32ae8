"""Measured poses end to end: a map with cameras, a query of known pose, and every reason why there is none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from posed_scene import CAMERA, MOUNTED, MOUNTING, PosedScene, corridor, error, shifted
from synthetic import FINGERPRINT, features

from effovpr_ros.core.errors import MapFormatError
from effovpr_ros.core.mounted_cameras import MountedCamera
from effovpr_ros.core.poses import Pose
from effovpr_ros.geometry.measured_pose import WITHIN_99, PoseMeasurement, PoseOutcome, mahalanobis
from effovpr_ros.geometry.points import XFEAT, Points, no_points
from effovpr_ros.mapping.place import Candidate
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.session_cameras import set_session_camera
from effovpr_ros.mapping.session_origins import SessionOrigin, write_origins
from effovpr_ros.recognition.decision import Decision, Status
from effovpr_ros.recognition.posing import PoseMeasurer
from effovpr_ros.recognition.recognizer import PlaceRecognizer
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.third_stage import ThirdStage, Verified

CONFIG = RecognizerConfig(verify="on", score="count", verify_budget_ms=0.0)
PLACES = tuple(Pose.from_yaw(0.5 * step, 0.2 * (step % 2), math.radians(4.0 * (step % 3))) for step in range(4))
QUERY = Pose.from_yaw(0.8, 0.5, math.radians(-6.0))


@dataclass(frozen=True)
class Knows:
    """Stands for the network, which nobody asks."""

    fingerprint = FINGERPRINT
    device = "cpu"


class World:
    """A map of places of one scene, with a camera."""

    def __init__(
        self,
        folder: Path,
        scene: PosedScene,
        places: Sequence[Pose | None] = PLACES,
        *,
        camera: MountedCamera | None = MOUNTED,
        seen_from: Sequence[Pose] = PLACES,
        config: RecognizerConfig = CONFIG,
    ) -> None:
        self.scene = scene
        self.map = PlaceMap.create(folder / "map", fingerprint=FINGERPRINT)
        pairs = zip(places, seen_from, strict=False)
        self.map.add([scene.place(pose, number, seen_from=real) for number, (pose, real) in enumerate(pairs)])
        if camera is not None:
            set_session_camera(self.map, "a", camera)
        self.third_stage = ThirdStage(self.map, config)
        self.poses = PoseMeasurer(self.map, config, self.third_stage)

    def candidates(self) -> list[Candidate]:
        return [Candidate(place, 0.9 - 0.01 * place.place_id, score=10.0) for place in self.map.places()]

    def verified(self, seen: Points) -> tuple[list[Candidate], Verified]:
        return self.third_stage.verify(lambda: seen, self.candidates(), 100)

    def measure(
        self, query: Pose = QUERY, *, camera: MountedCamera | None = None, seen: Points | None = None
    ) -> PoseMeasurement:
        return self.poses.measure(*self.verified(self.scene.seen(query) if seen is None else seen), camera)


def test_the_pose_of_a_match_is_measured_and_published(tmp_path: Path):
    """The robot stands at (0.8, 0.5) and looks 6 degrees to the right; no place is nearer than 0.4 m."""
    world = World(tmp_path, PosedScene(corridor()))
    candidates, verified = world.verified(world.scene.seen(QUERY))
    recognizer = PlaceRecognizer(Knows(), world.map, CONFIG)
    answer = recognizer.assemble(features((1.0, 0.0, 0.0, 0.0)), candidates, Decision(Status.MATCH, 0.9, ""), verified)
    assert answer.is_metric
    assert answer.pose is not None
    assert answer.pose.position_xyz == pytest.approx((0.8, 0.5, 0.0), abs=0.03)
    assert answer.pose.known_yaw_rad == pytest.approx(math.radians(-6.0), abs=0.01)
    assert mahalanobis(answer.pose, QUERY, answer.covariance) < WITHIN_99
    unsure = recognizer.assemble(
        features((1.0, 0.0, 0.0, 0.0)), candidates, Decision(Status.AMBIGUOUS, 0.5, ""), verified
    )
    # Of an answer that is no MATCH the pose is the place's.
    assert not unsure.is_metric
    assert unsure.pose == candidates[0].place.pose


def test_measuring_twice_is_measuring_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    world = World(tmp_path, PosedScene(corridor()))
    given = world.verified(world.scene.seen(QUERY))
    first = world.poses.measure(*given, None)
    monkeypatch.setattr(world.third_stage, "matched", lambda *_: pytest.fail("measured again"))
    assert world.poses.measure(*given, None) is first


def test_a_query_by_another_camera_with_a_mounting_of_its_own(tmp_path: Path):
    """Half the pixels, another focal length, 0.4 m to the left of the body and turned by 20 degrees."""
    world = World(tmp_path, PosedScene(corridor()))
    camera = replace(CAMERA.scaled((480, 360)), focal_xy_px=(330.0, 335.0))
    turned = Pose.from_yaw(0.1, 0.4, math.radians(20.0), z=0.6)
    x, y, z, w = MOUNTING.known_quat_xyzw
    half = math.radians(10.0)
    s, c = math.sin(half), math.cos(half)
    # Quaternion of the turn about z times that of the mounting, by hand.
    mounting = Pose(turned.known_xyz, (c * x - s * y, c * y + s * x, c * z + s * w, c * w - s * z))
    other = MountedCamera(camera, mounting)
    scene = replace(world.scene, mounted=other)
    measured = world.measure(camera=other, seen=scene.seen(QUERY))
    assert measured.pose is not None, measured.reason
    assert error(measured.pose, QUERY) == pytest.approx(np.zeros(6), abs=0.03)


@pytest.mark.parametrize(
    ("stored", "asked", "outcome"),
    [
        (None, None, PoseOutcome.NO_CAMERA),
        (replace(MOUNTED, is_guess=True), None, PoseOutcome.GUESSED_CAMERA),
        (MOUNTED, replace(MOUNTED, is_guess=True), PoseOutcome.GUESSED_CAMERA),
        (replace(MOUNTED, body_from_camera=None), None, PoseOutcome.NO_MOUNTING),
        (MOUNTED, MountedCamera(CAMERA.scaled((640, 640)), MOUNTING), PoseOutcome.OTHER_CAMERA),
    ],
)
def test_cameras_that_nothing_is_measured_by(
    tmp_path: Path, stored: MountedCamera | None, asked: MountedCamera | None, outcome: PoseOutcome
):
    measured = World(tmp_path, PosedScene(corridor()), camera=stored).measure(camera=asked)
    assert (measured.outcome, measured.pose, measured.covariance) == (outcome, None, None)
    assert measured.reason.startswith(outcome.value)


def test_a_camera_that_is_damaged_in_the_map_is_said_when_it_is_opened(tmp_path: Path):
    world = World(tmp_path, PosedScene(corridor()))
    world.map.set_property("session_cameras", b'{"a": {"camera": {"image_size_wh": [0, 0]}}}')
    with pytest.raises(MapFormatError, match="rebuild it"):
        PoseMeasurer(world.map, CONFIG, world.third_stage)


def test_places_without_height_or_heading_have_no_pose_to_measure_by(tmp_path: Path):
    flat = [Pose((pose.position_xyz[0], pose.position_xyz[1], None), None) for pose in PLACES]
    assert World(tmp_path, PosedScene(corridor()), flat).measure().outcome is PoseOutcome.NO_POSE


@pytest.mark.parametrize(("std_m", "measured"), [(5.0, False), (0.05, True), (None, True)])
def test_places_that_are_less_sure_than_a_pose_may_be(tmp_path: Path, std_m: float | None, measured: bool):
    world = World(tmp_path, PosedScene(corridor()))
    write_origins(world.map, {"a": SessionOrigin(position_std_m=std_m)})
    world.poses = PoseMeasurer(world.map, CONFIG, world.third_stage)
    found = world.measure()
    assert (found.outcome is PoseOutcome.MEASURED) == measured
    if not measured:
        assert found.outcome is PoseOutcome.NO_POSE
        assert "session 'a': its positions have a standard deviation of 5.0 m, above pose_max_std_m 0.2" in found.reason
    # Of an answer that was not measured the covariance holds the place's own error.
    recognizer = PlaceRecognizer(Knows(), world.map, CONFIG)
    unsure = Decision(Status.AMBIGUOUS, 0.5, "")
    answer = recognizer.assemble(features((1.0, 0.0, 0.0, 0.0)), world.candidates()[:1], unsure)
    assert answer.covariance is not None
    assert answer.covariance[0, 0] == max(0.5, std_m or 0.0) ** 2


def test_pictures_that_are_too_small(tmp_path: Path):
    small = MountedCamera(CAMERA.scaled((160, 120)), MOUNTING)
    measured = World(tmp_path, PosedScene(corridor(), mounted=small), camera=small).measure()
    assert measured.outcome is PoseOutcome.SMALL_PICTURE


def test_a_picture_without_texture(tmp_path: Path):
    measured = World(tmp_path, PosedScene(corridor())).measure(seen=no_points(XFEAT, (640, 480)))
    assert measured.outcome is PoseOutcome.TOO_FEW_POINTS


def test_not_asked_for_and_not_verified(tmp_path: Path):
    world = World(tmp_path, PosedScene(corridor()), config=replace(CONFIG, measure_pose=False))
    assert not world.poses.is_possible(world.map.place(0), None)
    assert world.measure().outcome is PoseOutcome.NOT_ASKED
    asked = PoseMeasurer(world.map, CONFIG, world.third_stage)
    assert asked.is_possible(world.map.place(0), None)
    assert asked.measure(world.candidates(), None, None).outcome is PoseOutcome.NOT_ASKED


def test_one_plane_gives_the_right_pose_or_none(tmp_path: Path):
    """A wall 6 m ahead; a plane leaves two poses open, which the epipolar geometry of all views tells apart or not."""
    for seed in range(4):
        wall = np.random.default_rng(seed).uniform((6.0, -4.0, -1.5), (6.0, 4.0, 3.0), (400, 3))
        folder = tmp_path / str(seed)
        folder.mkdir()
        measured = World(folder, PosedScene(wall, seed=seed)).measure()
        if measured.pose is not None:
            assert np.linalg.norm(error(measured.pose, QUERY)[:3]) < 0.2, measured.reason


def test_places_that_only_turned_tell_no_scale(tmp_path: Path):
    turning = [Pose.from_yaw(0.0, 0.0, 0.06 * step) for step in range(4)]
    measured = World(tmp_path, PosedScene(corridor()), turning, seen_from=turning).measure()
    assert measured.outcome in (PoseOutcome.SHORT_BASELINE, PoseOutcome.SCALE_UNKNOWN)


def test_a_query_that_only_turned_against_a_place_is_measured(tmp_path: Path):
    turned = Pose.from_yaw(0.5, 0.2, math.radians(14.0))
    measured = World(tmp_path, PosedScene(corridor())).measure(turned)
    assert measured.pose is not None, measured.reason
    assert error(measured.pose, turned) == pytest.approx(np.zeros(6), abs=0.03)


@pytest.mark.parametrize("by_m", [(1.5, 0.0, 0.0), (0.0, 1.5, 0.0), (-1.5, 0.0, 0.0)])
def test_structure_that_repeats_gives_no_confident_wrong_pose(tmp_path: Path, by_m: tuple[float, float, float]):
    """Half of what the query sees is taken for things one period further."""
    scene = PosedScene(corridor(800))
    measured = World(tmp_path, scene).measure(seen=shifted(scene, by_m).seen(QUERY))
    if measured.pose is not None:
        assert np.linalg.norm(error(measured.pose, QUERY)[:3]) < 0.1, measured.reason
    else:
        assert measured.outcome in (PoseOutcome.TWO_POSES, PoseOutcome.TOO_FEW_POINTS, PoseOutcome.SCALE_UNKNOWN)


def test_poses_of_the_map_that_are_wrong_are_told(tmp_path: Path):
    """One of four places is a metre from where the map says."""
    said = [PLACES[0], Pose.from_yaw(0.5, 1.2, math.radians(4.0)), *PLACES[2:]]
    measured = World(tmp_path, PosedScene(corridor()), said).measure()
    if measured.pose is not None:
        assert mahalanobis(measured.pose, QUERY, measured.covariance) < WITHIN_99
    else:
        assert measured.outcome in (PoseOutcome.CONTRADICTION, PoseOutcome.TOO_FEW_POINTS, PoseOutcome.TWO_POSES)


def test_without_the_weights_of_the_points_the_answer_is_that_of_two_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    world = World(tmp_path, PosedScene(corridor()))
    recognizer = PlaceRecognizer(Knows(), world.map, CONFIG)
    monkeypatch.setattr(recognizer.third_stage, "load", lambda: False)
    answer = recognizer.recognize_features(
        features((1.0, 0.1, 0.0, 0.0)), points=lambda: pytest.fail("there is no network to ask")
    )
    assert answer.candidates
    assert answer.verified is None
    assert not answer.is_metric
