"""First values of the heads of a tail: principal components or linear discriminants of what they will see."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.features.pca import fit_pca
from effovpr_ros.lab.training.discriminant import linear_discriminants
from effovpr_ros.lab.training.memory import parts
from effovpr_ros.lab.training.model import TrainableTail
from effovpr_ros.lab.training.place_classes import Places
from effovpr_ros.lab.training.sampler import Sample
from effovpr_ros.lab.training.training_config import TrainConfig
from effovpr_ros.lab.training.views import Views

_PCA_IMAGES = 2048


def start_heads(
    tail: TrainableTail, places: Places, views: Views, config: TrainConfig, autocast: torch.autocast
) -> None:
    """Set the heads as `config.head_start` says; heads at random stay as they are.

    Args:
        tail: with heads or without.
        places: that are trained on.
        views: of their images.
        config: of the training.
        autocast: that the tail computes under.

    Raises:
        ConfigError: fewer images than principal components.
    """
    if not len(tail.heads) or config.head_start not in ("pca", "discriminant"):
        return
    dimension = max(int(name) for name in tail.heads)
    if config.head_start == "pca":
        images = range(len(places.frames))
        chosen = [Sample(image, 0, 0) for image in images[:: math.ceil(len(images) / _PCA_IMAGES)]]
        if len(chosen) < dimension:
            raise ConfigError(
                f"--head-start pca: {dimension} principal components need as many images, there are {len(chosen)}; "
                "use --head-start random, or lower --dims"
            )
        pca = fit_pca(_pooled(tail, chosen, views, config, autocast), dimension)
        tail.start_heads(pca.mean, pca.components)
        return
    # Of every view of every image: what changes between the views of a place is what must not count.
    classes = [images for group in places.groups for images in group.classes]
    numbers = range(max(1, config.views))
    chosen = [
        Sample(image, view, place) for place, images in enumerate(classes) for image in images for view in numbers
    ]
    found = linear_discriminants(
        _pooled(tail, chosen, views, config, autocast),
        np.array([sample.label for sample in chosen]),
        dimension,
        cls_width=tail.cls_width,
    )
    tail.start_heads(found.mean, found.components)


def _pooled(
    tail: TrainableTail, samples: Sequence[Sample], views: Views, config: TrainConfig, autocast: torch.autocast
) -> NDArray[np.float32]:
    """(N, L) pooled vectors."""
    found = np.empty((len(samples), tail.length), np.float32)
    done = 0
    with torch.no_grad(), autocast, tqdm(total=len(samples), unit="view", desc="heads", disable=None) as bar:
        for batch in parts(samples, config.batch_size):
            found[done : done + len(batch)] = tail.pool(views(batch)).float().cpu().numpy()
            done += len(batch)
            bar.update(len(batch))
    return found
