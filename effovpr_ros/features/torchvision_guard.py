"""Lets timm import where torchvision's compiled operators cannot load.

timm imports torchvision at once. With a torch build other than the one torchvision was compiled for (a CPU torch
beside PyPI's torchvision, a Jetson torch beside it) that import ends in "operator torchvision::nms does not
exist". timm needs only the pure-Python part, which loads once the two operator schemas are declared.
"""

from __future__ import annotations

import logging

import torch

_logger = logging.getLogger(__name__)
_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def ensure_timm_imports() -> None:
    """Import torchvision, declaring its missing operators first where its compiled part is unusable."""
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    else:
        return
    for name, schema in _SCHEMAS.items():
        torch.library.define(f"torchvision::{name}", schema)
    _logger.info("torchvision's compiled operators do not fit this torch; its pure-Python part is used")
    import torchvision  # noqa: F401
