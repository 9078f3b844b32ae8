"""Layouts and the behaviour tree name the topics, frames and services that the node has under the launch files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import yaml

from effovpr_ros.lab.simulation.recording import FRAME_ID
from effovpr_ros.nodes.interface import RECOGNIZER

ROOT = Path(__file__).parents[1]
TOPICS = {item.name.replace("~", "/place_recognizer") for item in RECOGNIZER if item.kind == "topic"}


def named(text: str) -> set[str]:
    return set(re.findall(r"/place_recognizer/[a-z_/]+", text))


def test_rviz_shows_topics_of_the_node_in_the_demos_frame():
    text = (ROOT / "config" / "localize.rviz").read_text(encoding="utf-8")
    layout = yaml.safe_load(text)["Visualization Manager"]
    assert layout["Global Options"]["Fixed Frame"] == FRAME_ID
    assert named(text) <= TOPICS
    assert {"/place_recognizer/markers", "/place_recognizer/pose", "/place_recognizer/debug_image/compressed"} <= named(
        text
    )
    assert "rviz_default_plugins/TF" in {item["Class"] for item in layout["Displays"]}


def test_foxglove_shows_topics_of_the_node_in_the_demos_frame():
    text = (ROOT / "config" / "foxglove" / "localize.json").read_text(encoding="utf-8")
    layout = json.loads(text)

    def panels(node: object) -> set[str]:
        return {node} if isinstance(node, str) else panels(node["first"]) | panels(node["second"])

    assert panels(layout["layout"]) == set(layout["configById"])
    assert layout["configById"]["3D!map"]["fixedFrame"] == FRAME_ID
    assert named(text) <= TOPICS
    assert named(text) >= {"/place_recognizer/markers", "/place_recognizer/pose"}


def test_the_behaviour_tree_arms_the_node_before_the_robot_turns():
    tree = ElementTree.parse(ROOT / "config" / "nav2" / "relocalize.xml").getroot()
    steps = [item.tag for item in tree.find(".//Sequence[@name='FindItselfByCamera']")]
    assert steps.index("ReinitializeGlobalLocalization") < steps.index("Spin")
    service = tree.find(".//ReinitializeGlobalLocalization").get("service_name")
    source = (ROOT / "effovpr_ros" / "nodes" / "adapters" / "initial_pose.py").read_text(encoding="utf-8")
    assert f'"{service.replace("/place_recognizer", "~")}"' in source
    assert float(tree.find(".//Spin").get("spin_dist")) >= 6.28
