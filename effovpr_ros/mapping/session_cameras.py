"""Cameras of a map's sessions: calibration and mounting, by which poses are measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from effovpr_ros.core.errors import CameraError, MapError, MapFormatError
from effovpr_ros.core.mounted_cameras import MountedCamera
from effovpr_ros.mapping.session_origins import Properties

if TYPE_CHECKING:
    from effovpr_ros.mapping.map_reading import MapReader

CAMERAS_PROPERTY = "session_cameras"


def read_cameras(properties: Properties) -> dict[str, MountedCamera]:
    """Cameras by session; sessions that were recorded without one have none.

    Raises:
        MapFormatError: stored in a form that this version does not read.
    """
    stored = properties.get_property(CAMERAS_PROPERTY)
    try:
        items = json.loads(stored).items() if stored else ()
        return {str(session): MountedCamera.from_dict(values) for session, values in items}
    except (ValueError, TypeError, AttributeError, RecursionError, CameraError) as error:
        raise MapFormatError(f"what the map keeps of its sessions' cameras is damaged ({error}); rebuild it") from error


def write_cameras(properties: Properties, cameras: Mapping[str, MountedCamera]) -> None:
    """Store the cameras of all sessions."""
    content = {session: mounted.to_dict() for session, mounted in cameras.items()}
    properties.set_property(CAMERAS_PROPERTY, json.dumps(content).encode())


def set_session_camera(place_map: MapReader, session: str, mounted: MountedCamera) -> None:
    """Say which camera the images of a session are from; one that is known already is kept if it is the same.

    Raises:
        MapError: the session has another camera, or the map is open read-only.
    """
    cameras = read_cameras(place_map)
    known = cameras.get(session)
    if known == mounted:
        return
    if known is not None and session in place_map.sessions:
        raise MapError(
            f"session {session!r} of map {place_map.path} has another camera, of "
            f"{known.camera.image_size_wh} pixels and focal length {known.camera.focal_xy_px} px; give these images a "
            "session of their own"
        )
    write_cameras(place_map, {**cameras, session: mounted})
