"""OpenMP's threads sleep soon in programs of this package, unless the environment says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("package", ["cli", "nodes"])
@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
    ids=["default", "own count", "own policy"],
)
def test_the_environment_has_the_last_word(package: str, given: dict[str, str], expected: str):
    free = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    # Before torch is there: later nothing reads it any more.
    program = f"import effovpr_ros.{package}, os, sys; assert 'torch' not in sys.modules; "
    program += "print(os.environ.get('GOMP_SPINCOUNT'))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], env=free | given, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected
