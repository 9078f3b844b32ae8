"""Recall on images that were held out: each one, changed, is looked for among the others as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from effovpr_ros.lab.training.model import TrainableTail
from effovpr_ros.lab.training.place_classes import Validation
from effovpr_ros.lab.training.sampler import Sample
from effovpr_ros.lab.training.views import Views

RANKS = (1, 5)
PLAIN, CHANGED = 0, 1
"""Views of a validation image."""


@dataclass(frozen=True)
class HeadRecall:
    """Recall of one head in percent of the queries that have a positive.

    Attributes:
        dim: length of its descriptor.
        r1: R@1.
        r5: R@5.
    """

    dim: int
    r1: float
    r5: float


def validate(
    tail: TrainableTail,
    validation: Validation,
    views: Views,
    batch_size: int,
    described: Callable[[int], object] = lambda count: None,
) -> tuple[HeadRecall, ...]:
    """Recall of every head.

    Args:
        tail: to judge.
        validation: images and positives.
        views: of these images, plain and changed.
        batch_size: images a forward pass.
        described: called with the number of views done since the last call.
    """
    found: dict[int, tuple[Tensor, ...]] = {}
    for view in (PLAIN, CHANGED):
        samples = [Sample(image, view, 0) for image in range(len(validation.frames))]
        parts: list[tuple[Tensor, ...]] = []
        for start in range(0, len(samples), batch_size):
            parts.append(tail.describe(views(samples[start : start + batch_size])))
            views.prefetch(samples[start + batch_size : start + 2 * batch_size])
            described(len(samples[start : start + batch_size]))
        found[view] = tuple(torch.cat(columns) for columns in zip(*parts, strict=True))
    recalls = []
    for head, dim in enumerate(tail.dims):
        r1, r5 = recall(found[CHANGED][head], found[PLAIN][head], validation.positives)
        recalls.append(HeadRecall(dim, r1, r5))
    return tuple(recalls)


def recall(queries: Tensor, database: Tensor, positives: Sequence[Sequence[int]]) -> tuple[float, float]:
    """R@1 and R@5 in percent, each image being looked for among the others.

    Args:
        queries: (N, D) L2-normalised.
        database: (N, D) of the same images.
        positives: for each, numbers of the others that show its place; those without do not count.
    """
    hits = torch.zeros(len(RANKS))
    asked = [number for number, right in enumerate(positives) if right]
    for number in asked:
        similarities = database @ queries[number]
        similarities[number] = -torch.inf
        ranked = similarities.topk(min(max(RANKS), len(database))).indices.tolist()
        right = set(positives[number])
        hits += torch.tensor([float(any(place in right for place in ranked[:rank])) for rank in RANKS])
    r1, r5 = (100.0 * hits / len(asked)).tolist()
    return r1, r5
