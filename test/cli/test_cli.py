"""The command line as a user calls it."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch
from described import described
from PIL import Image
from synthetic import picture, tiny_weights

from effovpr_ros.cli import doctor
from effovpr_ros.cli.main import main, make_parser
from effovpr_ros.core.version import version
from effovpr_ros.engines import agreement
from effovpr_ros.engines.catalogue import ENGINES, what_is_missing
from effovpr_ros.mapping.place_map import PlaceMap


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rows = ["image,x,y,yaw_deg,latitude,longitude"]
    for number in range(6):
        Image.fromarray(picture(number)).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{20 * number},0,0,50.0,{8 + number * 0.001}")
    (folder / "broken.png").write_bytes(b"noise")
    rows.append("broken.png,0,50,0,,")
    (folder / "poses.csv").write_text("\n".join(rows) + "\n")
    return folder


def build(photos: Path, folder: Path, *more: str) -> int:
    weights = tiny_weights(photos.parent)
    model = ["--model", "vit_tiny_test_patch14", "--weights", str(weights), "--size", "56", "--t1", "0.0"]
    return main(["map", "build", str(folder), str(photos), "--table", str(photos / "poses.csv"), *model, *more])


@pytest.mark.parametrize(("options", "kept"), [((), True), (("--points", "none"), False)])
def test_a_map_keeps_points_unless_told_not_to(
    photos: Path, tmp_path: Path, options: tuple[str, ...], kept: bool, capsys: pytest.CaptureFixture[str]
):
    assert build(photos, tmp_path / "map", *options) == 0
    with PlaceMap.open(tmp_path / "map") as place_map:
        assert [points is not None for points in place_map.points([0, 1])] == [kept, kept]
    capsys.readouterr()
    weights = ["--weights", str(tmp_path / "vit_tiny_test_patch14.safetensors")]
    assert main(["query", str(tmp_path / "map"), str(photos / "0.png"), "--json", *weights]) == 0
    answer = json.loads(capsys.readouterr().out)["results"][0]
    # Either way the third stage looks, at stored points or at the stored picture.
    assert answer["latency_ms"]["verify"] > 0.0
    assert answer["candidates"][0]["points"]["matches"] >= 0


def test_engines_share_a_map(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    for name in ("onnxruntime", "openvino-fp32", "openvino-int8"):
        if what_is_missing(name):
            pytest.skip(f"engine {name}: {what_is_missing(name)}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # Three pictures calibrate, which is few.
    monkeypatch.setattr(agreement, "MIN_MEAN", 0.99)
    folder = tmp_path / "map"
    assert build(photos, folder, "--engine", "onnxruntime") == 0
    weights = ["--weights", str(tmp_path / "vit_tiny_test_patch14.safetensors")]
    # 8 bits are calibrated with the map's thumbnails, and a second drive is mapped with the same network.
    for engine in ("torch", "openvino-fp32", "openvino-int8"):
        capsys.readouterr()
        assert main(["query", str(folder), str(photos / "4.png"), "--json", *weights, "--engine", engine]) == 0
        first = json.loads(capsys.readouterr().out)["results"][0]["candidates"][0]
        assert first["source"] == "4.png"
        assert first["similarity"] > 0.98
    assert build(photos, folder, "--session", "second", "--engine", "openvino-int8") == 0
    assert len(list((tmp_path / "cache").rglob("int8-*.xml"))) == 1


def test_the_doctor_lists_engines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "what_is_missing", lambda name: "run `mend it`" if name == "onnxruntime" else "")
    main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    [torch_line] = [line for line in lines if " engine torch " in line]
    assert torch_line.startswith("ok ")
    at = next(number for number, line in enumerate(lines) if "engine onnxruntime" in line)
    assert lines[at].startswith("absent ")
    assert lines[at + 1].strip() == "-> run `mend it`"
    if not torch.cuda.is_available():
        # What needs a GPU is nothing to install where there is none.
        [tensorrt_line] = [line for line in lines if "engine tensorrt" in line]
        assert tensorrt_line.endswith("not for this machine, see gpu")
    assert sum(" engine " in line for line in lines) == len(ENGINES)


def test_the_doctor_says_for_how_many_places_a_gpu_has_room(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "a GPU")
    # A third of what is free; a place takes 529 * (44 + 2) bytes.
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3001 * 24_334, 2**34))
    assert doctor._gpu().found.endswith("room for the local descriptors of 1,000 places")


def test_build_info_check_query_and_export(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "map"
    assert build(photos, folder) == 0
    printed = capsys.readouterr()
    assert "map map: 6 places, 6 new" in printed.out
    assert "1 unreadable" in printed.out
    assert "unreadable: broken.png" in printed.err

    assert build(photos, folder, "--json") == 0
    again = described("map-build", capsys.readouterr().out)
    assert (again["added"], again["already_present"], again["places"]) == (0, 6, 6)

    # Of several sources, the report of each.
    second = photos.parent / "more"
    second.mkdir()
    Image.fromarray(picture(9)).save(second / "9.png")
    weights = str(tmp_path / "vit_tiny_test_patch14.safetensors")
    assert (
        main(
            [
                "map",
                "build",
                str(tmp_path / "two"),
                str(photos),
                str(second),
                "--weights",
                weights,
                "--json",
                "--model",
                "vit_tiny_test_patch14",
                "--size",
                "56",
            ]
        )
        == 0
    )
    reports = described("map-build", capsys.readouterr().out)["sources"]
    assert [report["added"] for report in reports.values()] == [6, 1]

    assert main(["map", "info", str(folder), "--json"]) == 0
    info = described("map-info", capsys.readouterr().out)
    assert (info["places"], info["with_pose"], info["with_geo_tag"]) == (6, 6, 6)
    assert info["model"]["architecture"] == "vit_tiny_test_patch14"
    assert info["bytes"]["local_descriptors"] > 0

    assert main(["map", "check", str(folder)]) == 0
    assert "6 places, all sound" in capsys.readouterr().out
    assert main(["map", "check", str(folder), "--json"]) == 0
    assert described("map-check", capsys.readouterr().out) == {"map": "map", "places": 6, "problems": []}

    query = [
        str(photos / "4.png"),
        str(photos / "2.png"),
        "--weights",
        str(tmp_path / "vit_tiny_test_patch14.safetensors"),
    ]
    assert main(["query", str(folder), *query, "--json"]) == 0
    answers = described("query", capsys.readouterr().out)["results"]
    assert [answer["candidates"][0]["source"] for answer in answers] == ["4.png", "2.png"]
    assert main(["query", str(folder), *query]) == 0
    assert "4.png" in capsys.readouterr().out

    assert main(["map", "export", str(folder), str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "places.geojson").is_file()


def test_a_map_is_asked_with_the_settings_it_was_made_for(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "map"
    weights = ["--weights", str(tmp_path / "vit_tiny_test_patch14.safetensors")]
    # A network without evidence of this project's has the paper's settings.
    assert build(photos, folder) == 0
    capsys.readouterr()
    assert main(["map", "info", str(folder), "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["recognition"] == {"top_k": 100, "score": "count", "min_similarity": 0.65}
    assert (info["model"]["global_kind"], info["model"]["centered"]) == ("cls", False)

    def matches(*more: str) -> tuple[float, int]:
        assert main(["query", str(folder), str(photos / "4.png"), "--json", *weights, *more]) == 0
        first = json.loads(capsys.readouterr().out)["results"][0]["candidates"][0]
        return first["score"], first["num_matches"]

    # The paper's score is the number of matches.
    assert matches()[0] == matches()[1] == 16
    assert matches("--score", "weighted")[0] != matches()[0]
    assert build(photos, tmp_path / "own", "--preset", "default") == 0
    capsys.readouterr()
    assert main(["map", "info", str(tmp_path / "own"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recognition"]["score"] == "coherent"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--preset", "default"), "--preset default (score coherent): the map has count"),
        (("--preset", "default"), "--preset default (centered True): the map has False"),
        (("--size", "84"), "--size 84: the map has 56"),
        (("--frame-id", "site"), "--frame-id site: the map has map"),
        (("--name", "other"), "--name other: the map has map"),
        (("--model", "base"), "--model base: the map has vit_tiny_test_patch14"),
        (("--block", "-1"), "--block -1: the map has 2"),
        (("--datum", "1", "2", "3"), "--datum 1.0 2.0 3.0: the map has"),
    ],
)
def test_options_that_contradict_a_map_are_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], said: str
):
    folder = tmp_path / "map"
    assert build(photos, folder) == 0
    # What agrees with the map is no contradiction, however it is said.
    same = ("--preset", "paper", "--block", "-2", "--frame-id", "map", "--name", "map")
    assert build(photos, folder, *same) == 0
    capsys.readouterr()
    assert build(photos, folder, *more) == 1
    printed = capsys.readouterr().err
    assert "was made with other settings: " in printed
    assert said in printed


def test_failed_work_exits_with_1_and_says_why(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["map", "info", str(tmp_path / "gone")]) == 1
    assert "does not exist; build one" in capsys.readouterr().err
    assert main(["query", str(photos / "0.png"), str(photos / "1.png")]) == 1
    assert "0.png is a file, and a map is a folder" in capsys.readouterr().err
    assert main(["map", "build", str(tmp_path / "map"), str(tmp_path / "gone")]) == 1
    assert "image folder" in capsys.readouterr().err
    assert build(photos, tmp_path / "map") == 0
    capsys.readouterr()
    assert main(["query", str(tmp_path / "map"), str(photos / "0.png"), "--weights", str(tmp_path / "none.pth")]) == 1
    assert "none.pth does not exist" in capsys.readouterr().err
    page = str(tmp_path / "nowhere" / "page.html")
    assert main(["query", str(tmp_path / "map"), str(photos / "0.png"), "--page", page]) == 1
    captured = capsys.readouterr()
    assert "page.html does not exist; make it or choose another --page" in captured.err
    # Nothing was asked for it.
    assert captured.out == ""
    (tmp_path / "map" / "index.faiss").write_bytes(b"noise")
    assert main(["map", "check", str(tmp_path / "map")]) == 1
    assert "index.faiss" in capsys.readouterr().out


def test_without_a_command_all_are_listed(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert all(name in printed for name in ("map", "query", "evaluate", "demo", "doctor"))


def test_the_package_runs_as_a_module(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.argv", ["effovpr", "--version"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("effovpr_ros", run_name="__main__")
    assert (stopped.value.code, capsys.readouterr().out) == (0, f"effovpr {version()}\n")


def test_wrong_usage_exits_with_2(capsys: pytest.CaptureFixture[str]):
    for arguments in ([], ["map"], ["fly"], ["query"], ["map", "build", "a", "b", "--kind", "kml"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
        assert capsys.readouterr().err.startswith("effovpr: " if arguments else "usage: effovpr")


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [(["qurey"], "query"), (["map", "bild"], "build"), (["query", "m", "a.jpg", "--score", "coherant"], "coherent")],
)
def test_a_mistyped_word_is_answered_by_the_one_it_may_mean(
    arguments: list[str], meant: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit):
        main(arguments)
    assert capsys.readouterr().err.splitlines()[0].endswith(f"; did you mean {meant}?")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        # The value of a mistyped option is an argument to a parser, which then lacks another one.
        (["map", "build", "--spacng", "1"], "effovpr: map build: unknown option --spacng; did you mean --spacing-m"),
        (["map", "build", "m", "photos", "--pose_topic=/odom"], "did you mean --pose-topic"),
        (["query", "m", "a.jpg", "--Json"], "effovpr: query: unknown option --Json; did you mean --json?"),
        (["--verbsoe", "doctor"], "effovpr: unknown option --verbsoe; did you mean --verbose?"),
        (["map", "info", "m", "-v"], "effovpr: map info: -v goes before the command: effovpr -v map info"),
        (["map", "info", "m", "--zzzz"], "effovpr: map info: unknown option --zzzz"),
        (["map", "build"], "effovpr: map build: MAP is missing: map folder; made if missing, otherwise added to; "),
        (["map", "build", "m"], "effovpr: map build: SOURCE is missing: rosbag2 folder, .mcap file, or folder of"),
        (["map"], "effovpr: map: ACTION is missing: build, info, "),
        (["map", "info", "m", "n"], "effovpr: map info: nothing is known to do with 'n'"),
        (["map", "build", "m", "s", "--spacing-m", "near"], "effovpr: map build: --spacing-m 'near' is no number"),
        (["map", "build", "m", "s", "--batch-size", "0.5"], "--batch-size '0.5' is no whole number"),
        (["map", "build", "m", "s", "--spacing-m"], "effovpr: map build: --spacing-m needs a value"),
        (["map", "build", "m", "s", "--datum", "1"], "effovpr: map build: --datum needs 3 values"),
        (["map", "shard", "m", "out"], "effovpr: map shard: --shards is missing: number of shards"),
    ],
)
def test_wrong_arguments_are_answered_in_two_lines(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    first, second = capsys.readouterr().err.splitlines()
    assert said in first
    assert second.startswith("see `effovpr") and second.endswith("--help`")


def test_the_start_of_an_option_and_negative_numbers_are_understood():
    pose = ["--camera-pose", "-1", "0", "0.5", "-1.5708", "0", "-1.5708"]
    options = make_parser().parse_args(["-v", "map", "build", "m", "s", "--spacing-d", "5", *pose])
    assert (options.spacing_deg, options.camera_pose[3], options.verbose) == (5.0, "-1.5708", True)


def test_a_word_that_is_like_none_is_answered_by_all(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["fly"])
    said = capsys.readouterr().err
    assert "query" in said and "did you mean" not in said


@pytest.mark.parametrize(
    "command",
    [
        ["map", "build"],
        ["map", "info"],
        ["map", "check"],
        ["map", "export"],
        ["map", "merge"],
        ["query"],
        ["calibrate"],
        ["demo"],
        ["doctor"],
    ],
)
def test_every_command_has_help_with_an_example(command: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        make_parser().parse_args([*command, "--help"])
    assert stopped.value.code == 0
    assert f"example: effovpr {' '.join(command)}" in " ".join(capsys.readouterr().out.split())


def test_doctor_says_what_is_here(capsys: pytest.CaptureFixture[str]):
    assert main(["doctor"]) in (0, 1)
    printed = capsys.readouterr().out
    for part in ("torch", "timm", "faiss", "rclpy", "weights"):
        assert part in printed
    main(["doctor", "--json"])
    findings = described("doctor", capsys.readouterr().out)["findings"]
    assert findings[0]["item"] == "effovpr_ros" and findings[0]["found"].startswith(version())


def test_the_demo_says_which_part_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["demo", "map", "--out", str(tmp_path)]) == 1
    assert f"run `effovpr demo record --out {tmp_path}`" in capsys.readouterr().err
    assert main(["demo", "report", "--out", str(tmp_path)]) == 1
    assert "run `effovpr demo replay" in capsys.readouterr().err


def test_two_sessions_are_listed_and_maps_merge(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    one, two, out = (tmp_path / name for name in ("one", "two", "out"))
    assert build(photos, one, "--session", "first") == 0
    assert build(photos, one, "--session", "second", "--session-frame", "second/odom") == 0
    assert build(photos, two, "--session-frame", "odom") == 1
    assert "--session-frame needs --session" in capsys.readouterr().err
    assert build(photos, two, "--session", "first") == 0
    capsys.readouterr()
    assert main(["map", "info", str(one)]) == 0
    printed = capsys.readouterr().out
    assert "session first: 6 places of unknown time; 6 with pose in frame map, 6 with geo-tag" in printed
    assert "session second: 6 places of unknown time; 6 with pose in frame second/odom, 6 with geo-tag" in printed

    assert main(["map", "merge", str(out), str(one), str(two)]) == 1
    assert "--rename-sessions" in capsys.readouterr().err
    assert main(["map", "merge", str(out), str(one), str(two), "--rename-sessions"]) == 0
    assert "18 places of 2 maps" in capsys.readouterr().out
    assert main(["map", "info", str(out), "--json"]) == 0
    sessions = json.loads(capsys.readouterr().out)["sessions"]
    assert [(item["name"], item["frame_id"], item["num_places"]) for item in sessions] == [
        ("first", "map", 6),
        ("second", "second/odom", 6),
        ("two/first", "map", 6),
    ]
