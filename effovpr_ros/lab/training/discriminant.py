"""Linear discriminants of pooled vectors: the projection that tells places apart best, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from effovpr_ros.core.errors import ConfigError

# Chosen on held-out levels of a simulator and held-out floors of real photographs; all three lie on a plateau.
# Principal components that are kept first: beyond them there is little but noise, and the time grows as the cube.
_MAX_COMPONENTS = 2048
# Share of the mean variance within places that is added to each direction: places are few against the directions.
_SHRINKAGE = 0.3
# [CLS] is one part of seventeen in the pooled vector of regions, which all shrink alike: so it keeps its say.
_CLS_SCALE = 3.0


@dataclass(frozen=True)
class Discriminants:
    """A linear projection, the most telling direction first.

    Attributes:
        mean: (L,) float32, subtracted first.
        components: (D, L) float32; a vector inside a place varies alike along each.
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]


def linear_discriminants(
    vectors: NDArray[np.float32], classes: NDArray[np.int64], dimension: int, *, cls_width: int = 0
) -> Discriminants:
    """Fisher's linear discriminants (Fisher, 1936; Rao, 1948) with shrinkage, after a PCA.

    Directions along which places differ much and the views of one place little. Few parameters are fitted, so that
    hundreds of places suffice where a classifier on top of the same vectors would learn them by heart.

    Args:
        vectors: (N, L) float32.
        classes: (N,) place of each, from 0.
        dimension: D.
        cls_width: so many first values are [CLS], beside others.

    Raises:
        ConfigError: fewer places or vectors than D needs.
    """
    count = int(classes.max()) + 1 if len(classes) else 0
    kept = min(_MAX_COMPONENTS, len(vectors) - 1, vectors.shape[1])
    if dimension > min(count - 1, kept):
        raise ConfigError(
            f"--head-start discriminant: {dimension} discriminants take more places than that, and more images; there "
            f"are {count} places and {len(vectors)} images; lower --dims, or use --head-start pca or random"
        )
    mean = vectors.mean(axis=0)
    scale = np.ones(vectors.shape[1], np.float32)
    scale[:cls_width] = _CLS_SCALE
    scaled = (vectors - mean) * scale
    length = len(mean)
    _, axes = scipy.linalg.eigh(scaled.T @ scaled / len(scaled), subset_by_index=[length - kept, length - 1])
    reduced = (scaled @ axes).astype(np.float64)
    sizes = np.bincount(classes, minlength=count)
    means = np.zeros((count, kept))
    np.add.at(means, classes, reduced)
    means /= sizes[:, None]
    inside = reduced - means[classes]
    within = inside.T @ inside / len(inside)
    between = (means * sizes[:, None]).T @ means / len(reduced)
    within += _SHRINKAGE * np.trace(within) / kept * np.eye(kept)
    _, directions = scipy.linalg.eigh(between, within, subset_by_index=[kept - dimension, kept - 1])
    components = (axes @ directions[:, ::-1]).T
    # Of unit length on the average, so that learning rates mean the same as elsewhere.
    components /= np.sqrt(np.mean(np.sum((scaled @ components.T) ** 2, axis=1)))
    return Discriminants(mean.astype(np.float32), (components * scale).astype(np.float32))
