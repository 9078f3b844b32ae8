"""Settings of a build."""

from __future__ import annotations

from dataclasses import dataclass

from effovpr_ros.core.errors import ConfigError


@dataclass(frozen=True)
class BuildConfig:
    """How frames become places.

    Attributes:
        spacing_m: a frame becomes a place if it is at least this far from the last place; 0 with
            `spacing_deg` 0 keeps every frame.
        spacing_deg: or if it is turned by at least this much.
        batch_size: images a forward pass.
        thumbnail_side: longest side of the stored JPEG in pixels.
    """

    spacing_m: float = 0.0
    spacing_deg: float = 0.0
    batch_size: int = 8
    thumbnail_side: int = 320

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if not (self.spacing_m >= 0.0 and self.spacing_deg >= 0.0):
            raise ConfigError(f"spacing {self.spacing_m} m, {self.spacing_deg} degrees must not be negative")
        if self.batch_size < 1 or self.thumbnail_side < 16:
            raise ConfigError(
                f"batch_size {self.batch_size} must be at least 1, thumbnail_side {self.thumbnail_side} at least 16"
            )
