"""The compiled part of matching, and which of its kernels is in use."""

from __future__ import annotations

import os
from pathlib import Path

from effovpr_ros.core.errors import ConfigError

try:
    from effovpr_ros.matching import _scoring as scoring
except ImportError as error:
    raise ImportError(
        f"the compiled part of {Path(__file__).parent} cannot be loaded ({error}); build the package with colcon "
        "build or pip install, and start Python where its sources do not hide what was built, or with -P"
    ) from error

__all__ = ["KERNEL_VARIABLE", "kernel_name", "kernels", "scoring"]

KERNEL_VARIABLE = "EFFOVPR_KERNEL"
"""Environment variable that names one of the kernels to compare with, for measurements."""


def kernels() -> list[str]:
    """Names of the instructions that this processor can compare with, the fastest first; all give the same numbers."""
    return scoring.kernels()


def kernel_name() -> str:
    """The kernel in use: the fastest, or the one that the environment variable `EFFOVPR_KERNEL` names.

    Raises:
        ConfigError: it names another.
    """
    name = os.environ.get(KERNEL_VARIABLE) or kernels()[0]
    if name not in kernels():
        raise ConfigError(f"{KERNEL_VARIABLE}={name} is no kernel of this processor; use {', '.join(kernels())}")
    return name
