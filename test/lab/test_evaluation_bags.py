"""Bags as evaluation input: against a map, against their own past, and with the recorded answers of a node."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from described import described
from rosbags.typesys import get_types_from_msg
from synthetic import new_place, picture, tiny_extractor

from effovpr_ros.cli.main import main
from effovpr_ros.core.errors import EvaluationError, MapError, SourceError
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.lab.evaluation import match_records
from effovpr_ros.lab.evaluation.bag_truth import PoseTruth, from_bag, from_bag_loops
from effovpr_ros.lab.evaluation.match_records import read_match_lines, read_matches
from effovpr_ros.lab.evaluation.recorded import judge_recording
from effovpr_ros.mapping.build_config import BuildConfig
from effovpr_ros.mapping.builder import build_map
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.recognition.recognizer import Status
from effovpr_ros.sources.bag_writer import BagWriter
from effovpr_ros.sources.frame import Frame

SECOND = 10**9
IMAGE, ODOM, FIX, MATCH = "/camera/image", "/odom", "/fix", "/place_recognizer/match"
MESSAGES = Path(__file__).parents[2] / "msg"
ODOM_TRUTH = PoseTruth(pose_topic=ODOM)


@pytest.fixture(scope="module")
def extractor(tmp_path_factory: pytest.TempPathFactory) -> FeatureExtractor:
    return tiny_extractor(tmp_path_factory.mktemp("weights"))


def make_map(
    folder: Path, extractor: FeatureExtractor, poses: Sequence[Pose | None], datum: Datum | None = None
) -> Path:
    """Place n shows picture n."""
    frames = [Frame(f"{n}.jpg", "first", n, pose, None, lambda n=n: picture(n)) for n, pose in enumerate(poses)]
    with PlaceMap.create(folder, fingerprint=extractor.fingerprint, datum=datum) as place_map:
        build_map(place_map, extractor, frames, BuildConfig())
    return folder


def write_drive(path: Path, views: Sequence[int], poses: Sequence[Pose], *, images: bool = True) -> Path:
    """View n at second n with the pose of that second."""
    with BagWriter(path) as writer:
        for number, (view, pose) in enumerate(zip(views, poses, strict=True)):
            stamp_ns = (1000 + number) * SECOND
            if images:
                writer.write_image(IMAGE, stamp_ns, picture(view), "camera", jpeg_quality=None)
            writer.write_odometry(ODOM, stamp_ns, pose, frame_id="map", child_frame_id="base_link")
            east = Datum(GeoPoint(50.0, 8.0)).to_geo(pose.position_xyz)
            writer.write_fix(FIX, stamp_ns, east, "gps", std_m=1.0)
    return path


def at(x: float, y: float = 0.0, yaw_deg: float = 0.0) -> Pose:
    return Pose.from_yaw(x, y, math.radians(yaw_deg))


def test_a_bag_against_a_map(tmp_path: Path, extractor: FeatureExtractor):
    house = make_map(tmp_path / "house", extractor, [at(0), at(20), at(20, 1, 180)])
    # 3 m from place 0; 4 m and 5 m from places 1 and 2; 80 m from everything.
    drive = write_drive(tmp_path / "drive", [0, 1, 5], [at(3), at(20, -4, 30), at(100)])
    dataset = from_bag(house, drive, ODOM_TRUTH)
    assert dataset.positives == [frozenset({0}), frozenset({1, 2}), frozenset()]
    assert dataset.map_path == house
    assert [frame.name for frame in dataset.queries] == ["1000.000000000", "1001.000000000", "1002.000000000"]
    assert [frame.name for frame in dataset.database] == ["0.jpg", "1.jpg", "2.jpg"]
    # Read again from the bag, and from the map's thumbnails.
    assert (dataset.queries[1].load() == picture(1)).all()
    assert np.abs(dataset.database[2].load().astype(int) - picture(2)).mean() < 8.0
    turned = PoseTruth(pose_topic=ODOM, max_heading_deg=45.0)
    assert from_bag(house, drive, turned).positives == [frozenset({0}), frozenset({1}), frozenset()]
    with pytest.raises(
        EvaluationError, match=r"no query has a positive; check --radius, and whether /odom and the map"
    ):
        from_bag(house, drive, PoseTruth(pose_topic=ODOM, radius_m=0.5))
    with pytest.raises(EvaluationError, match=r"heading limit 0\.0 degrees"):
        from_bag(house, drive, PoseTruth(pose_topic=ODOM, max_heading_deg=0.0))


def test_fixes_use_the_datum_of_the_map(tmp_path: Path, extractor: FeatureExtractor):
    drive = write_drive(tmp_path / "drive", [0, 1], [at(3), at(20)])
    placed = make_map(tmp_path / "placed", extractor, [at(0), at(20, 0, 180)], Datum(GeoPoint(50.0, 8.0)))
    truth = PoseTruth(pose_topic=FIX, max_heading_deg=45.0)
    # A fix has no heading, so that place 1 is not ruled out.
    assert from_bag(placed, drive, truth).positives == [frozenset({0}), frozenset({1})]
    house = make_map(tmp_path / "house", extractor, [at(0)])
    with pytest.raises(
        EvaluationError, match=r"/fix .* gives fixes, and the map .*house has no datum .*--pose \(/odom\)"
    ):
        from_bag(house, drive, truth)


def test_what_a_bag_and_a_map_may_lack(tmp_path: Path, extractor: FeatureExtractor):
    house = make_map(tmp_path / "house", extractor, [at(0)])
    drive = write_drive(tmp_path / "drive", [0], [at(0)])
    with pytest.raises(SourceError, match=r"pose topic /pose is not there; topics: .*/odom \(nav_msgs/msg/Odometry\)"):
        from_bag(house, drive, PoseTruth(pose_topic="/pose"))
    blind = write_drive(tmp_path / "blind", [0], [at(0)], images=False)
    with pytest.raises(SourceError, match="name the image topic with --image-topic, as none fits"):
        from_bag(house, blind, ODOM_TRUTH)
    with pytest.raises(EvaluationError, match="has no pose for 1 of its 2 places"):
        from_bag(make_map(tmp_path / "unplaced", extractor, [at(0), None]), drive, ODOM_TRUTH)
    with pytest.raises(EvaluationError, match="has no place; add some"):
        from_bag(make_map(tmp_path / "empty", extractor, []), drive, ODOM_TRUTH)
    with pytest.raises(MapError, match="does not exist"):
        from_bag(tmp_path / "gone", drive, ODOM_TRUTH)
    late = tmp_path / "late"
    with BagWriter(late) as writer:
        writer.write_image(IMAGE, 1000 * SECOND, picture(0), "camera")
        writer.write_odometry(ODOM, 2000 * SECOND, at(0), frame_id="map", child_frame_id="base")
    with pytest.raises(
        EvaluationError, match=r"no image of .* \(1 outside the trajectory\); check that both use one clock"
    ):
        from_bag(house, late, ODOM_TRUTH)


def empty_topic(path: Path, topic: str, kind: str) -> None:
    """A bag with an image and a pose, and a topic without a message."""
    with BagWriter(path) as writer:
        writer._writer.add_connection(topic, kind, typestore=writer._store)
        if topic != IMAGE:
            writer.write_image(IMAGE, 1000 * SECOND, picture(0), "camera")
        if topic != ODOM:
            writer.write_odometry(ODOM, 1000 * SECOND, at(0), frame_id="map", child_frame_id="base")


def test_topics_without_a_message(tmp_path: Path, extractor: FeatureExtractor):
    house = make_map(tmp_path / "house", extractor, [at(0)])
    empty_topic(tmp_path / "no_image", IMAGE, "sensor_msgs/msg/CompressedImage")
    with pytest.raises(EvaluationError, match=r"no image of /camera/image has a pose .*\(the topic has no message\)"):
        from_bag(house, tmp_path / "no_image", ODOM_TRUTH)
    empty_topic(tmp_path / "no_pose", ODOM, "nav_msgs/msg/Odometry")
    with pytest.raises(SourceError, match="topic /odom: the trajectory is empty"):
        from_bag(house, tmp_path / "no_pose", ODOM_TRUTH)


def test_a_bag_against_its_own_past(tmp_path: Path):
    # Out and back: frame 4 is 1 m from frame 0, frame 3 stands 1 m from frame 2.
    path = write_drive(tmp_path / "drive", range(5), [at(0), at(10), at(20), at(21), at(0, 1)])
    dataset = from_bag_loops(path, ODOM_TRUTH, min_gap=2)
    assert dataset.allowed == [range(0), range(0), range(1), range(2), range(3)]
    assert dataset.positives == [frozenset()] * 4 + [frozenset({0})]
    assert dataset.database is dataset.queries
    near = from_bag_loops(path, ODOM_TRUTH, min_gap=1)
    assert near.positives[3] == frozenset({2})
    # Frame 3 is too close to frame 2 to count.
    spaced = from_bag_loops(path, ODOM_TRUTH, min_gap=2, spacing_m=5.0)
    assert [frame.stamp_ns // SECOND for frame in spaced.queries] == [1000, 1001, 1002, 1004]
    assert spaced.positives[3] == frozenset({0})
    with pytest.raises(EvaluationError, match="check --radius and --min-gap, and whether the drive closes a loop"):
        from_bag_loops(path, PoseTruth(pose_topic=ODOM, radius_m=0.1), min_gap=2)
    with pytest.raises(EvaluationError, match="spacing -1"):
        from_bag_loops(path, ODOM_TRUTH, spacing_m=-1.0)


def test_the_commands_on_bags(tmp_path: Path, extractor: FeatureExtractor, capsys: pytest.CaptureFixture[str]):
    house = make_map(tmp_path / "house", extractor, [at(20 * n) for n in range(4)])
    weights = ["--weights", extractor.config.weights]
    drive = write_drive(tmp_path / "drive", [0, 1, 2, 9], [at(1), at(21), at(41, 0, 10), at(500)])
    arguments = ["evaluate", "bag", str(house), str(drive), "--pose", ODOM, *weights, "--json"]
    assert main([*arguments, "--size", "56", "--model", "vit_tiny_test_patch14"]) == 0
    result = described("evaluate", capsys.readouterr().out)
    assert result["dataset"] == {"name": "drive in house", "queries": 4, "queries_with_positives": 3, "database": 4}
    assert result["random_recall_at_1"] == pytest.approx(1 / 4)
    for method in result["methods"].values():
        assert method["recall"]["1"] == 1.0
        assert method["outside"]["queries"] == 1
        assert method["heading_error_deg_all_answers"]["max"] == pytest.approx(10.0)
    compared = [*arguments, "--methods", "effovpr", "seq:sequence_length=5", "vlad", "--out", str(tmp_path / "out")]
    assert main(compared) == 0
    result = described("evaluate", capsys.readouterr().out)
    assert {name: method["recall"]["1"] for name, method in result["methods"].items()} == {
        "effovpr": 1.0,
        "seq": 1.0,
        "vlad": 1.0,
    }
    assert (result["methods"]["vlad"]["matches"], result["methods"]["vlad"]["outside"]["matches"]) == (None, None)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Other than the default: verify_budget_ms = 0.0, sequence_length = 5." in page
    assert "The map from above: seq" in page
    seen_by_the_sequence = page[page.index("<h3>seq</h3>") : page.index("<h3>vlad</h3>")]
    assert " matched patches" in seen_by_the_sequence
    # The map is as it was.
    with PlaceMap.open(house) as place_map:
        assert len(place_map) == 4
    assert main([*arguments, "--size", "112"]) == 1
    assert "--size 112 contradicts the map" in capsys.readouterr().err

    loop = write_drive(tmp_path / "loop", [0, 1, 2, 0], [at(0), at(20), at(40), at(1)])
    model = ["--model", "vit_tiny_test_patch14", *weights, "--size", "56", "--t1", "0"]
    arguments = ["evaluate", "loops", str(loop), "--pose", ODOM, "--radius", "2", "--min-gap", "2", *model]
    assert main([*arguments, "--json"]) == 0
    result = described("evaluate", capsys.readouterr().out)
    assert result["dataset"]["queries_with_positives"] == 1
    assert result["methods"]["effovpr"]["recall"]["1"] == 1.0
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", "loops", str(tmp_path), *model])
    assert "needs --loops CSV" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--loops", "loops.csv"])
    assert "leave --loops out" in capsys.readouterr().err


def register_messages(writer: BagWriter) -> None:
    for name in ("PlaceCandidate", "PlaceMatch"):
        text = (MESSAGES / f"{name}.msg").read_text()
        writer._store.register(get_types_from_msg(text, f"effovpr_ros/msg/{name}"))


def match_message(
    writer: BagWriter, second: int, status: Status, places: Sequence[tuple[int, Pose]], map_name: str = "house"
) -> Any:
    """A PlaceMatch; candidate n has the confidence of its rank."""
    types, zero = writer._store.types, writer._store.types["builtin_interfaces/msg/Time"](0, 0)
    candidates = [
        types["effovpr_ros/msg/PlaceCandidate"](
            place_id,
            zero,
            "first",
            f"{place_id}.jpg",
            0.9,
            9,
            8,
            7.0,
            False,
            0,
            True,
            writer.pose_message(pose),
            True,
            True,
            False,
            0.0,
            0.0,
            0.0,
        )
        for place_id, pose in places
    ]
    return types["effovpr_ros/msg/PlaceMatch"](
        header=writer._header(second * SECOND, "map"),
        status=int(status),
        decided_by=0,
        confidence=0.25 + 0.25 * int(status),
        is_calibrated=False,
        map_name=map_name,
        reason="reason",
        candidates=candidates,
        bearing_offset=0.0,
        has_pose=False,
        is_metric=False,
        pose=writer._make("geometry_msgs/msg/PoseWithCovariance", writer.pose_message(at(0)), np.zeros(36)),
        pose_reason="",
        extract_ms=100.0,
        search_ms=1.0,
        rerank_ms=50.0,
        verify_ms=0.0,
        decide_ms=2.0,
        total_ms=160.0,
    )


ANSWERS = (
    (1000, Status.MATCH, [(0, at(0)), (1, at(20))]),
    (1001, Status.MATCH, [(0, at(0)), (1, at(20))]),
    (1002, Status.AMBIGUOUS, [(2, at(40)), (1, at(20))]),
    (1003, Status.MATCH, [(2, at(40))]),
    (1004, Status.NO_MATCH, []),
    (9000, Status.MATCH, [(2, at(40))]),
)
"""Truth at 1000 to 1004 s is x = 1, 21, 43, 300 and 20; the last has none."""


def record(
    path: Path, answers: Sequence[tuple[int, Status, Any]] = ANSWERS, *, storage: str = "mcap", **names: str
) -> Path:
    with BagWriter(path, storage=storage) as writer:
        register_messages(writer)
        for second, x in zip(range(1000, 1005), (1, 21, 43, 300, 20), strict=True):
            writer.write_odometry(ODOM, second * SECOND, at(x, 0, 5), frame_id="map", child_frame_id="base")
        for second, status, places in answers:
            writer.write(MATCH, second * SECOND, match_message(writer, second, status, places, **names))
    return path


def test_recorded_answers_against_a_known_map(tmp_path: Path, extractor: FeatureExtractor):
    house = make_map(tmp_path / "house", extractor, [at(0), at(20), at(40), at(60)])
    bag = record(tmp_path / "live")
    run = judge_recording(bag, read_matches(bag, MATCH), ODOM_TRUTH, map_path=house)
    assert run.dataset.positives == [frozenset({0}), frozenset({1}), frozenset({2}), frozenset(), frozenset({1})]
    assert [list(answer.ranked) for answer in run.result.answers] == [[0, 1], [0, 1], [2, 1], [2], []]
    assert run.result.answers[0].latency_ms.total == 160.0
    assert "1 of 6 answers left out: no pose at their stamp" in run.dataset.notes[0]
    moved = make_map(tmp_path / "moved", extractor, [at(5), at(20), at(40), at(60)])
    with pytest.raises(
        EvaluationError, match=r"names place 0 of the map 'house', which .*moved \(4 places\) does not have"
    ):
        judge_recording(bag, read_matches(bag, MATCH), ODOM_TRUTH, map_path=moved)
    with pytest.raises(EvaluationError, match=r"names place 2 .* name the map that the node used"):
        judge_recording(
            bag, read_matches(bag, MATCH), ODOM_TRUTH, map_path=make_map(tmp_path / "two", extractor, [at(0), at(20)])
        )


def test_the_command_on_recorded_answers(
    tmp_path: Path, extractor: FeatureExtractor, capsys: pytest.CaptureFixture[str]
):
    house = make_map(tmp_path / "house", extractor, [at(0), at(20), at(40), at(60)])
    bag = record(tmp_path / "live")
    arguments = ["evaluate", "live", str(bag), "--pose", ODOM, "--json", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--map", str(house)]) == 0
    result = described("evaluate", capsys.readouterr().out)
    assert result["dataset"] == {"name": "live", "queries": 5, "queries_with_positives": 4, "database": 4}
    live = result["methods"]["live"]
    # Right first: 1000 and 1002 s; 1001 s has its place second; 1004 s has no candidate.
    assert live["recall"] == {"1": 2 / 4, "5": 3 / 4, "10": 3 / 4, "20": 3 / 4}
    assert live["recall_all_queries"]["1"] == 2 / 5
    assert (live["matches"], live["wrong_matches"]) == (3, 2)
    assert live["outside"] == {"queries": 1, "matches": 1}
    # MATCHes are 1, 21 and 260 m off.
    assert live["position_error_m"] == pytest.approx({"p50": 21.0, "p95": 21.0 + 0.9 * 239.0, "max": 260.0, "count": 3})
    assert live["position_error_m_all_answers"]["count"] == 4
    assert live["heading_error_deg"]["max"] == pytest.approx(5.0)
    assert live["latency_ms"]["extract"]["p50"] == 100.0
    assert live["bytes_per_place"] > 0
    rows = (tmp_path / "out" / "answers.csv").read_text().splitlines()
    assert rows[1].split(",") == ["live", "1000.000000000", "MATCH", "0.7500", "0.jpg", "1"]
    assert "The map from above: live" in (tmp_path / "out" / "report.html").read_text()

    assert main(arguments) == 0
    printed = capsys.readouterr()
    result = described("evaluate", printed.out)
    # Every query counts: the MATCH at 1003 s is wrong, not outside.
    assert result["dataset"] == {"name": "live", "queries": 5, "queries_with_positives": 5, "database": None}
    assert result["random_recall_at_1"] is None
    assert result["methods"]["live"]["recall"]["1"] == 2 / 5
    assert result["methods"]["live"]["recall"]["5"] == 3 / 5
    assert result["methods"]["live"]["outside"] == {"queries": 0, "matches": 0}
    assert result["methods"]["live"]["bytes_per_place"] is None
    assert "note: without --map every query counts as on mapped ground" in printed.err
    assert any("without --map every query counts" in note for note in result["notes"])
    assert "without --map every query counts" in (tmp_path / "out" / "report.html").read_text()
    assert main(arguments[:5]) == 0
    assert "5 queries, 5 with a positive, database not known\n" in capsys.readouterr().out


def test_definitions_come_from_the_package_where_the_bag_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    bag = record(tmp_path / "live", storage="sqlite3")
    stored = read_matches(bag, MATCH)
    with sqlite3.connect(next(bag.glob("*.db3"))) as connection:
        assert connection.execute("DELETE FROM message_definitions").rowcount >= 2
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    assert read_matches(bag, MATCH) == stored
    assert len(stored) == len(ANSWERS)
    monkeypatch.setattr(match_records, "__file__", str(tmp_path / "a" / "b" / "c" / "d.py"))
    with pytest.raises(SourceError, match=r"PlaceMatch\.msg is in none of .*; source the workspace"):
        read_matches(bag, MATCH)


def test_recordings_that_cannot_be_judged(tmp_path: Path, extractor: FeatureExtractor):
    bag = record(tmp_path / "live")
    with pytest.raises(SourceError, match=r"no topic /other/match of .*PlaceMatch.*topics: .*/place_recognizer/match"):
        read_matches(bag, "/other/match")
    empty = record(tmp_path / "empty", [])
    with pytest.raises(SourceError, match=r"no topic /place_recognizer/match"):
        read_matches(empty, MATCH)
    answers = read_matches(bag, MATCH)
    with pytest.raises(EvaluationError, match="without --map no datum is known"):
        both = write_drive(tmp_path / "fixes", [0], [at(0)], images=False)
        judge_recording(both, answers, PoseTruth(pose_topic=FIX))
    with pytest.raises(EvaluationError, match=r"no answer has a pose of /odom at its stamp .*use_sim_time"):
        judge_recording(bag, answers[-1:], ODOM_TRUTH)
    other = read_matches(record(tmp_path / "other", map_name="garden"), MATCH)
    with pytest.raises(EvaluationError, match=r"answers are of several maps \(garden, house\)"):
        judge_recording(bag, [*answers, *other], ODOM_TRUTH)


def test_live_without_answers_to_judge(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    silent = tmp_path / "silent"
    with BagWriter(silent) as writer:
        register_messages(writer)
        writer._writer.add_connection(MATCH, match_records.MATCH_TYPE, typestore=writer._store)
        writer.write_odometry(ODOM, SECOND, at(0), frame_id="map", child_frame_id="base")
    blind = write_drive(tmp_path / "blind", [0], [at(0)], images=False)
    stereo = tmp_path / "stereo"
    with BagWriter(stereo) as writer:
        for topic in ("/left", "/right"):
            writer.write_image(topic, SECOND, picture(0), "camera")
    drive = write_drive(tmp_path / "drive", [0], [at(0)])
    for arguments, said in (
        ([silent], "topic /place_recognizer/match has no message; was the node active"),
        (
            [blind],
            "no topic /place_recognizer/match of effovpr_ros/msg/PlaceMatch; name it with --match-topic; topics: /fix",
        ),
        ([stereo], "its images are played to the running node; name some of /left, /right with --image-topic"),
        ([drive, "--match-topic", "/answers"], "--match-topic '/answers' is no NODE/match"),
        ([record(tmp_path / "live"), "--match-topic", "/b/match"], "no topic /b/match of effovpr_ros/msg/PlaceMatch"),
    ):
        assert main(["evaluate", "live", *map(str, arguments), "--pose", ODOM]) == 1
        assert said in capsys.readouterr().err


def test_lines_of_replay_are_read(tmp_path: Path):
    candidate = {"place_id": 3, "session": "a", "pose": [1, 2, 0, 0, 0, 0, 1]}
    line = {
        "stamp_ns": 5,
        "status": "AMBIGUOUS",
        "confidence": 0.4,
        "map_name": "m",
        "candidates": [candidate, {**candidate, "place_id": 4, "pose": None}],
        "latency_ms": {"extract": 1, "search": 2, "rerank": 3, "decide": 4, "total": 5},
    }
    path = tmp_path / "matches.jsonl"
    path.write_text(json.dumps(line) + "\n")
    answer = read_match_lines(path)[0]
    assert (answer.stamp_ns, answer.status, answer.latency_ms.rerank) == (5, Status.AMBIGUOUS, 3.0)
    assert answer.candidates[0].pose == Pose((1, 2, 0), (0, 0, 0, 1))
    assert answer.candidates[1].pose is None
    path.write_text('{"stamp_ns": 5}\n')
    with pytest.raises(EvaluationError, match="line 1: no answer of replay"):
        read_match_lines(path)
    path.write_text("")
    with pytest.raises(EvaluationError, match="the node answered no image; is it active"):
        read_match_lines(path)


def test_a_map_built_by_places_has_its_poses(tmp_path: Path, extractor: FeatureExtractor):
    # Geo-tagged places without a pose lie where the datum puts them.
    origin = GeoPoint(50.0, 8.0)
    feature = extractor.extract([picture(0)])[0]
    with PlaceMap.create(tmp_path / "m", fingerprint=extractor.fingerprint, datum=Datum(origin)) as place_map:
        place_map.add([new_place(0, geo=origin, pose=None, features=feature)])
        place_map.flush()
    drive = write_drive(tmp_path / "drive", [0], [at(2)])
    assert from_bag(tmp_path / "m", drive, ODOM_TRUTH).positives == [frozenset({0})]
