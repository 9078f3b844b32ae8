"""Names of cameras as a parameter gives them."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.nodes.camera_config import QueryCameraConfig


def test_a_camera_that_is_named_twice_is_no_single_camera():
    with pytest.raises(ConfigError, match="cameras 'front, front' names front twice; name each camera once"):
        QueryCameraConfig(cameras="front, front")
    with pytest.raises(ConfigError, match="names left, rear twice"):
        QueryCameraConfig(cameras="rear,left,rear ,front, left")
    assert QueryCameraConfig(cameras=" front, rear,").names == ("front", "rear")
    assert QueryCameraConfig().names == ()
