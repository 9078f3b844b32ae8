"""The node in this process, spoken to over DDS; the model is a tiny one."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")
yaml = pytest.importorskip("yaml")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from geometry_msgs.msg import PoseWithCovarianceStamped  # noqa: E402
from harness import TIMEOUT_S, Harness, image_message  # noqa: E402
from lifecycle_msgs.msg import State, Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import QoSProfile, QoSReliabilityPolicy, qos_profile_sensor_data  # noqa: E402
from rclpy.serialization import serialize_message  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image, NavSatFix, NavSatStatus  # noqa: E402
from synthetic import jpeg, picture, tiny_extractor, tiny_weights  # noqa: E402
from visualization_msgs.msg import MarkerArray  # noqa: E402

from effovpr_ros.core.geodesy import Datum  # noqa: E402
from effovpr_ros.core.images import decode_image  # noqa: E402
from effovpr_ros.core.poses import GeoPoint, Pose  # noqa: E402
from effovpr_ros.mapping.build_config import BuildConfig  # noqa: E402
from effovpr_ros.mapping.builder import build_map  # noqa: E402
from effovpr_ros.mapping.place_map import PlaceMap  # noqa: E402
from effovpr_ros.matching.rerank_config import SCORES  # noqa: E402
from effovpr_ros.msg import PlaceMatch  # noqa: E402
from effovpr_ros.nodes import camera_node, configured, conversions, localize_request  # noqa: E402
from effovpr_ros.nodes.outputs import MARKER_QOS, RESULT_QOS  # noqa: E402
from effovpr_ros.nodes.place_recognizer import PlaceRecognizerNode  # noqa: E402
from effovpr_ros.nodes.recognition_engine import RecognitionEngine  # noqa: E402
from effovpr_ros.nodes.recognizing import Recognizing  # noqa: E402
from effovpr_ros.recognition.confidence import ConfidenceModel, setting_name, store_confidence_model  # noqa: E402
from effovpr_ros.recognition.evidence import FIGURES  # noqa: E402
from effovpr_ros.recognition.recognizer_config import RecognizerConfig  # noqa: E402
from effovpr_ros.sources.frame import Frame  # noqa: E402
from effovpr_ros.srv import LoadMap, Localize  # noqa: E402

NAME = "/place_recognizer"
DATUM = Datum(GeoPoint(50.0, 8.0, 100.0))


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A map of eight pictures 20 m apart, one of four others, and the weights of both; they share a calibration."""
    folder = tmp_path_factory.mktemp("maps")
    extractor = tiny_extractor(folder)
    made = {"weights": tiny_weights(folder)}
    # MATCH where three quarters of the keypoints agree: log-odds of 2.5, a confidence of 0.924.
    weights = tuple(10.0 if name == "consistent_share" else 0.0 for name in FIGURES)
    setting = setting_name(extractor.fingerprint, RecognizerConfig())
    calibration = ConfidenceModel(setting, weights, -5.0, 0.924, 0.99, "by hand", 40, 0.0)
    for name, first, count in (("house", 0, 8), ("yard", 100, 4)):
        with PlaceMap.create(folder / name, fingerprint=extractor.fingerprint, datum=DATUM) as place_map:
            frames = [
                Frame(f"{n}.jpg", name, n, Pose.from_yaw(20.0 * n, 0.0, 0.5), None, lambda n=n: picture(n))
                for n in range(first, first + count)
            ]
            build_map(place_map, extractor, frames, BuildConfig())
            store_confidence_model(place_map, calibration)
        made[name] = folder / name
    return made


@pytest.fixture
def harness(maps: dict[str, Path]) -> Iterator[Callable[..., Harness]]:
    made: list[Harness] = []

    def make(**parameters: Any) -> Harness:
        defaults = {"weights": str(maps["weights"]), "device": "cpu"}
        made.append(Harness(PlaceRecognizerNode, {**defaults, **parameters}))
        return made[-1]

    yield make
    for item in made:
        item.close()


def test_an_image_gets_its_place_pose_fix_and_picture(harness: Callable[..., Harness], maps: dict[str, Path]):
    h = harness(map_path=str(maps["house"]), num_candidates=3)
    matches, poses = h.listen(PlaceMatch, f"{NAME}/match"), h.listen(PoseWithCovarianceStamped, f"{NAME}/pose")
    fixes, markers = h.listen(NavSatFix, f"{NAME}/fix"), h.listen(MarkerArray, f"{NAME}/markers", MARKER_QOS)
    pictures = h.listen(CompressedImage, f"{NAME}/debug_image/compressed", qos_profile_sensor_data)
    diagnostics = h.listen(DiagnosticArray, "/diagnostics")
    h.start()
    arrived = lambda: matches and poses and pictures and fixes and len(markers) > 1  # noqa: E731
    h.publish_until(image_message(picture(5)), arrived, "all results")
    match = matches[-1]
    assert (match.status, match.candidates[0].place_id) == (PlaceMatch.MATCH, 5)
    assert (match.header.stamp.sec, match.header.frame_id, match.map_name) == (50, "map", "house")
    assert len(match.candidates) == 3
    assert match.is_calibrated
    assert match.confidence >= 0.924
    assert match.candidates[0].session == "house"
    assert match.extract_ms > 0.0
    assert match.total_ms >= match.extract_ms
    pose = poses[-1]
    assert pose.pose.pose.position.x == 100.0
    assert (np.array(pose.pose.covariance).reshape(6, 6).diagonal() > 0.0).all()
    expected = DATUM.to_geo((100.0, 0.0, 0.0))
    assert (fixes[-1].latitude, fixes[-1].longitude) == pytest.approx((expected.latitude_deg, expected.longitude_deg))
    assert decode_image(bytes(pictures[-1].data), "debug image").shape[1] == 1000
    assert len(markers[0].markers[0].points) == 8
    h.wait(lambda: any("count_match" in {pair.key for pair in d.status[0].values} for d in diagnostics), "diagnostics")
    values = {pair.key: pair.value for pair in diagnostics[-1].status[0].values}
    assert values["places"] == "8"
    assert values["map"] == str(maps["house"])
    assert {"rate_hz", "dropped_frames", "device", "last_error"} <= set(values)


