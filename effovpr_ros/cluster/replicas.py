"""How a served map is spread over a cluster."""

from __future__ import annotations

from dataclasses import dataclass

from effovpr_ros.core.settings import check_limits, ranged


@dataclass(frozen=True)
class Replicas:
    """How many of each part there are, and what each may take.

    Each field's metadata holds `description`, `min` and `max`, both allowed.
    """

    gateways: int = ranged(1, 1, 1000, "processes that merge")
    extractors: int = ranged(1, 1, 1000, "processes with the model")
    shard_replicas: int = ranged(1, 1, 1000, "processes a shard")
    extractor_cpus: float = ranged(1.0, 0.0, 1000.0, "CPUs of an extractor, which are its threads too")
    extractor_gpus: float = ranged(0.0, 0.0, 1000.0, "GPUs of an extractor, a part of one as well")
    shard_cpus: float = ranged(0.1, 0.0, 1000.0, "CPUs that a shard's process reserves")

    def __post_init__(self) -> None:
        """Refuse values outside the ranges in the metadata."""
        check_limits(self)
