"""What several tests share: where real photographs lie, the default model, and the features it gives of them."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TextIO

import pytest

from effovpr_ros.core.images import RgbImage
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import ExtractorConfig
from effovpr_ros.features.image_features import Features
from effovpr_ros.features.variants import extract_variants
from effovpr_ros.recognition.presets import PRESETS

STALLED_S = 600
# Folders and files that take more than a few seconds: programs that are started, networks that run on many images,
# training, a simulator, a browser. Everything else is the fast part.
SLOW = (
    "benchmark/",
    "cli/",
    "cluster/",
    "engines/",
    "gpu/",
    "integrations/",
    "lab/test_baselines.py",
    "lab/test_confidence_fitting.py",
    "lab/test_evaluation_bags.py",
    "lab/test_evaluation_folders.py",
    "lab/test_report.py",
    "lab/test_simulation.py",
    "lab/test_slam_demo.py",
    "lab/test_training_run.py",
    "loop_closure/test_real",
    "nodes/",
    "recognition/test_real",
    "serving/",
    "sources/test_inputs.py",
    "test_api.py",
    "test_packaging.py",
    "test_tutorials.py",
)
_TRACES = pytest.StashKey[TextIO]()
_TRACES_FOLDER = "EFFOVPR_TEST_TRACES"


class KnownFeatures:
    """Features of images by preset, each extracted once in a run of the tests.

    Attributes:
        readers: extractors by preset, all of one network; `full` is the default with full local descriptors.
    """

    def __init__(self, extractor: FeatureExtractor) -> None:
        """Start empty."""
        settings = {name: replace(made, device="cpu", engine="torch") for name, (made, _) in PRESETS.items()}
        settings["full"] = replace(settings["default"], local_codes="full")
        self.readers = {name: extractor.reading(made) for name, made in settings.items()}
        self._known: dict[tuple[bytes, str], Features] = {}

    def of(self, image: RgbImage, *presets: str) -> list[Features]:
        """Features of an image, one a preset; what is missing costs one forward pass."""
        picture = sha256(image.tobytes()).digest()
        missing = [preset for preset in presets if (picture, preset) not in self._known]
        # The pass that gives the one gives the other for next to nothing.
        if {"default", "full"} & {*missing}:
            missing = [*{*missing, "default", "full"}]
        if missing:
            made = extract_variants([self.readers[preset] for preset in missing], [image])
            self._known |= {(picture, preset): timed.features[0] for preset, timed in zip(missing, made, strict=True)}
        return [self._known[picture, preset] for preset in presets]


@pytest.fixture(scope="session")
def real_images() -> Path:
    """Folder of the real image sets: $EFFOVPR_TEST_DATA, else ../shared/data beside the repository."""
    folder = Path(os.environ.get("EFFOVPR_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}; set EFFOVPR_TEST_DATA")
    return folder.resolve()


@pytest.fixture(scope="session")
def offline_extractor() -> FeatureExtractor:
    """The default model with its default settings, on the CPU."""
    return FeatureExtractor(ExtractorConfig(device="cpu", engine="torch"))


@pytest.fixture(scope="session")
def known_features(offline_extractor: FeatureExtractor) -> KnownFeatures:
    """Features of real photographs by the default model."""
    return KnownFeatures(offline_extractor)


def pytest_configure(config: pytest.Config) -> None:
    """Keep the tests' DDS traffic on this machine and away from other runs; let a crash leave a trace in a file."""
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    # What `engine: auto` found on this machine for other programs is none of the tests' business, nor theirs of others.
    cache = tempfile.mkdtemp(prefix="effovpr-tests-cache-")
    os.environ["XDG_CACHE_HOME"] = cache
    config.add_cleanup(lambda: shutil.rmtree(cache, ignore_errors=True))
    # The children of tests write theirs to their own error stream.
    os.environ.setdefault("PYTHONFAULTHANDLER", "1")
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker:
        # Nodes of one worker must not hear those of another.
        os.environ["ROS_DOMAIN_ID"] = str(1 + (int(os.environ["ROS_DOMAIN_ID"]) + int(worker[2:])) % 100)
    else:
        os.environ[_TRACES_FOLDER] = tempfile.mkdtemp(prefix="effovpr-tests-")
        # Workers inherit this; together they have as many threads as there are cores.
        workers = len(getattr(config.option, "tx", None) or [])
        if workers:
            os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // workers, 1)))
    path = Path(os.environ[_TRACES_FOLDER], f"traces{worker}.txt")
    traces = config.stash[_TRACES] = path.open("w", encoding="utf-8")
    faulthandler.enable(traces, all_threads=True)


def pytest_report_header(config: pytest.Config) -> str:
    """Where to look after a crash, which ends the run without a summary."""
    return f"traces of crashes and of tests above {STALLED_S} s: {os.environ[_TRACES_FOLDER]}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Name the test in the file of traces, and write where all threads are when it takes very long."""
    traces = item.config.stash[_TRACES]
    traces.seek(0)
    traces.truncate()
    traces.write(f"{item.nodeid}\n")
    traces.flush()
    faulthandler.dump_traceback_later(STALLED_S, file=traces)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()
        traces.seek(0, os.SEEK_END)
        if traces.tell() > len(item.nodeid) + 1:
            stalled = Path(traces.name).with_name("stalled.txt")
            with stalled.open("a", encoding="utf-8") as file:
                file.write(Path(traces.name).read_text(encoding="utf-8"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name the file where tests took very long."""
    stalled = Path(config.stash[_TRACES].name).with_name("stalled.txt")
    if stalled.is_file():
        terminalreporter.write_line(f"tests took more than {STALLED_S} s; their threads are in {stalled}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave no file behind that says nothing."""
    faulthandler.disable()
    traces = config.stash[_TRACES]
    traces.close()
    Path(traces.name).unlink()
    # Where a worker crashed its traces are still there.
    with contextlib.suppress(OSError):
        Path(traces.name).parent.rmdir()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what takes long."""
    for item in items:
        name = item.path.relative_to(Path(__file__).parent).as_posix()
        if name.startswith(SLOW):
            item.add_marker(pytest.mark.slow)
