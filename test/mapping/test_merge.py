"""Maps joined by hand: sessions, frames, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import FINGERPRINT, new_place

from effovpr_ros.core.errors import MapError, ModelMismatchError
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.poses import GeoPoint
from effovpr_ros.features.extractor_config import ModelFingerprint
from effovpr_ros.mapping import merge as merge_module
from effovpr_ros.mapping.growing_map import GrowingMap
from effovpr_ros.mapping.merge import MergeConfig, merge_maps
from effovpr_ros.mapping.place import NewPlace
from effovpr_ros.mapping.place_map import PlaceMap

PLAIN = MergeConfig()


def make(
    folder: Path,
    places: list[NewPlace],
    *,
    frame_id: str = "map",
    datum: Datum | None = None,
    own_frame: str = "",
    fingerprint: ModelFingerprint = FINGERPRINT,
    recognition: Mapping[str, Any] | None = None,
) -> Path:
    with PlaceMap.create(
        folder, fingerprint=fingerprint, frame_id=frame_id, datum=datum, recognition=recognition or {}
    ) as place_map:
        if own_frame:
            place_map.set_session_frame(places[0].session, own_frame)
        place_map.add(places)
        place_map.flush()
    return folder


def test_everything_of_a_place_arrives(tmp_path: Path):
    first = make(tmp_path / "a", [new_place(0), new_place(1, geo=GeoPoint(50.0, 8.0, 3.0))])
    second = make(tmp_path / "b", [new_place(number, session="b") for number in (5, 6, 7)])
    done: list[int] = []
    assert merge_maps(tmp_path / "out", [first, second], PLAIN, done.append) == 5
    assert sum(done) == 5
    with PlaceMap.open(tmp_path / "out") as merged, PlaceMap.open(first) as a, PlaceMap.open(second) as b:
        assert merged.check() == []
        assert (merged.name, merged.sessions, merged.frame_id) == ("out", ["a", "b"], "map")
        expected = [*a.places(), *(replace(place, place_id=place.place_id + 2) for place in b.places())]
        assert merged.places() == expected
        both = np.vstack([a.global_descriptors(), b.global_descriptors()])
        np.testing.assert_allclose(merged.global_descriptors(), both, atol=1e-3)
        assert merged.thumbnail(3) == b.thumbnail(1)
        mine, theirs = merged.local_features([3])[0], b.local_features([1])[0]
        np.testing.assert_array_equal(mine.codes, theirs.codes)
        np.testing.assert_array_equal(mine.cells_xy, theirs.cells_xy)
        assert merged.search(b.global_descriptors()[2], 1)[0].place.place_id == 4


def test_sessions_of_one_name_are_refused_or_renamed(tmp_path: Path):
    maps = [make(tmp_path / name, [new_place(0)]) for name in ("mon", "tue")]
    with pytest.raises(MapError, match=r"tue: an earlier map has a session 'a' too; use --rename-sessions"):
        merge_maps(tmp_path / "out", maps, PLAIN)
    merge_maps(tmp_path / "out", maps, MergeConfig(name="week", rename_sessions=True))
    with PlaceMap.open(tmp_path / "out") as merged:
        assert (merged.name, merged.sessions) == ("week", ["a", "tue/a"])
    with pytest.raises(MapError, match="give the maps different names"):
        merge_maps(tmp_path / "again", [maps[0], maps[1], maps[1]], MergeConfig(rename_sessions=True))


def test_settings_of_recognition_are_the_first_maps_and_others_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    settings = {"score": "num_pairs", "top_k": 100}
    first = make(tmp_path / "a", [new_place(0)], recognition=settings)
    alike = make(tmp_path / "b", [new_place(1, session="b")], recognition=settings)
    other = make(tmp_path / "c", [new_place(2, session="c")], recognition={**settings, "top_k": 10})
    old = make(tmp_path / "d", [new_place(3, session="d")])
    merge_maps(tmp_path / "one", [first, alike], PLAIN)
    assert not caplog.messages
    merge_maps(tmp_path / "two", [first, alike, other], PLAIN)
    assert caplog.messages == [
        f"map {other} was made for top_k 10 instead of 100; the merged map has the settings of {first}: name the map "
        "first whose settings it should have"
    ]
    with PlaceMap.open(tmp_path / "two") as merged:
        assert merged.manifest.recognition == settings
    caplog.clear()
    merge_maps(tmp_path / "three", [old, other], PLAIN)
    assert "was made for score num_pairs instead of not known, top_k 10 instead of not known" in caplog.text
    with PlaceMap.open(tmp_path / "three") as merged:
        assert merged.manifest.recognition == {}


def test_frames_and_datums_must_agree_or_are_kept_apart(tmp_path: Path):
    first = make(tmp_path / "a", [new_place(0)])
    odom = make(tmp_path / "b", [new_place(1, session="b")], frame_id="odom")
    placed = make(tmp_path / "c", [new_place(2, session="c")], datum=Datum(GeoPoint(50.0, 8.0)))
    with pytest.raises(MapError, match=r"frame 'odom', the first has 'map'; use --keep-frames"):
        merge_maps(tmp_path / "out", [first, odom], PLAIN)
    with pytest.raises(MapError, match=r"datum GeoPoint.*the first has None; use --keep-frames"):
        merge_maps(tmp_path / "out", [first, placed], PLAIN)
    merge_maps(tmp_path / "out", [first, odom, placed], MergeConfig(keep_frames=True))
    with PlaceMap.open(tmp_path / "out") as merged:
        assert [place.own_frame for place in merged.places()] == ["", "b/odom", "c/map"]
        assert [place.pose for place in merged.places()] == [new_place(number).pose for number in range(3)]


def test_maps_without_poses_have_no_frame_to_differ_in(tmp_path: Path):
    first = make(tmp_path / "a", [new_place(0)])
    second = make(tmp_path / "b", [new_place(1, session="b", pose=None)], frame_id="odom")
    merge_maps(tmp_path / "out", [first, second], PLAIN)
    with PlaceMap.open(tmp_path / "out") as merged:
        assert [place.own_frame for place in merged.places()] == ["", ""]


def test_own_frames_of_different_maps_stay_apart(tmp_path: Path):
    first = make(tmp_path / "a", [new_place(0), new_place(1, session="x")], own_frame="odom")
    second = make(tmp_path / "b", [new_place(2, session="b")], own_frame="odom")
    merge_maps(tmp_path / "out", [first, second], PLAIN)
    with PlaceMap.open(tmp_path / "out") as merged:
        assert [place.own_frame for place in merged.places()] == ["odom", "", "b/odom"]


def test_a_session_whose_odometry_began_anew_keeps_its_frames(tmp_path: Path):
    first = make(tmp_path / "a", [new_place(0)])
    with GrowingMap.create(tmp_path / "b", fingerprint=FINGERPRINT, frame_id="odom") as grown:
        grown.begin_pose_frame("run")
        grown.add([new_place(1, session="run"), new_place(2, session="run")])
        grown.begin_pose_frame("run")
        grown.add([new_place(3, session="run"), new_place(4, session="other")])
        grown.flush()
    merge_maps(tmp_path / "out", [first, tmp_path / "b"], MergeConfig(keep_frames=True))
    with PlaceMap.open(tmp_path / "out") as merged:
        assert [place.own_frame for place in merged.places()] == ["", "b/odom", "b/odom", "b/run/track_2", "b/odom"]


def test_what_cannot_be_joined_is_refused(tmp_path: Path):
    first = make(tmp_path / "a", [new_place(0)])
    with pytest.raises(MapError, match="two or more"):
        merge_maps(tmp_path / "out", [first], PLAIN)
    second = make(tmp_path / "c", [new_place(1, session="c")])
    with pytest.raises(MapError, match="exists already"):
        merge_maps(first, [first, second], PLAIN)
    other = make(
        tmp_path / "b", [new_place(1, session="b")], fingerprint=replace(FINGERPRINT, architecture="vit_other")
    )
    with pytest.raises(ModelMismatchError, match="vit_other"):
        merge_maps(tmp_path / "out", [first, other], PLAIN)
    assert not (tmp_path / "out").exists()


def test_a_failed_merge_leaves_nothing_and_a_killed_one_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    maps = [make(tmp_path / name, [new_place(0, session=name)]) for name in ("a", "b")]
    left = tmp_path / ".out.merging-abcdefgh"
    (left / "out").mkdir(parents=True)
    (left / ".effovpr_ros_working").touch()
    (left / "out" / "map.yaml").write_text("half")
    (tmp_path / "out.merging").mkdir()

    def full(*_: object) -> None:
        raise MapError("disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(merge_module, "whole_places", full)
        with pytest.raises(MapError, match="disk is full"):
            merge_maps(tmp_path / "out", maps, PLAIN)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "out.merging"]
    assert merge_maps(tmp_path / "out", maps, PLAIN) == 2
    # As after a kill at the very end: the same command is content.
    assert merge_maps(tmp_path / "out", maps, PLAIN) == 2
    with pytest.raises(MapError, match="exists already"):
        merge_maps(tmp_path / "out", maps[::-1], PLAIN)
