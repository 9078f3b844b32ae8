"""Find loop closures while the robot drives: the loop_closure_detector node, brought to active.

ros2 launch effovpr_ros loop_closure.launch.py session_path:=~/sessions/house image_topic:=/camera/image_raw
"""

from effovpr_ros.nodes.launching import arguments_of_a_camera_node, bring_up, camera_node, describe
from launch import LaunchDescription

ARGUMENTS = {
    "session_path": ("", "Map directory that grows; empty: as in the config file."),
    "session": ("", "Name of the session; empty: as in the config file."),
    "odom_topic": ("/odom", "Odometry topic."),
    **arguments_of_a_camera_node("loop_closure.yaml"),
}
PARAMETER_OF_ARGUMENT = {name: name for name in ("session_path", "session", "image_transport", "device")}


def generate_launch_description() -> LaunchDescription:
    return describe(ARGUMENTS, launch_nodes)


def launch_nodes(context):
    detector = camera_node(context, "loop_closure_detector", PARAMETER_OF_ARGUMENT, {"odom": "odom_topic"})
    return [detector, *bring_up(detector)]
