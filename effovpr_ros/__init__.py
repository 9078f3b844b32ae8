"""Visual place recognition with EffoVPR for ROS 2."""
