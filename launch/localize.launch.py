"""Localise a camera in a prebuilt map: the place_recognizer node, brought to active.

ros2 launch effovpr_ros localize.launch.py map:=/path/to/map image_topic:=/camera/image_raw
"""

from launch.actions import RegisterEventHandler
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.event_handlers import OnStateTransition

from effovpr_ros.nodes.adapters.adapter_config import MATCH_ADAPTERS
from effovpr_ros.nodes.launching import (
    CAMERA_PARAMETERS,
    Argument,
    arguments_of_a_camera_node,
    bring_up,
    camera_node,
    describe,
    switch,
)
from launch import LaunchDescription

ARGUMENTS = {
    "map": Argument("", "Map directory; empty: as in the config file, or later by ~/load_map."),
    **arguments_of_a_camera_node("localize.yaml", MATCH_ADAPTERS),
    "debug_view": switch(False, "Show query and match side by side (needs rqt_image_view)."),
}
PARAMETER_OF_ARGUMENT = {"map": "map_path", **CAMERA_PARAMETERS}


def generate_launch_description() -> LaunchDescription:
    return describe(ARGUMENTS, launch_nodes)


def launch_nodes(context):
    recognizer = camera_node(context, "place_recognizer", PARAMETER_OF_ARGUMENT)
    topic = f"{LaunchConfiguration('namespace').perform(context)}/place_recognizer/debug_image/compressed"
    debug_view = Node(
        package="rqt_image_view",
        executable="rqt_image_view",
        arguments=[topic if topic.startswith("/") else f"/{topic}"],
        condition=IfCondition(LaunchConfiguration("debug_view")),
    )
    # The view takes a topic that it does not know yet for one of raw images.
    view_when_active = RegisterEventHandler(
        OnStateTransition(target_lifecycle_node=recognizer, goal_state="active", entities=[debug_view])
    )
    return [*bring_up(context, recognizer), view_when_active, recognizer]
