"""ROS 2 nodes; the only importers of rclpy."""

from effovpr_ros.core.openmp import spin_briefly

spin_briefly()
