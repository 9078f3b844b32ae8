"""What the node finds in a picture for a server that has the map."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.image_features import Features, LocalFeatures
from effovpr_ros.geometry.points import Points
from effovpr_ros.recognition.rig_query import RigPicture
from effovpr_ros.recognition.third_stage import point_extractor

_NO_FEATURES = Features(
    np.empty(0, np.float32), LocalFeatures(np.empty((0, 0), np.int8), np.empty((0, 2), np.uint8)), (1, 1)
)


@dataclass(frozen=True, eq=False)
class Seen:
    """What was found.

    Attributes:
        features: by the map's model; none where the server finds them.
        points: of the kind that the server matches; None: the third stage does not run.
        extract_ms: that it took.
    """

    features: Features
    points: Points | None
    extract_ms: float


def look(picture: RigPicture, extractor: FeatureExtractor | None, points_kind: str) -> Seen:
    """Find features and points.

    Args:
        picture: of one camera.
        extractor: of the map's model; None: the server finds them.
        points_kind: that the server matches; empty: none are wanted.
    """
    if extractor is None:
        return Seen(_NO_FEATURES, None, 0.0)
    started_s = time.perf_counter()
    (features,) = extractor.extract([picture.image])
    points = None
    if points_kind:
        found = point_extractor(str(extractor.device))
        # Points of another kind cannot be matched with the server's.
        points = found.extract(picture.image) if found.kind == points_kind else None
    return Seen(features, points, (time.perf_counter() - started_s) * 1e3)
