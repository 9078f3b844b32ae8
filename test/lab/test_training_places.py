"""Places as classes and groups; sources of training images."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import cv2
import pytest
from synthetic import FINGERPRINT, new_place, picture

from effovpr_ros.cli.main import main
from effovpr_ros.core.errors import ConfigError, SourceError, TrainingError
from effovpr_ros.core.poses import Pose
from effovpr_ros.lab.training.frames import open_source, parse_source
from effovpr_ros.lab.training.place_classes import PlacesConfig, TrainingFrame, hold_out, make_places, make_validation
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.sources.frame import Frame


def posed(x: float, y: float, yaw_deg: float | None = 0.0, *, name: str = "", area: str = "town") -> TrainingFrame:
    pose = Pose.from_yaw(x, y, None if yaw_deg is None else math.radians(yaw_deg))
    frame = Frame(name or f"{x},{y},{yaw_deg}", area, 0, pose, None, lambda: picture(0))
    return TrainingFrame(frame, area, columns={"source": area})


def clip(name: str, count: int) -> list[TrainingFrame]:
    return [
        TrainingFrame(
            Frame(f"{name}{number}", "s", 0, None, None, lambda: picture(0)),
            "walk",
            name,
            number,
            columns={"clip": name},
        )
        for number in range(count)
    ]


def classes(frames: list[TrainingFrame], **options: float) -> dict[str, list[list[str]]]:
    """Names of the images of each class of each group."""
    places = make_places(frames, PlacesConfig(**options))
    return {
        group.name: [[places.frames[number].name for number in members] for members in group.classes]
        for group in places.groups
    }


def test_cells_and_headings_by_hand():
    # Cells of 10 m: 0, 0, 1, 2; headings in sectors of 90 degrees: 0, 0, 0, 0 and for the last two 1.
    frames = [posed(*where) for where in ((1, 1), (9, 9, 89), (11, 1), (21, 1), (1, 1, 91), (21, 1, 179))]
    twice = [item for frame in frames for item in (frame, frame)]
    found = classes(twice, cell_m=10, sector_deg=90, cell_groups=2, sector_groups=2)
    assert {name: [sorted(set(members)) for members in group] for name, group in found.items()} == {
        # Cell 1 and the second heading are neighbours of what stands here, so they are in groups of their own,
        "town cells 0,0 headings 0": [["1,1,0.0", "9,9,89"], ["21,1,0.0"]],
        "town cells 0,0 headings 1": [["1,1,91"], ["21,1,179"]],
        # of which that of cell 1 has one class only and is left out.
    }


def test_negative_coordinates_and_headings_lie_in_cells_of_their_own():
    frames = [posed(x, 0, yaw) for x in (-0.1, 0.1) for yaw in (-1, 1) for _ in range(2)]
    places = make_places(frames, PlacesConfig(cell_m=1, cell_groups=1, sector_deg=90, sector_groups=1))
    assert [len(group.classes) for group in places.groups] == [4]


def test_no_group_holds_neighbours():
    config = PlacesConfig(cell_m=1, sector_deg=30)
    frames = [posed(x + 0.5, y + 0.5, 15 + 30 * k) for x in range(7) for y in range(7) for k in range(12)] * 2
    places = make_places(frames, config)
    assert sum(len(group.classes) for group in places.groups) == 7 * 7 * 12 and len(places.groups) == 3 * 3 * 2
    for group in places.groups:
        poses = [places.frames[members[0]].pose for members in group.classes]
        for one, other in itertools.combinations(poses, 2):
            apart = [abs(a - b) for a, b in zip(one.position_xyz[:2], other.position_xyz[:2], strict=True)]
            turned = abs(math.degrees(math.remainder(one.yaw_rad - other.yaw_rad, math.tau)))
            assert max(apart) > 2 or (max(apart) < 1e-9 and turned > 59)


def test_sectors_must_close_the_circle():
    with pytest.raises(ConfigError, match="multiple of sector_groups"):
        PlacesConfig(sector_deg=40, sector_groups=2)
    PlacesConfig(sector_deg=360, sector_groups=2)


def test_headings_do_not_count_where_they_are_unknown():
    frames = [posed(x, 0, None) for x in (1, 31, 1, 31)]
    assert list(classes(frames, cell_m=10)) == ["town cells 0,0 headings any"]


def test_windows_of_a_clip_with_gaps_between():
    found = classes(clip("c", 20) + clip("d", 9), window=4, window_gap=2, window_groups=2)
    assert found == {
        "walk windows 0": [["c0", "c1", "c2", "c3"], ["c12", "c13", "c14", "c15"], ["d0", "d1", "d2", "d3"]],
        "walk windows 1": [["c6", "c7", "c8", "c9"], ["c18", "c19"], ["d6", "d7", "d8"]],
    }


def test_a_class_with_one_image_is_left_out_and_said():
    places = make_places([*clip("c", 4), *clip("d", 4), *clip("e", 1)], PlacesConfig(window=4))
    assert len(places.frames) == 8 and places.notes == ("1 classes with fewer than 2 images are left out",)


def test_no_classes_left_is_an_error_that_says_why():
    with pytest.raises(
        TrainingError, match=r"1 of 2 classes have fewer than 2 images, 1 are alone in their group.*--cell-m"
    ):
        make_places([posed(1, 1), posed(2, 2), posed(50, 50)], PlacesConfig())


def test_holding_out():
    frames = [*clip("c", 3), *clip("d", 3)]
    training, validation = hold_out(frames, {"clip": ("d",)}, 0.0, 0, 15.0)
    assert [item.clip for item in training] == ["c"] * 3 and [item.clip for item in validation] == ["d"] * 3
    with pytest.raises(ConfigError, match="there are c, d"):
        hold_out(frames, {"clip": ("x",)}, 0.0, 0, 15.0)
    with pytest.raises(ConfigError, match="there are clip"):
        hold_out(frames, {"floor": ("1",)}, 0.0, 0, 15.0)
    many = [item for number in range(200) for item in clip(f"n{number}", 2)]
    training, validation = hold_out(many, {}, 0.25, 0, 15.0)
    assert 0.15 < len(validation) / len(many) < 0.35
    assert not {item.clip for item in training} & {item.clip for item in validation}, "clips stay whole"


def test_positives_of_validation():
    frames = [posed(0, 0), posed(9, 0), posed(11, 0), posed(1, 0, 90), posed(0, 0, None), posed(0, 0, area="other")]
    found = make_validation(frames, PlacesConfig(cell_m=10, sector_deg=45, sector_groups=2))
    assert found.positives == ((1, 4), (0, 2, 4), (1,), (4,), (0, 1, 3), ())
    assert make_validation(clip("c", 4), PlacesConfig(window=2)).positives == ((1, 2), (0, 2, 3), (0, 1, 3), (1, 2))
    with pytest.raises(TrainingError, match="none of the 2 validation images"):
        make_validation([posed(0, 0), posed(99, 0)], PlacesConfig())


def write_images(folder: Path, names: list[str]) -> None:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), picture(seed, 32, 24))


def test_a_clip_table_posed_and_not(tmp_path: Path):
    write_images(tmp_path / "images", ["a.png", "b.png"])
    table = tmp_path / "frames.csv"
    table.write_text(
        "image,clip,frame,floor,x,y,yaw\na.png,one,1,7,,,\nb.png,two,5,8,3,4,1.5\nmissing.png,two,6,8,3,4,0\n"
    )
    source = open_source(parse_source(str(table)))
    assert [(item.clip, item.number, item.columns["floor"]) for item in source.frames] == [
        ("one", 1, "7"),
        ("two", 5, "8"),
    ]
    assert source.frames[0].frame.pose is None and source.frames[1].frame.pose is not None
    assert source.frames[1].frame.pose.yaw_rad == pytest.approx(1.5)
    assert source.frames[0].frame.load().shape == (24, 32, 3)
    assert len(source.refused) == 1 and "line 4" in source.refused[0]


def test_gsv_cities_layout(tmp_path: Path):
    (tmp_path / "Dataframes").mkdir()
    (tmp_path / "Dataframes" / "Bonn.csv").write_text(
        "place_id,year,month,northdeg,city_id,lat,lon,panoid\n7,2011,5,90,Bonn,50.70,7.1,abc\n7,2012,5,9,Bonn,50.70,7.1,x\n"
    )
    write_images(tmp_path / "Images" / "Bonn", ["Bonn_0000007_2011_05_090_50.70_7.1_abc.jpg"])
    source = open_source(parse_source(str(tmp_path)))
    assert [(item.place, item.area) for item in source.frames] == [("7", f"{tmp_path} Bonn")]
    assert len(source.refused) == 1 and "_009_50.70_7.1_x.jpg does not exist" in source.refused[0]


def test_utm_names_and_plain_folders(tmp_path: Path):
    write_images(tmp_path / "utm", ["@100@200@@@@@@@90@@@@@.jpg", "@130@200@@@@@@@90@@@@@.jpg"])
    source = open_source(parse_source(str(tmp_path / "utm")))
    assert [item.frame.pose.position_xyz for item in source.frames] == [(0.0, 0.0, None), (30.0, 0.0, None)]
    write_images(tmp_path / "plain", ["one/1.png", "one/2.png", "two/1.png"])
    with pytest.raises(TrainingError, match="kind=clips"):
        open_source(parse_source(f"{tmp_path / 'plain'}:kind=plain"))
    clips = open_source(parse_source(f"{tmp_path / 'plain'}:kind=clips"))
    assert [item.clip for item in clips.frames] == ["one", "one", "two"]


def test_a_map_gives_thumbnails_or_the_originals(tmp_path: Path):
    with PlaceMap.create(tmp_path / "map", fingerprint=FINGERPRINT) as place_map:
        place_map.add([new_place(0), new_place(40)])
        place_map.flush()
    write_images(tmp_path / "originals", ["0.jpg"])
    thumbnails = open_source(parse_source(str(tmp_path / "map")))
    assert [item.frame.load().shape for item in thumbnails.frames] == [(12, 16, 3), (12, 16, 3)]
    assert [item.frame.pose.position_xyz[0] for item in thumbnails.frames] == [0.0, 40.0]
    originals = open_source(parse_source(f"{tmp_path / 'map'}:images={tmp_path / 'originals'},area=site"))
    assert [item.frame.load().shape for item in originals.frames] == [(24, 32, 3), (12, 16, 3)]
    assert originals.frames[0].area == "site"


def test_sources_that_are_not_there(tmp_path: Path):
    with pytest.raises(SourceError, match="does not exist"):
        open_source(parse_source(str(tmp_path / "nothing")))
    with pytest.raises(ConfigError, match="no setting 'topic'"):
        parse_source("drive.mcap:topic=/camera")
    with pytest.raises(ConfigError, match="kind 'video' is unknown"):
        parse_source("folder:kind=video")


def test_the_command_says_that_images_have_no_pose(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_images(tmp_path / "plain", ["1.png", "2.png"])
    assert main(["train", f"{tmp_path / 'plain'}:kind=plain", "--out", str(tmp_path / "out")]) == 1
    assert "kind=clips" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
