"""Whole training runs of a tiny network: they learn, repeat, resume and share their work."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from synthetic import picture, tiny_weights

from effovpr_ros.core.errors import ConfigError, TrainingError
from effovpr_ros.core.images import RgbImage
from effovpr_ros.features.tail_file import read_tail
from effovpr_ros.lab.training import trainer
from effovpr_ros.lab.training.augmentation import AugmentationConfig
from effovpr_ros.lab.training.distributed import Processes
from effovpr_ros.lab.training.memory import out_of_memory_named
from effovpr_ros.lab.training.place_classes import PlacesConfig, TrainingFrame
from effovpr_ros.lab.training.progress import Progress
from effovpr_ros.lab.training.run import TrainRequest, TrainResult, train
from effovpr_ros.lab.training.training_config import TrainConfig
from effovpr_ros.lab.training.validation import recall
from effovpr_ros.sources.frame import Frame

ALONE = Processes(0, 1, torch.device("cpu"))
MILD = AugmentationConfig(light=0.2, night=0.0, grey=0.0, blur=0.0, crop=0.1, warp=0.1, erase=0.0)
PLACES, IMAGES = 8, 4
ENVIRONMENT = {
    **os.environ,
    "GLOO_SOCKET_IFNAME": "lo",
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]),
}


def view_of(place: int, number: int) -> RgbImage:
    """Another part of the picture of a place, in other light."""
    whole = picture(place, 96, 72)
    part = whole[number : 60 + number, 3 * number : 80 + 3 * number]
    return np.clip(part * (0.8 + 0.1 * number), 0, 255).astype(np.uint8)


def frames(places: int = PLACES, images: int = IMAGES) -> tuple[TrainingFrame, ...]:
    return tuple(
        TrainingFrame(
            Frame(f"{place}/{number}", "s", 0, None, None, partial(view_of, place, number)), "s", str(place), number
        )
        for place in range(places)
        for number in range(images)
    )


def request(folder: Path, *, name: str = "out", **options: object) -> TrainRequest:
    config = TrainConfig(
        **{
            "image_size": 56,
            "train_blocks": 2,
            "local_block": -1,
            "dims": "8,full",
            "head_start": "random",
            "epochs": 2,
            "batch_size": 8,
            "views": 2,
            "lr": 1e-3,
            "head_lr": 1e-2,
            **options,
        }
    )
    return TrainRequest(
        training=frames(),
        validation=frames(),
        out=folder / name,
        model="vit_tiny_test_patch14",
        weights=str(tiny_weights(folder)),
        places=PlacesConfig(window=IMAGES, window_groups=1),
        augmentation=MILD,
        train=config,
        workers=1,
        command="effovpr train test",
    )


def run(wanted: TrainRequest, report: Callable[[Progress], object] = lambda done: None) -> TrainResult:
    return train(wanted, ALONE, report, lambda line: None)


def learned(result: TrainResult) -> dict[str, torch.Tensor]:
    tail = read_tail(result.tail)
    return {**tail.weights, **{f"head {dim}": weight for dim, (weight, _) in tail.heads.items()}}


def assert_equal(one: TrainResult, other: TrainResult) -> None:
    first, second = learned(one), learned(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert one.epochs == other.epochs


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        # A softmax does not see the bias of the keys: Adam makes steps of the rounding errors in its gradient.
        if not name.endswith("attn.qkv.bias"):
            torch.testing.assert_close(found[name], values, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize(("pooling", "train_blocks"), [("cls", 4), ("regional", 2), ("regional", 0)])
def test_eight_places_are_learned_by_heart(tmp_path: Path, pooling: str, train_blocks: int):
    rates = {"lr": 1e-2, "head_lr": 1e-2, "classifier_lr": 1e-2}
    wanted = request(tmp_path, pooling=pooling, train_blocks=train_blocks, epochs=60, dims="16", views=4, **rates)
    result = run(wanted)
    before, after = result.epochs[0].recalls[0].r1, result.epochs[result.best].recalls[0].r1
    assert before < after == 100.0
    info = read_tail(result.tail).info
    assert info.figures == {
        "R@1 before, 16-D": pytest.approx(before, abs=0.01),
        "R@5 before, 16-D": pytest.approx(result.epochs[0].recalls[0].r5, abs=0.01),
        "R@1 after, 16-D": 100.0,
        "R@5 after, 16-D": 100.0,
    }
    assert (info.train_blocks, info.pooling, info.dims, info.command) == (
        train_blocks,
        pooling,
        (16,),
        "effovpr train test",
    )
    assert info.epoch == result.best and info.seconds > 0


@pytest.mark.parametrize("views", [0, 2])
def test_two_runs_with_one_seed_are_equal_and_another_seed_is_another_run(tmp_path: Path, views: int):
    runs = [run(request(tmp_path, name=f"{views} {n}", views=views, seed=seed)) for n, seed in enumerate((1, 1, 2))]
    assert_equal(runs[0], runs[1])
    assert not torch.equal(learned(runs[0])["head 8"], learned(runs[2])["head 8"])


class KilledError(Exception):
    """In place of a kill."""


def kill_at(step: int, done: Progress) -> None:
    if done.step == step:
        raise KilledError


@pytest.mark.parametrize("step", [1, 3, 4, 6])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path: Path, step: int):
    # Four steps an epoch; states are saved after steps 3, 4, 6 and 8.
    whole = run(request(tmp_path, name="whole", save_every=3))
    with pytest.raises(KilledError):
        run(request(tmp_path, name="killed", save_every=3), partial(kill_at, step))
    steps = []
    resumed = run(request(tmp_path, name="killed", save_every=3), lambda done: steps.append(done.step))
    assert_equal(whole, resumed)
    assert steps[0] == {1: 1, 3: 1, 4: 4, 6: 5}[step] and steps[-1] == 8


LONG_RUN = """
import sys
from pathlib import Path
import test_training_run as shared
shared.run(shared.request(Path(sys.argv[1]), name="killed", save_every=3, epochs=30))
"""


def test_a_process_that_is_killed_goes_on(tmp_path: Path):
    whole = run(request(tmp_path, name="whole", save_every=3, epochs=30))
    program = tmp_path / "program.py"
    program.write_text(LONG_RUN)
    process = subprocess.Popen([sys.executable, program, tmp_path], env=ENVIRONMENT)
    try:
        until = time.monotonic() + 100
        while not (tmp_path / "killed" / "state.pt").is_file() and time.monotonic() < until:
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    steps: list[int] = []
    resumed = run(request(tmp_path, name="killed", save_every=3, epochs=30), lambda done: steps.append(done.step))
    assert 1 < steps[0] < steps[-1] == 120
    assert_equal(whole, resumed)


def test_a_finished_run_is_not_repeated(tmp_path: Path):
    first = run(request(tmp_path))
    steps: list[int] = []
    again = run(request(tmp_path), lambda done: steps.append(done.step))
    assert not steps
    assert_equal(first, again)


def test_a_run_of_other_settings_is_not_overwritten(tmp_path: Path):
    run(request(tmp_path))
    with pytest.raises(ConfigError, match=r"lr: 0\.001 != 0\.01.*--out"):
        run(request(tmp_path, lr=1e-2))
    run(request(tmp_path, accumulate=2, save_every=5))


def test_a_damaged_state_is_named(tmp_path: Path):
    run(request(tmp_path))
    (tmp_path / "out" / "state.pt").write_bytes(b"damaged")
    with pytest.raises(TrainingError, match="remove it to begin anew"):
        run(request(tmp_path))


@pytest.mark.parametrize("options", [{"accumulate": 4}, {"gradient_checkpointing": True}])
def test_less_memory_gives_the_same_result(tmp_path: Path, options: dict[str, object]):
    expected = learned(run(request(tmp_path, name="plain", stored="fp32", pooling="cls")))
    found = learned(run(request(tmp_path, name="lean", stored="fp32", pooling="cls", **options)))
    assert_close(found, expected)


def test_kept_views_give_what_fresh_ones_give(tmp_path: Path):
    """One view that is kept, against the same one computed each time: what differs is fp16."""
    kept = run(request(tmp_path, name="kept", views=1, epochs=1))
    fresh = run(request(tmp_path, name="fresh", views=0, epochs=1))
    assert list((tmp_path / "kept" / "cache").glob("*/prefix.npy"))
    for name, values in learned(kept).items():
        torch.testing.assert_close(learned(fresh)[name], values, rtol=0.02, atol=0.02)


def test_heads_begin_as_principal_components(tmp_path: Path):
    # A rate of zero leaves them there.
    options = {"head_start": "pca", "train_blocks": 0, "head_lr": 0.0, "epochs": 1, "dims": "8,4", "stored": "fp32"}
    tail = read_tail(run(request(tmp_path, pooling="cls", **options)).tail)
    for dim in (8, 4):
        weight = tail.heads[dim][0]
        torch.testing.assert_close(weight @ weight.T, torch.eye(dim), rtol=0, atol=1e-5)
    torch.testing.assert_close(tail.heads[8][0][:4], tail.heads[4][0])
    with pytest.raises(ConfigError, match=r"need as many images, there are 32; use --head-start random"):
        run(request(tmp_path, name="few", pooling="regional", head_start="pca", dims="64"))


def test_without_validation_the_last_weights_are_kept(tmp_path: Path):
    result = run(replace(request(tmp_path), validation=()))
    assert result.best == 2 and not result.epochs[2].recalls
    assert read_tail(result.tail).info.figures == {}


def test_curves_are_written(tmp_path: Path):
    run(request(tmp_path))
    assert [path.stat().st_size > 100 for path in (tmp_path / "out" / "logs").iterdir()] == [True]


def test_mixed_precision_learns_too(tmp_path: Path):
    result = run(request(tmp_path, precision="bf16", epochs=12, dims="16"))
    assert result.epochs[result.best].recalls[0].r1 > result.epochs[0].recalls[0].r1


def test_out_of_memory_says_what_to_lower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*given: object) -> float:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(trainer.Trainer, "_step", fail)
    with pytest.raises(TrainingError, match=r"--batch-size 8.*--size 56.*--accumulate"):
        run(request(tmp_path))
    with pytest.raises(TrainingError, match="--accumulate"), out_of_memory_named(TrainConfig()):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(RuntimeError, match="other"), out_of_memory_named(TrainConfig()):
        raise RuntimeError("some other failure")


def test_a_loss_that_explodes_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trainer.Trainer, "_step", lambda *given: float("nan"))
    with pytest.raises(TrainingError, match="lower --lr"):
        run(request(tmp_path))


def test_training_does_not_begin_at_a_tail(tmp_path: Path):
    tail = run(request(tmp_path)).tail
    wanted = request(tmp_path, name="again")
    with pytest.raises(ConfigError, match="begins at base weights"):
        run(replace(wanted, weights=f"{wanted.weights},{tail}"))


def test_recall_by_hand():
    database = torch.eye(3)[[0, 0, 1, 2]]
    # The image itself never counts: 0 finds 1; 1 finds 0; 2 finds nothing near; 3 has no positive.
    assert recall(database, database, ((1,), (0,), (3,), ())) == (pytest.approx(200 / 3), 100.0)


PROGRAM = """
import sys
from pathlib import Path
import test_training_run as shared
from effovpr_ros.lab.training.distributed import joined_processes
from effovpr_ros.lab.training.run import train
with joined_processes("cpu") as processes:
    assert processes.count == int(sys.argv[2]), processes
    wanted = shared.request(Path(sys.argv[1]), name=f"of {processes.count}", stored="fp32", pooling="cls", epochs=1)
    train(wanted, processes, lambda done: None, lambda line: None)
