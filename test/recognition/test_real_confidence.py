"""The shipped confidence on real photographs, all stages on; see docs/confidence.md."""

from __future__ import annotations

from pathlib import Path

from conftest import KnownFeatures

from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.lab.evaluation.ground_truth import from_loops
from effovpr_ros.lab.evaluation.method import EffoVPRMethod, Query
from effovpr_ros.lab.evaluation.runner import database_map
from effovpr_ros.recognition.recognizer import PlaceRecognizer, Status
from effovpr_ros.recognition.recognizer_config import RecognizerConfig


def test_loops_are_said_and_nothing_else_is(
    real_images: Path, offline_extractor: FeatureExtractor, known_features: KnownFeatures
):
    """Of the right answers on rtabmap_loop 0.6 at least are a MATCH, and no other answer is."""
    folder = real_images / "rtabmap_loop"
    dataset = from_loops(folder / "images", folder / "loops.csv", min_gap=10)
    features = [known_features.of(frame.load(), "default")[0] for frame in dataset.queries]
    queries = [
        Query(frame, made, 0.0, among)
        for frame, made, among in zip(dataset.queries, features, dataset.allowed, strict=True)
    ]
    config = RecognizerConfig(verify_budget_ms=0.0)
    with database_map(dataset, queries, offline_extractor, lambda _: None, known=features) as place_map:
        recognizer = PlaceRecognizer(offline_extractor, place_map, config)
        assert recognizer.calibrated
        method = EffoVPRMethod(place_map, recognizer)
        answers = [method.answer(query) if query.allowed else None for query in queries]
    given = [
        (answer.ranked[0] in right, answer.status is Status.MATCH)
        for answer, right in zip(answers, dataset.positives, strict=True)
        if answer is not None
    ]
    assert sum(right for right, _ in given) >= 40
    assert [right for right, accepted in given if accepted and not right] == []
    assert sum(accepted for _, accepted in given) >= 0.6 * sum(right for right, _ in given)
