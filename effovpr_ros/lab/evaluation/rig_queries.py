"""Queries of several cameras: which images are of one moment, and which places show what one of them sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from effovpr_ros.core.mounted_cameras import MountedCamera, pose_with_camera
from effovpr_ros.core.poses import Pose
from effovpr_ros.sources.frame import Frame

CAMERA_TOLERANCE_S = 0.03
"""Images with stamps at most so far apart are one query, as `place_recognizer` has it by default."""

_AHEAD = Pose((0.0, 0.0, 0.0), (-0.5, 0.5, -0.5, 0.5))


@dataclass(frozen=True)
class CameraFrame:
    """One camera's image of a moment.

    Attributes:
        name: of the camera.
        frame: the image, with the pose of the body.
        camera: calibration and mounting; None where unknown.
    """

    name: str
    frame: Frame
    camera: MountedCamera | None


Moment = tuple[CameraFrame, ...]
"""Images of one time, at most one of each camera, at least one."""


def moments_of(cameras: Sequence[Sequence[CameraFrame]], tolerance_s: float = CAMERA_TOLERANCE_S) -> list[Moment]:
    """Images of several cameras joined by their stamps, in the order of time; those without a partner stand alone.

    Args:
        cameras: images of each camera.
        tolerance_s: stamps of one moment are at most so far from that of its first image.
    """
    order = {name: number for number, name in enumerate(item.name for images in cameras for item in images[:1])}
    waiting: list[dict[str, CameraFrame]] = []
    closed: list[dict[str, CameraFrame]] = []
    for item in sorted((item for images in cameras for item in images), key=_stamp_ns):
        late = [moment for moment in waiting if _stamp_ns(item) - _begun_ns(moment) > 1e9 * tolerance_s]
        closed += late
        waiting = [moment for moment in waiting if moment not in late]
        lacking = [moment for moment in waiting if item.name not in moment]
        if lacking:
            lacking[-1][item.name] = item
        else:
            waiting.append({item.name: item})
    moments = sorted((*closed, *waiting), key=_begun_ns)
    return [tuple(sorted(moment.values(), key=lambda item: order[item.name])) for moment in moments]


def looking(frames: Sequence[Frame], cameras: Sequence[MountedCamera | None]) -> list[Frame] | None:
    """Frames whose heading is where their camera looks, not where the body does; None where a mounting is unknown.

    Frames without a heading stay as they are.
    """
    turned: list[Frame] = []
    for frame, camera in zip(frames, cameras, strict=True):
        if camera is None or camera.body_from_camera is None:
            return None
        pose = frame.pose
        if pose is not None and pose.quat_xyzw is not None:
            quat = pose_with_camera(pose, camera.body_from_camera, _AHEAD).quat_xyzw
            frame = replace(frame, pose=Pose(pose.position_xyz, quat))
        turned.append(frame)
    return turned


def cameras_of(places: Sequence[Frame], by_session: Mapping[str, MountedCamera]) -> list[MountedCamera | None]:
    """The camera of each place's image; None where its session keeps none."""
    return [by_session.get(place.session) for place in places]


def _stamp_ns(item: CameraFrame) -> int:
    return item.frame.known_stamp_ns


def _begun_ns(moment: Mapping[str, CameraFrame]) -> int:
    return min(map(_stamp_ns, moment.values()))
