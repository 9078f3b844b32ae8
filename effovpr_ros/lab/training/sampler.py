"""Which images a step sees: a pure function of seed and epoch, so that a resumed run sees the same."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from effovpr_ros.lab.training.place_classes import Group


class Sample(NamedTuple):
    """One image of a batch.

    Attributes:
        image: its number.
        view: number of its augmentation.
        label: its class within the group.
    """

    image: int
    view: int
    label: int


class Batch(NamedTuple):
    """Images of one step, all of one group."""

    group: int
    samples: tuple[Sample, ...]


def epoch_batches(
    groups: Sequence[Group],
    epoch: int,
    *,
    batch_size: int,
    seed: int,
    active_groups: int = 1,
    views: int = 0,
    iterations: int = 0,
) -> list[Batch]:
    """Batches of an epoch: every image of the active groups once, less a last batch that is not full.

    Args:
        groups: of classes; each epoch takes the next ones in a random order, which repeats.
        epoch: from 0.
        batch_size: images of a step; a group with fewer gives one smaller batch.
        seed: of every choice.
        active_groups: groups of an epoch; 0 for all.
        views: so many augmentations of an image are used in turn; 0: another one each time.
        iterations: at most so many batches; 0 for all.
    """
    active = min(active_groups or len(groups), len(groups))
    rounds = math.ceil(len(groups) / active)
    turn, number = divmod(epoch, rounds)
    order = np.random.default_rng([seed, 0]).permutation(len(groups))
    rng = np.random.default_rng([seed, 1, epoch])
    batches = [
        batch
        for group in order[number * active : (number + 1) * active]
        for batch in _group_batches(int(group), groups[group], turn % views if views else turn, batch_size, rng)
    ]
    mixed = [batches[index] for index in rng.permutation(len(batches))]
    return mixed[:iterations] if iterations else mixed


def _group_batches(number: int, group: Group, view: int, batch_size: int, rng: np.random.Generator) -> Iterator[Batch]:
    samples = [Sample(image, view, label) for label, images in enumerate(group.classes) for image in images]
    shuffled = [samples[index] for index in rng.permutation(len(samples))]
    full = len(shuffled) // batch_size * batch_size or len(shuffled)
    for start in range(0, full, batch_size):
        yield Batch(number, tuple(shuffled[start : start + batch_size]))
