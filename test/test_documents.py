"""README, docs and package files say what the code does."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from effovpr_ros.cli.main import make_parser
from effovpr_ros.engines.catalogue import ENGINE_NAMES
from effovpr_ros.features.names import NAMED_MODELS
from effovpr_ros.nodes import interface

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")])
GENERATED = {"parameters.md", "topics.md", "messages.md", "commands.md", "json.md", "python.md"}
MOST_LINES, MOST_WORDS, MOST_ROWS, MOST_PICTURE_BYTES = 180, 35, 12, 1_000_000


def table_rows(page: str, heading: str) -> dict[str, list[str]]:
    """First cell without backticks to the other cells, of the first table below a heading of a page."""
    section = (DOCS / page).read_text(encoding="utf-8").split(f"{heading}\n", 1)[1]
    lines = [line for line in re.split(r"\n#+ ", section)[0].splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return {row[0].strip("`"): row[1:] for row in rows}


@pytest.fixture(scope="module")
def make_docs() -> ModuleType:
    """The script that writes the reference."""
    pytest.importorskip("effovpr_ros.nodes.parameters", reason="needs rclpy")
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "scripts" / "make_docs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("node", "file"), [("place_recognizer", "localize"), ("loop_closure_detector", "loop_closure")]
)
def test_the_reference_has_every_parameter_with_its_default(make_docs: ModuleType, node: str, file: str):
    listed = {
        row[0].split("`")[1]: row
        for config in make_docs.node_configs()[node]
        for row in make_docs.parameter_rows(config)
    }
    text = (ROOT / "config" / f"{file}.yaml").read_text()
    (values,) = yaml.safe_load(text).values()
    for name, value in values["ros__parameters"].items():
        default = str(value).lower() if isinstance(value, bool) else str(value)
        assert listed[name][0].split("<br>")[1].replace("\\", "") == (default or "empty"), name
    assert set(listed) >= set(values["ros__parameters"])
    page = make_docs.parameters_page()
    assert all(f"| `{name}`<br>" in page for name in listed)


def test_the_reference_has_every_message_and_command(make_docs: ModuleType):
    messages, commands = make_docs.messages_page(), make_docs.commands_page()
    for path in (*(ROOT / "msg").glob("*.msg"), *(ROOT / "srv").glob("*.srv"), *(ROOT / "action").glob("*.action")):
        assert f"/{path.stem}`" in messages
    for name in ("effovpr map build", "effovpr query", "effovpr demo", "effovpr doctor"):
        assert f"## `{name}`" in commands
    assert "--spacing-m" in commands and "%%" not in commands
    assert set(make_docs.REFERENCE) == GENERATED
    assert all(f"## `effovpr {name} --json`" in make_docs.json_page() for name in ("query", "map info", "evaluate"))
    assert all(f"`api.{name}`" in make_docs.python_page() for name in ("Recognizer.recognize", "open_map", "build_map"))


def test_long_words_of_the_reference_break_where_a_phone_needs_it(make_docs: ModuleType):
    assert make_docs.breakable("geometry_msgs/PoseWithCovarianceStamped here") == (
        "geometry_msgs/<wbr>Pose<wbr>With<wbr>Covariance<wbr>Stamped here"
    )
    assert make_docs.markup("image,stamp,x,y,z,qx,qy,qz,qw or `image,stamp,x,y,z,qx,qy,qz,qw`") == (
        "image,<wbr>stamp,<wbr>x,<wbr>y,<wbr>z,<wbr>qx,<wbr>qy,<wbr>qz,<wbr>qw or `image,stamp,x,y,z,qx,qy,qz,qw`"
    )
    assert make_docs.breakable("short/word") == "short/word"


def created_names(*files: str) -> set[str]:
    """Topics and services that modules of nodes name."""
    node = "".join((ROOT / "effovpr_ros" / "nodes" / f"{name}.py").read_text() for name in files)
    return set(
        re.findall(r'"(~/[a-z_/]+|/diagnostics|/tf|/tf_static|image/compressed|image|odom|camera_info|depth)"', node)
    )


def test_the_reference_has_what_the_nodes_create():
    created = created_names(
        *("place_recognizer", "recognizing", "camera_node", "configured", "outputs", "odometry", "static_transforms"),
        *("map_odom_broadcaster", "robot_odometry", "relocalizing"),
    )
    # Its name follows from that of the images.
    created |= {"camera_info"}
    assert {item.name for item in interface.RECOGNIZER} == created
    created = created_names(
        "loop_closure_detector", "detecting", "camera_node", "configured", "loop_outputs", "odometry"
    )
    assert {item.name for item in interface.DETECTOR} == created


def test_the_table_of_other_stacks_has_every_adapter_and_its_topics():
    config = pytest.importorskip("effovpr_ros.nodes.adapters.adapter_config", reason="needs rclpy")
    section = (DOCS / "integrations.md").read_text().split("\n## Which adapter\n", 1)[1].split("\n## ", 1)[0]
    files = (ROOT / "effovpr_ros" / "nodes" / "adapters").glob("*.py")
    topics = {topic for file in files for topic in re.findall(r'TOPIC = "([a-z_/]+)"', file.read_text())}
    assert len(topics) == 6
    for name in (*config.MATCH_ADAPTERS, *config.LOOP_ADAPTERS, *topics):
        assert f"`{name}`" in section, name


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_of_a_page_parses(path: Path):
    blocks = re.findall(r"^```(?:sh|text)\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for line in re.findall(r"^\s*effovpr ([^#\n]+)", "\n".join(blocks), flags=re.MULTILINE):
        make_parser().parse_args(line.removesuffix("\\").split())


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_somewhere(path: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if target.startswith(("http", "#")):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve()
        assert linked.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}, target


def test_every_page_is_on_the_site():
    site = (ROOT / "mkdocs.yml").read_text()
    for path in DOCS.rglob("*.md"):
        assert f": {path.relative_to(DOCS).as_posix()}\n" in site, path.name


def test_readme_is_read_in_four_minutes():
    assert README.count("\n") <= MOST_LINES
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    tables = re.findall(r"(?:^\|.*\n)+", prose, flags=re.MULTILINE)
    assert tables and all(table.count("\n") - 2 <= MOST_ROWS for table in tables)
    words = re.sub(r"\]\([^)]*\)|^\|.*$|^#.*$", " ", prose, flags=re.MULTILINE)
    for paragraph in re.split(r"\n\s*\n|\n- ", words):
        for sentence in re.split(r"(?<=[.?!])\s", " ".join(paragraph.split())):
            assert len(sentence.split()) <= MOST_WORDS, sentence
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (ROOT / picture).stat().st_size < MOST_PICTURE_BYTES


def test_the_paper_is_found_in_the_code_by_the_names_that_readme_gives():
    section = README.split("### The paper in the code\n")[1].split("`make docs`")[0]
    found = [
        (name, file)
        for names, file in re.findall(r"\[(`[^\]]+)\]\(([^)]+)\)", section)
        for name in names.split("`")[1::2]
    ]
    assert len(found) >= 8
    assert [name for name, file in found if not re.search(rf"\b{name}\b", (ROOT / file).read_text("utf-8"))] == []


def test_the_accuracy_of_readme_is_that_of_the_results():
    """README rounds nothing and knows nothing that docs/results.md does not."""
    results = (DOCS / "results.md").read_text()
    section = README.split("\n## How well it works\n", 1)[1].split("\n## ", 1)[0]
    for row in re.findall(r"^\| (two laps|one corridor|photos along)(.*)$", section, re.MULTILINE):
        (full,) = [line for line in results.splitlines() if line.startswith(f"| {row[0]}")]
        for figure in re.findall(r"\d+\.\d", row[1]):
            assert f" {figure} (" in full, (row, figure)


def test_the_model_table_has_every_named_model():
    assert set(table_rows("howto/models.md", "# Choose a model")) == {
        f"{name}" if name != "offline" else "offline` (default)" for name in NAMED_MODELS
    }


def test_the_engine_table_has_every_engine():
    assert set(table_rows("engines.md", "## Which engine")) == {
        "auto` (default)" if name == "auto" else name for name in ENGINE_NAMES
    }


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
