"""Short local descriptors: facets in the principal components of a network's facets, before they become codes.

Most of a facet's energy lies in few directions, which are the same for all images. The projections in `projections/`
were fitted once for a network and what is read of it (`scripts/fit_local_projection.py`); `docs/defaults.md` says on
which images, and what the shorter codes cost. A map names its projection, and queries are projected by the same.
"""

from __future__ import annotations

import functools
import io
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from effovpr_ros.core.errors import ConfigError, DescriptorShapeError, WeightsError
from effovpr_ros.features.codes import LOCAL_CODES

AUTO, FULL = "auto", "full"
SHIPPED_FOLDER = Path(__file__).with_name("projections")
_SUFFIX = ".npz"
_SEED = 0
_SEPARATOR = " of "


@dataclass(frozen=True)
class FacetSource:
    """What is read of which network: facets of another source have other components.

    Attributes:
        weights_sha256: fingerprint of the network's weights.
        block: from 0.
        facet: query, key or value.
        centered: whether the image's mean facet was subtracted.
    """

    weights_sha256: str
    block: int
    facet: str
    centered: bool


@dataclass(frozen=True)
class LocalProjection:
    """A linear projection of facets.

    Attributes:
        name: in fingerprints and file names; it changes whenever the components do.
        source: of the facets.
        components: (c, C) float32, orthonormal rows up to their storage in fp16.
    """

    name: str
    source: FacetSource
    components: NDArray[np.float32]

    @property
    def dimension(self) -> int:
        """Length c of the projected descriptors."""
        return len(self.components)

    def project(self, facets: NDArray[np.float32]) -> NDArray[np.float32]:
        """Project (N, C) float32 facets to (N, c) float32.

        Raises:
            DescriptorShapeError: facets of another length.
        """
        if facets.shape[-1] != self.components.shape[1]:
            raise DescriptorShapeError(
                f"facets have {facets.shape[-1]} dimensions, projection {self.name} takes {self.components.shape[1]}"
            )
        # By torch, since NumPy's own threads keep spinning and slow the network's next pass down by half.
        projected = torch.from_numpy(np.ascontiguousarray(facets)) @ torch.from_numpy(self.components).T
        return np.asarray(projected.numpy(), dtype=np.float32)

    def to_bytes(self) -> bytes:
        """NumPy's npz format, components in fp16."""
        buffer = io.BytesIO()
        np.savez(buffer, components=self.components.astype(np.float16), **asdict(self.source))
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, name: str, data: bytes) -> LocalProjection:
        """Inverse of `to_bytes`."""
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            source = FacetSource(
                str(stored["weights_sha256"]), int(stored["block"]), str(stored["facet"]), bool(stored["centered"])
            )
            return cls(name, source, stored["components"].astype(np.float32))


def fit_local_projection(
    name: str, source: FacetSource, descriptors: NDArray[np.float32], dimension: int
) -> LocalProjection:
    """Principal components about zero, since cosines know no other centre, in a fixed random rotation.

    Within the components a rotation changes no cosine, but it spreads their energy evenly, so that one quantiser of
    few levels suits all numbers (as the rotations of Gong and Lazebnik, "Iterative quantization", CVPR 2011).

    Args:
        name: of the projection.
        source: of the descriptors.
        descriptors: (N, C) float32, L2-normalised.
        dimension: c, even, so that codes pack in pairs.

    Raises:
        ConfigError: c is odd or larger than N or C.
    """
    count, full = descriptors.shape
    if not 2 <= dimension <= min(count, full) or dimension % 2:
        raise ConfigError(
            f"a projection to {dimension} dimensions must be even and at most {full}, with as many descriptors; "
            f"there are {count}"
        )
    energy = descriptors.T.astype(np.float64) @ descriptors.astype(np.float64)
    _, vectors = np.linalg.eigh(energy)
    rotation, _ = np.linalg.qr(np.random.RandomState(_SEED).standard_normal((dimension, dimension)))
    components = rotation @ vectors[:, ::-1][:, :dimension].T
    return LocalProjection(name, source, np.ascontiguousarray(components, dtype=np.float32))


def choose_projection(wanted: str, source: FacetSource) -> LocalProjection | None:
    """The projection that a setting names; None for descriptors of full length.

    Args:
        wanted: auto (the shipped one of the source, full length if there is none), full, or the name of a shipped one.
        source: of the facets that will be projected.

    Raises:
        ConfigError: no shipped projection of that name, or it is of another source.
    """
    if wanted == AUTO:
        return next((item for item in shipped_projections() if item.source == source), None)
    if wanted == FULL:
        return None
    named = next((item for item in shipped_projections() if item.name == wanted), None)
    if named is None:
        names = ", ".join((AUTO, FULL, *(item.name for item in shipped_projections())))
        raise ConfigError(f"local codes {wanted!r} are unknown; use {names}, or update effovpr_ros")
    if named.source != source:
        raise ConfigError(f"local codes {wanted!r} are for {named.source}, not for {source}; use {AUTO} or {FULL}")
    return named


def codes_name(projection: LocalProjection | None) -> str:
    """How codes of projected (None: full) descriptors are called in a fingerprint."""
    return LOCAL_CODES if projection is None else f"{LOCAL_CODES}{_SEPARATOR}{projection.name}"


def setting_for_codes(name: str) -> str:
    """The setting that makes codes of a name, the inverse of `codes_name`."""
    _, _, projection = name.partition(_SEPARATOR)
    return projection or FULL


@functools.cache
def shipped_projections() -> tuple[LocalProjection, ...]:
    """The projections that come with this package.

    Raises:
        WeightsError: the installation lacks them.
    """
    files = sorted(SHIPPED_FOLDER.glob(f"*{_SUFFIX}"))
    if not files:
        raise WeightsError(f"{SHIPPED_FOLDER} holds no projections; install effovpr_ros again")
    return tuple(LocalProjection.from_bytes(file.stem, file.read_bytes()) for file in files)
