"""Training on an NVIDIA GPU: it learns, goes on and speaks NCCL; skipped where torch sees no GPU."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from synthetic import picture
from test_training_run import ENVIRONMENT, KilledError, kill_at, learned, request

from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import ExtractorConfig
from effovpr_ros.lab.training.distributed import Processes
from effovpr_ros.lab.training.progress import Progress
from effovpr_ros.lab.training.run import TrainRequest, TrainResult, train

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason=f"torch {torch.__version__} sees no NVIDIA GPU to run this on"
)
CUDA = torch.device("cuda")
IMAGES = [picture(seed) for seed in range(3)]


def train_on_gpu(wanted: TrainRequest, report: Callable[[Progress], object] = lambda done: None) -> TrainResult:
    return train(wanted, Processes(0, 1, CUDA), report, lambda line: None)


@pytest.mark.parametrize(("pooling", "train_blocks"), [("cls", 4), ("regional", 2), ("regional", 0)])
def test_mixed_precision_learns(tmp_path: Path, pooling: str, train_blocks: int):
    rates = {"lr": 1e-2, "head_lr": 1e-2, "classifier_lr": 1e-2}
    wanted = request(tmp_path, pooling=pooling, train_blocks=train_blocks, epochs=60, dims="16", views=4, **rates)
    assert wanted.train.uses_bf16(CUDA)
    result = train_on_gpu(wanted)
    before, after = result.epochs[0].recalls[0].r1, result.epochs[result.best].recalls[0].r1
    assert before < after and after > 95.0
    tail = f"{wanted.weights},{result.tail}"
    found, on_cpu = (
        FeatureExtractor(
            ExtractorConfig(
                model=wanted.model, weights=tail, image_size=56, local_block=-1, device=device, precision="fp32"
            )
        ).extract(IMAGES)
        for device in ("cuda", "cpu")
    )
    for mine, theirs in zip(found, on_cpu, strict=True):
        assert mine.global_descriptor @ theirs.global_descriptor > 0.9999


def test_training_in_full_precision_learns_what_the_cpu_learns(tmp_path: Path):
    options = {"precision": "fp32", "stored": "fp32", "pooling": "cls", "epochs": 1}
    on_gpu = learned(train_on_gpu(request(tmp_path, name="gpu", **options)))
    processes = Processes(0, 1, torch.device("cpu"))
    on_cpu = learned(train(request(tmp_path, name="cpu", **options), processes, lambda _: None, lambda _: None))
    for name, values in on_cpu.items():
        if not name.endswith("attn.qkv.bias"):
            torch.testing.assert_close(on_gpu[name], values, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(("step", "first"), [(4, 4), (6, 5)])
def test_a_killed_run_goes_on_on_the_gpu(tmp_path: Path, step: int, first: int):
    # Four steps an epoch; states are saved after steps 3, 4, 6 and 8.
    losses: dict[str, dict[int, float]] = {"whole": {}, "killed": {}}

    def note(name: str, done: Progress) -> None:
        losses[name][done.step] = done.loss

    train_on_gpu(request(tmp_path, name="whole", save_every=3), partial(note, "whole"))
    with pytest.raises(KilledError):
        train_on_gpu(request(tmp_path, name="killed", save_every=3), partial(kill_at, step))
    train_on_gpu(request(tmp_path, name="killed", save_every=3), partial(note, "killed"))
    assert list(losses["killed"]) == list(range(first, 9))
    for number, loss in losses["killed"].items():
        assert loss == pytest.approx(losses["whole"][number], rel=0.02)


PROGRAM = """
import sys
from pathlib import Path
import torch
import test_training_run as shared
from effovpr_ros.lab.training.distributed import Processes, joined_processes
from effovpr_ros.lab.training.run import train
with joined_processes("auto") as processes:
    assert (processes.count, processes.device.type) == (1, "cuda"), processes
    result = train(shared.request(Path(sys.argv[1])), processes, lambda done: None, lambda line: None)
    assert result.tail.is_file()
# What several processes do, on NCCL with the one GPU that there may be.
torch.distributed.init_process_group("nccl", device_id=torch.device("cuda", 0))
several = Processes(0, 2, torch.device("cuda", 0))
layer = torch.nn.Linear(3, 2).cuda()
weight = layer.weight.detach().clone()
layer(torch.ones(1, 3, device="cuda")).sum().backward()
layer.bias.grad = None
several.share(layer.parameters())
several.sum_gradients(layer.parameters())
several.wait()
assert torch.equal(layer.weight, weight)
assert torch.equal(layer.weight.grad, torch.ones(2, 3, device="cuda"))
assert torch.equal(layer.bias.grad, torch.zeros(2, device="cuda"))
assert several.total(torch.tensor(1.5, device="cuda")) == 1.5
torch.distributed.destroy_process_group()
print("all of it ran")
"""


def test_torchrun_trains_on_the_gpu_and_nccl_carries_gradients(tmp_path: Path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    environment = {**ENVIRONMENT, "NCCL_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*torchrun, program, tmp_path], env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "all of it ran" in done.stdout
