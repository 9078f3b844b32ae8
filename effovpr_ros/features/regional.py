"""The global descriptor of the zero-shot model: [CLS] joined with averages of the facet over regions of the image.

The paper's v_g is [CLS] alone, which fine-tuning makes strong. Without training, the average of a facet over each
region of a coarse grid (as in R-MAC, Tolias et al., ICLR 2016) tells places apart better and survives changes of
light and season; docs/defaults.md has the figures. A fixed Gaussian random projection, which keeps inner products
(Johnson and Lindenstrauss, 1984), makes the result short without a training set.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

REGIONAL_DIM = 512
"""D of the descriptor."""

_REGIONS_A_SIDE = 4
_CLS_WEIGHT = 0.7
_SEED = 0


class RegionalPooling:
    """Joins [CLS] with averages of a facet over a 4 x 4 grid of overlapping regions."""

    def __init__(self, grid_hw: tuple[int, int], device: torch.device) -> None:
        """Prepare weights.

        Args:
            grid_hw: rows and columns of patches.
            device: where the tokens lie.
        """
        rows, columns = (_membership(count) for count in grid_hw)
        self._rows, self._columns = rows.to(device), columns.to(device)

    def __call__(self, cls: Tensor, facet: Tensor) -> Tensor:
        """Describe B images.

        Args:
            cls: (B, C) [CLS], not normalised.
            facet: (B, P, C) of all patches in raster order, not normalised.

        Returns:
            (B, 17 C) float32, of one length for all images.
        """
        batch, _, width = facet.shape
        patches = functional.normalize(facet.float(), dim=-1)
        patches = patches.view(batch, len(self._rows), len(self._columns), width)
        regions = torch.einsum("brsc,ri,sj->bijc", patches, self._rows, self._columns)
        regions = functional.normalize(functional.normalize(regions.flatten(1, 2), dim=-1).flatten(1), dim=-1)
        return torch.cat([_CLS_WEIGHT * functional.normalize(cls.float(), dim=-1), regions], dim=-1)


class RegionalDescriptor:
    """Makes descriptors of one network's [CLS] and facets."""

    def __init__(self, grid_hw: tuple[int, int], width: int, device: torch.device) -> None:
        """Prepare weights.

        Args:
            grid_hw: rows and columns of patches.
            width: C, the length of a token.
            device: where the tokens lie.
        """
        self._pool = RegionalPooling(grid_hw, device)
        # RandomState, since NumPy promises its numbers never change; a map depends on them.
        projection = np.random.RandomState(_SEED).standard_normal((pooled_length(width), REGIONAL_DIM))
        self._projection = torch.from_numpy(projection.astype(np.float32)).to(device)

    def __call__(self, cls: Tensor, facet: Tensor) -> Tensor:
        """Describe B images.

        Args:
            cls: (B, C) [CLS], not normalised.
            facet: (B, P, C) of all patches in raster order, not normalised.

        Returns:
            (B, 512) float32, L2-normalised.
        """
        return functional.normalize(self._pool(cls, facet) @ self._projection, dim=-1)


@functools.lru_cache(maxsize=4)
def regional_descriptor(grid_hw: tuple[int, int], width: int, device: torch.device) -> RegionalDescriptor:
    """The one of these arguments, made once: its projection takes a while to draw and some memory."""
    return RegionalDescriptor(grid_hw, width, device)


def pooled_length(width: int) -> int:
    """Length of the vectors of `RegionalPooling`, for tokens of a width."""
    return width * (1 + _REGIONS_A_SIDE**2)


def _membership(count: int) -> Tensor:
    """(count, 4) share of each patch along one side in each region: linear between the regions' centres."""
    position = (torch.arange(count) + 0.5) / count * _REGIONS_A_SIDE - 0.5
    position = position.clamp(0.0, _REGIONS_A_SIDE - 1.0)
    return (1.0 - (position[:, None] - torch.arange(_REGIONS_A_SIDE)).abs()).clamp(min=0.0)
