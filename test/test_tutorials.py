"""Every command of the tutorials runs: on the pictures that the package ships, as a bag, as photographs with GPS."""

from __future__ import annotations

import csv
import re
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

from effovpr_ros.cli.main import main
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.images import read_image
from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.lab.demo_photos import FOLDER
from effovpr_ros.sources.bag_writer import BagWriter

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DATUM = Datum(GeoPoint(50.1, 8.68, 112.0))


def shipped(folder: str) -> list[tuple[Path, Pose]]:
    with (FOLDER / folder / "poses.csv").open(newline="") as file:
        rows = [
            {key: value if key == "image" else float(value) for key, value in row.items()}
            for row in csv.DictReader(file)
        ]
    return [
        (
            FOLDER / folder / str(row["image"]),
            Pose((row["x"], row["y"], row["z"]), (row["qx"], row["qy"], row["qz"], row["qw"])),
        )
        for row in rows
    ]


def write_bag(
    path: Path,
    items: list[tuple[Path, Pose]],
    topic: str,
    start_s: int,
    cameras: tuple[str, ...] = ("/camera/image_raw",),
) -> None:
    """One file, as a recorder that writes no folder leaves it; a second camera sees the pictures in another order."""
    folder = path.with_suffix("")
    with BagWriter(folder) as writer:
        for number, (image, pose) in enumerate(items):
            stamp_ns = (start_s + number) * 10**9
            writer.write_odometry(topic, stamp_ns, pose, frame_id="odom", child_frame_id="base_link")
            for turn, camera in enumerate(cameras):
                seen = items[(number + turn * len(items) // 2) % len(items)][0] if turn else image
                writer.write_image(f"{camera}/compressed", stamp_ns, read_image(seen), camera.split("/")[1])
    (recorded,) = folder.glob("*.mcap")
    recorded.rename(path)
    shutil.rmtree(folder)


def write_photo(path: Path, image: Path, pose: Pose) -> None:
    """With GPS, as a phone tags it."""
    geo = DATUM.to_geo(pose.position_xyz)
    exif = Image.Exif()

    def degrees(value: float) -> tuple[float, float, float]:
        minutes = (value % 1.0) * 60.0
        return (float(int(value)), float(int(minutes)), (minutes % 1.0) * 60.0)

    exif[0x8825] = {1: "N", 2: degrees(geo.latitude_deg), 3: "E", 4: degrees(geo.longitude_deg)}
    with Image.open(image) as picture:
        picture.save(path, exif=exif)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """What the tutorials take to be there."""
    mapped, asked = shipped("map"), shipped("queries")
    write_bag(tmp_path / "drive.mcap", mapped, "/odom", 1_700_000_000)
    write_bag(tmp_path / "second_drive.mcap", asked, "/odom", 1_700_100_000)
    write_bag(tmp_path / "two_cameras.mcap", mapped, "/odom", 1_700_000_000, ("/front/image_raw", "/rear/image_raw"))
    for folder, items in (("photos", mapped), ("more_photos", asked)):
        (tmp_path / folder).mkdir()
        for image, pose in items:
            write_photo(tmp_path / folder / image.name, image, pose)
    for name in ("snapshot.jpg", "where_is_this.jpg", "second_look.jpg"):
        shutil.copy(asked[0][0], tmp_path / name)
    return tmp_path


def test_every_tutorial_is_on_the_site_and_has_commands():
    nav = (ROOT / "mkdocs.yml").read_text()
    assert len(TUTORIALS) >= 7
    for path in TUTORIALS:
        assert f"tutorials/{path.name}" in nav and BLOCK.search(path.read_text()), path.name


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_the_commands_of_a_tutorial_run(path: Path, here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(here)
    needs_ros = shutil.which("ros2") is None
    left_out = []
    text = path.read_text(encoding="utf-8")
    if path.stem == "cluster":
        pytest.importorskip("ray")
    if path.stem == "nav2":
        # A drive that was localised by AMCL has its poses there.
        write_bag(here / "drive.mcap", shipped("map"), "/amcl_pose", 1_700_000_000)
    for block in BLOCK.findall(text):
        if re.search(r"^ros2 ", block, re.MULTILINE):
            left_out.append(block)
            continue
        for line in block.strip().splitlines():
            program, *arguments = shlex.split(line, comments=True)
            # In this process: a new one would load torch for each line.
            assert program == "effovpr", line
            assert main(arguments) == 0, line
    for page in re.findall(r"--page (\S+)", text):
        assert (here / page).stat().st_size > 10_000
    if left_out and needs_ros and len(left_out) == len(BLOCK.findall(text)):
        pytest.skip("every block of it needs the ros2 command")


def test_launch_arguments_of_the_tutorials_exist():
    for path in TUTORIALS:
        for launch, arguments in re.findall(r"^ros2 launch effovpr_ros (\S+) (.*)$", path.read_text(), re.MULTILINE):
            source = (ROOT / "launch" / launch).read_text() + (ROOT / "effovpr_ros/nodes/launching.py").read_text()
            for name in re.findall(r"(\w+):=", arguments):
                assert f'"{name}"' in source, f"{path.name}: {name}"


def test_the_python_of_the_first_tutorial_runs(here: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    from effovpr_ros.api import build_map

    build_map(here / "home", here / "photos", device="cpu")
    (code,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/tutorials/first.md").read_text(), re.M | re.S)
    monkeypatch.chdir(here)
    exec(compile(code, "first.md", "exec"), {})
    assert re.match(r"(MATCH|AMBIGUOUS) 0\.\d+|MATCH 1\.0", capsys.readouterr().out)
