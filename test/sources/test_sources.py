"""Trajectories, tables and image folders."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from inputs import GPS, tagged
from PIL import Image
from synthetic import picture

from effovpr_ros.core.errors import SourceError, TrajectoryError
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.core.transforms import slerp
from effovpr_ros.sources.images import open_image_folder
from effovpr_ros.sources.pose_origin import origin_of_folder
from effovpr_ros.sources.trajectory import GeoTrajectory, Trajectory, read_tum, stamp_to_ns

SECOND = 10**9


def trajectory() -> Trajectory:
    poses = [Pose.from_yaw(0.0, 0.0, 0.0), Pose.from_yaw(4.0, 2.0, math.pi / 2), Pose.from_yaw(9.0, 9.0, 0.0)]
    # Given out of order.
    return Trajectory([SECOND, 0, 9 * SECOND], [poses[1], poses[0], poses[2]])


def test_poses_are_interpolated_between_neighbours():
    pose = trajectory().at(SECOND // 4, SECOND)
    assert pose.position_xyz == pytest.approx((1.0, 0.5, 0.0))
    assert pose.yaw_rad == pytest.approx(math.pi / 8)
    assert trajectory().at(SECOND, SECOND).position_xyz == (4.0, 2.0, 0.0)


def test_times_outside_and_in_gaps_are_refused():
    with pytest.raises(TrajectoryError, match=r"outside the trajectory, 1\.000 s before its start"):
        trajectory().at(-SECOND, SECOND)
    with pytest.raises(TrajectoryError, match="after its end"):
        trajectory().at(10 * SECOND, SECOND)
    with pytest.raises(TrajectoryError, match=r"gap of 8\.000 s .* longer than the 1\.000 s"):
        trajectory().at(2 * SECOND, SECOND)
    with pytest.raises(TrajectoryError, match="empty"):
        Trajectory([], [])


def test_slerp_takes_the_shorter_arc():
    a, b = Pose.from_yaw(0, 0, 3.0).quat_xyzw, Pose.from_yaw(0, 0, -3.0).quat_xyzw
    middle = Pose((0.0, 0.0, 0.0), slerp(a, b, 0.5))
    assert abs(middle.yaw_rad) == pytest.approx(math.pi)
    negated = tuple(-value for value in b)
    assert abs(Pose((0.0, 0.0, 0.0), slerp(a, negated, 0.5)).yaw_rad) == pytest.approx(math.pi)  # type: ignore[arg-type]
    assert slerp(a, a, 0.3) == pytest.approx(a)


def test_fixes_are_interpolated_across_the_180th_meridian():
    fixes = GeoTrajectory([0, SECOND], [GeoPoint(0.0, 179.0, 0.0), GeoPoint(2.0, -179.0, 10.0)])
    middle = fixes.at(SECOND // 2, SECOND)
    assert middle.latitude_deg == 1.0
    assert abs(middle.longitude_deg) == pytest.approx(180.0)
    assert middle.altitude_m == 5.0
    unknown = GeoTrajectory([0, SECOND], [GeoPoint(0.0, 1.0), GeoPoint(0.0, 1.0, 10.0)])
    assert unknown.at(SECOND // 2, SECOND).altitude_m is None
    assert unknown.origin == GeoPoint(0.0, 1.0, 10.0)


def test_what_one_of_two_poses_does_not_know_is_unknown_between_them():
    known, flat = Pose.from_yaw(0.0, 0.0, 1.0, 4.0), Pose((2.0, 0.0, None), None)
    trajectory = Trajectory([0, SECOND, 2 * SECOND], [known, flat, known])
    assert trajectory.at(SECOND // 2, SECOND) == Pose((1.0, 0.0, None), None)
    assert trajectory.at(2 * SECOND, SECOND) == known


def test_stamps_keep_their_nanoseconds():
    assert stamp_to_ns("1700000000.123456789") == 1_700_000_000_123_456_789
    assert stamp_to_ns("5") == 5 * SECOND
    assert stamp_to_ns("1.5e3") == 1500 * SECOND
    for bad in ("nan", "soon", ""):
        with pytest.raises(ValueError):
            stamp_to_ns(bad)


def test_tum_files(tmp_path: Path):
    path = tmp_path / "poses.txt"
    path.write_text("# stamp x y z qx qy qz qw\n1.0 0 0 0 0 0 0 1\n\n2.0 2 0 0 0 0 0 1 # end\n3.0 nan 0 0 0 0 0 1\n")
    read, refused = read_tum(path)
    assert len(read) == 2
    assert read.at(1_500_000_000, SECOND).position_xyz == (1.0, 0.0, 0.0)
    assert len(refused) == 1
    assert "line 5" in refused[0]
    path.write_text("1.0 0 0\n")
    with pytest.raises(SourceError, match="line 1: wanted `stamp x y z qx qy qz qw`"):
        read_tum(path)


def save(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number)).save(folder / name)


def test_csv_with_poses_and_geo_tags(tmp_path: Path):
    save(tmp_path, "b.jpg", "a.jpg", "c.jpg")
    table = tmp_path / "poses.csv"
    table.write_text(
        "image, stamp, x, y, yaw_deg, latitude, longitude, note\n"
        "b.jpg,12.5,1,2,90,,,first\n"
        "a.jpg,,,,,50.1,8.7,\n"
        "gone.jpg,,1,1,0,,,\n"
        "c.jpg,,1,nan,0,,,\n"
        "c.jpg,,,,,95,8,\n"
    )
    source = open_image_folder(tmp_path, table=table)
    first, second = source.frames
    assert (first.name, first.stamp_ns, first.geo) == ("b.jpg", 12_500_000_000, None)
    assert first.pose is not None
    assert first.pose.position_xyz == (1.0, 2.0, None)
    assert first.pose.yaw_rad == pytest.approx(math.pi / 2)
    assert second.geo == GeoPoint(50.1, 8.7)
    assert [line.split(":")[0] for line in source.refused] == [
        "poses.csv, line 4 (gone.jpg)",
        "poses.csv, line 5 (c.jpg)",
        "poses.csv, line 6 (c.jpg)",
    ]
    assert "latitude 95" in source.refused[2]


@pytest.mark.parametrize(
    ("header", "said"),
    [("frame,x,y", "no column 'image'"), ("image,x", "'x' but none 'y'"), ("image,latitude", "none 'longitude'")],
)
def test_csv_without_a_column_is_refused(tmp_path: Path, header: str, said: str):
    save(tmp_path, "a.jpg")
    (tmp_path / "poses.csv").write_text(f"{header}\n")
    with pytest.raises(SourceError, match=said):
        open_image_folder(tmp_path, table=tmp_path / "poses.csv")


def test_utm_names(tmp_path: Path):
    save(
        tmp_path,
        "@500000.0@0.0@32@N@@@@@0@.jpg",
        "@500100.0@0.0@32@N@@@@@90@.jpg",
        "@somewhere@0@32@N@.jpg",
    )
    source = open_image_folder(tmp_path)
    assert source.kind == "utm"
    assert len(source.frames) == 2
    assert source.datum is not None
    assert source.datum.origin.longitude_deg == pytest.approx(9.0)
    poses = {frame.name: frame.pose for frame in source.frames}
    north, east = poses["@500000.0@0.0@32@N@@@@@0@.jpg"], poses["@500100.0@0.0@32@N@@@@@90@.jpg"]
    assert north is not None
    assert east is not None
    # 100 m of easting are 100 / 0.9996 m on the ground.
    assert east.position_xyz[0] - north.position_xyz[0] == pytest.approx(100.04, abs=0.005)
    assert north.yaw_rad == pytest.approx(math.pi / 2)
    assert east.yaw_rad == pytest.approx(0.0)
    assert "@somewhere@" in source.refused[0]


def test_utm_names_without_zone_are_metres_from_the_first(tmp_path: Path):
    save(tmp_path, "@550000.5@4180000@.jpg", "@550003.5@4180004@.jpg")
    poses = [frame.pose for frame in open_image_folder(tmp_path).frames]
    assert [pose.position_xyz for pose in poses if pose] == [(0.0, 0.0, None), (3.0, 4.0, None)]


def test_images_named_by_stamp_with_a_tum_trajectory(tmp_path: Path):
    save(tmp_path / "images", "1.25.png", "7.0.png", "cover.png")
    (tmp_path / "poses.txt").write_text("1.0 0 0 0 0 0 0 1\n1.5 1 0 0 0 0 0 1\n")
    source = open_image_folder(tmp_path / "images", table=tmp_path / "poses.txt")
    assert source.kind == "tum"
    assert [(frame.name, frame.stamp_ns) for frame in source.frames] == [("1.25.png", 1_250_000_000)]
    assert source.frames[0].pose == Pose.from_yaw(0.5, 0.0, 0.0)
    assert len(source.refused) == 2


def exif_gps(latitude: tuple[float, ...], longitude: tuple[float, ...], **extra: object) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0132] = "2024:05:06 07:08:09"
    gps = exif.get_ifd(0x8825)
    gps.update({1: "S", 2: latitude, 3: "W", 4: longitude, 6: 12.5, **{int(k): v for k, v in extra.items()}})
    return exif


def test_exif_positions(tmp_path: Path):
    exif = exif_gps((10.0, 30.0, 36.0), (20.0, 15.0, 0.0), **{"17": 90.0})
    Image.fromarray(picture(1)).save(tmp_path / "1.jpg", exif=exif)
    save(tmp_path, "2.jpg")
    source = open_image_folder(tmp_path)
    assert source.kind == "exif"
    frame = source.frames[0]
    assert frame.geo is not None
    assert (frame.geo.latitude_deg, frame.geo.longitude_deg) == pytest.approx((-10.51, -20.25))
    assert frame.geo.altitude_m == 12.5
    assert frame.stamp_ns == 1_714_979_289 * SECOND
    assert frame.pose is not None
    assert frame.pose.yaw_rad == pytest.approx(0.0)
    assert source.datum == Datum(frame.geo)
    assert "2.jpg" in source.refused[0]


def test_a_photograph_without_altitude_has_no_height_and_no_heading(tmp_path: Path):
    for number, altitude in enumerate((520.0, None, 523.0)):
        exif = exif_gps((10.0, 30.0, 36.0), (20.0, 15.0, 0.0))
        gps = exif.get_ifd(0x8825)
        del gps[6]
        if altitude is not None:
            gps[6] = altitude
        Image.fromarray(picture(number)).save(tmp_path / f"{number}.jpg", exif=exif)
    poses = [frame.pose for frame in open_image_folder(tmp_path).frames]
    assert [pose.position_xyz[2] for pose in poses] == [
        pytest.approx(0.0, abs=1e-6),
        None,
        pytest.approx(3.0, abs=1e-6),
    ]
    assert [pose.quat_xyzw for pose in poses] == [None] * 3
    assert poses[0].distance_m(poses[1]) == pytest.approx(0.0, abs=1e-3)


def test_a_first_photograph_without_altitude_takes_no_heights_from_the_others(tmp_path: Path):
    for number in range(2):
        exif = exif_gps((10.0, 30.0, 36.0), (20.0, 15.0, 0.0))
        if number == 0:
            del exif.get_ifd(0x8825)[6]
        Image.fromarray(picture(number)).save(tmp_path / f"{number}.jpg", exif=exif)
    folder = open_image_folder(tmp_path)
    assert folder.datum is not None
    assert folder.datum.origin.altitude_m == 12.5
    assert [frame.pose.position_xyz[2] for frame in folder.frames] == [None, pytest.approx(0.0, abs=1e-6)]


def test_a_table_without_headings_and_heights_says_so(tmp_path: Path):
    save(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    table = tmp_path / "poses.csv"
    table.write_text("image,x,y,z,yaw_deg,latitude,longitude\na.jpg,1,2,,,,\nb.jpg,1,2,0,0,,\nc.jpg,,,,,50,8\n")
    unknown, known, tagged = open_image_folder(tmp_path, table=table).frames
    assert unknown.pose == Pose((1.0, 2.0, None), None)
    assert known.pose == Pose((1.0, 2.0, 0.0), (0.0, 0.0, 0.0, 1.0))
    assert tagged.geo == GeoPoint(50.0, 8.0, None)


def test_plain_folders_keep_natural_order_and_sub_folders(tmp_path: Path):
    save(tmp_path, "frame_10.jpg", "frame_2.jpg", "sub/frame_1.jpg")
    source = open_image_folder(tmp_path, session="walk")
    assert [frame.name for frame in source.frames] == ["frame_2.jpg", "frame_10.jpg", "sub/frame_1.jpg"]
    assert {frame.session for frame in source.frames} == {"walk"}
    assert source.frames[0].load().shape == (72, 96, 3)


def test_folders_that_cannot_be_used(tmp_path: Path):
    with pytest.raises(SourceError, match="does not exist"):
        open_image_folder(tmp_path / "gone")
    with pytest.raises(SourceError, match="holds no image"):
        open_image_folder(tmp_path)
    save(tmp_path, "a.jpg")
    with pytest.raises(SourceError, match="needs a table; name it with --table"):
        open_image_folder(tmp_path, kind="csv")
    with pytest.raises(SourceError, match="kind 'kml' is unknown"):
        open_image_folder(tmp_path, kind="kml")


@pytest.mark.parametrize(
    ("errors", "std_m", "said"),
    [
        # (3^2 + 4^2 + 5^2) / 3 = 16.67; the photograph that says nothing has 5 m.
        ([(3, 1), (4, 1), None], math.sqrt(50.0 / 3.0), "4.1 m: GPSHPositioningError of 2 of 3 photographs, 5 m for"),
        ([None, None], 5.0, "5.0 m: GPSHPositioningError of 0 of 2 photographs"),
        # No error at all, and what is no number, are no statement.
        ([(0, 1), (1, 0), (12, 1)], math.sqrt((25.0 + 25.0 + 144.0) / 3.0), "of 1 of 3 photographs"),
    ],
)
def test_photographs_say_how_sure_their_positions_are(
    tmp_path: Path, errors: list[tuple[int, int] | None], std_m: float, said: str
):
    for number, error in enumerate(errors):
        gps = GPS if error is None else {**GPS, 31: error}
        (tmp_path / f"{number}.jpg").write_bytes(tagged(gps))
    folder = open_image_folder(tmp_path)
    assert folder.kind == "exif"
    assert folder.position_std_m == pytest.approx(std_m)
    assert said in folder.notes[-1]
    assert origin_of_folder(folder).position_std_m == pytest.approx(std_m)
    # Names and tables do not say it, and nothing is assumed.
    assert open_image_folder(tmp_path, kind="plain").position_std_m is None
