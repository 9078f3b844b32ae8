from __future__ import annotations

import os
import subprocess
import sys

import pytest


def test_openvinos_telemetry_is_declined_where_nobody_was_asked(tmp_path):
    """In a process of its own, with a home that has no answer in it: their own check takes that for consent."""
    pytest.importorskip("openvino_telemetry")
    program = (
        "from openvino_telemetry.utils.opt_in_checker import OptInChecker as O, ConsentCheckResult as C\n"
        "assert O().check(False) == C.NO_FILE\n"
        "from effovpr_ros.core.telemetry import keep_openvino_quiet as q; q()\n"
        "assert O().check(False) == C.DECLINED\n"
        "from openvino_telemetry import Telemetry\n"
        "assert not Telemetry('a', '1', 'G-1', 'ga4', False, False).consent\n"
    )
    subprocess.run([sys.executable, "-P", "-c", program], check=True, env={**os.environ, "HOME": str(tmp_path)})
