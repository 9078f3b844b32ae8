"""The map of a session: made, or opened to go on."""

from __future__ import annotations

from pathlib import Path

from effovpr_ros.features.extractor_config import ModelFingerprint
from effovpr_ros.mapping.growing_map import GrowingMap
from effovpr_ros.mapping.manifest import MANIFEST_NAME


def open_session_map(
    path: str | Path, fingerprint: ModelFingerprint, *, name: str = "", frame_id: str = "odom"
) -> GrowingMap:
    """Open a map to append keyframes to, or make one where there is none.

    Args:
        path: folder of a map, or one that does not exist or is empty.
        fingerprint: of the model that makes the features.
        name: of a new map; the folder's name if empty.
        frame_id: frame of the odometry, for a new map.

    Raises:
        MapError: the folder holds something else, or is not writable.
        ModelMismatchError: the map was made by another model.
    """
    if not (Path(path) / MANIFEST_NAME).is_file():
        return GrowingMap.create(path, fingerprint=fingerprint, name=name, frame_id=frame_id)
    place_map = GrowingMap.open(path, writable=True)
    try:
        place_map.require_model(fingerprint)
    except BaseException:
        place_map.close()
        raise
    return place_map
