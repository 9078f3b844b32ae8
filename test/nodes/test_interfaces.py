"""The message of /tf is ROS's own, whoever built it."""

from __future__ import annotations

import json
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from tf2_msgs.msg import TFMessage

# Of tf2_msgs/msg/TFMessage, as nodes of a ROS distribution announce it: they must hear and be heard.
HASH = "RIHS01_e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087"


def test_tf_message_is_that_of_the_distributions():
    described = Path(get_package_share_directory("tf2_msgs"), "msg", "TFMessage.json")
    assert TFMessage.get_fields_and_field_types() == {"transforms": "sequence<geometry_msgs/TransformStamped>"}
    if described.exists():  # Humble knows no hashes of types
        hashes = json.loads(described.read_text())["type_hashes"]
        assert {item["type_name"]: item["hash_string"] for item in hashes}["tf2_msgs/msg/TFMessage"] == HASH
