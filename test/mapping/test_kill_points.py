"""A sample of the points at which `kill_points.py` kills; that script, without options, kills at all of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(shutil.which("cc") is None, reason="the shim that counts file operations needs a C compiler")
@pytest.mark.parametrize("only", [["build", "append"], ["compact", "merge", "calibrate"], ["save", "growth"]])
def test_after_a_kill_maps_open_and_the_same_command_ends_as_if_nothing_had_happened(only: list[str]):
    script = Path(__file__).with_name("kill_points.py")
    # A prime, so that the points of neighbouring operations differ.
    command = [sys.executable, "-P", str(script), "--stride", "97", "--only", *only]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 wrong" in result.stdout.splitlines()[-1]
