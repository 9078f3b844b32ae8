"""README and package files say what the code does."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest

from effovpr_ros.cli.main import make_parser
from effovpr_ros.engines.catalogue import ENGINE_NAMES
from effovpr_ros.features.weights import NAMED_MODELS
from effovpr_ros.loop_closure.loop_config import LOOP_RECOGNIZER, LoopConfig
from effovpr_ros.recognition.recognizer_config import RecognizerConfig

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def table_rows(heading: str) -> dict[str, list[str]]:
    """First cell without backticks to the other cells, of the first table below a heading."""
    section = README.split(f"\n{heading}\n", 1)[1]
    lines = [line for line in re.split(r"\n#+ ", section)[0].splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return {row[0].strip("`"): row[1:] for row in rows}


def checked_rows(heading: str, configs: Sequence[Any], names: Sequence[str]) -> None:
    """The rows below a heading are the named fields with their defaults."""
    rows = table_rows(heading)
    assert list(rows) == list(names)
    declared = {entry.name: getattr(config, entry.name) for config in configs for entry in fields(config)}
    for name in names:
        value = declared[name]
        default = str(value).lower() if isinstance(value, bool) else str(value)
        assert rows[name][0].strip("`") == (default or "(empty)"), name


def names_of(*configs: Any) -> list[str]:
    return [entry.name for config in configs for entry in fields(config)]


def test_the_parameter_table_has_every_parameter_with_its_default():
    parameters = pytest.importorskip("effovpr_ros.nodes.parameters", reason="needs rclpy")
    adapters = pytest.importorskip("effovpr_ros.nodes.adapters.adapter_config", reason="needs rclpy")
    cameras = pytest.importorskip("effovpr_ros.nodes.camera_config", reason="needs rclpy")
    configs = (
        parameters.NodeConfig(),
        parameters.CameraNodeConfig(),
        cameras.QueryCameraConfig(),
        RecognizerConfig(),
        adapters.MatchAdapterConfig(),
    )
    checked_rows("### Parameters", configs, names_of(*configs))


def test_the_detectors_parameter_table_has_what_the_recognisers_has_not():
    parameters = pytest.importorskip("effovpr_ros.nodes.parameters", reason="needs rclpy")
    adapters = pytest.importorskip("effovpr_ros.nodes.adapters.adapter_config", reason="needs rclpy")
    own = (
        parameters.LoopNodeConfig(),
        adapters.LoopAdapterConfig(),
        parameters.CameraNodeConfig(),
        LoopConfig(),
    )
    defaults = asdict(RecognizerConfig())
    others = [name for name, value in asdict(LOOP_RECOGNIZER).items() if value != defaults[name]]
    checked_rows("### Parameters of the detector", (*own, LOOP_RECOGNIZER), names_of(*own) + others)


def created_names(*files: str) -> set[str]:
    """Topics and services that modules of nodes name."""
    node = "".join((ROOT / "effovpr_ros" / "nodes" / f"{name}.py").read_text() for name in files)
    return set(
        re.findall(r'"(~/[a-z_/]+|/diagnostics|/tf_static|image/compressed|image|odom|camera_info|depth)"', node)
    )


def test_the_topic_and_service_tables_have_what_the_nodes_create():
    created = created_names(
        "place_recognizer", "recognizing", "camera_node", "configured", "outputs", "odometry", "static_transforms"
    )
    # Its name follows from that of the images.
    created |= {"camera_info"}
    assert set(table_rows("### Topics")) | set(table_rows("### Services")) == created
    created = created_names(
        "loop_closure_detector", "detecting", "camera_node", "configured", "loop_outputs", "odometry"
    )
    detector = set(table_rows("### Topics of the detector")) | set(table_rows("### Services of the detector"))
    assert detector == created


def test_the_table_of_other_stacks_has_every_adapter_and_its_topics():
    config = pytest.importorskip("effovpr_ros.nodes.adapters.adapter_config", reason="needs rclpy")
    section = README.split("\n## Other stacks\n", 1)[1].split("\n## ", 1)[0]
    files = (ROOT / "effovpr_ros" / "nodes" / "adapters").glob("*.py")
    topics = {topic for file in files for topic in re.findall(r'TOPIC = "([a-z_/]+)"', file.read_text())}
    assert len(topics) == 6
    for name in (*config.MATCH_ADAPTERS, *config.LOOP_ADAPTERS, *topics):
        assert f"`{name}`" in section, name


def test_every_command_of_the_readme_parses():
    commands = re.findall(r"^\s*effovpr ([^#\n]+)", README, flags=re.MULTILINE)
    assert len(commands) >= 9
    for line in commands:
        make_parser().parse_args(line.split())


def test_the_model_table_has_every_named_model():
    assert set(table_rows("## Which model")) == {
        f"{name}" if name != "offline" else "offline` (default)" for name in NAMED_MODELS
    }


def test_the_engine_table_has_every_engine():
    assert set(table_rows("### Engines")) == {"auto` (default)" if name == "auto" else name for name in ENGINE_NAMES}


def test_package_xml_has_what_the_nodes_import():
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    named = {item.text for item in package if item.tag.endswith("depend")}
    imported = {
        match
        for path in (ROOT / "effovpr_ros" / "nodes").rglob("*.py")
        for match in re.findall(r"^(?:from|import) ([a-z_]+)", path.read_text(), flags=re.MULTILINE)
        if match.endswith(("_msgs", "_interfaces")) or match == "rclpy"
    }
    assert imported <= named
    assert package.findtext("license") == "Apache-2.0"


def test_pip_install_gives_the_library_and_the_command(tmp_path: Path):
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(ROOT),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "bdist_wheel" in done.stderr:
        pytest.skip("setuptools here cannot build wheels")
    assert done.returncode == 0, done.stderr
    import zipfile

    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert "effovpr_ros/recognition/recognizer.py" in names
    # What the code reads beside itself.
    assert "effovpr_ros/recognition/confidence_models.json" in names
    assert "effovpr_ros/lab/evaluation/templates/report.html" in names
    entry = next(name for name in names if name.endswith("entry_points.txt"))
    text = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).read(entry).decode()
    assert "effovpr = effovpr_ros.cli.main:main" in text


def test_the_project_speaks_of_itself_alone():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not listed:
        pytest.skip("no git checkout")
    for name in listed:
        if name.startswith("test/"):
            continue
        text = (ROOT / name).read_text(encoding="utf-8", errors="ignore")
        assert not re.search(r"/(home|root|work)/\w", text), name
