"""Topics, services and actions of the nodes, in words: what the reference lists and the tests hold against the code."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Endpoint:
    """One topic, service or action.

    Attributes:
        kind: topic, service or action.
        name: as the node asks for it, before remapping; `~` is the node's own name.
        type: package and type.
        meaning: direction and QoS of a topic, then what it is for.
    """

    kind: str
    name: str
    type: str
    meaning: str


_IMAGES = (
    Endpoint(
        "topic",
        "image",
        "sensor_msgs/Image",
        "in, with `image_transport` raw; reliability as published (see `image_reliability`), last 5",
    ),
    Endpoint(
        "topic", "image/compressed", "sensor_msgs/CompressedImage", "in, with `image_transport` compressed; as `image`"
    ),
)

RECOGNIZER = (
    *_IMAGES,
    Endpoint(
        "topic",
        "camera_info",
        "sensor_msgs/CameraInfo",
        "in, beside the images (`camera_info_topic`): calibration of the camera, by which poses are measured; best "
        "effort, last 1",
    ),
    Endpoint(
        "topic",
        "/tf_static",
        "tf2_msgs/TFMessage",
        "in, unless `camera_pose` is given: where the camera is mounted on `body_frame`; with `publish_tf`, frames "
        "between the odometry's and the body's too; latched",
    ),
    Endpoint(
        "topic",
        "/tf",
        "tf2_msgs/TFMessage",
        "with `publish_tf`. In: odometry, and other broadcasters of `odom_frame`. Out: the map's frame over it",
    ),
    Endpoint(
        "topic",
        "odom",
        "nav_msgs/Odometry",
        "in, while `sequence_length` is not 0, `~/relocalize` runs, or `publish_tf` with `tf_odometry` topic: how the "
        "robot moved; best effort, last 50",
    ),
    Endpoint(
        "topic",
        "~/hint",
        "geometry_msgs/PoseWithCovarianceStamped",
        "in, optional prior in the map frame: places outside three standard deviations are not considered",
    ),
    Endpoint("topic", "~/match", "effovpr_ros/PlaceMatch", "out, every answer; reliable, last 10"),
    Endpoint(
        "topic",
        "~/pose",
        "geometry_msgs/PoseWithCovarianceStamped",
        "out, for a MATCH whose place has a pose; reliable, last 10",
    ),
    Endpoint(
        "topic",
        "~/fix",
        "sensor_msgs/NavSatFix",
        "out, for a MATCH whose place or map is geo-referenced, in frame `body_frame`; reliable, last 10",
    ),
    Endpoint(
        "topic",
        "~/debug_image/compressed",
        "sensor_msgs/CompressedImage",
        "out, query beside match with matched patches joined; drawn only while somebody listens",
    ),
    Endpoint("topic", "~/markers", "visualization_msgs/MarkerArray", "out, the map's places and the match; latched"),
    Endpoint(
        "topic",
        "/diagnostics",
        "diagnostic_msgs/DiagnosticArray",
        "out, once a second: rate, latency by stage, dropped frames, map, device, last error",
    ),
    Endpoint(
        "service",
        "~/localize",
        "effovpr_ros/Localize",
        "recognises the given image and answers its caller alone: nothing is published; without an image, that of the "
        "topic, not older than `localize_max_age_s`",
    ),
    Endpoint(
        "service",
        "~/load_map",
        "effovpr_ros/LoadMap",
        "replaces the map; the one in use stays if the new one cannot be opened",
    ),
    Endpoint(
        "action",
        "~/relocalize",
        "effovpr_ros/Relocalize",
        "asks image after image until enough answers support one pose, or the time is out",
    ),
)
"""Of `place_recognizer`."""

DETECTOR = (
    *_IMAGES,
    Endpoint("topic", "odom", "nav_msgs/Odometry", "in; best effort, last 50"),
    Endpoint(
        "topic",
        "camera_info",
        "sensor_msgs/CameraInfo",
        "in, optional: `bearing_offset_rad`, and relative poses in metres; best effort, last 1",
    ),
    Endpoint(
        "topic",
        "depth",
        "sensor_msgs/Image",
        "in, with `use_depth`: depth registered to the images, 32FC1 or 16UC1; QoS as the images, within "
        "20 ms of theirs",
    ),
    Endpoint("topic", "~/keyframe", "effovpr_ros/Keyframe", "out, every image that joined the map; reliable, last 10"),
    Endpoint(
        "topic",
        "~/loop_closure",
        "effovpr_ros/LoopClosure",
        "out, after the keyframe that closes the loop; reliable, last 10",
    ),
    Endpoint(
        "topic",
        "~/markers",
        "visualization_msgs/MarkerArray",
        "out, keyframes and closures of this run, once a second while somebody listens; latched",
    ),
    Endpoint(
        "topic",
        "/diagnostics",
        "diagnostic_msgs/DiagnosticArray",
        "out, once a second: inputs, counts, latency by stage, session, last error",
    ),
    Endpoint(
        "service",
        "~/save_map",
        "effovpr_ros/SaveMap",
        "copies the map, as it is, to a new folder that `place_recognizer` opens; the session goes on",
    ),
)
"""Of `loop_closure_detector`."""