def test_other_stacks_get_poses_that_they_accept(harness: Callable[..., Harness], maps: dict[str, Path]):
    h = harness(
        map_path=str(maps["house"]), adapters="nav2, rtabmap", body_frame="base_footprint", initial_pose_confidence=0.9
    )
    initial = h.listen(PoseWithCovarianceStamped, "/initialpose")
    priors, fixes = h.listen(PoseWithCovarianceStamped, "/global_pose"), h.listen(NavSatFix, f"{NAME}/fix")
    poses = h.listen(PoseWithCovarianceStamped, f"{NAME}/pose")
    h.start()
    for number in range(3):
        sent = len(priors)
        image = image_message(picture(5), 50 + number)
        h.publish_until(image, lambda sent=sent: len(priors) > sent and initial and poses, "poses of every stack")
    # AMCL starts anew at each initial pose, so there is one; RTAB-Map wants them all, under the name of the body.
    assert len(initial) == 1
    assert {pose.header.frame_id for pose in priors} == {"base_footprint"}
    for pose in (*initial, *poses):
        assert_nav2_accepts(pose)
        assert_robot_localization_accepts(pose)
    assert initial[0].pose == priors[0].pose == poses[0].pose
    # navsat_transform looks up the antenna by the fix's frame, and leaves out fixes without status or with NaN.
    h.wait(lambda: fixes, "a fix")
    assert fixes[-1].header.frame_id == "base_footprint"
    assert fixes[-1].status.status == NavSatStatus.STATUS_FIX
    assert np.isfinite([fixes[-1].latitude, fixes[-1].longitude, fixes[-1].altitude]).all()
    assert (np.array(fixes[-1].position_covariance).reshape(3, 3).diagonal() > 0.0).all()
    request = SetParameters.Request(parameters=[Parameter("adapters", value="amcl").to_parameter_msg()])
    refused = h.call(SetParameters, f"{NAME}/set_parameters", request).results[0]
    assert not refused.successful
    assert "cuvslam, nav2, rtabmap" in refused.reason
    # Another activation arms it again.
    assert h.change(Transition.TRANSITION_DEACTIVATE)
    assert h.change(Transition.TRANSITION_ACTIVATE)
    h.publish_until(image_message(picture(5), 60), lambda: len(initial) > 1, "an initial pose after activation")
    assert h.change(Transition.TRANSITION_DEACTIVATE)
    assert h.change(Transition.TRANSITION_CLEANUP)
    own = h.node.get_publisher_names_and_types_by_node(h.node.get_name(), h.node.get_namespace())
    assert not {"/initialpose", "/global_pose"} & {topic for topic, _ in own}


def assert_nav2_accepts(message: PoseWithCovarianceStamped) -> None:
    """What AMCL refuses: no frame or another than its map's, values that are not finite or a variance below 0."""
    orientation, covariance = message.pose.pose.orientation, np.array(message.pose.covariance)
    assert message.header.frame_id == "map"
    assert abs(np.sum(np.square([orientation.x, orientation.y, orientation.z, orientation.w])) - 1.0) < 1e-4
    assert np.isfinite(covariance).all()
    assert (covariance >= 0.0).all()
    assert (covariance <= 1e9).all()


def assert_robot_localization_accepts(message: PoseWithCovarianceStamped) -> None:
    """What its filters complain of: variances of 0 or above 1000, a stamp of 0."""
    variances = np.array(message.pose.covariance).reshape(6, 6).diagonal()
    assert (variances > 0.0).all()
    assert (variances <= 1e3).all()
    assert message.header.stamp.sec > 0


def test_the_same_image_gives_the_same_match(harness: Callable[..., Harness], maps: dict[str, Path]):
    h = harness(map_path=str(maps["house"]))
    h.start()
    request = Localize.Request(image=image_message(picture(3)))
    first, second = (h.call(Localize, f"{NAME}/localize", request).match for _ in range(2))
    assert first.candidates == second.candidates
    assert (first.status, first.confidence, first.reason) == (second.status, second.confidence, second.reason)