"""


def test_two_processes_learn_what_one_does(tmp_path: Path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, program, tmp_path, "2"], env=ENVIRONMENT, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    alone = learned(run(request(tmp_path, name="of 1", stored="fp32", pooling="cls", epochs=1)))
    tail = read_tail(tmp_path / "of 2" / "tail.safetensors")
    assert_close({**tail.weights, "head 8": tail.heads[8][0]}, alone)


def test_batches_must_be_shared_evenly(tmp_path: Path):
    with pytest.raises(ConfigError, match="no multiple of the 3 processes"):
        train(request(tmp_path), Processes(0, 3, torch.device("cpu")), lambda done: None, lambda line: None)


def test_the_command_trains_and_every_other_command_loads_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from effovpr_ros.cli.main import main

    (tmp_path / "images").mkdir()
    rows = ["image,clip,frame"]
    for item in frames(4):
        name = f"{item.clip}_{item.number}.png"
        cv2.imwrite(str(tmp_path / "images" / name), item.frame.load())
        rows.append(f"{name},{item.clip},{item.number}")
    (tmp_path / "frames.csv").write_text("\n".join(rows))
    weights = str(tiny_weights(tmp_path))
    small = ["--model", "vit_tiny_test_patch14", "--size", "56"]
    learning = [
        "--head-start",
        "random",
        "--dims",
        "4,full",
        "--train-blocks",
        "1",
        "--epochs",
        "1",
        "--batch-size",
        "4",
    ]
    out = str(tmp_path / "out")
    given = ["train", str(tmp_path / "frames.csv"), "--out", out, "--window", "4", "--window-groups", "1"]
    assert main([*given, "--hold-out", "clip=3", *small, "--weights", weights, *learning, "--block", "-1"]) == 0
    printed = capsys.readouterr()
    assert "epoch   1: 4-D R@1" in printed.out and "12 images of 3 classes in 1 groups" in printed.err
    both = f"{weights},{out}/tail.safetensors"
    build = ["map", "build", str(tmp_path / "map"), str(tmp_path / "images"), "--kind", "plain", *small]
    assert main([*build, "--weights", both, "--dim", "4"]) == 0
    query = ["query", str(tmp_path / "map"), str(tmp_path / "images" / "0_0.png")]
    capsys.readouterr()
    assert main([*query, "--weights", both]) == 0
    assert "0_0.png" in capsys.readouterr().out
    assert main([*query, "--weights", weights]) == 1
    assert "--weights TAIL" in capsys.readouterr().err
