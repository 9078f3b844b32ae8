"""Localise a camera in a prebuilt map: the place_recognizer node, brought to active.

ros2 launch effovpr_ros localize.launch.py map:=/path/to/map image_topic:=/camera/image_raw
"""

from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, RegisterEventHandler
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
    "image_transport": ("", "raw or compressed (image_topic/compressed); empty: as in the config file."),
    "config": (
        PathJoinSubstitution([FindPackageShare("effovpr_ros"), "config", "localize.yaml"]),
        "Parameter file; the other arguments take precedence over it.",
    ),
    "device": ("", "auto, cpu, cuda or cuda:N; empty: as in the config file."),
    "namespace": ("", "Namespace of the node."),
    "use_sim_time": ("false", "Take time from /clock, as a played bag gives it."),
    "autostart": ("true", "Configure and activate at once."),
    "debug_view": ("false", "Show query and match side by side (needs rqt_image_view)."),
}
PARAMETER_OF_ARGUMENT = {"map": "map_path", "image_transport": "image_transport", "device": "device"}


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=launch_nodes)])


def launch_nodes(context):
    value = {name: LaunchConfiguration(name) for name in ARGUMENTS}
    # Arguments that were not given must not overwrite the config file.
    given = {
        parameter: ParameterValue(value[argument], value_type=str)
        for argument, parameter in PARAMETER_OF_ARGUMENT.items()
        if value[argument].perform(context)
    }
    recognizer = LifecycleNode(
        package="effovpr_ros",
        executable="place_recognizer",
        name="place_recognizer",
        namespace=value["namespace"],
        output="screen",
        parameters=[value["config"], given, {"use_sim_time": ParameterValue(value["use_sim_time"], value_type=bool)}],
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
    topic = f"{value['namespace'].perform(context)}/place_recognizer/debug_image/compressed"
    debug_view = Node(
        package="rqt_image_view",
        executable="rqt_image_view",
        arguments=[topic if topic.startswith("/") else f"/{topic}"],
        condition=IfCondition(value["debug_view"]),
    )
    # The view takes a topic that it does not know yet for one of raw images.
    view_when_active = RegisterEventHandler(
        OnStateTransition(target_lifecycle_node=recognizer, goal_state="active", entities=[debug_view])
    )
    return [recognizer, activate_when_configured, view_when_active, change(Transition.TRANSITION_CONFIGURE)]
