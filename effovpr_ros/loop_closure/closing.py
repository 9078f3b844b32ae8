"""What becomes of a MATCH of the newest keyframe: a closure, with its relative pose, or a refusal."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from effovpr_ros.core.errors import MapError
from effovpr_ros.core.mounted_cameras import MountedCamera
from effovpr_ros.geometry.points import Points
from effovpr_ros.geometry.pose_config import PoseConfig
from effovpr_ros.loop_closure.closure_pose import NOT_ASKED, ClosurePoses, DepthImage
from effovpr_ros.loop_closure.history import RunHistory
from effovpr_ros.loop_closure.loop_config import LoopConfig
from effovpr_ros.loop_closure.plausibility import contradiction
from effovpr_ros.loop_closure.results import Keyframe, LoopClosure, RefusedClosure
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.mapping.place import Place
from effovpr_ros.mapping.session_cameras import set_session_camera
from effovpr_ros.recognition.recognizer import PlaceRecognizer, Recognition

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Picture:
    """What is known of an image beyond its features.

    Attributes:
        points: gives those of the image, the same ones whenever it is asked; None: nothing is verified or measured.
        camera: that took it, with its mounting; None where unknown.
        depth: gives the depth image registered to it, (h, w) float32 metres, NaN where not known; None where there is
            none.
    """

    points: Callable[[], Points] | None = None
    camera: MountedCamera | None = None
    depth: Callable[[], DepthImage | None] | None = None


class SessionCamera:
    """Keeps the camera of a session with its map."""

    def __init__(self, place_map: MapReader, session: str) -> None:
        """Nothing is known yet."""
        self._place_map, self._session = place_map, session
        self._last: MountedCamera | None = None
        self._is_kept = False

    def keep(self, camera: MountedCamera | None) -> MountedCamera | None:
        """Store a camera; gives it back, or None where the session's images are known to be another one's."""
        if camera is None or camera.body_from_camera is None:
            return camera
        if camera != self._last:
            self._last = camera
            try:
                set_session_camera(self._place_map, self._session, camera)
                self._is_kept = True
            except MapError as error:
                self._is_kept = False
                _logger.error("relative poses are not measured: %s", error)
        return camera if self._is_kept else None


class Closing:
    """Judges the MATCHes of one run; for one thread."""

    def __init__(self, recognizer: PlaceRecognizer, history: RunHistory, config: LoopConfig) -> None:
        """Keep what is asked.

        Args:
            recognizer: of the map that grows.
            history: of the run.
            config: rules.
        """
        self._history = history
        self._config = config
        limits = recognizer.config
        self._radius_m = limits.same_place_radius_m
        self._poses = ClosurePoses(
            recognizer.place_map,
            recognizer.third_stage,
            PoseConfig(
                pose_max_std_m=limits.pose_max_std_m,
                map_position_std_m=limits.map_position_std_m,
                map_angle_std_rad=limits.map_angle_std_rad,
            ),
            config.max_depth_m,
        )

    def keyframe(self, place: Place, track_frame: str) -> Keyframe:
        """A place as a keyframe, with its pose where that is of a track."""
        odom_pose = place.pose if place.own_frame == track_frame else None
        distance_m = self._history.distance_m(place.place_id)
        return Keyframe(place.place_id, place.stamp_ns or 0, place.session, odom_pose, distance_m)

    def judge(
        self, recognition: Recognition, query: Place, picture: Picture, *, measure: bool
    ) -> tuple[LoopClosure | None, RefusedClosure | None]:
        """The closure that a MATCH makes, or why it is refused.

        Args:
            recognition: with status MATCH.
            query: the newest keyframe.
            picture: of it.
            measure: the relative pose is wanted.
        """
        match = recognition.candidates[0].place
        closure = self._closure(recognition, query)
        reason = contradiction(closure.query, closure.match, self._radius_m, self._config)
        if reason:
            return None, RefusedClosure(closure, reason)
        pose = NOT_ASKED
        if measure and picture.points is not None:
            pose = self._poses.measure(
                match, query.place_id, picture.points, recognition.verified, picture.camera, picture.depth
            )
        closure = replace(closure, pose=pose)
        if self._config.closures == "measured" and pose.relative_pose is None:
            pair = f"keyframes {closure.query.keyframe_id} and {closure.match.keyframe_id}"
            return None, RefusedClosure(closure, f"no relative pose of {pair}: {pose.reason}")
        return closure, None

    def _closure(self, recognition: Recognition, query: Place) -> LoopClosure:
        best = recognition.candidates[0]
        return LoopClosure(
            query=self.keyframe(query, query.own_frame),
            match=self.keyframe(best.place, query.own_frame),
            confidence=recognition.confidence,
            calibrated=recognition.calibrated,
            decided_by=recognition.decided_by,
            similarity=best.similarity,
            num_matches=best.num_matches,
            num_consistent=best.num_consistent,
            score=best.score,
            bearing_offset=recognition.bearing_offset,
        )
