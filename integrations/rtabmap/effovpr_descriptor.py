"""EffoVPR's global descriptor inside RTAB-Map, as its `PyDescriptor` script. Needs this package's library, no ROS.

rtabmap --Mem/GlobalDescriptorStrategy 1 --PyDescriptor/Path PATH/effovpr_descriptor.py --PyDescriptor/Dim 512
        --Kp/TfIdfLikelihoodUsed false --Mem/RehearsalSimilarity 1

The environment chooses the model: EFFOVPR_MODEL (offline, small, base, ... or a timm ViT name), EFFOVPR_WEIGHTS (a
file) and EFFOVPR_DEVICE (auto, cpu, cuda).

What RTAB-Map (corelib/src/python/PyDescriptor.cpp) survives decides how errors are told here. A failed import and an
exception of `extract` are logged. An exception of `init` ends the process, and so does a traceback that is not ASCII.
So `init` keeps its error, and `extract` raises it.
"""

from __future__ import annotations

import logging
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.core.images import to_rgb_uint8
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import ExtractorConfig

_logger = logging.getLogger(__name__)


class _State:
    """What `init` leaves for `extract`."""

    extractor: FeatureExtractor | None = None
    failure = "init(dim) was not called"


def init(dim: int) -> None:
    """Load the model.

    Args:
        dim: of the descriptor, PyDescriptor/Dim; it must be the model's.
    """
    _State.extractor = None
    try:
        _State.extractor = _load(dim)
    # Whatever it is, an exception that leaves this function ends RTAB-Map without a word.
    except Exception as error:
        _State.failure = f"{type(error).__name__}: {error}".encode("ascii", "backslashreplace").decode("ascii")
        _logger.error("init failed: %s", _State.failure)


def extract(image: NDArray[Any]) -> NDArray[np.float32]:
    """Describe an image.

    Args:
        image: (H, W, 3) BGR or (H, W, 1) grey. RTAB-Map hands its bytes over as int8; they are read as uint8.

    Returns:
        (1, D) float32, L2-normalised.

    Raises:
        RuntimeError: `init` failed, for the reason named.
        ImageError: an empty image or one of another shape.
    """
    if _State.extractor is None:
        raise RuntimeError(_State.failure)
    pixels = image.view(np.uint8) if image.dtype == np.int8 else image
    rgb = to_rgb_uint8(pixels[:, :, ::-1] if pixels.ndim == 3 and pixels.shape[2] == 3 else pixels, "RTAB-Map's image")
    descriptor = _State.extractor.extract([rgb])[0].global_descriptor
    return np.ascontiguousarray(descriptor[None, :], np.float32)


def _load(dim: int) -> FeatureExtractor:
    extractor = FeatureExtractor(
        ExtractorConfig(
            model=os.environ.get("EFFOVPR_MODEL", ExtractorConfig.model),
            weights=os.environ.get("EFFOVPR_WEIGHTS", ExtractorConfig.weights),
            device=os.environ.get("EFFOVPR_DEVICE", ExtractorConfig.device),
        )
    )
    made = extractor.fingerprint.global_dim
    if made != dim:
        raise ConfigError(f"PyDescriptor/Dim is {dim}, but the model makes {made} numbers; set it to {made}")
    return extractor
