"""The map of keyframes: made or opened to go on, and what it forgets when there are too many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from effovpr_ros.features.extractor_config import ModelFingerprint
from effovpr_ros.mapping.growing_map import GrowingMap
from effovpr_ros.mapping.manifest import MANIFEST_NAME

_LARGEST_BATCH = 64
_SMALLEST_SHARE = 20
# So many keyframes are looked at for each that is forgotten: to compare all with all would take seconds.
_SAMPLES = 8


def open_session_map(
    path: str | Path,
    fingerprint: ModelFingerprint,
    *,
    name: str = "",
    frame_id: str = "odom",
    recognition: Mapping[str, Any] | None = None,
) -> GrowingMap:
    """Open a map to append keyframes to, or make one where there is none.

    Args:
        path: folder of a map, or one that does not exist or is empty.
        fingerprint: of the model that makes the features.
        name: of a new map; the folder's name if empty.
        frame_id: frame of the odometry, for a new map.
        recognition: settings that a new map is made for, see `recognition.presets`.

    Raises:
        MapError: the folder holds something else, or is not writable.
        ModelMismatchError: the map was made by another model.
    """
    if not (Path(path) / MANIFEST_NAME).is_file():
        return GrowingMap.create(path, fingerprint=fingerprint, name=name, frame_id=frame_id, recognition=recognition)
    place_map = GrowingMap.open(path, writable=True)
    try:
        place_map.require_model(fingerprint)
    except BaseException:
        place_map.close()
        raise
    return place_map


def keyframes_to_forget(place_map: GrowingMap, max_keyframes: int, keep: Iterable[int] = ()) -> list[int]:
    """Keyframes that look most like another one, which is kept.

    A batch, so that it is seldom done: a twentieth of the limit, 64 at most, also where the limit was lowered, so that
    no keyframe waits for long. The batch comes from a random sample of
    eight times its size (the same in the same map), of which the most redundant go. Of a keyframe that goes, the one
    that looks most like it stays; the newest always stays.

    Args:
        place_map: of the keyframes.
        max_keyframes: limit; 0 for none.
        keep: ids that stay in any case, as somebody is about to read them.

    Returns:
        Their ids; none while the limit is kept.
    """
    excess = len(place_map) - max_keyframes
    if max_keyframes == 0 or excess <= 0 or len(place_map) < 2:
        return []
    wanted = min(_LARGEST_BATCH, max(excess, max_keyframes // _SMALLEST_SHARE))
    ids = np.array([place.place_id for place in place_map.places()[:-1]])
    sample = np.random.default_rng(place_map.next_id).permutation(ids)[: _SAMPLES * wanted].tolist()
    likeness = place_map.likeness(sample)
    forgotten: set[int] = set()
    kept = set(keep)
    for number in np.argsort([-cosine for _, cosine in likeness], kind="stable").tolist():
        keyframe_id, other = sample[number], likeness[number][0]
        if keyframe_id in kept or other in forgotten:
            continue
        forgotten.add(keyframe_id)
        kept.add(other)
        if len(forgotten) == wanted:
            break
    return sorted(forgotten)
