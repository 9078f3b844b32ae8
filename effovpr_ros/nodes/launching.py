"""What the launch files share; `launch` and `launch_ros` come with a ROS distribution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessStart
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare
from lifecycle_msgs.msg import Transition

from effovpr_ros.engines.catalogue import ENGINE_NAMES
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity

_RESPAWN_DELAY_S = 2.0


@dataclass(frozen=True)
class Argument:
    """A launch argument.

    Attributes:
        default: its value where it is not given.
        description: for people.
        choices: what it may be; None for anything.
    """

    default: Any
    description: str
    choices: Sequence[str] | None = None


def switch(default: bool, description: str) -> Argument:
    """An argument that is true or false."""
    return Argument(str(default).lower(), description, ("true", "false", "True", "False"))


CAMERA_PARAMETERS = {name: name for name in ("image_transport", "device", "engine", "adapters")}
"""Arguments of every node with a camera that set a parameter, and the parameter."""


def arguments_of_a_camera_node(config_file: str, adapters: Sequence[str]) -> dict[str, Argument]:
    """Arguments that every node with a camera has.

    Args:
        config_file: name of its parameter file.
        adapters: that it knows.
    """
    return {
        "image_topic": Argument("/camera/image_raw", "Camera topic; of the raw image, also with transport compressed."),
        "image_transport": Argument(
            "", "raw or compressed (image_topic/compressed); empty: as in the config file.", ("", "raw", "compressed")
        ),
        "config": Argument(
            PathJoinSubstitution([FindPackageShare("effovpr_ros"), "config", config_file]),
            "Parameter file; the other arguments take precedence over it.",
        ),
        "device": Argument("", "auto, cpu, cuda or cuda:N; empty: as in the config file."),
        "engine": Argument("", f"{', '.join(ENGINE_NAMES)}; empty: as in the config file.", ("", *ENGINE_NAMES)),
        "adapters": Argument(
            "", f"To other stacks, comma-separated, of {', '.join(adapters)}; empty: as in the config file."
        ),
        "namespace": Argument("", "Namespace of the node."),
        "use_sim_time": switch(False, "Take time from /clock, as a played bag gives it."),
        "autostart": switch(True, "Configure and activate at once, and after each respawn."),
        "respawn": switch(False, "Start the node again two seconds after its process has ended."),
    }


def describe(arguments: Mapping[str, Argument], launch_nodes: Any) -> LaunchDescription:
    """A launch description of arguments and what a function of the launch context makes of them."""
    declared = [
        DeclareLaunchArgument(
            name,
            default_value=argument.default,
            description=argument.description,
            **({} if argument.choices is None else {"choices": argument.choices}),
        )
        for name, argument in arguments.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=launch_nodes)])


def camera_node(
    context: LaunchContext,
    name: str,
    parameter_of_argument: Mapping[str, str],
    remappings: Mapping[str, str] | None = None,
) -> LifecycleNode:
    """A node of this package as the arguments describe it.

    Args:
        context: with the values of the arguments.
        name: of the node and of its program.
        parameter_of_argument: arguments that set a parameter where they were given.
        remappings: topics of the node to arguments that name them, beside the image's.
    """
    # Arguments that were not given must not overwrite the config file.
    given = {
        parameter: ParameterValue(LaunchConfiguration(argument), value_type=str)
        for argument, parameter in parameter_of_argument.items()
        if LaunchConfiguration(argument).perform(context)
    }
    use_sim_time = ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)
    image = LaunchConfiguration("image_topic")
    others = [(topic, LaunchConfiguration(argument)) for topic, argument in (remappings or {}).items()]
    return LifecycleNode(
        package="effovpr_ros",
        executable=name,
        name=name,
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        respawn=is_true(context, "respawn"),
        respawn_delay=_RESPAWN_DELAY_S,
        parameters=[LaunchConfiguration("config"), given, {"use_sim_time": use_sim_time}],
        remappings=[("image", image), ("image/compressed", [image, "/compressed"]), *others],
    )


def is_true(context: LaunchContext, argument: str) -> bool:
    """Whether a switch is on."""
    return bool(LaunchConfiguration(argument).perform(context).lower() == "true")


def bring_up(context: LaunchContext, node: LifecycleNode) -> list[LaunchDescriptionEntity]:
    """Actions before a node's that bring each process of it to active, unless `autostart` is false."""
    if not is_true(context, "autostart"):
        return []
    configured_by_hand = True

    def change(transition: int) -> EmitEvent:
        return EmitEvent(
            event=ChangeState(lifecycle_node_matcher=lambda action: action is node, transition_id=transition)
        )

    def on_start(event: Any, context: LaunchContext) -> list[LaunchDescriptionEntity]:
        nonlocal configured_by_hand
        configured_by_hand = False
        return [change(Transition.TRANSITION_CONFIGURE)]

    def on_configured(context: LaunchContext) -> list[LaunchDescriptionEntity]:
        nonlocal configured_by_hand
        # Who configures the node by hand later on activates it by hand too.
        activates, configured_by_hand = not configured_by_hand, True
        return [change(Transition.TRANSITION_ACTIVATE)] if activates else []

    return [
        RegisterEventHandler(OnProcessStart(target_action=node, on_start=on_start)),
        RegisterEventHandler(
            OnStateTransition(
                target_lifecycle_node=node,
                start_state="configuring",
                goal_state="inactive",
                entities=[OpaqueFunction(function=on_configured)],
            )
        ),
    ]
