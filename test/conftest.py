"""What several tests share: where real photographs lie, the default model, and the features it gives of them."""

from __future__ import annotations

import os
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from effovpr_ros.cli.options import PRESETS
from effovpr_ros.core.images import RgbImage
from effovpr_ros.features.extractor import ExtractorConfig, FeatureExtractor, Features
from effovpr_ros.features.variants import extract_variants


class KnownFeatures:
    """Features of images by preset, each extracted once in a run of the tests.

    Attributes:
        readers: extractors by preset, all of one network; `full` is the default with full local descriptors.
    """

    def __init__(self, extractor: FeatureExtractor) -> None:
        """Start empty."""
        settings = {name: replace(made, device="cpu") for name, (made, _) in PRESETS.items()}
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
    return FeatureExtractor(ExtractorConfig(device="cpu"))


@pytest.fixture(scope="session")
def known_features(offline_extractor: FeatureExtractor) -> KnownFeatures:
    """Features of real photographs by the default model."""
    return KnownFeatures(offline_extractor)


def pytest_configure() -> None:
    """Keep the tests' DDS traffic on this machine and away from other runs."""
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
