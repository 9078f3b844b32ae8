"""A sequence of images of which a server answers each alone: what is known here of its map, and how answers change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.mapping.place import Candidate
from effovpr_ros.mapping.positions import geo_of
from effovpr_ros.recognition.answer import Recognition
from effovpr_ros.recognition.decision import DecidedBy, Decision, Status, pose_covariance
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.remote.map_info import MapInfo

CANDIDATES = 100
"""That are asked for, as many as a sequence weighs."""


@dataclass(frozen=True)
class ServedJudge:
    """Whose answers a `SequenceFilter` judges.

    Attributes:
        place_map: what the server says of its map.
        given: thresholds of this machine.
    """

    place_map: MapInfo
    given: RecognizerConfig

    @property
    def config(self) -> RecognizerConfig:
        """Thresholds for the map of the server."""
        return self.given if self.has_order else replace(self.given, same_place_ids=0)

    @property
    def has_order(self) -> bool:
        """Whether places that follow each other may be near each other."""
        return self.place_map.in_order

    def judged(self, recognition: Recognition, ranked: Sequence[Candidate], decision: Decision) -> Recognition:
        """The server's answer with its candidates in another order.

        What the server found of its first candidate stays with that one: a measured pose, and the bearing. Another
        first candidate has its own pose, without an orientation where the server turned its first one's, as for a
        camera that looks another way.
        """
        first = ranked[0]
        stays = first is recognition.candidates[0]
        result = replace(
            recognition,
            status=decision.status,
            confidence=decision.confidence,
            candidates=tuple(ranked),
            reason=decision.reason,
            decided_by=decision.decided_by,
            calibrated=recognition.calibrated and decision.decided_by is DecidedBy.SINGLE_IMAGE,
        )
        if decision.status is Status.NO_MATCH:
            return replace(result, pose=None, covariance=None, geo=None, bearing_offset=None, measurement=None)
        if stays and recognition.status is not Status.NO_MATCH:
            return result
        pose = first.place.map_pose
        if pose is not None and _is_turned(recognition):
            pose = Pose(pose.position_xyz, None)
        covariance = None if pose is None else pose_covariance(ranked, self.config, pose)
        geo = geo_of(first.place, _datum(self.place_map))
        return replace(result, pose=pose, covariance=covariance, geo=geo, bearing_offset=None, measurement=None)


def _is_turned(recognition: Recognition) -> bool:
    """Whether a prior is not the pose of the place that it was taken from."""
    if recognition.pose is None or recognition.is_metric:
        return False
    return recognition.pose != recognition.candidates[0].place.map_pose


def _datum(info: MapInfo) -> Datum | None:
    origin = info.datum
    return None if origin is None else Datum(GeoPoint(origin.latitude, origin.longitude, origin.altitude))
