"""Work in parts that fit into memory, and what to lower where they do not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

from effovpr_ros.core.errors import TrainingError
from effovpr_ros.lab.training.training_config import TrainConfig

_Item = TypeVar("_Item")


def parts(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    """Items in slices of a size; the last may be shorter, and there is none of nothing."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


@contextmanager
def out_of_memory_named(config: TrainConfig) -> Iterator[None]:
    """Turn running out of memory, on a GPU or not, into an error that says what to lower.

    Raises:
        TrainingError: out of memory.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        # The CPU allocator has no exception of its own.
        is_memory = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in str(error)
        if not is_memory and "not enough memory" not in str(error):
            raise
        raise TrainingError(
            f"out of memory with --batch-size {config.batch_size} in --accumulate {config.accumulate} parts at --size "
            f"{config.image_size}: raise --accumulate (same result), use --gradient-checkpointing (same result), or "
            "lower --batch-size, --size or --train-blocks; what was saved last stays"
        ) from error
