"""The pipeline on a synthetic map: order, hints, decisions and what is left out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from synthetic import FINGERPRINT

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.features.image_features import Features, LocalFeatures, PackedLocal
from effovpr_ros.mapping.place import Candidate, Place
from effovpr_ros.mapping.positions import positions_xy
from effovpr_ros.matching.rerank_config import RerankConfig
from effovpr_ros.matching.reranking import CandidateScore, Reranker
from effovpr_ros.recognition.confidence import ConfidenceModel, setting_name
from effovpr_ros.recognition.evidence import FIGURES
from effovpr_ros.recognition.recognizer import Hint, PlaceRecognizer, RecognizerConfig, Status

CONFIG = RecognizerConfig(score="count", verify="off")
FIRST_STAGE = replace(CONFIG, rerank=False)


def calibration(config: RecognizerConfig, bias: float, **weights: float) -> ConfidenceModel:
    """Of the model below."""
    values = tuple(weights.get(name, 0.0) for name in FIGURES)
    return ConfidenceModel(setting_name(FINGERPRINT, config), values, bias, 0.7, 0.99, "by hand", 40, 0.0)


RERANKED = calibration(CONFIG, -3.0, consistent_share=3.0, score_over_rival=6.0, agreement=2.0)
# Log-odds: 100 times the lead in similarity.
GLOBAL = calibration(FIRST_STAGE, 0.0, similarity_lead=100.0)


def local(axes: Sequence[int], shift_x: int = 0) -> LocalFeatures:
    """One keypoint an axis, at column = axis + shift, row 0."""
    cells = np.array([[axis + shift_x, 0] for axis in axes], np.uint8).reshape(-1, 2)
    return LocalFeatures(7 * np.eye(16, dtype=np.int8)[list(axes)], cells)


def features(angle: float, axes: Sequence[int], shift_x: int = 0) -> Features:
    return Features(np.array([np.cos(angle), np.sin(angle)], np.float32), local(axes, shift_x), (10, 8))


class FlatDatum:
    def to_enu(self, geo: GeoPoint) -> tuple[float, float, float]:
        return geo.longitude_deg * 1000.0, geo.latitude_deg * 1000.0, geo.altitude_m

    def to_enu_many(self, geo_deg_m: np.ndarray) -> np.ndarray:
        return geo_deg_m[:, [1, 0, 2]] * (1000.0, 1000.0, 1.0)


@dataclass
class FakeMap:
    """Exact search over a handful of places; what PlaceMap offers the recogniser."""

    entries: list[tuple[Place, Features]]
    datum: FlatDatum | None = None
    calibrations: Sequence[ConfidenceModel] = (RERANKED, GLOBAL)
    required: list[Any] = field(default_factory=list)
    read_locals: int = 0
    fingerprint = FINGERPRINT

    def get_property(self, key: str) -> bytes | None:
        if key != "calibrations":
            return None
        return json.dumps([item.to_dict() for item in self.calibrations]).encode()

    def require_model(self, fingerprint: Any) -> None:
        self.required.append(fingerprint)

    def search(
        self,
        descriptor: np.ndarray,
        top_k: int,
        *,
        within: Callable[[Place], bool] | np.ndarray | None = None,
        before: int | None = None,
    ) -> list[Candidate]:
        found = [
            Candidate(place, float(entry.global_descriptor @ descriptor))
            for row, (place, entry) in enumerate(self.entries)
            if (within is None or (row in within if isinstance(within, np.ndarray) else within(place)))
            and (before is None or place.place_id < before)
        ]
        return sorted(found, key=lambda candidate: -candidate.similarity)[:top_k]

    def rows_near(self, centre_xy: tuple[float, float], radius_m: float) -> np.ndarray:
        geo = np.array([astuple(place.geo) if place.geo else (np.nan,) * 3 for place, _ in self.entries])
        poses = [place.map_pose.position_xyz[:2] if place.map_pose else (np.nan,) * 2 for place, _ in self.entries]
        xy = positions_xy(np.array(poses), geo, self.datum)
        return np.flatnonzero(np.hypot(*(xy - centre_xy).T) <= radius_m)

    def packed_local(self, place_ids: Sequence[int]) -> list[PackedLocal]:
        self.read_locals += 1
        by_id = {place.place_id: entry.local.packed for place, entry in self.entries}
        return [by_id[place_id] for place_id in place_ids]


@dataclass
class OnGpu:
    """Scores as the CPU does, and remembers what it was asked."""

    place_map: FakeMap
    asked: list[list[int]] = field(default_factory=list)
    fills: int = 0

    def fill(self) -> None:
        self.fills += 1

    def score(self, query: LocalFeatures, place_ids: Sequence[int], config: RerankConfig) -> list[CandidateScore]:
        self.asked.append(list(place_ids))
        return Reranker(config).score(query, self.place_map.packed_local(place_ids))


@dataclass
class FakeExtractor:
    result: Features
    fingerprint: Any = FINGERPRINT
    device: str = "cpu"

    def extract(self, images: Sequence[np.ndarray]) -> list[Features]:
        return [self.result for _ in images]


def place(place_id: int, x: float | None, geo: GeoPoint | None = None) -> Place:
    pose = None if x is None else Pose((x, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
    return Place(place_id, "a", 10, f"{place_id}.jpg", pose, geo, (64, 48))


QUERY = features(0.0, range(8), shift_x=2)


def corridor() -> FakeMap:
    """Place 1 looks most alike globally; place 2, 50 m on, has the same patches two cells further left."""
    return FakeMap(
        [
            (place(1, 0.0), features(0.1, [0, 1, 8, 9])),
            (place(2, 50.0, GeoPoint(0.05, 0.0, 0.0)), features(0.3, range(6))),
            (place(3, 100.0), features(0.5, [0, 1])),
        ]
    )


def recognizer(place_map: FakeMap, config: RecognizerConfig = CONFIG, query: Features = QUERY) -> PlaceRecognizer:
    return PlaceRecognizer(FakeExtractor(query), place_map, config)  # type: ignore[arg-type]


def test_reranking_overturns_the_first_stage():
    result = recognizer(corridor()).recognize(np.zeros((48, 64, 3), np.uint8))
    # Scores 2, 6 and 2 of 8: places 1 and 3 tie and keep the order of the first stage.
    assert [(c.place.place_id, c.score, c.num_matches) for c in result.candidates] == [
        (2, 6, 6),
        (1, 2, 2),
        (3, 2, 2),
    ]
    assert result.status is Status.MATCH
    assert result.pose == place(2, 50.0).pose
    assert result.geo == GeoPoint(0.05, 0.0, 0.0)
    assert result.bearing_offset == pytest.approx(0.2)
    assert result.covariance is not None
    assert np.diag(result.covariance)[:3] == pytest.approx(0.25)
    figures = "6 of 8 keypoints matched, 6 consistent, score 6.0 (2.0 of place 1 elsewhere)"
    assert f"place 2: global similarity 0.955, {figures}" in result.reason
    # Two rivals make a lead count half, and noise is 0.3 a keypoint: 3 * 6 / 8 + 6 * ln(8.4 / 4.4) / 2 - 3 = 1.190.
    assert result.confidence == pytest.approx(1.0 / (1.0 + math.exp(-1.190)), abs=1e-4)
    assert result.calibrated


def test_the_map_is_asked_whether_the_model_fits():
    place_map = corridor()
    recognizer(place_map)
    assert place_map.required == [FINGERPRINT]


def test_first_stage_alone_ranks_and_decides_on_similarity():
    place_map = corridor()
    result = recognizer(place_map, FIRST_STAGE).recognize_features(QUERY)
    assert [c.place.place_id for c in result.candidates] == [1, 2, 3]
    assert (result.status, place_map.read_locals, result.bearing_offset) == (Status.MATCH, 0, None)
    # Two rivals: half of the lead of cos 0.1 - cos 0.3.
    lead = (math.cos(0.1) - math.cos(0.3)) / 2.0
    assert result.confidence == pytest.approx(1.0 / (1.0 + math.exp(-100.0 * lead)), abs=1e-4)
    assert result.calibrated
    strict = replace(FIRST_STAGE, match_confidence=0.9)
    assert recognizer(corridor(), strict).recognize_features(QUERY).status is Status.AMBIGUOUS


def test_a_confidence_that_was_fitted_for_other_settings_is_no_probability():
    place_map = corridor()
    for config, fitted in (
        (CONFIG, True),
        (FIRST_STAGE, True),
        (replace(CONFIG, match_confidence=0.9, min_similarity_global=0.1), True),
        (replace(CONFIG, top_k=2), False),
        (replace(CONFIG, score="weighted"), False),
        (replace(CONFIG, min_similarity=0.3), False),
        # Which stage answers depends on the query, and nothing is fitted for that.
        (replace(CONFIG, skip_margin=0.01), False),
        (replace(FIRST_STAGE, skip_margin=0.01), True),
    ):
        made = recognizer(place_map, config)
        assert made.calibrated is fitted, config
        assert made.recognize_features(QUERY).calibrated is fitted
    place_map.calibrations = (GLOBAL,)
    assert not recognizer(place_map).calibrated
    assert recognizer(place_map, FIRST_STAGE).calibrated


def test_a_clear_first_stage_skips_reranking():
    place_map = corridor()
    # cos 0.1 - cos 0.3 = 0.9950 - 0.9553 = 0.0397
    result = recognizer(place_map, replace(CONFIG, skip_margin=0.039)).recognize_features(QUERY)
    assert (result.candidates[0].place.place_id, place_map.read_locals) == (1, 0)
    # The confidence is that of the first stage alone.
    assert result.confidence == recognizer(corridor(), FIRST_STAGE).recognize_features(QUERY).confidence
    assert "keypoints" not in result.reason
    result = recognizer(place_map, replace(CONFIG, skip_margin=0.040)).recognize_features(QUERY)
    assert (result.candidates[0].place.place_id, place_map.read_locals) == (2, 1)


def test_a_gpu_scores_all_candidates_at_once():
    place_map = corridor()
    resident = OnGpu(place_map)
    place_map.codes_on = lambda device: resident if device == "cuda:1" else None  # type: ignore[attr-defined]
    on_gpu = FakeExtractor(QUERY, device="cuda:1")
    found = PlaceRecognizer(on_gpu, place_map, CONFIG)  # type: ignore[arg-type]
    # As many as the CPU scores coarsely first.
    place_map.entries += [(place(4 + n, 200.0 + n), features(0.7, [0])) for n in range(60)]
    query = replace(QUERY, local=local([axis % 16 for axis in range(256)]))
    answer = found.recognize_features(query)
    assert resident.asked == [[1, 2, 3, *range(4, 64)]]
    wanted = Reranker(RerankConfig("count")).score(query.local, [entry.local.packed for _, entry in place_map.entries])
    scores = {candidate.place.place_id: candidate.score for candidate in answer.candidates}
    assert [scores[number] for number in range(1, 64)] == [item.score for item in wanted]
    found.load()
    assert resident.fills == 1
    PlaceRecognizer(on_gpu, place_map, FIRST_STAGE).load()  # type: ignore[arg-type]
    assert resident.fills == 1


def test_top_k_bounds_what_is_reranked():
    result = recognizer(corridor(), replace(CONFIG, top_k=1)).recognize_features(QUERY)
    assert [c.place.place_id for c in result.candidates] == [1]


def test_candidates_beyond_the_hint_are_not_considered():
    result = recognizer(corridor()).recognize_features(QUERY, hint=Hint((100.0, 0.0, 99.0), 50.0))
    assert {c.place.place_id for c in result.candidates} == {2, 3}
    result = recognizer(corridor()).recognize_features(QUERY, hint=Hint((500.0, 0.0, 0.0), 5.0))
    assert (result.status, result.candidates, result.pose) == (Status.NO_MATCH, (), None)
    assert "hint" in result.reason


def test_hint_admits_geo_tagged_places_through_the_datum_only():
    entries = [(place(1, None, GeoPoint(0.0, 0.05, 0.0)), QUERY), (place(2, None), QUERY)]
    hint = Hint((49.0, 0.0, 0.0), 2.0)
    found = recognizer(FakeMap(entries, FlatDatum())).recognize_features(QUERY, hint=hint)
    assert [c.place.place_id for c in found.candidates] == [1]
    assert recognizer(FakeMap(entries)).recognize_features(QUERY, hint=hint).candidates == ()


def test_no_match_carries_candidates_but_no_pose():
    result = recognizer(corridor()).recognize_features(features(0.0, [12, 13, 14, 15]))
    assert result.status is Status.NO_MATCH
    assert len(result.candidates) == 3
    assert (result.pose, result.covariance, result.geo, result.bearing_offset) == (None, None, None, None)


def test_two_equal_places_are_ambiguous():
    place_map = FakeMap([(place(1, 0.0), QUERY), (place(2, 50.0), QUERY)])
    result = recognizer(place_map).recognize_features(QUERY)
    assert (result.status, result.candidates[0].place.place_id) == (Status.AMBIGUOUS, 1)
    place_map = FakeMap([(place(1, 0.0), QUERY), (place(2, 3.0), QUERY)])
    assert recognizer(place_map).recognize_features(QUERY).status is Status.MATCH


def test_match_without_a_pose_has_no_covariance():
    result = recognizer(FakeMap([(place(1, None), QUERY), (place(2, None), QUERY)])).recognize_features(QUERY)
    assert result.status is Status.MATCH
    assert (result.pose, result.covariance) == (None, None)


@pytest.mark.parametrize("query", [QUERY, features(0.0, [])])
def test_an_empty_map_and_an_empty_query_are_no_match(query: Features):
    assert recognizer(FakeMap([])).recognize_features(query).status is Status.NO_MATCH
    assert recognizer(corridor()).recognize_features(features(0.0, [])).status is Status.NO_MATCH


def test_latencies_add_up():
    latency = recognizer(corridor()).recognize(np.zeros((8, 8, 3), np.uint8)).latency_ms
    stages = latency.extract + latency.search + latency.rerank + latency.decide
    assert 0.0 < latency.rerank < latency.total
    assert stages == pytest.approx(latency.total, rel=0.05, abs=0.05)


def test_same_query_same_answer():
    first, second = (recognizer(corridor()).recognize_features(QUERY) for _ in range(2))
    assert first.candidates == second.candidates
    assert (first.reason, first.confidence) == (second.reason, second.confidence)


def test_matched_cells_of_a_place():
    query_cells, place_cells = recognizer(corridor()).matched_cells(QUERY, 3)
    assert query_cells.tolist() == [[2, 0], [3, 0]]
    assert place_cells.tolist() == [[0, 0], [1, 0]]


@pytest.mark.parametrize(("position", "radius"), [((0.0, float("nan"), 0.0), 5.0), ((0.0, 0.0, 0.0), 0.0)])
def test_impossible_hints_are_refused(position: tuple[float, float, float], radius: float):
    with pytest.raises(ConfigError, match="hint"):
        Hint(position, radius)
