"""Where a query was taken: its pose measured against the map's pictures about the place that it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from effovpr_ros.core.mounted_cameras import MountedCamera, pose_with_camera
from effovpr_ros.core.poses import Pose
from effovpr_ros.core.transforms import compose
from effovpr_ros.geometry.measured_pose import (
    MAX_SPREAD_M,
    MAX_VIEWS,
    MIN_SIDE_PX,
    PoseMeasurement,
    PoseOutcome,
    measure_pose,
    refused,
)
from effovpr_ros.geometry.points import Points
from effovpr_ros.geometry.pose_config import PoseConfig
from effovpr_ros.geometry.query_rays import QueryPicture
from effovpr_ros.geometry.rig import RigView
from effovpr_ros.geometry.verified_matches import with_fundamental
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.mapping.place import Candidate, Place
from effovpr_ros.mapping.session_cameras import read_cameras
from effovpr_ros.mapping.session_origins import read_origins
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.third_stage import ThirdStage, Verified, VerifiedCandidate

# Pictures that were no candidates, as of another heading, rarely see more than those that were.
_NEIGHBOURS = 4
_MAX_TURN_RAD = 0.8
# Mountings of one camera that were measured anew differ by less.
_OTHER_WAY_RAD = 0.35


@dataclass(frozen=True, eq=False)
class PictureOfBody:
    """A picture that one of a body's cameras took, and what it shows.

    Attributes:
        best: place that it shows.
        verified: points that it shares with candidates.
        camera: that took it; None: as in `PoseMeasurer.measure`.
    """

    best: Place
    verified: Verified
    camera: MountedCamera | None


class PoseMeasurer:
    """Measures poses against one map; for one thread.

    Attributes:
        cameras: of the map's sessions.
        position_std_m: standard deviation of the positions of sessions whose sources told it, along an axis.
    """

    def __init__(self, place_map: MapReader, config: RecognizerConfig, third_stage: ThirdStage) -> None:
        """Read the map's cameras, and how sure its positions are.

        Raises:
            MapFormatError: they are stored in a form that this version does not read.
        """
        self.cameras = read_cameras(place_map)
        stds_m = ((session, origin.position_std_m) for session, origin in read_origins(place_map).items())
        self.position_std_m = {session: std_m for session, std_m in stds_m if std_m is not None}
        self._place_map = place_map
        self._third_stage = third_stage
        self._wanted = config.measure_pose
        self._config = PoseConfig(
            pose_max_std_m=config.pose_max_std_m,
            map_position_std_m=config.map_position_std_m,
            map_angle_std_rad=config.map_angle_std_rad,
        )
        mountings = [camera.body_from_camera for camera in self.cameras.values() if camera.body_from_camera]
        self._look_several_ways = any((mountings[0].turn_rad(one) or 0.0) > _OTHER_WAY_RAD for one in mountings[1:])
        self._last: tuple[Verified, int, MountedCamera | None, PoseMeasurement] | None = None

    def prior(self, place: Place, camera: MountedCamera | None) -> Pose | None:
        """Pose of the body in the frame of a place's pose, if the query's camera was where its picture was taken.

        Args:
            place: that the query shows.
            camera: of the query; None, or one without a mounting: mounted as that of the place.

        Returns:
            Without an orientation where the map's cameras look several ways and nobody says which one the query's is.
        """
        stored = self.cameras.get(place.session)
        there = None if stored is None else stored.body_from_camera
        here = None if camera is None else camera.body_from_camera
        pose = place.pose
        if pose is None or pose.quat_xyzw is None or there is None:
            return pose
        if here is None:
            return Pose(pose.position_xyz, None) if self._look_several_ways else pose
        return pose_with_camera(pose, there, here)

    def is_possible(self, place: Place, camera: MountedCamera | None) -> bool:
        """Whether a pose might be measured at a place, so that its points are worth finding."""
        return self._wanted and self._why_not(place, camera) is None

    def measure(
        self, candidates: Sequence[Candidate], verified: Verified | None, camera: MountedCamera | None
    ) -> PoseMeasurement:
        """Measure the body's pose, in the frame of the first candidate's pose.

        Args:
            candidates: best first; the query shows the first.
            verified: points that the query shares with candidates.
            camera: of the query; None: that of the first candidate's session. One without a mounting is taken to be
                mounted as that one.
        """
        best = candidates[0].place
        why_not = self._why_not(best, camera)
        if why_not is not None:
            return why_not
        if verified is None:
            return refused(PoseOutcome.NOT_ASKED, "candidates were not verified")
        last = self._last
        if last is not None and (last[0] is verified and last[1:3] == (best.place_id, camera)):
            return last[3]
        measurement = self.measure_body([PictureOfBody(best, verified, camera)])
        self._last = (verified, best.place_id, camera, measurement)
        return measurement

    def measure_body(self, pictures: Sequence[PictureOfBody]) -> PoseMeasurement:
        """Measure the pose of a body by pictures that its cameras took at one time.

        Args:
            pictures: at least one, whose places have poses of one frame. Those by which nothing can be measured are
                left out.
        """
        usable: list[QueryPicture] = []
        views: list[RigView] = []
        why_not: PoseMeasurement | None = None
        for picture in pictures:
            found = self._why_not(picture.best, picture.camera) or self._seen(picture)
            if isinstance(found, PoseMeasurement):
                why_not = why_not or found
            else:
                views += [replace(view, picture=len(usable)) for view in found[1]]
                usable.append(found[0])
        if not usable:
            return why_not or refused(PoseOutcome.NOT_ASKED)
        return measure_pose(usable, views, self._config)

    def _why_not(self, place: Place, camera: MountedCamera | None) -> PoseMeasurement | None:
        if not self._wanted:
            return refused(PoseOutcome.NOT_ASKED)
        stored = self.cameras.get(place.session)
        if stored is None:
            return refused(PoseOutcome.NO_CAMERA, f"the map keeps none for session {place.session!r}")
        query = camera or stored
        if stored.is_guess or query.is_guess:
            return refused(PoseOutcome.GUESSED_CAMERA)
        if stored.body_from_camera is None:
            return refused(PoseOutcome.NO_MOUNTING, f"of session {place.session!r}")
        if self._look_several_ways and (camera is None or camera.body_from_camera is None):
            return refused(PoseOutcome.NO_MOUNTING, "the map's cameras look several ways, and the query's is not known")
        if not _is_posed(place.pose):
            return refused(PoseOutcome.NO_POSE, f"place {place.place_id} has no position, height or heading")
        if (std_m := self.position_std_m.get(place.session, 0.0)) > (most_m := self._config.pose_max_std_m):
            why = f"its positions have a standard deviation of {std_m:.1f} m, above pose_max_std_m {most_m:g}"
            return refused(PoseOutcome.NO_POSE, f"session {place.session!r}: {why}")
        return None

    def _seen(self, picture: PictureOfBody) -> PoseMeasurement | tuple[QueryPicture, list[RigView]]:
        """A picture's points, and the map's pictures that see them; or why it does not serve."""
        best, verified = picture.best, picture.verified
        stored = self.cameras[best.session]
        query = picture.camera or stored
        size_wh = verified.query.image_size_wh
        if not query.camera.fits(size_wh):
            return refused(
                PoseOutcome.OTHER_CAMERA, f"it has {size_wh} pixels, the camera {query.camera.image_size_wh}"
            )
        mounting = query.body_from_camera or stored.body_from_camera
        if mounting is None:
            return refused(PoseOutcome.NO_MOUNTING)
        views = self._views(best, verified)
        if not views and self._third_stage.is_coarse(best.place_id):
            return refused(PoseOutcome.COARSE_POINTS, "build it with --points stored")
        points = working(verified.query)
        model = query.camera.scaled(points.image_size_wh)
        return QueryPicture(points.keypoints_xy.astype(np.float64), model, mounting), views

    def _views(self, best: Place, verified: Verified) -> list[RigView]:
        """The pictures about the best place that share most points with the query, at most five."""
        usable = {
            item.place_id: item
            for item in verified.candidates
            if self._is_view(self._place_map.place(item.place_id), best)
        }
        near = self._near(best, set(usable))[: max(0, MAX_VIEWS - len(usable))]
        found = [*usable.values(), *self._third_stage.matched(verified.query, near)]
        found = [item for item in found if not self._third_stage.is_coarse(item.place_id)]
        found.sort(key=lambda item: -item.matches.num_homography)
        first = [item for item in found[:MAX_VIEWS] if len(item.matches)]
        fitted = with_fundamental(verified.query, [(item.matches, item.points) for item in first])
        return [self._view(replace(item, matches=matches)) for item, matches in zip(first, fitted, strict=True)]

    def _near(self, best: Place, known: set[int]) -> list[Place]:
        """Other places about the best one that look the same way, nearest first."""
        if best.own_frame or best.pose is None:
            return []
        pose = best.pose
        places = self._place_map.places_near((pose.position_xyz[0], pose.position_xyz[1]), MAX_SPREAD_M)
        near = [
            (pose.distance_m(place.pose), place)
            for place in places
            if place.place_id not in known and place.pose is not None and self._is_view(place, best)
            if self._turn_rad(best, place) < _MAX_TURN_RAD
        ]
        return [place for _, place in sorted(near, key=lambda item: item[0])[:_NEIGHBOURS]]

    def _is_view(self, place: Place, best: Place) -> bool:
        """Whether a place's picture has a pose that compares with the best one's, a camera, and pixels enough."""
        stored = self.cameras.get(place.session)
        return (
            _is_posed(place.pose)
            and place.own_frame == best.own_frame
            and place.pose is not None
            and best.pose is not None
            and best.pose.distance_m(place.pose) <= MAX_SPREAD_M
            and stored is not None
            and stored.body_from_camera is not None
            and not stored.is_guess
            and stored.camera.fits(place.image_size_wh)
            and max(place.image_size_wh) >= MIN_SIDE_PX
        )

    def _turn_rad(self, a: Place, b: Place) -> float:
        """Angle between the cameras of two places."""
        if a.pose is None or b.pose is None:
            return 0.0
        if self.cameras[a.session].body_from_camera == self.cameras[b.session].body_from_camera:
            return a.pose.turn_rad(b.pose) or 0.0
        return self._camera_pose(a).turn_rad(self._camera_pose(b)) or 0.0

    def _camera_pose(self, place: Place) -> Pose:
        """T_map_camera of a place's picture."""
        return camera_pose(place.pose, self.cameras[place.session])

    def _view(self, item: VerifiedCandidate) -> RigView:
        place = self._place_map.place(item.place_id)
        return rig_view(item, place.pose, self.cameras[place.session])


