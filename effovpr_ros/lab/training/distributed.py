"""One process or several: what `torchrun` says, and gradients summed over all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.features.devices import resolve_device


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: number of this one.
        count: of them.
        device: of this one.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            distributed.barrier()

    def share(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give all processes the values of the first."""
        if self.count > 1:
            for parameter in parameters:
                distributed.broadcast(parameter.data, 0)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum gradients over the processes; a missing one counts as zero."""
        if self.count == 1:
            return
        learning = list(parameters)
        gradients = [
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in learning
        ]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for parameter, gradient in zip(learning, parts, strict=True):
            parameter.grad = gradient.view_as(parameter).clone()

    def total(self, value: Tensor) -> float:
        """Sum of a scalar over the processes."""
        if self.count > 1:
            value = value.clone()
            distributed.all_reduce(value)
        return float(value)


@contextmanager
def joined_processes(device: str) -> Iterator[Processes]:
    """Join the processes that `torchrun` started, or be the only one.

    Args:
        device: as in `ExtractorConfig`; `auto` and `cuda` give each process of a machine a GPU of its own.

    Raises:
        ConfigError: more processes than GPUs.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(0, 1, resolve_device(device))
        return
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    resolved = resolve_device(device)
    if resolved.type == "cuda":
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"process {local} of this machine has no GPU of its own: there are {torch.cuda.device_count()}; "
                "start fewer with torchrun --nproc-per-node, or use --device cpu"
            )
        resolved = torch.device("cuda", local)
        torch.cuda.set_device(resolved)
    on_gpu = resolved.type == "cuda"
    distributed.init_process_group("nccl" if on_gpu else "gloo", device_id=resolved if on_gpu else None)
    try:
        yield Processes(rank, count, resolved)
    finally:
        distributed.destroy_process_group()
