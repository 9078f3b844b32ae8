"""Localise a camera in a prebuilt map: the place_recognizer node, brought to active.

ros2 launch effovpr_ros localize.launch.py map:=/path/to/map image_topic:=/camera/image_raw
"""

from launch.actions import DeclareLaunchArgument, EmitEvent, RegisterEventHandler
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare
from lifecycle_msgs.msg import Transition

from launch import LaunchDescription

ARGUMENTS = {
    "map": ("", "Map directory; empty: as in the config file, or later by ~/load_map."),
    "image_topic": ("/camera/image_raw", "Camera topic; of the raw image, also with transport compressed."),
    "image_transport": ("raw", "raw or compressed (image_topic/compressed)."),
    "config": (
        PathJoinSubstitution([FindPackageShare("effovpr_ros"), "config", "localize.yaml"]),
        "Parameter file; the other arguments take precedence over it.",
    ),
    "device": ("auto", "auto, cpu, cuda or cuda:N."),
    "namespace": ("", "Namespace of the node."),
    "use_sim_time": ("false", "Take time from /clock, as a played bag gives it."),
    "autostart": ("true", "Configure and activate at once."),
    "debug_view": ("false", "Show query and match side by side (needs rqt_image_view)."),
}


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    value = {name: LaunchConfiguration(name) for name in ARGUMENTS}
    recognizer = LifecycleNode(
        package="effovpr_ros",
        executable="place_recognizer",
        name="place_recognizer",
        namespace=value["namespace"],
        output="screen",
        parameters=[
            value["config"],
            {
                "map_path": ParameterValue(value["map"], value_type=str),
                "image_transport": ParameterValue(value["image_transport"], value_type=str),
                "device": ParameterValue(value["device"], value_type=str),
                "use_sim_time": ParameterValue(value["use_sim_time"], value_type=bool),
            },
        ],
        remappings=[("image", value["image_topic"]), ("image/compressed", [value["image_topic"], "/compressed"])],
    )

    def change(transition: int) -> EmitEvent:
        event = ChangeState(lifecycle_node_matcher=lambda action: action is recognizer, transition_id=transition)
        return EmitEvent(event=event, condition=IfCondition(value["autostart"]))

    activate_when_configured = RegisterEventHandler(
        OnStateTransition(
            target_lifecycle_node=recognizer,
            start_state="configuring",
            goal_state="inactive",
            entities=[change(Transition.TRANSITION_ACTIVATE)],
        )
    )
    debug_view = Node(
        package="rqt_image_view",
        executable="rqt_image_view",
        arguments=["/place_recognizer/debug_image/compressed"],
        condition=IfCondition(value["debug_view"]),
    )
    configure = change(Transition.TRANSITION_CONFIGURE)
    return LaunchDescription([*arguments, recognizer, activate_when_configured, configure, debug_view])
