"""Answers as JSON: what `effovpr query --json` prints, a server of maps sends and a robot reads; written down once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from effovpr_ros.core.errors import EffoVPRError, ServerError
from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.features.image_features import Features
from effovpr_ros.geometry.measured_pose import PoseMeasurement, PoseOutcome
from effovpr_ros.mapping.place import Candidate, Place, PointCounts
from effovpr_ros.recognition.answer import Recognition
from effovpr_ros.recognition.decision import Status
from effovpr_ros.recognition.latency import Latency
from effovpr_ros.remote.reading import read_from_server


@dataclass(frozen=True)
class PoseRecord:
    """A pose of the body in the map frame.

    Attributes:
        position_xyz: metres; z is null where the height is unknown.
        quat_xyzw: null where the orientation is unknown.
        covariance: 6 rows of 6, order x y z roll pitch yaw; m^2 and rad^2.
    """

    position_xyz: tuple[float, float, float | None]
    quat_xyzw: tuple[float, float, float, float] | None
    covariance: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class GeoRecord:
    """A WGS84 position.

    Attributes:
        latitude: degrees.
        longitude: degrees.
        altitude: metres above the ellipsoid; null where unknown.
    """

    latitude: float
    longitude: float
    altitude: float | None


@dataclass(frozen=True)
class CandidateRecord:
    """A place that the query may show.

    Attributes:
        place_id: in its map.
        session: that saw it.
        source: of its image.
        stamp_ns: of its image; null where unknown.
        similarity: cosine of the global descriptors.
        num_matches: mutual matches of local descriptors.
        num_consistent: of them, those that agree on one displacement.
        score: of re-ranking.
        points: that it shares with the query; null where the third stage did not look.
        position_xyz: in the map frame; null where it has none, z where the height is unknown.
        quat_xyzw: null where the orientation is unknown.
        latitude: degrees; null without a geo-tag.
        longitude: degrees.
        altitude: metres above the ellipsoid; null where unknown.
        image_size_wh: pixels of its image.
    """

    place_id: int
    session: str
    source: str
    stamp_ns: int | None
    similarity: float
    num_matches: int
    num_consistent: int
    score: float
    points: PointCounts | None
    position_xyz: tuple[float, float, float | None] | None
    quat_xyzw: tuple[float, float, float, float] | None
    latitude: float | None
    longitude: float | None
    altitude: float | None
    image_size_wh: tuple[int, int]


@dataclass(frozen=True)
class AnswerRecord:
    """Answer to one image.

    Attributes:
        image: its file; empty where it had none.
        status: NO_MATCH, AMBIGUOUS or MATCH.
        confidence: in [0, 1].
        is_calibrated: whether that is a probability that was fitted for the model and the settings in use.
        reason: the figures behind the status.
        is_metric: whether the pose was measured.
        pose: of the body; null for NO_MATCH or where it is unknown.
        measured: how the pose was measured, or why it was not; null unless MATCH.
        geo: the pose or the best candidate in WGS84; null where unknown.
        bearing_offset: fraction of the image width, positive: the query sees the scene further right; null where
            unknown.
        candidates: best first.
        latency_ms: by stage.
    """

    image: str
    status: str
    confidence: float
    is_calibrated: bool
    reason: str
    is_metric: bool
    pose: PoseRecord | None
    measured: str | None
    geo: GeoRecord | None
    bearing_offset: float | None
    candidates: tuple[CandidateRecord, ...]
    latency_ms: Latency


@dataclass(frozen=True)
class Answers:
    """Answers of one map.

    Attributes:
        map: its name to a server, its folder to a command.
        revision: that answered; it changes when the map does.
        results: one for each image.
    """

    map: str
    revision: str
    results: tuple[AnswerRecord, ...]


def answer_record(recognition: Recognition, num_candidates: int, image: str = "") -> AnswerRecord:
    """A recognition as it is written down.

    Args:
        recognition: of the image.
        num_candidates: at most so many are written.
        image: its file.
    """
    pose, geo = recognition.pose, recognition.geo
    written = None
    if pose is not None and recognition.covariance is not None:
        covariance = tuple(tuple(row) for row in recognition.covariance.tolist())
        written = PoseRecord(pose.position_xyz, pose.quat_xyzw, covariance)
    return AnswerRecord(
        image=image,
        status=recognition.status.name,
        confidence=recognition.confidence,
        is_calibrated=recognition.calibrated,
        reason=recognition.reason,
        is_metric=recognition.is_metric,
        pose=written,
        measured=recognition.measurement.reason if recognition.measurement else None,
        geo=GeoRecord(geo.latitude_deg, geo.longitude_deg, geo.altitude_m) if geo else None,
        bearing_offset=recognition.bearing_offset,
        candidates=tuple(_candidate_record(item) for item in recognition.candidates[:num_candidates]),
        latency_ms=recognition.latency_ms,
    )


def read_answers(values: object, where: str) -> Answers:
    """Answers of what JSON held.

    Args:
        values: as JSON gave them.
        where: they come from, for the message.

    Raises:
        ServerError: another form.
    """
    return read_from_server(Answers, values, "an answer", where)


def recognition_of(record: AnswerRecord, features: Features, where: str) -> Recognition:
    """The recognition that was written down; points and matches stay where they were computed.

    Args:
        record: as read.
        features: of the query.
        where: it comes from, for the message.

    Raises:
        ServerError: values that no recognition has.
    """
    try:
        pose = None if record.pose is None else Pose(record.pose.position_xyz, record.pose.quat_xyzw)
        covariance = None if record.pose is None else np.array(record.pose.covariance, np.float64)
        if covariance is not None and (covariance.shape != (6, 6) or not (covariance.diagonal() > 0.0).all()):
            raise ServerError(f"{where}: a covariance of shape {covariance.shape} is none of a pose")
        measurement = None
        if record.measured is not None:
            outcome = PoseOutcome.MEASURED if record.is_metric else PoseOutcome.NOT_ASKED
            known = (pose, covariance) if record.is_metric else (None, None)
            measurement = PoseMeasurement(outcome, record.measured, *known)
        geo = record.geo
        return Recognition(
            status=Status[record.status],
            confidence=min(max(record.confidence, 0.0), 1.0),
            candidates=tuple(_candidate(item) for item in record.candidates),
            pose=pose,
            covariance=covariance,
            geo=None if geo is None else GeoPoint(geo.latitude, geo.longitude, geo.altitude),
            bearing_offset=record.bearing_offset,
            latency_ms=record.latency_ms,
            reason=record.reason,
            features=features,
            calibrated=record.is_calibrated,
            measurement=measurement,
        )
    except KeyError as error:
        raise ServerError(f"{where}: status {record.status!r} is unknown; update this package") from error
    except ServerError:
        raise
    except (EffoVPRError, ValueError) as error:
        raise ServerError(f"{where}: {error}") from error


def _candidate_record(candidate: Candidate) -> CandidateRecord:
    place, pose, geo = candidate.place, candidate.place.map_pose, candidate.place.geo
    return CandidateRecord(
        place_id=place.place_id,
        session=place.session,
        source=place.source,
        stamp_ns=place.stamp_ns,
        similarity=candidate.similarity,
        num_matches=candidate.num_matches,
        num_consistent=candidate.num_consistent,
        score=candidate.score,
        points=candidate.points,
        position_xyz=pose.position_xyz if pose else None,
        quat_xyzw=pose.quat_xyzw if pose else None,
        latitude=geo.latitude_deg if geo else None,
        longitude=geo.longitude_deg if geo else None,
        altitude=geo.altitude_m if geo else None,
        image_size_wh=place.image_size_wh,
    )


def _candidate(record: CandidateRecord) -> Candidate:
    pose = None if record.position_xyz is None else Pose(record.position_xyz, record.quat_xyzw)
    geo = None
    if record.latitude is not None and record.longitude is not None:
        geo = GeoPoint(record.latitude, record.longitude, record.altitude)
    place = Place(record.place_id, record.session, record.stamp_ns, record.source, pose, geo, record.image_size_wh, "")
    return Candidate(
        place,
        record.similarity,
        record.num_matches,
        record.num_consistent,
        record.score,
        points=record.points,
    )
