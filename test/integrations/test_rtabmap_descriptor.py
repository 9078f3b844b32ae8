"""The script for RTAB-Map, called as its PyDescriptor calls it."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from synthetic import picture, tiny_extractor, tiny_weights

FOLDER = Path(__file__).parents[2] / "integrations" / "rtabmap"
NAME = "effovpr_descriptor"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script, imported by its name from its folder, with the tiny model."""
    monkeypatch.setenv("EFFOVPR_MODEL", "vit_tiny_test_patch14")
    monkeypatch.setenv("EFFOVPR_WEIGHTS", str(tiny_weights(tmp_path)))
    monkeypatch.setenv("EFFOVPR_DEVICE", "cpu")
    monkeypatch.syspath_prepend(str(FOLDER))
    sys.modules.pop(NAME, None)
    return importlib.import_module(NAME)


def as_rtabmap_hands_over(image: np.ndarray) -> np.ndarray:
    """The bytes of an OpenCV image as int8 of rows, columns and channels, in memory of somebody else."""
    rows, columns = image.shape[:2]
    channels = image.shape[2] if image.ndim == 3 else 1
    return np.ndarray((rows, columns, channels), np.int8, buffer=bytearray(image.tobytes()))


def test_bgr_images_get_the_librarys_descriptor(script: ModuleType, tmp_path: Path):
    script.init(512)
    rgb = picture(3)
    descriptor = script.extract(as_rtabmap_hands_over(rgb[:, :, ::-1]))
    # RTAB-Map asserts one row of float32 and reads it as contiguous memory; it compares by the inner product.
    assert (descriptor.shape, descriptor.dtype, descriptor.flags.c_contiguous) == ((1, 512), np.float32, True)
    assert np.linalg.norm(descriptor) == pytest.approx(1.0, abs=1e-5)
    expected = tiny_extractor(tmp_path, image_size=322, local_block=-4).extract([rgb])[0].global_descriptor
    assert np.array_equal(descriptor[0], expected)
    assert script.extract(as_rtabmap_hands_over(rgb))[0] @ expected < 0.999


def test_grey_images_are_described_as_equal_channels(script: ModuleType):
    script.init(512)
    grey = picture(4)[:, :, 1]
    descriptor = script.extract(as_rtabmap_hands_over(grey))
    assert descriptor.shape == (1, 512)
    assert np.array_equal(descriptor, script.extract(np.dstack([grey] * 3)))


def test_init_never_raises_and_extract_tells_why(script: ModuleType, monkeypatch: pytest.MonkeyPatch):
    image = as_rtabmap_hands_over(picture(5))
    with pytest.raises(RuntimeError, match="was not called"):
        script.extract(image)
    script.init(4096)
    with pytest.raises(RuntimeError, match="Dim is 4096, but the model makes 512 numbers; set it to 512"):
        script.extract(image)
    # A traceback that is not ASCII would end RTAB-Map.
    monkeypatch.setenv("EFFOVPR_WEIGHTS", "/nowhere/gew\u00e4hlt.pth")
    script.init(512)
    with pytest.raises(RuntimeError, match=r"gew\\xe4hlt.pth") as told:
        script.extract(image)
    assert str(told.value).isascii()
    monkeypatch.delenv("EFFOVPR_WEIGHTS")
    monkeypatch.setenv("EFFOVPR_MODEL", "vit_unknown")
    script.init(512)
    with pytest.raises(RuntimeError, match="vit_unknown"):
        script.extract(image)


def test_the_scripts_source_is_ascii_for_its_tracebacks():
    assert (FOLDER / f"{NAME}.py").read_bytes().isascii()


def test_it_runs_where_there_is_no_ros(script: ModuleType, tmp_path: Path):
    """In an interpreter of its own, as RTAB-Map embeds one, with ROS refused."""
    program = f"""
import sys
class NoRos:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("rclpy", "std_msgs", "geometry_msgs", "sensor_msgs"):
            raise ImportError(f"{{name}} is not to be imported")
sys.meta_path.insert(0, NoRos())
sys.path.append({str(Path(__file__).parents[1])!r})
import synthetic
sys.path.append({str(FOLDER)!r})
module = __import__({NAME!r})
module.init(512)
print(module.extract(synthetic.np.zeros((72, 96, 3), synthetic.np.int8)).shape)
"""
    environment: dict[str, Any] = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False, env=environment
    )
    assert done.stdout == "(1, 512)\n", done.stderr
