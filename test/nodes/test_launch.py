"""The launch file, where `launch_ros` is installed."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("launch_ros", reason="launch_ros comes with a ROS distribution, not as a wheel")

from launch.actions import DeclareLaunchArgument
from launch_ros.actions import LifecycleNode
from launch_ros.utilities import evaluate_parameters

from effovpr_ros.nodes.adapters.adapter_config import LoopAdapterConfig, MatchAdapterConfig
from effovpr_ros.nodes.launching import bring_up
from effovpr_ros.nodes.parameters import CameraNodeConfig, LoopNodeConfig, NodeConfig
from launch import LaunchContext

ROOT = Path(__file__).parents[2]
README_HEADINGS = {"localize": "### Launch arguments", "loop_closure": "### Launch arguments of the detector"}


@pytest.fixture(params=["localize", "loop_closure"])
def launch_file(request: pytest.FixtureRequest) -> ModuleType:
    spec = importlib.util.spec_from_file_location(request.param, ROOT / "launch" / f"{request.param}.launch.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def context_of(launch_file: ModuleType, given: dict[str, str]) -> LaunchContext:
    """A context with the arguments' defaults and what is given."""
    context = LaunchContext()
    for action in launch_file.generate_launch_description().entities:
        if isinstance(action, DeclareLaunchArgument):
            action.execute(context)
    context.launch_configurations.update({"config": "/config.yaml", **given})
    return context


def node_parameters(launch_file: ModuleType, given: dict[str, str]) -> dict[str, Any]:
    """Parameters that the launch file sets beside the config file."""
    context = context_of(launch_file, given)
    node = launch_file.launch_nodes(context)[0]
    assert isinstance(node, LifecycleNode)
    config, *rest = evaluate_parameters(context, node._Node__parameters)
    assert str(config) == "/config.yaml"
    return {name: value for values in rest for name, value in values.items()}


def test_arguments_that_are_not_given_leave_the_config_file_alone(launch_file: ModuleType):
    assert node_parameters(launch_file, {}) == {"use_sim_time": False}


def test_arguments_take_precedence(launch_file: ModuleType):
    named = {argument: f"/{argument}" for argument in launch_file.PARAMETER_OF_ARGUMENT}
    assert {"device", "engine", "adapters"} <= set(named)
    wanted = {launch_file.PARAMETER_OF_ARGUMENT[argument]: value for argument, value in named.items()}
    assert node_parameters(launch_file, {**named, "use_sim_time": "true"}) == {**wanted, "use_sim_time": True}


def test_the_topics_are_those_that_the_arguments_name(launch_file: ModuleType):
    names = {"image_topic": "/front", "odom_topic": "/wheels", "camera_info_topic": "/lens", "depth_topic": "/far"}
    context = context_of(launch_file, names)
    node = launch_file.launch_nodes(context)[0]
    node._perform_substitutions(context)
    wanted = {"image": "/front", "image/compressed": "/front/compressed", "odom": "/wheels"}
    wanted.update(camera_info="/lens", depth="/far")
    remappings = dict(node.expanded_remapping_rules)
    assert {"image", "image/compressed"} <= set(remappings)
    assert remappings == {topic: wanted[topic] for topic in remappings}


def test_every_argument_is_described(launch_file: ModuleType):
    declared = [a for a in launch_file.generate_launch_description().entities if isinstance(a, DeclareLaunchArgument)]
    assert {argument.name for argument in declared} == set(launch_file.ARGUMENTS)
    assert all(argument.description.endswith(".") for argument in declared)


def test_the_readme_names_every_argument(launch_file: ModuleType):
    heading = README_HEADINGS[launch_file.__name__]
    section = (ROOT / "README.md").read_text(encoding="utf-8").split(f"\n{heading}\n", 1)[1]
    assert re.findall(r"`(\w+)`", section.split("; see", 1)[0]) == list(launch_file.ARGUMENTS)


def test_the_parameters_of_the_arguments_are_those_of_the_node(launch_file: ModuleType):
    own = {"localize": (NodeConfig, MatchAdapterConfig), "loop_closure": (LoopNodeConfig, LoopAdapterConfig)}
    known = {entry.name for config in (CameraNodeConfig, *own[launch_file.__name__]) for entry in fields(config)}
    assert set(launch_file.PARAMETER_OF_ARGUMENT.values()) <= known


def test_a_later_configuration_by_hand_is_not_followed_by_activation():
    node = LifecycleNode(package="effovpr_ros", executable="place_recognizer", name="place_recognizer", namespace="")
    activate_when_configured, _ = bring_up(node)
    assert activate_when_configured.event_handler.handle_once
