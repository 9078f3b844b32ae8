"""The parts of the nodes that need messages but no DDS."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
yaml = pytest.importorskip("yaml")

from builtin_interfaces.msg import Time  # noqa: E402
from geometry_msgs.msg import PoseWithCovarianceStamped  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
from recorded_pictures import png_header  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402
from synthetic import FINGERPRINT, features, jpeg, new_place, picture  # noqa: E402

from effovpr_ros.core.errors import ConfigError, ImageError, MapError, NodeError, TrajectoryError  # noqa: E402
from effovpr_ros.core.poses import GeoPoint, Pose  # noqa: E402
from effovpr_ros.mapping.place import Candidate, Place  # noqa: E402
from effovpr_ros.mapping.place_map import PlaceMap  # noqa: E402
from effovpr_ros.mapping.resident_codes import ResidentCodes  # noqa: E402
from effovpr_ros.msg import PlaceMatch  # noqa: E402
from effovpr_ros.nodes import conversions, image_decoding, loop_closure_detector, place_recognizer  # noqa: E402
from effovpr_ros.nodes.configured import gpu_values  # noqa: E402
from effovpr_ros.nodes.diagnostics import Statistics, diagnostic_array  # noqa: E402
from effovpr_ros.nodes.image_stream import ImageStream  # noqa: E402
from effovpr_ros.nodes.localize_request import LocalizeRequest  # noqa: E402
from effovpr_ros.nodes.map_paths import map_folder  # noqa: E402
from effovpr_ros.nodes.odometry import OdometryBuffer  # noqa: E402
from effovpr_ros.nodes.parameters import CameraNodeConfig  # noqa: E402
from effovpr_ros.nodes.worker import LatestWorker  # noqa: E402
from effovpr_ros.recognition.presets import map_settings  # noqa: E402
from effovpr_ros.recognition.recognizer import DecidedBy, Latency, Recognition, Status  # noqa: E402
from effovpr_ros.recognition.recognizer_config import RecognizerConfig  # noqa: E402

ROOT = Path(__file__).parents[2]
HEADER = Header(stamp=Time(sec=7, nanosec=5), frame_id="map")


def recognition(status: Status = Status.MATCH, *, geo: GeoPoint | None = None) -> Recognition:
    pose = Pose.from_yaw(1.0, 2.0, 0.5, 3.0)
    place = Place(4, "a", 1_500_000_000, "4.jpg", pose, geo, (64, 48))
    found = None if status is Status.NO_MATCH else pose
    return Recognition(
        status=status,
        confidence=0.75,
        candidates=(Candidate(place, 0.9, 30, 20, 25.5), Candidate(Place(9, "a", 0, "9.jpg", None, None, (1, 1)), 0.8)),
        pose=found,
        covariance=np.diag([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) if found else None,
        geo=geo if found else None,
        bearing_offset=0.125,
        latency_ms=Latency(1.0, 2.0, 3.0, 4.0, 10.0),
        reason="because",
        features=features([1, 0, 0, 0]),
        decided_by=DecidedBy.SEQUENCE,
        calibrated=True,
    )


def test_every_field_of_a_recognition_reaches_the_message():
    message = conversions.match_message(recognition(), HEADER, map_name="m", num_candidates=1, total_ms=12.5)
    assert (message.header, message.status, message.confidence) == (HEADER, PlaceMatch.MATCH, 0.75)
    assert (message.map_name, message.reason, message.bearing_offset) == ("m", "because", 0.125)
    assert message.decided_by == PlaceMatch.SEQUENCE
    assert message.is_calibrated
    assert not message.is_metric
    assert (message.extract_ms, message.search_ms, message.rerank_ms, message.decide_ms) == (1.0, 2.0, 3.0, 4.0)
    assert message.total_ms == 12.5
    assert len(message.candidates) == 1
    best = message.candidates[0]
    assert (best.place_id, best.session, best.source) == (4, "a", "4.jpg")
    assert (best.place_stamp.sec, best.place_stamp.nanosec) == (1, 500_000_000)
    assert (best.num_matches, best.num_consistent, best.score) == (30, 20, 25.5)
    assert best.similarity == pytest.approx(0.9)
    assert best.has_pose
    assert not best.has_geo
    assert (best.pose.position.x, best.pose.position.y, best.pose.position.z) == (1.0, 2.0, 3.0)
    record = conversions.match_record(message)
    assert record["stamp_ns"] == 7_000_000_005
    assert (record["status"], record["decided_by"], record["is_calibrated"]) == ("MATCH", "SEQUENCE", True)
    assert record["candidates"][0]["pose"][:3] == [1.0, 2.0, 3.0]
    assert record["latency_ms"]["total"] == 12.5


@pytest.mark.parametrize("status", [Status.NO_MATCH, Status.AMBIGUOUS])
def test_only_a_match_gives_a_pose_and_a_fix(status: Status):
    assert conversions.pose_with_covariance(recognition(status, geo=GeoPoint(1.0, 2.0)), HEADER) is None
    assert conversions.fix_message(recognition(status, geo=GeoPoint(1.0, 2.0)), HEADER) is None


def test_pose_and_fix_of_a_match():
    pose = conversions.pose_with_covariance(recognition(), HEADER)
    assert pose is not None
    assert pose.pose.covariance[7] == 2.0
    assert pose.pose.covariance[35] == 6.0
    assert conversions.fix_message(recognition(), HEADER) is None
    fix = conversions.fix_message(recognition(geo=GeoPoint(10.0, 20.0, 30.0)), HEADER)
    assert fix is not None
    assert (fix.latitude, fix.longitude, fix.altitude) == (10.0, 20.0, 30.0)
    assert list(fix.position_covariance) == [1.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 3.0]


def test_what_a_place_does_not_know_is_no_zero_in_a_message():
    pose = Pose((1.0, 2.0, None), None)
    place = Place(4, "a", 0, "4.jpg", pose, GeoPoint(10.0, 20.0), (64, 48))
    answer = replace(
        recognition(geo=place.geo),
        candidates=(Candidate(place, 0.9),),
        pose=pose,
        covariance=np.diag([1.0, 1.0, 1e6, math.pi**2, math.pi**2, math.pi**2]),
    )
    message = conversions.match_message(answer, HEADER, map_name="m", num_candidates=1, total_ms=0.0)
    candidate = message.candidates[0]
    assert (candidate.has_pose, candidate.has_height, candidate.has_heading) == (True, False, False)
    assert math.isnan(candidate.altitude)
    assert conversions.match_record(message)["candidates"][0]["pose"] == [1.0, 2.0, None, None, None, None, None]
    published = conversions.pose_with_covariance(answer, HEADER)
    assert published is not None
    # A message must hold numbers; its covariance says what they are worth.
    assert (published.pose.pose.position.z, published.pose.pose.orientation.w) == (0.0, 1.0)
    assert (published.pose.covariance[14], published.pose.covariance[35]) == (1e6, math.pi**2)
    fix = conversions.fix_message(answer, HEADER)
    assert fix is not None
    assert math.isnan(fix.altitude)
    assert (fix.position_covariance_type, fix.position_covariance[8]) == (fix.COVARIANCE_TYPE_APPROXIMATED, 1e6)
    ball = conversions.match_markers(answer, HEADER).markers[0]
    assert (ball.type, ball.action) == (ball.SPHERE, ball.ADD)
    arrow = conversions.match_markers(recognition(), HEADER).markers[0]
    assert arrow.type == arrow.ARROW


def test_a_hint_reaches_three_standard_deviations():
    message = PoseWithCovarianceStamped()
    message.pose.pose.position.x = 5.0
    message.pose.covariance[0], message.pose.covariance[7] = 16.0, 25.0
    hint = conversions.hint_from_message(message, 10.0)
    assert (hint.position_xyz, hint.radius_m) == ((5.0, 0.0, 0.0), 15.0)
    assert conversions.hint_from_message(message, 40.0).radius_m == 40.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e308])
@pytest.mark.parametrize("field", ["x", "y", "z", 0, 7])
def test_a_hint_that_means_nothing_is_refused(field: str | int, value: float):
    message = PoseWithCovarianceStamped()
    if isinstance(field, str):
        setattr(message.pose.pose.position, field, value)
    else:
        message.pose.covariance[field] = value
    with pytest.raises(ConfigError, match=r"position|variances"):
        conversions.hint_from_message(message, 10.0)


def test_a_negative_variance_is_none():
    message = PoseWithCovarianceStamped()
    message.pose.covariance[7] = -1.0
    with pytest.raises(ConfigError, match="no variances"):
        conversions.hint_from_message(message, 10.0)


def odometry_message(stamp_s: float, x: float) -> Odometry:
    message = Odometry()
    message.header.stamp = conversions.time_from_ns(round(stamp_s * 1e9))
    message.pose.pose.position.x, message.pose.pose.orientation.w = x, 1.0
    return message


def test_odometry_by_time():
    buffer = OdometryBuffer()
    assert buffer.at(0) is None
    for stamp_s, x in ((10.0, 0.0), (10.3, 3.0), (10.2, 2.0), (10.1, 1.0)):
        buffer.add(odometry_message(stamp_s, x))
    for stamp_s, x in ((10.04, 0.0), (10.06, 1.0), (10.2, 2.0), (10.39, 3.0), (9.91, 0.0)):
        found = buffer.at(round(stamp_s * 1e9))
        assert found is not None
        assert found.position_xyz[0] == x
    assert buffer.at(round(10.41e9)) is None
    assert buffer.at(round(9.89e9)) is None
    with pytest.raises(TrajectoryError, match="seven finite numbers"):
        buffer.add(odometry_message(10.4, math.nan))


def test_odometry_forgets_what_is_old_and_what_a_clock_set_back_leaves_behind():
    buffer = OdometryBuffer()
    for number in range(600):
        buffer.add(odometry_message(100.0 + number, float(number)))
    assert buffer.at(199 * 10**9) is None
    assert buffer.at(200 * 10**9) is not None
    buffer.add(odometry_message(5.0, 7.0))
    assert buffer.at(699 * 10**9) is None
    assert buffer.at(5 * 10**9) is not None


def test_odometry_between_two_messages_is_interpolated():
    buffer = OdometryBuffer()
    buffer.add(odometry_message(10.0, 0.0))
    buffer.add(odometry_message(11.0, 4.0))
    buffer.add(odometry_message(12.5, 5.0))
    found = buffer.interpolated(round(10.25e9), 0.0)
    assert found is not None
    assert found.position_xyz[0] == pytest.approx(1.0)
    # In a gap of more than a second only a near neighbour counts.
    assert buffer.interpolated(round(11.5e9), 0.0) is None
    near = buffer.interpolated(round(12.45e9), 0.0)
    assert near is not None
    assert near.position_xyz[0] == 5.0
    assert buffer.interpolated(round(9.5e9), 0.0) is None


def test_odometry_is_awaited_once_in_vain_and_again_when_it_is_back():
    buffer = OdometryBuffer()

    def waited_s(stamp_s: float) -> float:
        started = time.monotonic()
        buffer.interpolated(round(stamp_s * 1e9), 0.5)
        return time.monotonic() - started

    assert waited_s(1.0) >= 0.5
    assert waited_s(1.0) < 0.4
    buffer.add(odometry_message(1.0, 0.0))
    assert waited_s(2.0) >= 0.5
    assert waited_s(3.0) < 0.4
    buffer.add(odometry_message(3.0, 0.0))
    assert waited_s(4.0) >= 0.5


def test_odometry_that_arrives_meanwhile_ends_the_wait():
    buffer = OdometryBuffer()
    buffer.add(odometry_message(1.0, 0.0))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(buffer.interpolated, round(1.5e9), 60.0)
        time.sleep(0.05)
        buffer.add(odometry_message(1.2, 1.0))
        time.sleep(0.05)
        assert not waiting.done()
        buffer.add(odometry_message(2.0, 9.0))
        found = waiting.result(30.0)
    assert found is not None
    assert found.position_xyz[0] == pytest.approx(1.0 + 8.0 * 0.3 / 0.8)


def test_markers_show_the_match_and_vanish_without_one():
    shown = conversions.match_markers(recognition(), HEADER).markers
    assert [marker.action for marker in shown] == [0, 0]
    assert shown[1].text == "MATCH 0.75"
    assert [marker.action for marker in conversions.match_markers(recognition(Status.NO_MATCH), HEADER).markers] == [
        2,
        2,
    ]
    places = [candidate.place for candidate in recognition().candidates]
    assert len(conversions.map_markers(places, "map").markers[0].points) == 1


def raw(encoding: str, pixels: np.ndarray) -> Image:
    height, width = pixels.shape[:2]
    data = pixels.tobytes()
    return Image(height=height, width=width, encoding=encoding, step=len(data) // height, data=data)


CASES = [
    ("rgb8", np.tile(np.array([1, 2, 3], np.uint8), (2, 4, 1)), [1, 2, 3]),
    ("bgr8", np.tile(np.array([1, 2, 3], np.uint8), (2, 4, 1)), [3, 2, 1]),
    ("rgba8", np.tile(np.array([1, 2, 3, 0], np.uint8), (2, 4, 1)), [1, 2, 3]),
    ("mono8", np.full((2, 4), 9, np.uint8), [9, 9, 9]),
    ("mono16", np.array([[0x0908] * 4, [0xF000] * 4], np.uint16)[::-1], [9, 9, 9]),
    ("bayer_rggb8", np.full((4, 6), 50, np.uint8), [50, 50, 50]),
]


@pytest.mark.parametrize(("encoding", "pixels", "expected"), CASES)
def test_encodings(encoding: str, pixels: np.ndarray, expected: list[int]):
    decoded = image_decoding.decode_message(raw(encoding, pixels))
    assert decoded.shape == (*pixels.shape[:2], 3)
    assert decoded[1, 1].tolist() == expected


def test_depth_by_its_encodings():
    metres = np.array([[1.5, np.nan], [0.0, 2.0]], np.float32)
    wanted = np.array([[1.5, np.nan], [np.nan, 2.0]], np.float32)
    np.testing.assert_array_equal(image_decoding.decode_depth(raw("32FC1", metres)), wanted)
    millimetres = np.array([[1500, 0], [0, 2000]], np.uint16)
    np.testing.assert_array_equal(image_decoding.decode_depth(raw("16UC1", millimetres)), wanted)
    with pytest.raises(ImageError, match=r"2x2 8UC1\) is no depth"):
        image_decoding.decode_depth(raw("8UC1", np.zeros((2, 2), np.uint8)))
    with pytest.raises(ImageError, match="empty"):
        image_decoding.decode_depth(Image(encoding="16UC1"))


def test_compressed_images_and_what_is_no_image():
    message = CompressedImage(format="jpeg", data=jpeg(picture(1)))
    assert image_decoding.decode_message(message).shape == (72, 96, 3)
    with pytest.raises(ImageError, match=r"compressed image \(jpeg\) cannot be decoded"):
        image_decoding.decode_message(CompressedImage(format="jpeg", data=b"noise"))
    with pytest.raises(ImageError, match=r"empty \(0x0 rgb8\); check the camera driver"):
        image_decoding.decode_message(Image(encoding="rgb8"))
    with pytest.raises(ImageError, match="has 3 bytes, its step of 6 needs 12"):
        image_decoding.decode_message(Image(width=2, height=2, step=6, encoding="rgb8", data=b"abc"))
    with pytest.raises(ImageError, match=r"60000x60000 pixels.*limit is 100 million"):
        image_decoding.decode_message(CompressedImage(format="png", data=png_header(60000, 60000)))
    with pytest.raises(ImageError, match=r"2x2 yuv9.*use rgb8, bgr8"):
        image_decoding.decode_message(Image(width=2, height=2, step=2, encoding="yuv9", data=b"abcd"))


def wait(condition: Callable[[], Any]) -> None:
    """Wait until something has happened in another thread."""
    deadline = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


class Held:
    """A job that holds a worker up."""

    def __init__(self, worker: LatestWorker) -> None:
        self._started, self._go = threading.Event(), threading.Event()
        worker.offer(self._run)
        assert self._started.wait(30.0)

    def _run(self) -> None:
        self._started.set()
        assert self._go.wait(60.0)

    def release(self) -> None:
        self._go.set()


def test_the_worker_takes_the_newest_and_counts_the_rest():
    done: list[int] = []
    worker = LatestWorker(lambda error: None)
    held = Held(worker)
    for item in (1, 2, 3):
        worker.offer(partial(done.append, item))
    worker.submit(partial(done.append, 100))
    held.release()
    wait(lambda: len(done) == 2)
    worker.finish(lambda: None)
    assert worker.join(30.0)
    assert done == [100, 3]
    assert worker.dropped == 2


def test_what_waits_is_cancelled_when_the_worker_finishes_and_its_last_function_runs():
    done: list[str] = []
    worker = LatestWorker(lambda error: None)
    held = Held(worker)
    waiting = worker.submit(partial(done.append, "never"))
    worker.offer(partial(done.append, "never"))
    finished = worker.finish(partial(done.append, "last"))
    assert waiting.cancelled()
    assert not finished.done()
    assert not worker.join(0.01)
    held.release()
    finished.result(30.0)
    assert worker.join(30.0)
    assert done == ["last"]
    assert worker.submit(partial(done.append, "never")).cancelled()
    assert worker.finish(partial(done.append, "never")).cancelled()
    worker.offer(partial(done.append, "never"))
    assert done == ["last"]


def test_the_worker_survives_errors():
    done: list[int] = []
    errors: list[Exception] = []
    worker = LatestWorker(errors.append)
    worker.offer(lambda: 1 // 0)
    wait(lambda: errors)
    worker.offer(partial(done.append, 2))
    wait(lambda: done)
    worker.finish(lambda: None)
    assert isinstance(errors[0], ZeroDivisionError)


def test_the_worker_runs_functions_in_its_thread_and_hands_back_what_they_raise():
    worker = LatestWorker(lambda error: None)
    assert worker.submit(lambda: threading.current_thread().name).result(30.0) == "inference"
    with pytest.raises(ZeroDivisionError):
        worker.submit(lambda: 1 // 0).result(30.0)
    assert worker.submit(lambda: 5).result(30.0) == 5
    worker.finish(lambda: None)


@pytest.mark.parametrize("timeout_s", [math.nan, math.inf, -1.0, 60.1, 1e30])
def test_a_wait_without_bound_is_refused(timeout_s: float):
    with pytest.raises(NodeError, match=r"timeout_s .* is outside \[0, 60\]"):
        LocalizeRequest(timeout_s)


def test_a_call_is_settled_once():
    request = LocalizeRequest(0.0)
    assert request.timeout_s == 5.0
    assert not request.is_settled
    request.refuse("first")
    request.give(PlaceMatch())
    request.refuse("second")
    with pytest.raises(NodeError, match=r"^first$"):
        request.answer.result(0.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no map was named"),
        ("~nosuchuser/map", "nosuchuser"),
        ("m" * 300, "File name too long"),
        ("a/" * 3000, "File name too long"),
        ("a\0b", "null"),
    ],
)
def test_paths_that_nothing_can_have_are_refused_in_a_line(text: str, said: str):
    with pytest.raises(MapError, match=said) as caught:
        map_folder(text)
    assert len(str(caught.value)) < 300


def test_a_path_is_made_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert map_folder("~/new/../map") == tmp_path.resolve() / "map"


def test_statistics_by_hand():
    statistics = Statistics()
    for number in range(1, 5):
        statistics.add_result("MATCH", Latency(float(number), 0.0, 0.0, 0.0, 10.0 * number), 100.0 + number)
    statistics.add_error("no light", 104.0)
    values = statistics.values(112.5)
    # Results at 103 and 104 s are within the last ten seconds.
    assert (values["rate_hz"], values["count_match"]) == ("0.20", "4")
    assert (values["errors"], values["last_error"]) == ("1", "no light")
    assert (values["extract_ms_p50"], values["total_ms_p50"]) == ("2.50", "25.00")
    assert (values["verified_share"], values["pose_ms_p50"]) == ("0.00", "0.00")
    for pose in (30.0, 50.0):
        statistics.add_result("MATCH", Latency(1.0, 0.0, 0.0, 2.0, 90.0, verify=20.0, pose=pose), 113.0)
    # Two of six were verified; of poses of 0, 0, 0, 0, 30 and 50 ms the median is 0.
    again = statistics.values(113.0)
    assert (again["verified_share"], again["pose_ms_p50"], again["count_match"]) == ("0.33", "0.00", "6")
    for number in range(400):
        statistics.add_result("MATCH", Latency(1.0, 0.0, 0.0, 0.0, 1.0), 120.0 + number / 40.0)
    assert statistics.values(130.0)["rate_hz"] == "40.00"
    message = diagnostic_array("/place_recognizer", "cpu", b"\x01", "text", values)
    assert {pair.key: pair.value for pair in message.status[0].values} == values


def test_a_root_confines_maps_links_followed(tmp_path: Path):
    root, elsewhere = tmp_path / "maps", tmp_path / "elsewhere"
    root.mkdir(), elsewhere.mkdir(), (root / "house").mkdir()
    (root / "link").symlink_to(elsewhere), (root / "loop").symlink_to(root / "loop")
    assert map_folder("house", str(root)) == root / "house"
    assert map_folder(str(root / "new" / "one"), str(root)) == root / "new" / "one"
    for outside in ("../elsewhere", "house/../../elsewhere", str(elsewhere), "link", "link/new", "~", "/"):
        with pytest.raises(MapError, match="is outside map_root"):
            map_folder(outside, str(root))
    with pytest.raises(MapError, match="cannot be used"):
        map_folder("loop/map", str(root))


def stream_of(stamps_s: Sequence[float]) -> ImageStream:
    stream = ImageStream(1000.0)
    for stamp_s in stamps_s:
        stream.arrived(round(stamp_s * 1e9), 1000.0 + stamp_s)
    return stream


def test_images_that_were_lost_are_counted_by_their_stamps():
    # 13 of 40 images at 10 Hz arrive: the others were lost.
    arrived = [0, 1, 2, 5, 6, 11, 12, 17, 21, 22, 29, 34, 39]
    stream = stream_of([0.1 * number for number in arrived])
    assert stream.period_s() == pytest.approx(0.1)
    assert (stream.received, stream.lost) == (13, 27)
    assert stream.recently_lost() == (27, 39)
    assert stream.silent_s(1010.0) == pytest.approx(6.1)
    stream.restart(1010.0)
    assert stream.silent_s(1011.0) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "stamps_s",
    [
        [],
        [0.0],
        [0.0, 0.1, 0.2, 0.9],  # too few to know a period
        [0.1 * number + 0.01 * (number % 3) for number in range(100)],  # jitter
        [0.0] * 50,  # no stamps
        [5.0 - 0.1 * number for number in range(50)],  # a clock that runs backwards
        [0.1 * number for number in range(20)] + [100.0 + 0.1 * number for number in range(20)],  # switched off
    ],
)
def test_streams_that_lost_nothing(stamps_s: list[float]):
    stream = stream_of(stamps_s)
    assert (stream.received, stream.lost, stream.recently_lost()[0]) == (len(stamps_s), 0, 0)


def test_a_stream_without_a_period_worries_nobody():
    stamps_s = np.cumsum(np.random.default_rng(3).exponential(0.2, 60))
    assert stream_of(stamps_s.tolist()).recently_lost() == (0, 0)
    # A program that stalls for a second and catches up within milliseconds lost nothing either.
    bursts = [second + 0.002 * number for second in range(20) for number in range(15)]
    assert (stream_of(bursts).lost, stream_of(bursts).recently_lost()) == (0, (0, 0))


LOCALIZE = (CameraNodeConfig(), *place_recognizer.CONFIGS)
LOOP_CLOSURE = (CameraNodeConfig(), *loop_closure_detector.CONFIGS)


@pytest.mark.parametrize(("name", "configs"), [("localize", LOCALIZE), ("loop_closure", LOOP_CLOSURE)])
def test_the_yaml_file_documents_every_parameter_with_its_default(name: str, configs: tuple[Any, ...]):
    text = (ROOT / "config" / f"{name}.yaml").read_text(encoding="utf-8")
    written = yaml.safe_load(text)["/**"]["ros__parameters"]
    declared = {entry.name: getattr(config, entry.name) for config in configs for entry in fields(config)}
    carried = map_settings(next(config for config in configs if isinstance(config, RecognizerConfig)))
    # What a map carries is left to the map.
    assert written == {key: value for key, value in declared.items() if key not in carried}
    for key, value in carried.items():
        assert f"it is the map's then: {key}: {value}" in text
    unwrapped = " ".join(line.strip().removeprefix("# ") for line in text.splitlines())
    for config in configs:
        for entry in fields(config):
            assert entry.metadata["description"].rstrip(".") in unwrapped, entry.name


def test_fingerprint_of_the_tests_is_complete():
    assert FINGERPRINT.global_dim == len(features([1, 0, 0, 0]).global_descriptor)


def test_a_pose_outside_the_map_frame_is_not_published():
    mine = Place(0, "a", 0, "0.jpg", Pose.from_yaw(1.0, 0.0, 0.0), None, (1, 1))
    foreign = Place(1, "b", 0, "1.jpg", Pose.from_yaw(2.0, 0.0, 0.0), None, (1, 1), "b/odom")
    assert conversions.candidate_message(Candidate(mine, 0.5)).has_pose
    message = conversions.candidate_message(Candidate(foreign, 0.5))
    assert not message.has_pose
    assert message.session == "b"
    assert [point.x for point in conversions.map_markers([mine, foreign], "map").markers[0].points] == [1.0]


def test_what_a_gpu_keeps_of_a_map_is_said(tmp_path: Path):
    with PlaceMap.create(tmp_path / "map", fingerprint=FINGERPRINT) as place_map:
        place_map.add([new_place(number) for number in range(3)])
        assert gpu_values(None) == gpu_values(place_map) == {}
        place_map.resident = ResidentCodes(place_map, "cpu", 1000)
        place_map.resident.fill()
        assert gpu_values(place_map) == {"places_on_gpu": "3 places on cpu (0 MB) of a map of 3"}
