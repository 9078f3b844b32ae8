"""Images that an 8-bit engine takes the scales of its numbers from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from effovpr_ros.core.errors import ImageError
from effovpr_ros.core.images import RgbImage

MAX_IMAGES = 64
"""half of them quantise, the others check agreement."""
_MAX_CHECKED = 12


@dataclass(frozen=True)
class QuantisationImages:
    """Pictures whose activations set the scales of 8-bit numbers.

    Attributes:
        name: of the images; a quantised network is kept under it.
        images: reads them when they are needed; (H, W, 3) uint8 RGB each.
    """

    name: str
    images: Callable[[], Sequence[RgbImage]]

    def quantising(self) -> Sequence[RgbImage]:
        """Every second image."""
        return self.images()[::2]

    def checking(self) -> Sequence[RgbImage]:
        """A dozen of the others; of a single image, that one."""
        images = self.images()
        others = images[1::2] or images
        return others[:: -(-len(others) // _MAX_CHECKED)]


def readable(loaders: Iterable[Callable[[], RgbImage]], total: int) -> list[RgbImage]:
    """At most 64 images at equal distances of a sequence, without those that cannot be read.

    Args:
        loaders: one an image, in order.
        total: about how many there are.
    """
    images: list[RgbImage] = []
    step = max(1.0, total / MAX_IMAGES)
    due = 0.0
    for number, loader in enumerate(loaders):
        if number < due:
            continue
        due += step
        try:
            images.append(loader())
        except ImageError:
            # Whoever reads the images for their own sake reports them.
            continue
        if len(images) == MAX_IMAGES:
            break
    return images
