"""PCA of global descriptors, for models that have no trained projection."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import ConfigError, DescriptorShapeError, MapFormatError


@dataclass(frozen=True)
class PcaProjection:
    """A linear projection to d principal components.

    Attributes:
        mean: (D,) float32.
        components: (d, D) float32, orthonormal rows, largest variance first.
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]

    def project(self, descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Project and L2-normalise (N, D) or (D,) float32 descriptors to (N, d) or (d,).

        Raises:
            DescriptorShapeError: descriptors of another dimension.
        """
        if descriptors.shape[-1] != self.mean.shape[0]:
            raise DescriptorShapeError(
                f"descriptors have {descriptors.shape[-1]} dimensions, the projection takes {self.mean.shape[0]}"
            )
        projected = (descriptors - self.mean) @ self.components.T
        norm = np.linalg.norm(projected, axis=-1, keepdims=True)
        return np.asarray(projected / np.maximum(norm, 1e-12), dtype=np.float32)

    def to_bytes(self) -> bytes:
        """NumPy's npz format."""
        buffer = io.BytesIO()
        np.savez(buffer, mean=self.mean, components=self.components)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> PcaProjection:
        """Inverse of `to_bytes`.

        Raises:
            MapFormatError: the bytes hold something else.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as stored:
                # Written without compression: what unpacks to more than it is long is not ours.
                if sum(part.file_size for part in stored.infolist()) > len(data):
                    raise ValueError("it is longer than its file")
                mean, components = (_read_array(stored.read(f"{name}.npy")) for name in ("mean", "components"))
        except (
            ValueError,
            KeyError,
            OSError,
            EOFError,
            RuntimeError,
            NotImplementedError,
            zipfile.BadZipFile,
        ) as error:
            raise MapFormatError(f"the stored PCA cannot be read ({error}); restore or rebuild the map") from error
        shapes = f"{mean.shape} and {components.shape}"
        if mean.ndim != 1 or components.ndim != 2 or components.shape[1] != len(mean) or not len(components):
            raise MapFormatError(f"the stored PCA has arrays of shapes {shapes}; restore or rebuild the map")
        if not (np.isfinite(mean).all() and np.isfinite(components).all()):
            raise MapFormatError("the stored PCA holds values that are not finite numbers; restore or rebuild the map")
        return cls(mean, components)


def _read_array(data: bytes) -> NDArray[np.float32]:
    """A float32 array of NumPy's format, whose header may not claim more than there is."""
    buffer = io.BytesIO(data)
    if np.lib.format.read_magic(buffer) != (1, 0):
        raise ValueError("unknown version of NumPy's format")
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(buffer)
    if dtype != np.float32 or by_columns:
        raise ValueError(f"an array of {dtype}")
    return np.frombuffer(data, np.float32, offset=buffer.tell()).reshape(shape).copy()


def fit_pca(descriptors: NDArray[np.float32], dimension: int) -> PcaProjection:
    """Fit a PCA with FAISS.

    Args:
        descriptors: (N, D) float32.
        dimension: d, at most min(N, D).

    Raises:
        ConfigError: d is out of range; says how many descriptors there are.
    """
    count, full = descriptors.shape
    if not 1 <= dimension <= min(count, full):
        raise ConfigError(
            f"PCA to {dimension} dimensions needs at least that many places and at most {full} dimensions; "
            f"there are {count} places"
        )
    pca = faiss.PCAMatrix(full, dimension)
    pca.train(np.ascontiguousarray(descriptors, dtype=np.float32))
    components = faiss.vector_to_array(pca.A).reshape(-1, full)[:dimension]
    return PcaProjection(faiss.vector_to_array(pca.mean).astype(np.float32), components.astype(np.float32))
