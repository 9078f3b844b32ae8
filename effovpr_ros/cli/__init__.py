"""The effovpr command."""

from effovpr_ros.openmp import spin_briefly

spin_briefly()
