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

from launch.actions import DeclareLaunchArgument, RegisterEventHandler
from launch_ros.actions import LifecycleNode
from launch_ros.utilities import evaluate_parameters

from effovpr_ros.nodes.adapters.adapter_config import LoopAdapterConfig, MatchAdapterConfig
from effovpr_ros.nodes.launching import bring_up
from effovpr_ros.nodes.parameters import CameraNodeConfig, LoopNodeConfig, NodeConfig
from launch import LaunchContext

ROOT = Path(__file__).parents[2]
HEADINGS = {
    "localize": ("place_recognizer.md", "## Launch arguments"),
    "loop_closure": ("loop_closure.md", "### Launch arguments of the detector"),
}


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


def node_of(launch_file: ModuleType, context: LaunchContext) -> LifecycleNode:
    (node,) = [action for action in launch_file.launch_nodes(context) if isinstance(action, LifecycleNode)]
    return node


def node_parameters(launch_file: ModuleType, given: dict[str, str]) -> dict[str, Any]:
    """Parameters that the launch file sets beside the config file."""
    context = context_of(launch_file, given)
    node = node_of(launch_file, context)
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
    node = node_of(launch_file, context)
    node._perform_substitutions(context)
    wanted = {"image": "/front", "image/compressed": "/front/compressed", "odom": "/wheels"}
    wanted.update(camera_info="/lens", depth="/far")
    remappings = dict(node.expanded_remapping_rules)
    assert {"image", "image/compressed"} <= set(remappings)
    assert remappings == {topic: wanted[topic] for topic in remappings}


def test_every_argument_is_described(launch_file: ModuleType):
    declared = [a for a in launch_file.generate_launch_description().entities if isinstance(a, DeclareLaunchArgument)]
    assert {argument.name for argument in declared} == set(launch_file.ARGUMENTS)
    assert all(argument.description.endswith(".") for argument in launch_file.ARGUMENTS.values())


def test_the_readme_names_every_argument(launch_file: ModuleType):
    page, heading = HEADINGS[launch_file.__name__]
    section = (ROOT / "docs" / page).read_text(encoding="utf-8").split(f"\n{heading}\n", 1)[1]
    assert re.findall(r"`(\w+)`", section.split("; see", 1)[0]) == list(launch_file.ARGUMENTS)


def test_the_parameters_of_the_arguments_are_those_of_the_node(launch_file: ModuleType):
    own = {"localize": (NodeConfig, MatchAdapterConfig), "loop_closure": (LoopNodeConfig, LoopAdapterConfig)}
    known = {entry.name for config in (CameraNodeConfig, *own[launch_file.__name__]) for entry in fields(config)}
    assert set(launch_file.PARAMETER_OF_ARGUMENT.values()) <= known


def test_arguments_with_few_values_refuse_others(launch_file: ModuleType):
    declared = {a.name: a for a in launch_file.generate_launch_description().entities if hasattr(a, "choices")}
    chosen = {name for name, argument in declared.items() if argument.choices}
    assert {"image_transport", "engine", "use_sim_time", "autostart", "respawn"} <= chosen
    for name in chosen:
        context = LaunchContext()
        context.launch_configurations[name] = "silly"
        with pytest.raises(RuntimeError, match="silly"):
            declared[name].execute(context)
        declared[name].execute(LaunchContext())


@pytest.mark.parametrize("respawn", ["true", "false"])
def test_the_node_is_started_again_where_that_is_asked_for(launch_file: ModuleType, respawn: str):
    context = context_of(launch_file, {"respawn": respawn})
    node = node_of(launch_file, context)
    assert node._ExecuteLocal__respawn is (respawn == "true")


def test_each_process_is_brought_up_once_and_a_configuration_by_hand_is_not_followed(launch_file: ModuleType):
    context = context_of(launch_file, {})
    node = LifecycleNode(package="effovpr_ros", executable="place_recognizer", name="place_recognizer", namespace="")
    on_start, on_configured = (action.event_handler for action in bring_up(context, node))
    assert isinstance(bring_up(context, node)[0], RegisterEventHandler)
    (activate,) = on_configured.entities
    assert activate.execute(context) == []
    for _ in range(2):  # the second process is a respawned one
        (configure,) = on_start_actions(on_start, context)
        assert configure.event.transition_id == 1
        (change,) = activate.execute(context)
        assert change.event.transition_id == 3
        assert activate.execute(context) == []
    assert bring_up(context_of(launch_file, {"autostart": "false"}), node) == []


def on_start_actions(handler: Any, context: LaunchContext) -> list[Any]:
    """What a handler of the start of a process does."""
    return handler._OnActionEventBase__on_event(None, context)
