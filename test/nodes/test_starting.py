"""Programs of nodes from their first moment on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULE = """
import os, signal, sys, time

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60.0)

{at_import}

def main():
    try:
        interrupt()
    except KeyboardInterrupt:
        sys.exit(7)
"""


@pytest.mark.parametrize(("at_import", "code"), [("interrupt()", 0), ("", 7)])
def test_an_interrupt_while_a_program_loads_ends_it_in_silence(tmp_path: Path, at_import: str, code: int):
    (tmp_path / "loaded.py").write_text(MODULE.format(at_import=at_import))
    # Who runs the tests in the background of a shell may have SIGINT ignored, and children inherit that.
    program = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    program += f"sys.path.insert(0, {str(tmp_path)!r})\n"
    program += "from effovpr_ros.nodes.starting import import_main; import_main('loaded')()"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, timeout=50, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")


NODE = """
import atexit, os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from rclpy.node import Node
from effovpr_ros.core.errors import MapError
from effovpr_ros.nodes.program import run_node

atexit.register(print, "taken down")

def make():
    if {fails}:
        raise MapError("no map")
    return Node("short_lived")

def spin(node):
    print("spinning")
    os.kill(os.getpid(), signal.SIGINT)

run_node("short_lived", make, spin)
"""


@pytest.mark.parametrize(
    ("fails", "expected"), [(False, (0, "spinning\n", "")), (True, (1, "", "short_lived: no map\n"))]
)
def test_a_node_ends_without_taking_the_interpreter_down(fails: bool, expected: tuple[int, str, str]):
    """On a busy machine that took longer than the five seconds after which a launch process kills."""
    pytest.importorskip("rclpy")
    program = NODE.format(fails=fails)
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == expected


@pytest.mark.parametrize("name", ["place_recognizer", "loop_closure_detector", "bag_player"])
def test_the_programs_of_nodes_start_so(name: str):
    assert f'import_main("effovpr_ros.nodes.{name}")()' in (ROOT / "scripts" / name).read_text(encoding="utf-8")
    assert (ROOT / "effovpr_ros" / "nodes" / f"{name}.py").is_file()
