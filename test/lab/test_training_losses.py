"""CosFace, the sampler and augmentation, held against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from synthetic import picture

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.lab.training.augmentation import AugmentationConfig, augment, other_view
from effovpr_ros.lab.training.losses import CosFace
from effovpr_ros.lab.training.place_classes import Group
from effovpr_ros.lab.training.sampler import Batch, epoch_batches

GROUPS = (Group("a", ((0, 1), (2, 3, 4))), Group("b", ((5, 6), (7, 8), (9, 10))))


def cosface(**options: float) -> CosFace:
    loss = CosFace(2, 2, generator=torch.Generator().manual_seed(0), **options)
    loss.weight.data = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    return loss


def test_cosface_by_hand():
    loss = cosface(margin=0.4, scale=2.0)
    descriptors, labels = torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.tensor([0, 1])
    # Cosines (1, 0) and (0.6, 0.8); 0.4 off the own class; times 2.
    torch.testing.assert_close(loss.logits(descriptors, labels), torch.tensor([[1.2, 0.0], [1.2, 0.8]]))
    expected = (math.log(1 + math.exp(-1.2)) + math.log(1 + math.exp(0.4))) / 2
    assert loss(descriptors, labels).item() == pytest.approx(expected, rel=1e-6)


def test_cosface_without_margin_is_a_cosine_softmax_and_defaults_are_the_papers():
    descriptors, labels = torch.tensor([[0.6, 0.8]]), torch.tensor([0])
    expected = math.log(1 + math.exp(5 * (0.8 - 0.6)))
    assert cosface(margin=0.0, scale=5.0)(descriptors, labels).item() == pytest.approx(expected, rel=1e-6)
    assert (cosface().margin, cosface().scale) == (0.4, 30.0)


@pytest.mark.parametrize("wrong", [{"classes": 1}, {"margin": 1.0}, {"scale": 0.0}])
def test_cosface_refuses_what_cannot_be_told_apart(wrong: dict[str, float]):
    options = {"classes": 2, "margin": 0.4, "scale": 30.0, **wrong}
    with pytest.raises(ConfigError, match="at least 2 classes"):
        CosFace(int(options.pop("classes")), 4, generator=torch.Generator(), **options)


def images(batches: list[Batch]) -> list[int]:
    return sorted(sample.image for batch in batches for sample in batch.samples)


def test_an_epoch_sees_every_image_of_one_group_once_with_its_label():
    options = {"batch_size": 2, "seed": 3, "views": 2}
    epochs = [epoch_batches(GROUPS, epoch, **options) for epoch in range(5)]
    groups = [{batch.group for batch in batches} for batches in epochs]
    assert all(len(found) == 1 for found in groups)
    assert groups[0] | groups[1] == {0, 1} and groups[2] == groups[0] and groups[3] == groups[1]
    of_b = next(batches for batches in epochs if batches[0].group == 1)
    assert images(of_b) == [5, 6, 7, 8, 9, 10]
    of_a = next(batches for batches in epochs if batches[0].group == 0)
    assert len(of_a) == 2 and set(images(of_a)) < {0, 1, 2, 3, 4}, "the fifth image would be a batch of one"
    for batch in (*of_a, *of_b):
        for sample in batch.samples:
            assert sample.image in GROUPS[batch.group].classes[sample.label]
    assert {s.view for b in epochs[0] for s in b.samples} == {0}
    assert {s.view for b in epochs[2] for s in b.samples} == {1}
    assert {s.view for b in epochs[4] for s in b.samples} == {0}, "two views are used in turn"


def test_batches_depend_on_seed_and_epoch_alone():
    assert epoch_batches(GROUPS, 1, batch_size=2, seed=3) == epoch_batches(GROUPS, 1, batch_size=2, seed=3)
    assert epoch_batches(GROUPS, 0, batch_size=2, seed=3) != epoch_batches(GROUPS, 2, batch_size=2, seed=3)


def test_all_groups_can_be_active_at_once_and_no_batch_mixes_them():
    batches = epoch_batches(GROUPS, 0, batch_size=2, seed=0, active_groups=0)
    assert sorted(batch.group for batch in batches) == [0, 0, 1, 1, 1]
    assert len(epoch_batches(GROUPS, 0, batch_size=2, seed=0, active_groups=0, iterations=3)) == 3


def test_a_group_smaller_than_a_batch_is_one_batch():
    (batch,) = epoch_batches(GROUPS[:1], 0, batch_size=16, seed=0)
    assert len(batch.samples) == 5


def test_augmentation_is_a_function_of_its_seed():
    image, config = picture(1), AugmentationConfig()
    views = [augment(image, config, np.random.default_rng(seed), 56) for seed in (1, 1, 2)]
    assert views[0].shape == (56, 56, 3) and views[0].dtype == np.uint8
    np.testing.assert_array_equal(views[0], views[1])
    assert np.abs(views[0].astype(int) - views[2]).mean() > 5


def test_no_augmentation_is_the_image_squeezed_to_a_square():
    none = AugmentationConfig(light=0, night=0, grey=0, blur=0, crop=0, warp=0, erase=0)
    view = other_view(96, 72, none, np.random.default_rng(0), 48)
    np.testing.assert_allclose(view / view[2, 2], np.diag([0.5, 48 / 72, 1.0]), atol=1e-6)
    image = picture(2, 48, 48)
    assert np.abs(augment(image, none, np.random.default_rng(0), 48).astype(int) - image).max() <= 1


@pytest.mark.parametrize("kind", ["light", "night", "grey", "blur", "crop", "warp", "erase"])
def test_each_kind_of_change_changes_something(kind: str):
    strengths = dict.fromkeys(vars(AugmentationConfig()), 0.0)
    changed = AugmentationConfig(**{**strengths, kind: 1.0})
    image = picture(3, 64, 64)
    view = augment(image, changed, np.random.default_rng(0), 64)
    assert np.abs(view.astype(int) - image).mean() > 1


def test_augmentation_refuses_impossible_strengths():
    with pytest.raises(ConfigError, match="night"):
        AugmentationConfig(night=1.5)
