"""Linear discriminants worked out by hand, and heads that begin, or stay, as such."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import test_training_run as runs
import torch

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.features.tail_file import read_tail
from effovpr_ros.lab.training.discriminant import linear_discriminants
from effovpr_ros.lab.training.training_config import TrainConfig

# Three places along x, whose views vary five times as much along y.
VECTORS = np.array([[place, y] for place in (-1.0, 0.0, 1.0) for y in (-5.0, 5.0)], np.float32)
CLASSES = np.array([0, 0, 1, 1, 2, 2])


def test_the_direction_that_tells_places_apart_comes_first():
    found = linear_discriminants(VECTORS, CLASSES, 1)
    assert found.mean.tolist() == [0.0, 0.0]
    # Principal components would choose y. Projected, the mean square is (1 + 0 + 1) / 3 * c^2 = 1.
    np.testing.assert_allclose(np.abs(found.components), [[1.5**0.5, 0.0]], atol=1e-5)


def test_directions_with_little_variance_inside_a_place_count_more():
    """Both axes tell four places apart alike, but views vary along y."""
    corners = [(x, y) for x in (-1.0, 1.0) for y in (-1.0, 1.0)]
    vectors = np.array([[x, y + noise] for x, y in corners for noise in (-2.0, 2.0)], np.float32)
    found = linear_discriminants(vectors, np.repeat(np.arange(4), 2), 2)
    # Inside a place the variance is 0 along x and 4 along y; 0.3 of their mean, 2, is added: 0.6 and 4.6.
    ratio = np.abs(found.components[0, 0] / found.components[1, 1])
    assert ratio == pytest.approx((4.6 / 0.6) ** 0.5, rel=1e-4)
    assert abs(found.components[0, 1]) < 1e-5 > abs(found.components[1, 0])


def test_cls_keeps_its_say_beside_many_regions():
    """Two values with equal evidence for a place: the one that is [CLS] weighs more."""
    rng = np.random.default_rng(0)
    places = rng.normal(size=(50, 2)).repeat(4, axis=0)
    vectors = (places + rng.normal(size=places.shape)).astype(np.float32)
    classes = np.arange(50).repeat(4)
    for width, low, high in ((0, 0.5, 2.0), (1, 1.05, 9.0)):
        components = linear_discriminants(vectors, classes, 2, cls_width=width).components
        strength = np.linalg.norm(components, axis=0)
        assert low < strength[0] / strength[1] < high


@pytest.mark.parametrize("dimension", [3, 6])
def test_more_discriminants_than_places_are_refused(dimension: int):
    with pytest.raises(ConfigError, match=rf"{dimension} discriminants take more places.*there are 3 places and 6 im"):
        linear_discriminants(VECTORS, CLASSES, dimension)


def test_heads_may_stay_as_they_begin(tmp_path: Path):
    options = {"pooling": "regional", "train_blocks": 0, "head_start": "discriminant", "epochs": 0, "dims": "6,3"}
    result = runs.run(runs.request(tmp_path, stored="fp32", **options))
    tail = read_tail(result.tail)
    assert (result.best, len(result.epochs), tail.info.dims) == (0, 1, (6, 3))
    assert tail.info.figures is not None and set(tail.info.figures) >= {"R@1 after, 6-D", "R@5 before, 3-D"}
    # The shorter head is the beginning of the longer one, and there is no tensor of the network.
    torch.testing.assert_close(tail.heads[6][0][:3], tail.heads[3][0])
    assert not tail.weights
    again = runs.run(runs.request(tmp_path, name="again", stored="fp32", **options))
    runs.assert_equal(result, again)
    # Eight places in other light: better than projections drawn at random.
    random = {**options, "head_start": "random", "epochs": 1, "head_lr": 0.0}
    drawn = runs.run(runs.request(tmp_path, name="random", **random))
    assert result.epochs[0].recalls[0].r1 > drawn.epochs[0].recalls[0].r1


def test_a_run_that_would_learn_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"--epochs 0 learns nothing with --head-start random"):
        TrainConfig(epochs=0, head_start="random", train_blocks=0)
    with pytest.raises(ConfigError, match=r"--epochs 0 learns nothing .* --train-blocks 5"):
        TrainConfig(epochs=0, head_start="discriminant")
