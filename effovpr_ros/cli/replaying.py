"""Replays through a node, in a process of its own, since nothing below `nodes` imports ROS."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence

ROS_REMEDY = "if ROS 2 is missing, run `make setup` and `source scripts/env.sh`"


def run_replay(module: str, arguments: Mapping[str, object], more: Sequence[str] = ()) -> int:
    """Run a program of `effovpr_ros.nodes`; what it prints goes to stderr.

    Args:
        module: its name.
        arguments: options and their values.
        more: options that repeat.

    Returns:
        Its exit code.
    """
    options = [str(item) for pair in arguments.items() for item in pair]
    command = [sys.executable, "-P", "-m", f"effovpr_ros.nodes.{module}", *options, *more]
    return subprocess.run(command, stdout=sys.stderr, check=False).returncode
