# Source this to use what `make setup` made: the environment in .venv and the built package.
_effovpr_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export VIRTUAL_ENV="$_effovpr_root/.venv"
export PATH="$VIRTUAL_ENV/bin:$PATH"
if [ -z "${ROS_DISTRO:-}" ]; then
    export AMENT_PREFIX_PATH="$VIRTUAL_ENV${AMENT_PREFIX_PATH:+:$AMENT_PREFIX_PATH}"
fi
COLCON_CURRENT_PREFIX="$_effovpr_root/install" . "$_effovpr_root/install/local_setup.bash"
unset _effovpr_root
