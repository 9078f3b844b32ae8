"""Material that several tests share: a tiny ViT, features whose matches are known, pictures that differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.features.codes import LOCAL_CODES
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import ExtractorConfig, ModelFingerprint
from effovpr_ros.features.image_features import Features, LocalFeatures
from effovpr_ros.features.torchvision_guard import ensure_timm_imports
from effovpr_ros.mapping.place import NewPlace

ensure_timm_imports()

import safetensors.torch  # noqa: E402
import timm  # noqa: E402
import torch  # noqa: E402
from timm.models.vision_transformer import VisionTransformer  # noqa: E402

FINGERPRINT = ModelFingerprint("vit_test", "0" * 64, 28, "test", 4, 4, 1, "value", False, "cls", 0.05, 0, LOCAL_CODES)
_TINY: dict[str, Any] = {"patch_size": 14, "embed_dim": 24, "depth": 4, "num_heads": 2, "init_values": 1e-5}


@timm.models.register_model
def vit_tiny_test_patch14(pretrained: bool = False, **options: Any) -> VisionTransformer:
    options.pop("pretrained_cfg", None), options.pop("pretrained_cfg_overlay", None), options.pop("cache_dir", None)
    return VisionTransformer(**{**_TINY, "img_size": 56, **options})


@timm.models.register_model
def vit_tiny_test_patch14_reg4(pretrained: bool = False, **options: Any) -> VisionTransformer:
    return vit_tiny_test_patch14(**{"reg_tokens": 4, "no_embed_class": True, **options})


def tiny_vit(name: str = "vit_tiny_test_patch14", image_size: int = 56) -> VisionTransformer:
    """A tiny ViT with weights that all matter: nothing is near zero."""
    torch.manual_seed(4)
    vit = timm.create_model(name, num_classes=0, img_size=image_size).eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return vit


def tiny_weights(folder: Path, name: str = "vit_tiny_test_patch14") -> Path:
    """The tiny ViT's weights under timm's names."""
    path = folder / f"{name}.safetensors"
    safetensors.torch.save_file(tiny_vit(name).state_dict(), path)
    return path


def tiny_extractor(folder: Path, **options: Any) -> FeatureExtractor:
    """An extractor that takes milliseconds."""
    config = {"image_size": 56, "local_block": -2, "min_attention": 0.0, "device": "cpu", "engine": "torch", **options}
    return FeatureExtractor(ExtractorConfig(model="vit_tiny_test_patch14", weights=str(tiny_weights(folder)), **config))


def picture(seed: int, width: int = 96, height: int = 72) -> NDArray[np.uint8]:
    """A smooth random RGB picture; each seed looks unlike any other."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def jpeg(image: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def features(direction: Sequence[float], cells: Sequence[tuple[int, int]] = ((0, 0), (1, 1))) -> Features:
    """Features of the fingerprint above: 4-D global descriptor, one axis a keypoint."""
    descriptor = np.asarray(direction, np.float32)
    codes = 7 * np.eye(4, dtype=np.int8)[np.arange(len(cells)) % 4]
    local = LocalFeatures(codes, np.array(cells, np.uint8).reshape(-1, 2))
    return Features(descriptor / np.linalg.norm(descriptor), local, (2, 2))


def new_place(number: int, *, session: str = "a", geo: GeoPoint | None = None, **options: Any) -> NewPlace:
    """Place `number`, `number` metres along x, with a descriptor of its own."""
    rng = np.random.default_rng(number)
    return NewPlace(
        session,
        number,
        f"{number}.jpg",
        options.get("pose", Pose.from_yaw(float(number), 0.0, 0.0)),
        geo,
        (96, 72),
        jpeg(picture(number, 16, 12)),
        options.get("features", features(rng.normal(size=4))),
    )
