"""README and package files say what the code does."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import fields
from pathlib import Path

import pytest

from effovpr_ros.cli.main import make_parser
from effovpr_ros.features.engines.catalogue import ENGINE_NAMES
from effovpr_ros.features.weights import NAMED_MODELS
from effovpr_ros.recognition.config import RecognizerConfig

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def table_rows(heading: str) -> dict[str, list[str]]:
    """First cell without backticks to the other cells, of the first table below a heading."""
    section = README.split(f"\n{heading}\n", 1)[1]
    lines = [line for line in re.split(r"\n#+ ", section)[0].splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return {row[0].strip("`"): row[1:] for row in rows}


def test_the_parameter_table_has_every_parameter_with_its_default():
    parameters = pytest.importorskip("effovpr_ros.nodes.parameters", reason="needs rclpy")
    rows = table_rows("### Parameters")
    declared = {f.name: f for config in (parameters.NodeConfig, RecognizerConfig) for f in fields(config)}
    assert list(rows) == list(declared)
    for name, entry in declared.items():
        default = str(entry.default).lower() if isinstance(entry.default, bool) else str(entry.default)
        assert rows[name][0].strip("`") == (default or "(empty)"), name


def test_the_topic_and_service_tables_have_what_the_node_creates():
    files = ("place_recognizer", "outputs", "odometry")
    node = "".join((ROOT / "effovpr_ros" / "nodes" / f"{name}.py").read_text() for name in files)
    created = set(re.findall(r'"(~/[a-z_/]+|/diagnostics|image/compressed|image|odom)"', node))
    assert set(table_rows("### Topics")) | set(table_rows("### Services")) == created


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
    assert set(table_rows("### Engines")) == {"torch` (default)" if name == "torch" else name for name in ENGINE_NAMES}


def test_package_xml_has_what_the_nodes_import():
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    named = {item.text for item in package if item.tag.endswith("depend")}
    imported = {
        match
        for path in (ROOT / "effovpr_ros" / "nodes").glob("*.py")
        for match in re.findall(r"^(?:from|import) ([a-z_]+)", path.read_text(), flags=re.MULTILINE)
        if match.endswith(("_msgs", "_interfaces")) or match in ("rclpy", "cv_bridge")
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
    assert "effovpr_ros/recognition/calibrations.json" in names
    assert "effovpr_ros/evaluation/templates/report.html" in names
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
