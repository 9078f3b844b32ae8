"""What loading leaves behind goes back to the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
from effovpr_ros.core.memory import give_back_memory

def resident_mib():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024

# Pieces below glibc's limit for pages of their own stay with it when the last of them is held.
pieces = [bytearray(60_000) for _ in range(4000)]
last = bytearray(60_000)
del pieces
before = resident_mib()
assert give_back_memory()
print(before - resident_mib())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no glibc")
def test_freed_memory_goes_back():
    done = subprocess.run([sys.executable, "-P", "-c", PROGRAM], capture_output=True, text=True, check=True)
    # 4,000 pieces of 60,000 bytes are 229 MiB.
    assert float(done.stdout) > 150.0
