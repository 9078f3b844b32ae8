"""Settings of the second stage, and which scores there are."""

from __future__ import annotations

from dataclasses import dataclass

from effovpr_ros.core.errors import ConfigError

SCORES = ("coherent", "count", "weighted", "spatial")


@dataclass(frozen=True)
class RerankConfig:
    """How a candidate's score is made from its mutual matches above T2.

    Attributes:
        score: coherent, where a match counts ln(2 + s) with s the number of matches in the 5x5 around its patch that
            moved alike, by one cell more or less, and one more if it moved as most of the image did. Patches that are
            neighbours and show one scene are matched to neighbours, whatever the viewpoint, while false matches point
            anywhere (Bian et al., "GMS: Grid-based Motion Statistics", CVPR 2017); unlike one displacement for the
            whole image this allows for scale, rotation and parallax. count, the number of matches (the paper);
            weighted, where a match counts (cosine - T2) / (1 - T2); or spatial, the number of matches that
            agree on one displacement.
        min_similarity: T2, pairs at or below this cosine are no matches.
    """

    score: str = "coherent"
    min_similarity: float = 0.6

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if self.score not in SCORES:
            raise ConfigError(f"score {self.score!r} is unknown; use {', '.join(SCORES)}")
        if not -1.0 <= self.min_similarity < 1.0:
            raise ConfigError(f"min_similarity (T2) {self.min_similarity} is outside [-1, 1)")