def rig_view(item: VerifiedCandidate, pose: Pose | None, mounted: MountedCamera) -> RigView:
    """A place that was matched with the query as a view of a rig.

    Args:
        item: of the place.
        pose: of the body that took its picture.
        mounted: camera that took it.

    Raises:
        TrajectoryError: a height or orientation is unknown.
    """
    points = working(item.points)
    agree = item.matches.on_fundamental
    chosen = item.matches.on_homography if agree is None else agree
    points_xy = points.keypoints_xy[item.matches.candidate_index].astype(np.float64)
    return RigView(
        camera_pose(pose, mounted),
        mounted.camera.scaled(points.image_size_wh),
        item.matches.query_index[chosen],
        points_xy[chosen],
        item.matches.query_index[~chosen],
        points_xy[~chosen],
    )


def working(points: Points) -> Points:
    """Points in pixels of the picture that they were looked for in, whose errors limits are made for."""
    width, height = points.image_size_wh
    scale = points.working_scale
    return points if scale == 1.0 else points.scaled((max(1, round(width * scale)), max(1, round(height * scale))))


def camera_pose(body: Pose | None, mounted: MountedCamera) -> Pose:
    """T_map_camera from T_map_body and the camera's mounting.

    Raises:
        TrajectoryError: a height or orientation is unknown.
    """
    if body is None or mounted.body_from_camera is None:
        raise ValueError("a pose is missing")
    return compose(body, mounted.body_from_camera)


def _is_posed(pose: Pose | None) -> bool:
    return pose is not None and pose.position_xyz[2] is not None and pose.quat_xyzw is not None
