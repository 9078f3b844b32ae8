"""One optimizer for all that learns: rates by hand, and what has no gradient stays as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from synthetic import tiny_weights
from torch import nn

from effovpr_ros.features.backbone import create_backbone
from effovpr_ros.features.weights import load_weights
from effovpr_ros.lab.training.losses import CosFace
from effovpr_ros.lab.training.model import TrainableTail
from effovpr_ros.lab.training.optimization import make_optimizer, make_schedule, rate
from effovpr_ros.lab.training.training_config import TrainConfig


def test_rates_rise_and_then_follow_a_cosine():
    config = TrainConfig(warmup=0.2)
    # Two of ten steps warm up; half of the other eight later the cosine is at its middle.
    assert [rate(step, 10, config) for step in (0, 1, 2, 6)] == pytest.approx([0.5, 1.0, 1.0, 0.5])
    assert rate(10, 10, config) == pytest.approx(0.0)


def test_only_the_group_that_is_trained_on_moves_and_only_blocks_decay(tmp_path: Path):
    config = TrainConfig(warmup=0.5, lr=0.1, head_lr=0.2, classifier_lr=0.4, weight_decay=0.5)
    backbone = create_backbone(
        load_weights("vit_tiny_test_patch14", str(tiny_weights(tmp_path)), "none"), image_size=56
    )
    generator = torch.Generator()
    tail = TrainableTail(
        backbone,
        train_blocks=1,
        pooling="cls",
        local_block=-1,
        facet="value",
        centered=False,
        dims=["8"],
        generator=generator,
    )
    classifiers = nn.ModuleList(CosFace(3, 8, margin=0.1, scale=8.0, generator=generator) for _ in range(2))
    optimizer = make_optimizer(tail, classifiers, config)
    schedule = make_schedule(optimizer, config, 4)
    # One of two steps of warm-up.
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.1, 0.2])
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0, 0.0]
    before = [parameter.detach().clone() for parameter in classifiers.parameters()]
    trained, other = classifiers[0].parameters(), classifiers[1].parameters()
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    schedule.step()
    # Adam's first step is as long as its rate, against the gradient.
    torch.testing.assert_close(next(classifiers[0].parameters()), before[0] - 0.2)
    assert torch.equal(next(other), before[1])
    assert all(parameter not in optimizer.state for parameter in classifiers[1].parameters())
    assert schedule.get_last_lr() == pytest.approx([0.1, 0.2, 0.4])