def test_lifecycle_there_and_back(harness: Callable[..., Harness], maps: dict[str, Path]):
    h = harness(map_path=str(maps["house"]))
    matches = h.listen(PlaceMatch, f"{NAME}/match")
    assert h.state() == State.PRIMARY_STATE_UNCONFIGURED
    for _ in range(2):
        h.start()
        assert h.state() == State.PRIMARY_STATE_ACTIVE
        matches.clear()
        h.publish_until(image_message(picture(1)), lambda: matches, "a match")
        assert h.change(Transition.TRANSITION_DEACTIVATE)
        heard = lambda: newest_stamp_s(h) == 77  # noqa: E731
        h.publish_until(image_message(picture(1), 77), heard, "an image while it is inactive")
        time.sleep(0.3)
        assert 77 not in {match.header.stamp.sec for match in matches}
        assert "not active" in h.call(Localize, f"{NAME}/localize", Localize.Request()).message
        assert h.change(Transition.TRANSITION_CLEANUP)
        assert h.state() == State.PRIMARY_STATE_UNCONFIGURED
    assert h.change(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert h.state() == State.PRIMARY_STATE_FINALIZED


def test_a_missing_map_leaves_a_living_node_that_can_be_mended(harness: Callable[..., Harness], maps: dict[str, Path]):
    h = harness(map_path="/nowhere/map")
    assert not h.change(Transition.TRANSITION_CONFIGURE)
    assert h.state() == State.PRIMARY_STATE_UNCONFIGURED
    request = SetParameters.Request(parameters=[Parameter("map_path", value=str(maps["house"])).to_parameter_msg()])
    assert h.call(SetParameters, f"{NAME}/set_parameters", request).results[0].successful
    h.start()
    assert h.call(Localize, f"{NAME}/localize", Localize.Request(image=image_message(picture(2)))).success


def test_weights_of_another_model_are_refused(harness: Callable[..., Harness], maps: dict[str, Path], tmp_path: Path):
    import safetensors.torch

    other = safetensors.torch.load_file(maps["weights"])
    other["norm.bias"] += 1.0
    safetensors.torch.save_file(other, tmp_path / "other.safetensors")
    h = harness(map_path=str(maps["house"]), weights=str(tmp_path / "other.safetensors"))
    assert not h.change(Transition.TRANSITION_CONFIGURE)
    assert h.state() == State.PRIMARY_STATE_UNCONFIGURED


def test_maps_are_replaced_while_it_runs(harness: Callable[..., Harness], maps: dict[str, Path]):
    h = harness()
    diagnostics = h.listen(DiagnosticArray, "/diagnostics")
    h.start()
    h.wait(lambda: any("no map is loaded" in d.status[0].message for d in diagnostics), "a warning")
    request = Localize.Request(image=image_message(picture(101)))
    assert "no map is loaded" in h.call(Localize, f"{NAME}/localize", request).message
    for name, place_id in (("house", None), ("yard", 1)):
        loaded = h.call(LoadMap, f"{NAME}/load_map", LoadMap.Request(path=str(maps[name])))
        assert loaded.success, loaded.message
        match = h.call(Localize, f"{NAME}/localize", request).match
        assert match.map_name == name
        if place_id is not None:
            assert (match.status, match.candidates[0].place_id) == (PlaceMatch.MATCH, place_id)
    failed = h.call(LoadMap, f"{NAME}/load_map", LoadMap.Request(path="/nowhere"))
    assert not failed.success
    assert "does not exist" in failed.message
    assert h.call(Localize, f"{NAME}/localize", request).match.map_name == "yard"


@pytest.fixture
def paper_map(maps: dict[str, Path], tmp_path: Path) -> Path:
    """The map of eight pictures, as if it was made for the paper's settings, and for few candidates."""
    folder = tmp_path / "paper"
    shutil.copytree(maps["house"], folder)
    manifest = yaml.safe_load((folder / "map.yaml").read_text())
    manifest["recognition"] = {"top_k": 7, "score": "count", "min_similarity": 0.65}
    (folder / "map.yaml").write_text(yaml.safe_dump(manifest))
    return folder


def settings(h: Harness) -> tuple[Any, ...]:
    """K, score and T2 as the parameters show them and as they are used."""
    shown = tuple(h.node.get_parameter(name).value for name in ("top_k", "score", "min_similarity"))
    config = h.node.configured.engine.config
    assert shown == (config.top_k, config.score, config.min_similarity)
    return shown


def give(h: Harness, parameter: Parameter) -> None:
    request = SetParameters.Request(parameters=[parameter.to_parameter_msg()])
    assert h.call(SetParameters, f"{NAME}/set_parameters", request).results[0].successful


def test_a_map_is_asked_with_the_settings_it_was_made_for(
    harness: Callable[..., Harness], maps: dict[str, Path], paper_map: Path
):
    h = harness(map_path=str(paper_map))
    h.start()
    assert settings(h) == (7, "count", 0.65)
    # Other thresholds leave them as they are, and another map brings its own.
    give(h, Parameter("min_confidence", value=0.2))
    assert settings(h) == (7, "count", 0.65)
    assert h.call(LoadMap, f"{NAME}/load_map", LoadMap.Request(path=str(maps["house"]))).success
    assert settings(h) == (100, "coherent", 0.6)
    # What is given while it runs is given.
    give(h, Parameter("top_k", value=50))
    assert h.call(LoadMap, f"{NAME}/load_map", LoadMap.Request(path=str(paper_map))).success
    assert settings(h) == (50, "count", 0.65)


def test_what_is_given_comes_before_what_the_map_says(harness: Callable[..., Harness], paper_map: Path):
    h = harness(map_path=str(paper_map), score="weighted")
    h.start()
    assert settings(h) == (7, "weighted", 0.65)


def test_bad_images_are_reported_and_survived(harness: Callable[..., Harness], maps: dict[str, Path]):
    h = harness(map_path=str(maps["house"]))
    diagnostics, matches = h.listen(DiagnosticArray, "/diagnostics"), h.listen(PlaceMatch, f"{NAME}/match")
    h.start()
    for bad, said in (
        (Image(width=2, height=2, encoding="rgb8", step=6), "empty"),
        (Image(width=2, height=2, encoding="yuv9", step=2, data=b"abcd"), "yuv9"),
    ):
        h.publish_until(bad, lambda said=said: any(said in d.status[0].message for d in diagnostics), said)
    answer = h.call(Localize, f"{NAME}/localize", Localize.Request(image=bad))
    assert not answer.success
    assert "yuv9" in answer.message
    h.publish_until(image_message(picture(4)), lambda: matches, "a match after bad images")


def test_thresholds_change_while_it_runs_and_impossible_ones_are_refused(
    harness: Callable[..., Harness], maps: dict[str, Path]
):
    h = harness(map_path=str(maps["house"]))
    h.start()

    def set_parameter(name: str, value: Any) -> Any:
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        return h.call(SetParameters, f"{NAME}/set_parameters", request).results[0]

    request = Localize.Request(image=image_message(picture(6)))
    assert h.call(Localize, f"{NAME}/localize", request).match.status == PlaceMatch.MATCH
    assert set_parameter("match_confidence", 1.0).successful
    assert h.call(Localize, f"{NAME}/localize", request).match.status == PlaceMatch.AMBIGUOUS
    refused = set_parameter("match_confidence", 2.0)
    assert not refused.successful
    refused = set_parameter("score", "sum")
    assert not refused.successful
    assert f"use {', '.join(SCORES)}" in refused.reason
    # Settings that count at the next configuration are checked at once too.
    refused = set_parameter("image_transport", "silly")
    assert not refused.successful
    assert refused.reason == "image_transport 'silly' is unknown; use raw, compressed"


def test_a_hint_excludes_places_elsewhere(harness: Callable[..., Harness], maps: dict[str, Path]):
    h = harness(map_path=str(maps["house"]))
    hints = h.client.create_publisher(PoseWithCovarianceStamped, f"{NAME}/hint", RESULT_QOS)
    h.start()
    h.wait(lambda: hints.get_subscription_count(), "the subscription of hints")
    hint = PoseWithCovarianceStamped()
    hint.header.stamp.sec, hint.header.frame_id = 50, "map"
    hint.pose.pose.position.x = 40.0
    hints.publish(hint)
    request = Localize.Request(image=image_message(picture(5)))

    def places(stamp_s: int) -> list[int]:
        request.image.header.stamp.sec = stamp_s
        return [item.place_id for item in h.call(Localize, f"{NAME}/localize", request).match.candidates]

    h.wait(lambda: places(50) == [2], "the hint to count")
    # It is too old for an image ten seconds later.
    assert places(60)[0] == 5
    # One that means nothing is ignored with a word, and costs nobody an answer; the one before counts still.
    diagnostics = h.listen(DiagnosticArray, "/diagnostics")
    for value in (float("nan"), float("inf"), 1e308):
        bad = PoseWithCovarianceStamped(header=hint.header)
        bad.pose.pose.position.x = value
        hints.publish(bad)
        said = f"a hint is ignored: its position ({value}, 0.0, 0.0)"
        h.wait(lambda said=said: any(said in d.status[0].message for d in diagnostics), said)
        assert places(50) == [2]
    hint.header.frame_id = "odom"
    hints.publish(hint)
    h.wait(lambda: places(50)[0] == 5, "a hint in another frame to be ignored")


def test_a_sequence_with_odometry_raises_what_one_image_leaves_open(
    harness: Callable[..., Harness], maps: dict[str, Path]
):
    # No image alone is a MATCH: no confidence is 1.
    h = harness(map_path=str(maps["house"]), match_confidence=1.0, sequence_length=10, sequence_max_gap_s=5.0)
    matches = h.listen(PlaceMatch, f"{NAME}/match")
    odometry = h.client.create_publisher(Odometry, "/odom", qos_profile_sensor_data)
    h.start()
    h.wait(odometry.get_subscription_count, "the subscription of odometry")

    def drive(number: int, x: float, stamp_s: int) -> PlaceMatch:
        """One image of a place and where the odometry was; both are sent until the answer is there."""
        moved = Odometry()
        moved.header.stamp.sec = stamp_s
        # The places of the map lie along x and face 0.5 rad, and so does the robot.
        moved.pose.pose = conversions.pose_message(Pose.from_yaw(x, 0.0, 0.5))
        h.publish_until(
            moved, lambda: h.node.configured.robot.odometry_of_sequence(stamp_s * 10**9), "odometry", odometry
        )
        answered = lambda: [match for match in matches if match.header.stamp.sec == stamp_s]  # noqa: E731
        h.publish_until(image_message(picture(number), stamp_s), answered, "a match")
        return answered()[-1]

    answers = [drive(number, 20.0 * number, 50 + number) for number in range(8)]
    assert [answer.candidates[0].place_id for answer in answers] == list(range(8))
    assert answers[0].status == PlaceMatch.AMBIGUOUS
    assert (answers[-1].status, answers[-1].decided_by) == (PlaceMatch.MATCH, PlaceMatch.SEQUENCE)
    assert "decided by the sequence" in answers[-1].reason
    alone = h.call(Localize, f"{NAME}/localize", Localize.Request(image=image_message(picture(7), 57))).match
    assert (alone.status, alone.decided_by) == (PlaceMatch.AMBIGUOUS, PlaceMatch.SINGLE_IMAGE)
    # A gap of more than five seconds begins a new track.
    assert drive(7, 140.0, 70).status == PlaceMatch.AMBIGUOUS

    request = SetParameters.Request(parameters=[Parameter("sequence_length", value=0).to_parameter_msg()])
    assert h.call(SetParameters, f"{NAME}/set_parameters", request).results[0].successful
    h.wait(lambda: odometry.get_subscription_count() == 0, "the end of the subscription")


def test_localize_waits_for_an_image_no_longer_than_asked(
    harness: Callable[..., Harness], maps: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    # One that is not asked for would be waited for in vain.
    monkeypatch.setattr(localize_request, "_DEFAULT_TIMEOUT_S", 10.0 * TIMEOUT_S)
    h = harness(map_path=str(maps["house"]))
    h.start()
    started = time.monotonic()
    answer = h.call(Localize, f"{NAME}/localize", Localize.Request(timeout_s=0.5))
    assert time.monotonic() - started > 0.4
    assert not answer.success
    assert re.match(r"no image for \d+\.\d s: /image has a publisher, but nothing of it arrives", answer.message)
    asked = Answering(h)
    h.publish_until(image_message(picture(7)), lambda: asked.answers, "an answer from the next image")
    assert asked.answers[0].success, asked.answers[0].message
    assert asked.answers[0].match.candidates[0].place_id == 7


def test_localize_does_not_answer_from_the_picture_of_a_camera_that_died(
    harness: Callable[..., Harness], maps: dict[str, Path]
):
    h = harness(map_path=str(maps["house"]), localize_max_age_s=0.2)
    h.start()
    h.publish_until(image_message(picture(7)), lambda: newest_stamp_s(h), "the image of the topic")
    time.sleep(0.3)
    answer = h.call(Localize, f"{NAME}/localize", Localize.Request(timeout_s=1.0))
    assert not answer.success
    silent_s = float(re.match(r"no image for ([0-9.]+) s: ", answer.message)[1])
    assert 1.2 < silent_s < TIMEOUT_S


class Answering:
    """Calls of ~/localize whose answers are waited for elsewhere."""

    def __init__(self, h: Harness, count: int = 1, request: Localize.Request | None = None) -> None:
        # All are answered at once in the end, and by default ten answers are kept until they are taken.
        client = h.client.create_client(Localize, f"{NAME}/localize", qos_profile=QoSProfile(depth=count))
        assert client.wait_for_service(TIMEOUT_S)
        self._futures = []
        state = h.node.configured
        for _ in range(count):
            # The queue of a service holds ten.
            before = state.asked
            self._futures.append(client.call_async(request or Localize.Request(timeout_s=TIMEOUT_S)))
            h.wait(lambda before=before: state.asked > before, "the call")

    @property
    def answers(self) -> list[Localize.Response]:
        return [future.result() for future in self._futures if future.done()]


@pytest.mark.parametrize("ends", ["deactivate", "cleanup", "shutdown"])
def test_calls_that_wait_hold_nothing_up_and_are_told_of_the_end(
    harness: Callable[..., Harness], maps: dict[str, Path], ends: str
):
    h = harness(map_path=str(maps["house"]))
    h.start()
    asked = Answering(h, 12)
    # Other services answer meanwhile, and those that wait for images leave room for those that bring one.
    assert h.state() == State.PRIMARY_STATE_ACTIVE
    assert h.call(Localize, f"{NAME}/localize", Localize.Request(image=image_message(picture(2)))).success
    assert not asked.answers
    if ends == "shutdown":
        assert h.change(Transition.TRANSITION_ACTIVE_SHUTDOWN)
    else:
        assert h.change(Transition.TRANSITION_DEACTIVATE)
    h.wait(lambda: len(asked.answers) == 12, "their answers")
    assert not any(answer.success for answer in asked.answers)
    said = "shutdown" if ends == "shutdown" else "deactivated"
    assert all(said in answer.message for answer in asked.answers)
    if ends == "cleanup":
        assert h.change(Transition.TRANSITION_CLEANUP)
        # The service is there still, and the node lives.
        assert "not configured" in h.call(Localize, f"{NAME}/localize", Localize.Request()).message
        h.start()
        assert h.call(Localize, f"{NAME}/localize", Localize.Request(image=image_message(picture(2)))).success


def test_more_calls_than_can_wait_are_refused(harness: Callable[..., Harness], maps: dict[str, Path]):
    h = harness(map_path=str(maps["house"]))
    h.start()
    asked = Answering(h, 40)
    h.wait(lambda: len(asked.answers) == 8, "the calls that are refused")
    assert all("32 calls of ~/localize wait already" in answer.message for answer in asked.answers)


def test_a_wait_without_bound_is_refused(harness: Callable[..., Harness], maps: dict[str, Path]):
    h = harness(map_path=str(maps["house"]))
    h.start()
    for timeout_s in (float("nan"), float("inf"), -1.0, 1e30):
        answer = h.call(Localize, f"{NAME}/localize", Localize.Request(timeout_s=timeout_s))
        assert not answer.success
        assert "outside [0, 60]" in answer.message


def test_an_image_that_is_not_processed_in_time_is_said(harness: Callable[..., Harness], maps: dict[str, Path]):
    h = harness(map_path=str(maps["house"]))
    h.start()
    go = threading.Event()
    h.node._worker.submit(lambda: go.wait(TIMEOUT_S))
    request = Localize.Request(image=image_message(picture(3)), timeout_s=0.3)
    assert "was not processed within 0.3 s" in h.call(Localize, f"{NAME}/localize", request).message
    go.set()


def test_a_picture_that_is_given_is_answered_to_its_caller_alone(
    harness: Callable[..., Harness], maps: dict[str, Path]
):
    h = harness(map_path=str(maps["house"]), adapters="nav2, rtabmap", initial_pose_confidence=0.5)
    heard = [
        h.listen(kind, topic)
        for kind, topic in (
            (PlaceMatch, f"{NAME}/match"),
            (PoseWithCovarianceStamped, f"{NAME}/pose"),
            (NavSatFix, f"{NAME}/fix"),
            (PoseWithCovarianceStamped, "/initialpose"),
            (PoseWithCovarianceStamped, "/global_pose"),
        )
    ]
    h.start()
    old_photograph = image_message(picture(3), 0)
    for _ in range(3):
        answer = h.call(Localize, f"{NAME}/localize", Localize.Request(image=old_photograph))
        assert (answer.match.status, answer.match.candidates[0].place_id) == (PlaceMatch.MATCH, 3)
    h.publish_until(image_message(picture(5)), lambda: all(heard), "what the stream publishes")
    assert {message.header.stamp.sec for messages in heard for message in messages} == {50}


class Loading:
    """Holds the loading of a map up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started, self.go, self.closed = threading.Event(), threading.Event(), threading.Event()
        load, close = RecognitionEngine.load_map, RecognitionEngine.close

        def held(engine: RecognitionEngine, folder: Path) -> PlaceMap:
            self.started.set()
            assert self.go.wait(TIMEOUT_S)
            return load(engine, folder)

        def closed(engine: RecognitionEngine) -> None:
            close(engine)
            self.closed.set()

        monkeypatch.setattr(RecognitionEngine, "load_map", held)
        monkeypatch.setattr(RecognitionEngine, "close", closed)


@pytest.mark.parametrize("ends", ["cleanup", "shutdown"])
def test_a_configuration_can_be_interrupted(
    harness: Callable[..., Harness], maps: dict[str, Path], monkeypatch: pytest.MonkeyPatch, ends: str
):
    loading = Loading(monkeypatch)
    h = harness(map_path=str(maps["house"]))
    diagnostics = h.listen(DiagnosticArray, "/diagnostics")
    client = h.client.create_client(ChangeState, f"{NAME}/change_state")
    assert client.wait_for_service(TIMEOUT_S)
    configuring = client.call_async(ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE)))
    h.wait(loading.started.is_set, "the loading")
    # All else goes on meanwhile.
    h.wait(lambda: any("loading for" in d.status[0].message for d in diagnostics), "diagnostics")
    assert h.state() == State.PRIMARY_STATE_UNCONFIGURED
    assert not h.change(Transition.TRANSITION_CONFIGURE)
    assert not configuring.done()
    transition = {"cleanup": Transition.TRANSITION_CLEANUP, "shutdown": Transition.TRANSITION_UNCONFIGURED_SHUTDOWN}
    assert h.change(transition[ends])
    h.wait(configuring.done, "the end of the configuration")
    assert not configuring.result().success
    # What comes late is closed.
    assert not loading.closed.is_set()
    loading.go.set()
    h.wait(loading.closed.is_set, "the map to be closed")
    if ends == "shutdown":
        assert h.state() == State.PRIMARY_STATE_FINALIZED
    else:
        assert h.state() == State.PRIMARY_STATE_UNCONFIGURED
        h.start()
        assert h.call(Localize, f"{NAME}/localize", Localize.Request(image=image_message(picture(2)))).success


def test_cleanup_waits_for_the_image_at_hand_without_holding_others_up(
    harness: Callable[..., Harness], maps: dict[str, Path]
):
    h = harness(map_path=str(maps["house"]))
    h.start()
    go, started = threading.Event(), threading.Event()
    h.node._worker.submit(lambda: started.set() or go.wait(TIMEOUT_S))
    h.wait(started.is_set, "the image at hand")
    assert h.change(Transition.TRANSITION_DEACTIVATE)
    client = h.client.create_client(ChangeState, f"{NAME}/change_state")
    cleaning = client.call_async(ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CLEANUP)))
    loading = h.call(LoadMap, f"{NAME}/load_map", LoadMap.Request(path="/nowhere"))
    assert not loading.success
    time.sleep(0.1)
    assert not cleaning.done()
    go.set()
    h.wait(cleaning.done, "the end of the cleanup")
    assert cleaning.result().success
    assert h.state() == State.PRIMARY_STATE_UNCONFIGURED


def test_there_and_back_many_times_with_calls_images_and_diagnostics_on_the_way(
    harness: Callable[..., Harness], maps: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(camera_node, "_DIAGNOSTICS_PERIOD_S", 0.002)
    h = harness(map_path=str(maps["house"]))
    diagnostics = h.listen(DiagnosticArray, "/diagnostics")
    stop = threading.Event()

    def disturb() -> None:
        while not stop.wait(0.01):
            h.images.publish(image_message(picture(1)))

    disturbing = threading.Thread(target=disturb)
    disturbing.start()
    try:
        for _ in range(8):
            h.start()
            asked = Answering(h, 3, Localize.Request(image=image_message(picture(2)), timeout_s=TIMEOUT_S))
            assert h.change(Transition.TRANSITION_DEACTIVATE)
            assert h.change(Transition.TRANSITION_CLEANUP)
            h.wait(lambda asked=asked: len(asked.answers) == 3, "answers of any kind")
    finally:
        stop.set()
        disturbing.join()
    assert not [d.status[0].message for d in diagnostics if "unexpected" in d.status[0].message]


def test_what_a_service_raises_is_its_answer(
    harness: Callable[..., Harness], maps: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    h = harness(map_path=str(maps["house"]))
    h.start()
    for path, said in (("m" * 300, "File name too long"), ("~nosuchuser/map", "nosuchuser"), ("", "no map was named")):
        answer = h.call(LoadMap, f"{NAME}/load_map", LoadMap.Request(path=path))
        assert not answer.success
        assert said in answer.message
        assert "\n" not in answer.message

    def broken(*arguments: Any) -> None:
        raise OverflowError("two\nlines and a name that is no UTF-8: \udcff")

    monkeypatch.setattr(RecognitionEngine, "load_map", broken)
    answer = h.call(LoadMap, f"{NAME}/load_map", LoadMap.Request(path="/nowhere"))
    assert answer.message == "unexpected OverflowError: two lines and a name that is no UTF-8: ?"
    monkeypatch.setattr(RecognitionEngine, "recognize", broken)
    answer = h.call(Localize, f"{NAME}/localize", Localize.Request(image=image_message(picture(2))))
    assert answer.message.startswith("unexpected OverflowError: two lines")
    monkeypatch.setattr(Recognizing, "_on_image", broken)
    diagnostics = h.listen(DiagnosticArray, "/diagnostics")
    said_so = lambda: any("OverflowError" in d.status[0].message for d in diagnostics)  # noqa: E731
    h.publish_until(image_message(picture(2)), said_so, "a word on the callback")
    assert h.state() == State.PRIMARY_STATE_ACTIVE


def test_text_that_is_no_utf8_does_not_end_the_node(harness: Callable[..., Harness], maps: dict[str, Path]):
    h = harness(map_path=str(maps["house"]))
    h.start()
    hints = h.client.create_publisher(PoseWithCovarianceStamped, f"{NAME}/hint", RESULT_QOS)
    h.wait(hints.get_subscription_count, "the subscription of hints")
    hint = PoseWithCovarianceStamped()
    hint.header.frame_id = "abcd"
    for _ in range(5):
        hints.publish(serialize_message(hint).replace(b"abcd", b"\xff\xfe\xc0\xaf"))
    assert h.call(Localize, f"{NAME}/localize", Localize.Request(image=image_message(picture(2)))).success


def test_diagnostics_begin_with_the_process_and_say_why_it_is_not_configured(harness: Callable[..., Harness]):
    # A simulated clock that nobody publishes stands still.
    h = harness(map_path="/nowhere/map", use_sim_time=True)
    diagnostics = h.listen(DiagnosticArray, "/diagnostics")
    h.wait(lambda: diagnostics, "diagnostics")
    assert (diagnostics[0].status[0].level, diagnostics[0].status[0].message) == (DiagnosticStatus.OK, "unconfigured")
    assert not h.change(Transition.TRANSITION_CONFIGURE)
    failed = lambda: diagnostics[-1].status[0].level == DiagnosticStatus.ERROR  # noqa: E731
    h.wait(failed, "an error")
    assert diagnostics[-1].status[0].message.startswith("configure failed: ")
    assert "/nowhere/map" in diagnostics[-1].status[0].message


def test_silence_is_an_error_that_names_its_cause(harness: Callable[..., Harness], maps: dict[str, Path]):
    h = harness(map_path=str(maps["house"]), image_timeout_s=0.3)
    h.client.destroy_publisher(h.images)
    diagnostics = h.listen(DiagnosticArray, "/diagnostics")
    assert h.change(Transition.TRANSITION_CONFIGURE)
    h.wait(lambda: any(d.status[0].message == "inactive" for d in diagnostics), "the state")
    assert h.change(Transition.TRANSITION_ACTIVATE)

    def await_error(text: str) -> None:
        errors = lambda: [d.status[0].message for d in diagnostics if d.status[0].level == DiagnosticStatus.ERROR]  # noqa: E731
        h.wait(lambda: any(text in message for message in errors()), text)

    await_error("s: nobody publishes /image; start the camera, or remap image to its topic")
    # One participant has one type a topic, so the other type comes from another one.
    context = rclpy.Context()
    rclpy.init(context=context)
    stranger = Node("stranger", context=context)
    stranger.create_publisher(CompressedImage, "/image", qos_profile_sensor_data)
    await_error("/image carries sensor_msgs/msg/CompressedImage, and sensor_msgs/msg/Image is asked for")
    stranger.destroy_node()
    rclpy.shutdown(context=context)
    images = h.client.create_publisher(Image, "/image", qos_profile_sensor_data)
    await_error("/image has a publisher, but nothing of it arrives")
    recognising = lambda: diagnostics[-1].status[0].message == "recognising"  # noqa: E731
    h.publish_until(image_message(picture(3)), recognising, "the end of the silence", images)


def test_a_reliability_that_no_publisher_offers_is_named(harness: Callable[..., Harness], maps: dict[str, Path]):
    h = harness(map_path=str(maps["house"]), image_timeout_s=0.3, image_reliability="reliable")
    diagnostics = h.listen(DiagnosticArray, "/diagnostics")
    h.start()
    said = "/image is published best effort, and reliable is asked for; set image_reliability to auto"
    h.wait(lambda: any(said in d.status[0].message for d in diagnostics), said)


def test_the_subscription_is_as_reliable_as_its_publishers(
    harness: Callable[..., Harness], maps: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(camera_node, "_DIAGNOSTICS_PERIOD_S", 0.05)
    h = harness(map_path=str(maps["house"]))
    h.client.destroy_publisher(h.images)
    h.start()

    def asked() -> list[Any]:
        infos = h.client.get_subscriptions_info_by_topic("/image")
        return [info.qos_profile.reliability for info in infos]

    reliable = h.client.create_publisher(Image, "/image", RESULT_QOS)
    h.wait(lambda: asked() == [QoSReliabilityPolicy.RELIABLE], "a reliable subscription")
    matches = h.listen(PlaceMatch, f"{NAME}/match")
    h.wait(reliable.get_subscription_count, "the match")
    reliable.publish(image_message(picture(5)))
    h.wait(lambda: matches, "an answer")
    best_effort = h.client.create_publisher(Image, "/image", qos_profile_sensor_data)
    h.wait(lambda: asked() == [QoSReliabilityPolicy.BEST_EFFORT], "a subscription that hears both")
    h.publish_until(image_message(picture(5), 51), lambda: matches[-1].header.stamp.sec == 51, "a match", best_effort)
    h.publish_until(image_message(picture(5), 52), lambda: matches[-1].header.stamp.sec == 52, "a match", reliable)


def test_images_that_were_lost_on_the_way_are_said(harness: Callable[..., Harness], maps: dict[str, Path]):
    h = harness(map_path=str(maps["house"]))
    h.client.destroy_publisher(h.images)
    diagnostics = h.listen(DiagnosticArray, "/diagnostics")
    images = h.client.create_publisher(Image, "/image", RESULT_QOS)
    h.start()
    h.wait(images.get_subscription_count, "the subscription of images")
    # Every third of a camera at 1 Hz is lost.
    for stamp_s in (number for number in range(100, 130) if number % 3):
        images.publish(image_message(picture(2), stamp_s))
        heard = lambda stamp_s=stamp_s: newest_stamp_s(h) == stamp_s  # noqa: E731
        h.publish_until(image_message(picture(2), stamp_s), heard, "the image", images)
    text = "9 of the last 28 images were lost on their way to this node"
    h.wait(lambda: diagnostics[-1].status[0].message == text, text)
    assert diagnostics[-1].status[0].level == DiagnosticStatus.WARN
    values = {pair.key: pair.value for pair in diagnostics[-1].status[0].values}
    assert (values["images_lost"], values["image_period_s"]) == ("9", "1.000")


def test_parameters_that_count_when_it_is_configured_are_fixed_while_it_is(
    harness: Callable[..., Harness], maps: dict[str, Path]
):
    h = harness(map_path=str(maps["house"]))

    def set_parameter(name: str, value: Any) -> Any:
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        return h.call(SetParameters, f"{NAME}/set_parameters", request).results[0]

    assert set_parameter("hint_radius_m", 3.0).successful
    assert "read-only" in set_parameter("map_root", "/").reason
    h.start()
    refused = set_parameter("map_path", str(maps["yard"]))
    assert not refused.successful
    assert refused.reason == "map_path counts when the node is configured; clean it up, set it, and configure it again"
    # Files of parameters name them all; what stays as it is is no change.
    assert set_parameter("map_path", str(maps["house"])).successful
    assert set_parameter("top_k", 7).successful
    assert h.call(LoadMap, f"{NAME}/load_map", LoadMap.Request(path=str(maps["yard"]))).success
    assert h.node.get_parameter("map_path").value == str(maps["yard"])
    assert h.change(Transition.TRANSITION_DEACTIVATE)
    assert not set_parameter("hint_radius_m", 4.0).successful
    assert h.change(Transition.TRANSITION_CLEANUP)
    assert set_parameter("hint_radius_m", 4.0).successful
    h.start()
    # The map that was loaded last is the one that is configured again.
    answer = h.call(Localize, f"{NAME}/localize", Localize.Request(image=image_message(picture(101))))
    assert answer.match.map_name == "yard"


def test_a_root_confines_the_maps_that_are_loaded(
    harness: Callable[..., Harness], maps: dict[str, Path], tmp_path: Path
):
    (tmp_path / "house").symlink_to(maps["house"])
    h = harness(map_root=str(maps["house"].parent), map_path="house")
    h.start()
    for path in (str(tmp_path), "../..", "/etc"):
        answer = h.call(LoadMap, f"{NAME}/load_map", LoadMap.Request(path=path))
        assert not answer.success
        assert "is outside map_root" in answer.message
    assert h.call(LoadMap, f"{NAME}/load_map", LoadMap.Request(path="yard")).success
    outside = harness(map_root=str(tmp_path), map_path="house")
    assert not outside.change(Transition.TRANSITION_CONFIGURE)


class OneByOne:
    """Sends each image once, reliably, and waits until the node has it."""

    def __init__(self, h: Harness, kind: type[Image] | type[CompressedImage], topic: str) -> None:
        self._harness = h
        self._publisher = h.client.create_publisher(kind, topic, RESULT_QOS)
        h.wait(self._publisher.get_subscription_count, "the subscription of images")

    def send(self, message: Image | CompressedImage, stamp_s: int) -> None:
        message.header.stamp.sec = stamp_s
        self._publisher.publish(message)
        self._harness.wait(lambda: newest_stamp_s(self._harness) == stamp_s, f"the image of {stamp_s} s")


def newest_stamp_s(h: Harness) -> int | None:
    """Stamp of the newest image that the node has."""
    newest = h.node.configured.newest
    return newest.header.stamp.sec if newest else None


def test_stale_images_are_dropped_and_counted(harness: Callable[..., Harness], maps: dict[str, Path]):
    h = harness(map_path=str(maps["house"]), image_transport="compressed", image_reliability="reliable")
    matches, diagnostics = h.listen(PlaceMatch, f"{NAME}/match"), h.listen(DiagnosticArray, "/diagnostics")
    h.start()
    recognize, started, go = h.node.configured.engine.recognize, threading.Event(), threading.Event()

    def held(*arguments: Any) -> Any:
        started.set()
        assert go.wait(TIMEOUT_S)
        return recognize(*arguments)

    h.node.configured.engine.recognize = held
    images, message = OneByOne(h, CompressedImage, "/image/compressed"), CompressedImage(format="jpeg")
    message.data = jpeg(picture(2))
    images.send(message, 100)
    h.wait(started.is_set, "the first image in recognition")
    for stamp_s in range(101, 140):
        images.send(message, stamp_s)
    # Of 39 that came meanwhile the last one waits.
    h.wait(lambda: h.node._worker.dropped == 38, "the dropped images")
    go.set()
    h.wait(lambda: len(matches) == 2, "two answers")
    assert [match.header.stamp.sec for match in matches] == [100, 139]
    dropped = lambda: {pair.key: pair.value for pair in diagnostics[-1].status[0].values}.get("dropped_frames")  # noqa: E731
    h.wait(lambda: diagnostics and dropped() == "38", "the count of dropped images")


def test_max_rate_limits_the_work(
    harness: Callable[..., Harness], maps: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    clock_s = 1000.0
    monkeypatch.setattr(configured, "time", SimpleNamespace(monotonic=lambda: clock_s))
    h = harness(map_path=str(maps["house"]), max_rate_hz=2.0, image_reliability="reliable")
    matches = h.listen(PlaceMatch, f"{NAME}/match")
    h.start()
    images, answered = OneByOne(h, Image, "/image"), []
    for stamp_s in range(100, 130):
        images.send(image_message(picture(2)), stamp_s)
        # Every half second, thus one in four.
        if stamp_s % 4 == 0:
            answered.append(stamp_s)
            h.wait(lambda: len(matches) >= len(answered), f"the answer at {stamp_s} s")
        clock_s += 0.125
    h.change(Transition.TRANSITION_DEACTIVATE)
    assert [match.header.stamp.sec for match in matches] == answered
