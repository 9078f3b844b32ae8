"""The effovpr command."""

from effovpr_ros.core.openmp import spin_briefly

spin_briefly()
