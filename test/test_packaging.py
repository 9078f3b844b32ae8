"""What is published says one version, holds what it needs, and brings the same in every form."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

from effovpr_ros.cli.main import main
from effovpr_ros.core.version import version

ROOT = Path(__file__).parents[1]
VERSION = ElementTree.parse(ROOT / "package.xml").findtext("version")


def test_every_file_says_the_version_of_package_xml(capsys: pytest.CaptureFixture[str]):
    assert version() == VERSION
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"effovpr {VERSION}\n"
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == VERSION
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert released[0] == VERSION


def test_the_citation_names_package_and_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "license"} <= set(citation)
    (paper,) = citation["references"]
    assert paper["url"].endswith("2405.18065") and len(paper["authors"]) == 11


def test_a_source_distribution_holds_what_a_build_needs(tmp_path: Path):
    command = [sys.executable, "setup.py", "-q", "egg_info", "-e", str(tmp_path), "sdist", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    for name in (
        *("package.xml", "README.md", "LICENSE", "NOTICE", "setup.py", "pyproject.toml"),
        *("effovpr_ros/py.typed", "effovpr_ros/api.py", "effovpr_ros/cli/templates/answers.html"),
        *("effovpr_ros/lab/demo_photos/map/place_00.jpg", "effovpr_ros/lab/demo_photos/map/poses.csv"),
    ):
        assert name in names, name
    assert not [name for name in names if name.endswith(".pyc")]


@pytest.mark.parametrize("name", ["Dockerfile.cpu", "Dockerfile.cuda"])
def test_container_files_copy_and_install_what_is_there(name: str):
    text = (ROOT / "container" / name).read_text()
    for copied in re.findall(r"^COPY (\S+) ", text, flags=re.MULTILINE):
        assert (ROOT / copied).exists(), copied
    for listed in re.findall(r"-r (\S+)", text):
        assert (ROOT / listed).is_file(), listed
    assert text.rstrip().endswith('CMD ["effovpr", "doctor"]') and "USER 10001" in text


def test_issue_templates_are_forms():
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"):
        form = yaml.safe_load(path.read_text())
        assert {"name", "description", "body"} <= set(form)
