"""Localise a robot of Nav2 by its camera: place_recognizer with the adapter nav2, beside AMCL or with all of Nav2.

ros2 launch effovpr_ros nav2.launch.py map:=/path/to/map image_topic:=/camera/image_raw nav2_map:=/path/to/floor.yaml
"""

from dataclasses import replace

from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare

from effovpr_ros.nodes.adapters.adapter_config import MATCH_ADAPTERS
from effovpr_ros.nodes.launching import (
    CAMERA_PARAMETERS,
    Argument,
    arguments_of_a_camera_node,
    bring_up,
    camera_node,
    describe,
)
from launch import LaunchDescription

_CAMERA = arguments_of_a_camera_node("localize.yaml", MATCH_ADAPTERS)
ARGUMENTS = {
    "map": Argument("", "Map directory; empty: as in the config file, or later by ~/load_map."),
    **_CAMERA,
    "adapters": replace(_CAMERA["adapters"], default="nav2"),
    "nav2_map": Argument("", "Floor plan of Nav2 (YAML); given, nav2_bringup is started too."),
    "nav2_params": Argument("", "Parameter file of Nav2; empty: nav2_bringup's own."),
}
PARAMETER_OF_ARGUMENT = {"map": "map_path", **CAMERA_PARAMETERS}


def generate_launch_description() -> LaunchDescription:
    return describe(ARGUMENTS, launch_nodes)


def launch_nodes(context):
    recognizer = camera_node(context, "place_recognizer", PARAMETER_OF_ARGUMENT)
    return [*bring_up(context, recognizer), recognizer, *nav2(context)]


def nav2(context):
    """Nav2 itself, where its floor plan is given."""
    floor, params = (LaunchConfiguration(name).perform(context) for name in ("nav2_map", "nav2_params"))
    if not floor:
        return []
    source = PathJoinSubstitution([FindPackageShare("nav2_bringup"), "launch", "bringup_launch.py"])
    arguments = {"map": floor, "use_sim_time": LaunchConfiguration("use_sim_time").perform(context)}
    if params:
        arguments["params_file"] = params
    return [IncludeLaunchDescription(PythonLaunchDescriptionSource(source), launch_arguments=arguments.items())]
