"""EffoVPR's pipeline: global retrieval, re-ranking by local features, decision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.images import RgbImage
from effovpr_ros.core.mounted_cameras import MountedCamera
from effovpr_ros.features.image_features import Features
from effovpr_ros.geometry.measured_pose import PoseMeasurement
from effovpr_ros.geometry.points import Points
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.mapping.place import Candidate, Place
from effovpr_ros.mapping.positions import geo_of
from effovpr_ros.matching.parallel import beside
from effovpr_ros.matching.rerank_config import RerankConfig
from effovpr_ros.recognition.answer import Hint, Recognition
from effovpr_ros.recognition.confidence import (
    choose_confidence_model,
    read_confidence_models,
    read_map_null,
    setting_name,
)
from effovpr_ros.recognition.decision import (
    DecidedBy,
    Decision,
    Status,
    bearing_offset,
    decide,
    may_skip_reranking,
    pose_covariance,
)
from effovpr_ros.recognition.evidence import MapNull, evidence_for
from effovpr_ros.recognition.extracts import Extracts
from effovpr_ros.recognition.latency import Latency, StageClock
from effovpr_ros.recognition.place_scores import PlaceScorer
from effovpr_ros.recognition.posing import PoseMeasurer
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.retrieval import retrieve
from effovpr_ros.recognition.same_place import is_same_place
from effovpr_ros.recognition.third_stage import ThirdStage, Verified, may_change_the_answer

# So many candidates elsewhere are in all maps that the confidence was fitted on.
_FEWEST_RIVALS = 10

__all__ = ["DecidedBy", "Hint", "Latency", "PlaceRecognizer", "Recognition", "RecognizerConfig", "Status"]


class PlaceRecognizer:
    """Recognises places of one map.

    Attributes:
        place_map: that is searched.
        config: settings.
        third_stage: that verifies the best candidates.
        poses: that measures where the query was taken.
        calibrated: whether the confidence was fitted for this model and these settings, and is a probability.
        null: what wrong answers of the map reach; None where it is not known.
        has_order: whether places that follow each other may be near each other, as far as is known.
    """

    def __init__(
        self,
        extractor: Extracts,
        place_map: MapReader,
        config: RecognizerConfig,
        *,
        null: MapNull | None = None,
        third_stage: ThirdStage | None = None,
        scorer: PlaceScorer | None = None,
    ) -> None:
        """Join model and map.

        Args:
            extractor: of the map's model.
            place_map: that is searched.
            config: settings.
            null: what wrong answers of the map reach; None: as the map holds it.
            third_stage: that verifies; None: one that reads the map.
            scorer: that re-ranks; None: likewise.

        Raises:
            ModelMismatchError: the map was built with another model.
        """
        place_map.require_model(extractor.fingerprint)
        self.config = config
        self._extractor = extractor
        self.place_map = place_map
        stored, fingerprint = read_confidence_models(place_map), place_map.fingerprint
        self._global, calibrated = choose_confidence_model(stored, fingerprint, replace(config, rerank=False))
        if config.rerank:
            self._reranked, calibrated = choose_confidence_model(stored, fingerprint, config)
        self.calibrated = calibrated and (config.skip_margin == 0.0 or not config.rerank)
        self.null = null or read_map_null(place_map, setting_name(fingerprint, config))
        self.has_order = self.null is None or self.null.in_order
        if not self.has_order:
            # Numbers that follow each other say nothing of places.
            self.config = replace(config, same_place_ids=0)
        self.third_stage = third_stage or ThirdStage(place_map, config, str(extractor.device))
        self.poses = PoseMeasurer(place_map, config, self.third_stage)
        self._verified_last = False
        rerank = RerankConfig(config.score, config.min_similarity)
        self._scorer = scorer or PlaceScorer(place_map, rerank, str(extractor.device))

    def load(self) -> None:
        """Load now what the first image would wait for; what cannot be loaded is said in the log, and left out.

        Returns at once where nothing is missing.
        """
        if self.config.verify != "off":
            self.third_stage.load()
        if self.config.rerank:
            self._scorer.load()

    def recognize(
        self, image: RgbImage, *, hint: Hint | None = None, camera: MountedCamera | None = None
    ) -> Recognition:
        """Find the place that an image shows.

        Args:
            image: (H, W, 3) uint8 RGB.
            hint: optional prior.
            camera: that took it; None: that of the place's session, for measured poses.

        Raises:
            ImageError: an image of another type or shape.
        """
        clock = StageClock()
        with clock.stage("extract"):
            features = self._extractor.extract([image])[0]
        recognition = self.recognize_features(
            features, hint=hint, points=lambda: self.third_stage.extractor.extract(image), camera=camera
        )
        whole = clock.latency()
        return replace(
            recognition, latency_ms=replace(recognition.latency_ms, extract=whole.extract, total=whole.total)
        )

    def recognize_features(
        self,
        features: Features,
        *,
        points: Callable[[], Points] | None = None,
        hint: Hint | None = None,
        within: Callable[[Place], bool] | None = None,
        before: int | None = None,
        camera: MountedCamera | None = None,
        measures: bool = True,
    ) -> Recognition:
        """Find the place that features of the map's model show.

        Args:
            features: of the map's model.
            points: gives those of the same picture, by `third_stage.extractor`; asked only if the third stage runs,
                or ran for the last picture, and then perhaps from another thread. None: it does not.
            hint: see `recognize`.
            within: only places that it admits are considered; not together with a hint.
            before: only places with a smaller number.
            camera: see `recognize`.
            measures: whether the pose of a MATCH is measured; else it is the place's.
        """
        clock = StageClock()
        with clock.stage("search"):
            near = None if hint is None else self.place_map.rows_near(hint.position_xyz[:2], hint.radius_m)
            candidates = retrieve(self.place_map, features, self.config, within=within or near, before=before)
        if points is not None and self._verified_last:
            # Most images are like the last one: points are found while candidates are ranked.
            points = beside(points)
        with clock.stage("rerank"):
            rerank = self.config.rerank and not may_skip_reranking(candidates, self.config)
            if rerank:
                candidates = self._rerank(features, candidates)
        with clock.stage("decide"):
            model, null = (self._reranked, self.null) if rerank else (self._global, None)
            decision = decide(candidates, len(features.local), self.config, model, null)
        verified = None
        self._verified_last = points is not None and self._wants_points(candidates, decision, camera)
        if points is not None and self._verified_last:
            with clock.stage("verify"):
                candidates, verified = self.third_stage.verify(points, candidates, len(features.local))
            with clock.stage("decide"):
                decision = decide(candidates, len(features.local), self.config, model, null)
        with clock.stage("decide"):
            recognition = self.assemble(features, candidates, decision, verified, camera, measures=False)
            if near is not None and self._is_starved(candidates):
                recognition = replace(recognition, calibrated=False)
        if decision.status is Status.MATCH and measures:
            # Without verified points there is only to say why.
            with clock.stage("decide" if verified is None else "pose"):
                recognition = self.with_measurement(recognition, self.poses.measure(candidates, verified, camera))
        return replace(recognition, latency_ms=clock.latency())

    def assemble(
        self,
        features: Features,
        candidates: Sequence[Candidate],
        decision: Decision,
        verified: Verified | None = None,
        camera: MountedCamera | None = None,
        *,
        measures: bool = True,
    ) -> Recognition:
        """The answer that a decision on ranked candidates gives: pose, covariance, geo-tag and bearing of the first.

        Args:
            features: of the query.
            candidates: best first.
            decision: on the first.
            verified: what the third stage found.
            camera: of the query.
            measures: whether the pose of a MATCH is measured.

        Returns:
            With latencies of 0.
        """
        found = None if decision.status is Status.NO_MATCH else candidates[0]
        pose = self.poses.prior(found.place, camera) if found and found.place.map_pose else None
        std_m = self.poses.position_std_m.get(found.place.session) if found else None
        covariance = pose_covariance(candidates, self.config, pose, std_m) if pose else None
        geo = geo_of(found.place, self.place_map.datum) if found else None
        measurement = None
        if decision.status is Status.MATCH and measures:
            measurement = self.poses.measure(candidates, verified, camera)
        answer = Recognition(
            status=decision.status,
            confidence=decision.confidence,
            candidates=tuple(candidates),
            pose=pose,
            covariance=covariance,
            geo=geo,
            bearing_offset=bearing_offset(found, features.grid_wh) if found else None,
            latency_ms=Latency(0.0, 0.0, 0.0, 0.0, 0.0),
            reason=decision.reason,
            features=features,
            decided_by=decision.decided_by,
            calibrated=self.calibrated and decision.decided_by is DecidedBy.SINGLE_IMAGE,
            verified=verified,
            camera=camera,
        )
        return answer if measurement is None else self.with_measurement(answer, measurement)

    def judged(self, recognition: Recognition, ranked: Sequence[Candidate], decision: Decision) -> Recognition:
        """An answer with its candidates in another order, and a decision on the first; see `assemble`."""
        return self.assemble(recognition.features, ranked, decision, recognition.verified, recognition.camera)

    def with_measurement(self, recognition: Recognition, measurement: PoseMeasurement) -> Recognition:
        """An answer whose pose, covariance and geo-tag are the measured ones, where there are some."""
        pose = measurement.pose
        if recognition.pose is None or pose is None:
            return replace(recognition, measurement=measurement)
        datum = self.place_map.datum
        geo = recognition.geo if datum is None else datum.to_geo(pose.position_xyz)
        return replace(recognition, pose=pose, covariance=measurement.covariance, geo=geo, measurement=measurement)

    def confidence_of(self, candidates: Sequence[Candidate], num_keypoints: int) -> float:
        """Probability that the first of candidates is right, whatever the others' order."""
        reranked = any(item.num_matches for item in candidates)
        model, null = (self._reranked, self.null) if reranked and self.config.rerank else (self._global, None)
        return model.probability(evidence_for(candidates, num_keypoints, self.config, null))

    @property
    def match_confidence(self) -> float:
        """Confidence from which on an answer is a MATCH."""
        return self.config.match_confidence or (self._reranked if self.config.rerank else self._global).match_confidence

    def extract(self, images: Sequence[RgbImage]) -> list[Features]:
        """Features of images, (H, W, 3) uint8 RGB, by the map's model."""
        return self._extractor.extract(images)

    def matched_cells(self, features: Features, place_id: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Matched patches of a query and a place, for drawing.

        Returns:
            (P, 2) query cells and (P, 2) place cells as (column, row), best match first.
        """
        return self._scorer.reranker.matched_cells(features.local, self.place_map.packed_local([place_id])[0])

    def _is_starved(self, candidates: Sequence[Candidate]) -> bool:
        """Whether a hint left fewer rivals than the confidence was fitted with."""
        elsewhere = sum(not is_same_place(candidates[0].place, item.place, self.config) for item in candidates)
        return elsewhere < _FEWEST_RIVALS

    def _wants_points(self, candidates: Sequence[Candidate], decision: Decision, camera: MountedCamera | None) -> bool:
        """Whether the third stage runs; see `RecognizerConfig.verify`."""
        wanted = bool(candidates) and self.config.verify != "off"
        if self.config.verify == "auto":
            wanted = may_change_the_answer(candidates, decision, self.config) or (
                decision.status is Status.MATCH and self.poses.is_possible(candidates[0].place, camera)
            )
        return wanted and self.third_stage.load()

    def _rerank(self, features: Features, candidates: list[Candidate]) -> list[Candidate]:
        """Order by score; the sort is stable, so equal scores keep the order of the first stage."""
        scores = self._scorer.scores(features, [candidate.place.place_id for candidate in candidates])
        scored = [replace(candidate, **vars(result)) for candidate, result in zip(candidates, scores, strict=True)]
        return sorted(scored, key=lambda candidate: -candidate.score)
