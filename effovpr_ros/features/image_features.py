"""What the model says of one image: a global descriptor, and local descriptors of patches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.features.codes import decode, inverse_norms, pack, packed_rows, unpack


@dataclass(frozen=True)
class LocalFeatures:
    """Local descriptors of one image (paper section 3.2), quantised as `features.codes` says.

    Attributes:
        codes: (N, C) int8, codes of the facets of the keypoints; N may be 0.
        cells_xy: (N, 2) uint8 patch column and row of each keypoint.
    """

    codes: NDArray[np.int8]
    cells_xy: NDArray[np.uint8]

    def __len__(self) -> int:
        """Number of keypoints."""
        return len(self.cells_xy)

    @cached_property
    def inverse_norms(self) -> NDArray[np.float32]:
        """(N,) float32, 1 / L2 norm of the codes of each keypoint."""
        return inverse_norms(self.codes)

    @property
    def descriptors(self) -> NDArray[np.float32]:
        """(N, C) float32, L2-normalised."""
        return decode(self.codes)

    @cached_property
    def packed(self) -> PackedLocal:
        """The same as a map stores them; a DescriptorShapeError where C is odd."""
        return PackedLocal(packed_rows(pack(self.codes), self.codes.shape[1]), self.cells_xy)


@dataclass(frozen=True)
class PackedLocal:
    """Local features with packed codes, which take half the bytes: what re-ranking compares a query with.

    Attributes:
        codes: (N, C / 2) uint8, two 4-bit codes each, see `features.codes.pack`; N may be 0.
        cells_xy: (N, 2) uint8 patch column and row of each keypoint.
    """

    codes: NDArray[np.uint8]
    cells_xy: NDArray[np.uint8]

    def __len__(self) -> int:
        """Number of keypoints."""
        return len(self.codes)

    def unpacked(self) -> LocalFeatures:
        """The features."""
        return LocalFeatures(unpack(self.codes, 2 * self.codes.shape[1]), self.cells_xy)


@dataclass(frozen=True)
class Features:
    """All features of one image.

    Attributes:
        global_descriptor: (D,) float32, L2-normalised.
        local: local descriptors in raster order.
        grid_wh: columns and rows of patches.
    """

    global_descriptor: NDArray[np.float32]
    local: LocalFeatures
    grid_wh: tuple[int, int]
