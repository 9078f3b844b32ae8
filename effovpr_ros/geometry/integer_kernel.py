"""Products of 8-bit descriptors in the form that torch has the faster kernel for."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_logger = logging.getLogger(__name__)

# Rows and columns of the products that choose the kernel.
_TRIAL = 512


@functools.cache
def has_integer_kernel() -> bool:
    """Whether torch multiplies int8 matrices faster than float32 ones here, as a trial of some milliseconds tells.

    The names of instructions do not: oneDNN has a kernel for some CPUs without 8-bit dot products, and can be held back
    from those that the CPU has (`ONEDNN_MAX_CPU_ISA`).
    """
    if not hasattr(torch, "_int_mm"):
        return False
    codes, columns = torch.ones((_TRIAL, 96), dtype=torch.int8), torch.ones((96, _TRIAL), dtype=torch.int8)
    products, floats = torch.empty((_TRIAL, _TRIAL), dtype=torch.int32), columns.float()

    def spent_s(multiply: Callable[[], object]) -> float:
        started = time.perf_counter()
        multiply()
        return time.perf_counter() - started

    trials = [
        (
            spent_s(lambda: torch._int_mm(codes, columns, out=products)),
            spent_s(lambda: torch.mm(codes.float(), floats, out=products.view(torch.float32))),
        )
        for _ in range(3)
    ]
    integer_s, float_s = (min(times) for times in zip(*trials, strict=True))
    _logger.info("descriptors of points are compared in %s", "8 bits" if integer_s < float_s else "float32")
    return bool(integer_s < float_s)


def as_tensor(values: NDArray[Any]) -> Tensor:
    """In the memory of an array, or of a copy where torch could not read it or would warn that it is read-only."""
    return torch.from_numpy(np.require(values, requirements=["C", "W"]))
