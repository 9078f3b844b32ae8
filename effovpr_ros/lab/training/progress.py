"""How far training is, for who watches it: by step, and as curves for TensorBoard where tensorboardX is installed."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effovpr_ros.lab.training.validation import HeadRecall

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """Where training is.

    Attributes:
        epoch: from 1; 0 before the first.
        step: of all `steps`.
        steps: of all epochs.
        loss: mean of the heads, of the last step.
        recalls: of the last validation, by head; empty without.
    """

    epoch: int
    step: int
    steps: int
    loss: float
    recalls: tuple[HeadRecall, ...]


class Curves:
    """Scalars by step."""

    def __init__(self, folder: Path) -> None:
        """Open the folder for events; without tensorboardX nothing is written, which is said once."""
        self._writer: Any = None
        if importlib.util.find_spec("tensorboardX") is None:
            _logger.warning("no TensorBoard curves are written; `pip install tensorboardX` provides them")
            return
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def add(self, name: str, value: float, step: int) -> None:
        """Add a value."""
        if self._writer is not None:
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()
