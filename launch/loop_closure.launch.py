"""Find loop closures while the robot drives: the loop_closure_detector node, brought to active.

ros2 launch effovpr_ros loop_closure.launch.py session_path:=~/sessions/house image_topic:=/camera/image_raw
"""

from effovpr_ros.nodes.adapters.adapter_config import LOOP_ADAPTERS
from effovpr_ros.nodes.launching import (
    CAMERA_PARAMETERS,
    Argument,
    arguments_of_a_camera_node,
    bring_up,
    camera_node,
    describe,
)
from launch import LaunchDescription

ARGUMENTS = {
    "session_path": Argument("", "Map directory that grows; empty: as in the config file."),
    "session": Argument("", "Name of the session; empty: as in the config file."),
    "odom_topic": Argument("/odom", "Odometry topic."),
    "camera_info_topic": Argument(
        "/camera/camera_info", "Calibration of the camera: bearings in radians, relative poses of closures."
    ),
    "depth_topic": Argument("/camera/depth/image_raw", "Depth registered to the images, with use_depth."),
    **arguments_of_a_camera_node("loop_closure.yaml", LOOP_ADAPTERS),
}
PARAMETER_OF_ARGUMENT = {"session_path": "session_path", "session": "session", **CAMERA_PARAMETERS}
ARGUMENT_OF_TOPIC = {"odom": "odom_topic", "camera_info": "camera_info_topic", "depth": "depth_topic"}


def generate_launch_description() -> LaunchDescription:
    return describe(ARGUMENTS, launch_nodes)


def launch_nodes(context):
    detector = camera_node(context, "loop_closure_detector", PARAMETER_OF_ARGUMENT, ARGUMENT_OF_TOPIC)
    return [*bring_up(context, detector), detector]
