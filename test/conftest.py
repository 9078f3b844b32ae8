"""What several tests share: where real photographs lie and the default model, loaded once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from effovpr_ros.features.extractor import ExtractorConfig, FeatureExtractor


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
    return FeatureExtractor(ExtractorConfig(device="cpu"))


def pytest_configure() -> None:
    """Keep the tests' DDS traffic on this machine and away from other runs."""
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
