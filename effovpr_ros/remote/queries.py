"""What a server of maps is asked with: features as bytes, hint and camera as parameters of the URL.

Bytes of features: `EVQ1`, the length of the header (4 bytes, little-endian), the header (JSON: `model`, the fingerprint
as in `map.yaml`; `grid_wh`; `image_size_wh`; `bytes`, the length of each part), then the parts as maps keep them: the
global descriptor (fp16), the local codes (4 bits), the cells, and the points, which may be missing.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from effovpr_ros.core.cameras import CameraModel
from effovpr_ros.core.errors import ConfigError, DescriptorShapeError, MapError, MapFormatError, ModelMismatchError
from effovpr_ros.core.mounted_cameras import MountedCamera, parse_pose, pose_text
from effovpr_ros.core.records import read_record
from effovpr_ros.features.extractor_config import ModelFingerprint
from effovpr_ros.features.image_features import Features
from effovpr_ros.geometry.point_codec import decode_points, encode_points
from effovpr_ros.geometry.points import Points
from effovpr_ros.mapping.codec import (
    MAX_GRID,
    EncodedLocal,
    decode_globals,
    decode_local,
    encode_global,
    encode_local,
)
from effovpr_ros.recognition.answer import Hint

FEATURES_TYPE = "application/vnd.effovpr.features"
"""Content type of the bytes."""

_MAGIC = b"EVQ1"
_LENGTH = struct.Struct("<I")
_LONGEST_HEADER = 2**14
_LARGEST_SIDE = 2**16


@dataclass(frozen=True)
class _Bytes:
    descriptor: int
    codes: int
    cells: int
    points: int


@dataclass(frozen=True)
class _Header:
    grid_wh: tuple[int, int]
    image_size_wh: tuple[int, int]
    bytes: _Bytes


@dataclass(frozen=True, eq=False)
class FeatureQuery:
    """What a robot found in a picture.

    Attributes:
        features: of a map's model.
        image_size_wh: pixels of the picture.
        points: for the third stage; None: it does not run.
    """

    features: Features
    image_size_wh: tuple[int, int]
    points: Points | None = None


def encode_query(query: FeatureQuery, fingerprint: ModelFingerprint) -> bytes:
    """Bytes of a query: about 24 kB by the default model, and 37 kB for the points.

    Args:
        query: what was found.
        fingerprint: of the model that found it.

    Raises:
        MapError: keypoints out of order or outside the grid.
    """
    local = encode_local(query.features.local, query.features.grid_wh)
    points = b"" if query.points is None else encode_points(query.points)
    parts = [encode_global(query.features.global_descriptor), local.codes, local.cells, points]
    header = {
        "model": fingerprint.to_dict(),
        "grid_wh": query.features.grid_wh,
        "image_size_wh": query.image_size_wh,
        "bytes": dict(zip(("descriptor", "codes", "cells", "points"), map(len, parts), strict=True)),
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    return b"".join((_MAGIC, _LENGTH.pack(len(text)), text, *parts))


def decode_query(data: bytes, fingerprint: ModelFingerprint) -> FeatureQuery:
    """Inverse of `encode_query`; everything is checked, whoever sent it.

    Args:
        data: as received.
        fingerprint: of the model that it must be of.

    Raises:
        ConfigError: no features, or damaged ones.
        ModelMismatchError: of another model; names the differences.
    """
    values, start = _header_of(data)
    try:
        model = ModelFingerprint.from_dict(values["model"])
    except (KeyError, TypeError, AttributeError, MapFormatError) as error:
        raise ConfigError("the features do not name their model as `map.yaml` does") from error
    differing = fingerprint.differences(model)
    if differing:
        raise ModelMismatchError(
            f"the features are of another model than the map's: {'; '.join(differing)[:500]}; extract them by the "
            "model that /v1/map names"
        )
    header = read_record(_Header, values, "the header of the features")
    if not all(0 < side <= MAX_GRID for side in header.grid_wh):
        raise ConfigError(f"grid_wh {header.grid_wh} is not 1 to {MAX_GRID} columns and rows")
    if not all(0 < side <= _LARGEST_SIDE for side in header.image_size_wh):
        raise ConfigError(f"image_size_wh {header.image_size_wh} is no size of a picture")
    lengths = (header.bytes.descriptor, header.bytes.codes, header.bytes.cells, header.bytes.points)
    if min(lengths) < 0 or start + sum(lengths) != len(data):
        raise ConfigError(f"the features have {len(data) - start} bytes behind their header, which says {lengths}")
    ends = np.cumsum((start, *lengths)).tolist()
    descriptor, codes, cells, points = (data[a:b] for a, b in pairwise(ends))
    try:
        (vector,) = decode_globals([descriptor], fingerprint.global_dim)
        if not vector.any():
            raise ConfigError("the global descriptor is all zeros")
        local = decode_local(EncodedLocal(codes, cells), header.grid_wh, fingerprint.local_dim).unpacked()
        found = decode_points(points, header.image_size_wh) if points else None
    except (MapError, DescriptorShapeError) as error:
        text = str(error).replace("; the map is damaged", "")
        raise ConfigError(f"the features are damaged: {text}") from error
    return FeatureQuery(Features(vector, local, header.grid_wh), header.image_size_wh, found)


def _header_of(data: bytes) -> tuple[Mapping[str, Any], int]:
    """Values of the header, and where the parts begin."""
    start = len(_MAGIC) + _LENGTH.size
    if len(data) < start or not data.startswith(_MAGIC):
        raise ConfigError(f"the body is no features: it does not begin with {_MAGIC.decode()}")
    (length,) = _LENGTH.unpack_from(data, len(_MAGIC))
    if length > min(_LONGEST_HEADER, len(data) - start):
        raise ConfigError(f"the header of the features has {length} bytes, more than there are or may be")
    try:
        values = json.loads(data[start : start + length])
    except (ValueError, RecursionError) as error:
        raise ConfigError("the header of the features is no JSON") from error
    if not isinstance(values, dict):
        raise ConfigError("the header of the features is no table of names and values")
    return values, start + length


def hint_parameters(hint: Hint) -> dict[str, str]:
    """A hint as parameters of a URL."""
    x, y, _ = hint.position_xyz
    return {"hint_x": repr(x), "hint_y": repr(y), "hint_radius_m": repr(hint.radius_m)}


def camera_parameters(camera: MountedCamera) -> dict[str, str]:
    """A camera, with its mounting where that is known, as parameters of a URL."""
    model = camera.camera
    (fx, fy), (cx, cy) = model.focal_xy_px, model.centre_xy_px
    width, height = model.image_size_wh
    values = {"fx": repr(fx), "fy": repr(fy), "cx": repr(cx), "cy": repr(cy), "camera_size": f"{width}x{height}"}
    if model.distortion:
        values["distortion"] = " ".join(map(repr, model.distortion))
    if model.distortion_model != CameraModel.distortion_model:
        values["distortion_model"] = model.distortion_model
    if camera.body_from_camera is not None:
        values["camera_pose"] = pose_text(camera.body_from_camera)
    if camera.is_guess:
        values["camera_is_guess"] = "true"
    return values


@dataclass(frozen=True)
class CameraParameters:
    """A camera as parameters of a URL say it; all of the first four or none."""

    fx: float | None = None
    fy: float | None = None
    cx: float | None = None
    cy: float | None = None
    camera_size: str = ""
    distortion_model: str = CameraModel.distortion_model
    distortion: str = ""
    camera_pose: str = ""
    camera_is_guess: bool = False

    def camera(self, image_size_wh: tuple[int, int]) -> MountedCamera | None:
        """The camera; None where none was given.

        Args:
            image_size_wh: of the picture, which the values are for unless `camera_size` says another.

        Raises:
            CameraError: an impossible calibration.
            ConfigError: incomplete, or no numbers.
        """
        fx, fy, cx, cy = self.fx, self.fy, self.cx, self.cy
        if fx is None and fy is None and cx is None and cy is None:
            if self.distortion or self.camera_pose or self.camera_size:
                raise ConfigError("a camera needs fx, fy, cx and cy [pixels]")
            return None
        if fx is None or fy is None or cx is None or cy is None:
            raise ConfigError("a camera needs all of fx, fy, cx and cy [pixels]")
        size_wh = image_size_wh
        if self.camera_size:
            width, separator, height = self.camera_size.partition("x")
            if not (separator and width.isdecimal() and height.isdecimal() and len(self.camera_size) < 16):
                raise ConfigError(f"camera_size {self.camera_size[:40]!r} is not WIDTHxHEIGHT in pixels")
            size_wh = (int(width), int(height))
        try:
            distortion = tuple(float(word) for word in self.distortion.replace(",", " ").split())
        except ValueError as error:
            raise ConfigError(f"distortion {self.distortion[:40]!r} is no list of numbers") from error
        model = CameraModel(size_wh, (fx, fy), (cx, cy), self.distortion_model, distortion)
        mounting = parse_pose(self.camera_pose) if self.camera_pose else None
        return MountedCamera(model, mounting, self.camera_is_guess)
