#!/bin/bash
# The distribution, the workspace and the Python environment for whatever is run.
set -e
source /opt/ros/jazzy/setup.bash
source /ws/install/setup.bash
export PATH="$VIRTUAL_ENV/bin:$PATH"
exec "$@"
