"""Two laps of one robot through one building: the drive of the SLAM demo."""

from __future__ import annotations

import math

from effovpr_ros.lab.simulation.drive import DriveConfig

LAPS_LEVEL = "E2M4"
# fmt: off
_LAP_M = (
    (-36.0, -19.0), (-28.5, -20.0), (-24.5, -10.0), (-36.0, -6.0), (-36.0, -1.5), (-47.0, -2.0),
    (-47.5, 8.0), (-54.0, 10.5), (-60.5, 8.0), (-60.5, -9.0), (-52.0, -10.5), (-47.0, -4.0),
    (-36.0, -1.5), (-36.0, -6.0), (-24.5, -10.0), (-28.5, -20.0), (-28.5, -31.0), (-36.5, -31.0),
)
"""A room with a block in its middle, a corridor, a hall with a block in its middle, and back through the corridor.

The corridor is driven both ways: a camera that looks ahead sees something else on the way back, which closes no loop.
"""
# fmt: on
LAPS_WAYPOINTS_M = ((-36.5, -25.0), *_LAP_M, (-36.5, -25.0), *_LAP_M, (-36.5, -25.0), (-36.0, -19.0))
LAPS_DRIVE = DriveConfig(
    speed_mps=2.0,
    rate_hz=4.0,
    sway_m=0.3,
    heading_sway_rad=math.radians(6.0),
    start_ns=1_700_172_800 * 10**9,
    seed=3,
)
LAPS_KEYFRAME_M = 0.75
"""Less than two steps of the camera: every second image becomes a keyframe on a straight way."""
