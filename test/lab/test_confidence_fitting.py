"""Fitting the confidence: known models are recovered, and a map asks itself fair questions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from described import described
from PIL import Image
from synthetic import picture, tiny_extractor, tiny_weights

from effovpr_ros.cli.main import main
from effovpr_ros.core.errors import EvaluationError
from effovpr_ros.core.poses import Pose
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.image_features import Features
from effovpr_ros.lab.evaluation import confidence_fitting as module
from effovpr_ros.lab.evaluation.appearance import change_appearance
from effovpr_ros.lab.evaluation.confidence_fitting import (
    ConfidenceFitConfig,
    fit_confidence,
    num_queries,
    self_trials,
)
from effovpr_ros.lab.evaluation.confidence_regression import Trial, fit_confidence_model, threshold_for_precision
from effovpr_ros.mapping.build_config import BuildConfig
from effovpr_ros.mapping.builder import build_map
from effovpr_ros.mapping.place import Candidate, Place
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.recognition.confidence import (
    ConfidenceModel,
    read_confidence_models,
    setting_name,
)
from effovpr_ros.recognition.evidence import Evidence, evidence_for
from effovpr_ros.recognition.recognizer import PlaceRecognizer, Status
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.sources.frame import Frame

CONFIG = ConfidenceFitConfig()
WEIGHTS = np.array([4.0, 10.0, 6.0, 1.5, 1.0, 2.0])
BIAS = -7.0
STD = np.array([0.2, 0.1, 0.2, 0.6, 0.6, 0.4])


def ignore(_: int) -> None:
    """No progress is shown."""


# The fit


def trials_of_a_known_model(seed: int, count: int = 4000, weights: np.ndarray = WEIGHTS) -> list[Trial]:
    """Independent figures; an answer is right as often as the logistic model says."""
    rng = np.random.default_rng(seed)
    figures = np.array([0.6, 0.1, 0.3, 0.8, 0.6, 0.5]) + STD * rng.standard_normal((count, 6))
    right = rng.random(count) < 1.0 / (1.0 + np.exp(-(figures @ weights + BIAS)))
    return [
        Trial(Evidence(*row), bool(hit), number * 5 // count)
        for number, (row, hit) in enumerate(zip(figures.tolist(), right, strict=True))
    ]


def test_a_known_model_is_recovered():
    fitted = fit_confidence_model(trials_of_a_known_model(0), "a setting", "trials", 0.95)
    # A standard deviation of each figure; the error of an estimate from 4,000 trials is some 0.05.
    np.testing.assert_allclose(fitted.weights * STD, WEIGHTS * STD, atol=0.2)
    assert fitted.bias == pytest.approx(BIAS, abs=0.8)
    assert (fitted.setting, fitted.fitted_on, fitted.precision, fitted.num_queries) == (
        "a setting",
        "trials",
        0.95,
        4000,
    )
    assert fitted.calibration_error < 0.03
    unseen = trials_of_a_known_model(1)
    confidences = np.array([fitted.probability(trial.evidence) for trial in unseen])
    right = np.array([trial.right for trial in unseen])
    truth = np.array([1.0 / (1.0 + math.exp(-(WEIGHTS @ np.array(_figures(trial)) + BIAS))) for trial in unseen])
    assert np.abs(confidences - truth).mean() < 0.03
    accepted = confidences >= fitted.match_confidence
    assert right[accepted].mean() == pytest.approx(0.95, abs=0.02)
    assert accepted.sum() > 200


def _figures(trial: Trial) -> Sequence[float]:
    return trial.evidence.figures


def test_no_weight_is_negative():
    # More of the first figure makes answers worse, which no evidence should.
    adverse = np.array([-4.0, 10.0, 6.0, 1.5, 1.0, 2.0])
    fitted = fit_confidence_model(trials_of_a_known_model(0, weights=adverse), "", "", 0.95)
    assert fitted.weights[0] == 0.0
    np.testing.assert_allclose(fitted.weights[1:] * STD[1:], adverse[1:] * STD[1:], atol=0.3)


def test_a_figure_that_never_changes_has_no_say():
    """The first stage alone has no matched patches: three figures are 0 throughout."""
    trials = [
        replace(trial, evidence=replace(trial.evidence, consistent_share=0.0, score_over_rival=0.0))
        for trial in trials_of_a_known_model(0, 500)
    ]
    fitted = fit_confidence_model(trials, "", "", 0.9)
    assert (fitted.weights[2], fitted.weights[4]) == (0.0, 0.0)
    assert all(math.isfinite(weight) for weight in fitted.weights)


def test_separable_trials_give_a_finite_model():
    trials = [Trial(Evidence(0.5 + 0.4 * (n % 2), 0.0, 0.0, 0.0, 0.0, 0.0), n % 2 == 1, n // 4) for n in range(20)]
    fitted = fit_confidence_model(trials, "", "", 0.99)
    right, wrong = fitted.probability(trials[1].evidence), fitted.probability(trials[0].evidence)
    assert wrong < 0.1 < 0.9 < right < 1.0
    assert wrong < fitted.match_confidence <= 1.0


def test_the_error_is_of_trials_that_the_model_has_not_seen():
    # In each of two groups the figure says the opposite; a model of one is wrong about the other.
    trials = [
        Trial(Evidence(float(n % 2), 0.0, 0.0, 0.0, 0.0, 0.0), (n % 2 == 1) == (n < 20), int(n >= 20))
        for n in range(40)
    ]
    fitted = fit_confidence_model(trials, "", "", 0.99)
    # The whole says nothing, so that half is right; the first group's model is as sure as it is wrong in the second.
    assert fitted.probability(trials[0].evidence) == pytest.approx(0.5, abs=0.01)
    assert fitted.calibration_error > 0.4
    assert fitted.match_confidence == 1.0


def test_threshold_for_a_precision_worked_by_hand():
    confidences, right = np.array([0.6, 0.9, 0.5, 0.8, 0.7]), np.array([True, True, False, True, False])
    # From the highest: 1/1, 2/2, 2/3, 3/4, 3/5.
    assert threshold_for_precision(confidences, right, 1.0) == 0.8
    assert threshold_for_precision(confidences, right, 0.75) == 0.6
    assert threshold_for_precision(confidences, right, 0.76) == 0.8
    assert threshold_for_precision(confidences, right, 0.6) == 0.5
    # Equal confidences are accepted together; what nothing reaches is 1.
    assert threshold_for_precision(np.array([0.9, 0.9, 0.4]), np.array([True, False, True]), 0.99) == 1.0
    assert threshold_for_precision(np.array([0.9, 0.9, 0.4]), np.array([True, False, True]), 0.6) == 0.4
    assert threshold_for_precision(np.array([0.9]), np.array([False]), 0.5) == 1.0


def test_only_right_or_only_wrong_answers_cannot_be_fitted():
    trials = trials_of_a_known_model(0, 100)
    for right in (True, False):
        with pytest.raises(EvaluationError, match=rf"{100 * right} of 100 answers are right; .*a map with more places"):
            fit_confidence_model([replace(trial, right=right) for trial in trials], "", "", 0.9)
    # All the wrong ones in one group leave the others without any.
    with pytest.raises(EvaluationError, match="80 of 100 answers are right"):
        fit_confidence_model([replace(trial, right=trial.group != 0) for trial in trials], "", "", 0.9)


@pytest.mark.parametrize("bad", [{"precision": 0.4}, {"precision": 1.1}, {"radius_m": 0.0}, {"max_queries": 1}])
def test_impossible_settings_are_refused(bad: dict[str, float]):
    with pytest.raises(EvaluationError, match=str(next(iter(bad.values())))):
        ConfidenceFitConfig(**bad)  # type: ignore[arg-type]


# Questions to a map


@pytest.fixture
def extractor(tmp_path: Path) -> FeatureExtractor:
    return tiny_extractor(tmp_path)


@pytest.fixture
def make_map(tmp_path: Path, extractor: FeatureExtractor) -> Iterator[Callable[..., PlaceMap]]:
    made: list[PlaceMap] = []

    def make(count: int = 12, *, sessions: Sequence[str] = ("a",), spacing_m: float | None = 5.0) -> PlaceMap:
        """`count` places a session, along x; neighbours and sessions share a picture, three places each."""
        place_map = PlaceMap.create(tmp_path / "map", fingerprint=extractor.fingerprint)
        made.append(place_map)
        for session in sessions:
            frames = [
                Frame(
                    f"{n}.png",
                    session,
                    n + 1,
                    None if spacing_m is None else Pose.from_yaw(spacing_m * n, 0.0, 0.0),
                    None,
                    lambda n=n: picture(n // 3),
                )
                for n in range(count)
            ]
            build_map(place_map, extractor, frames, BuildConfig())
        return place_map

    yield make
    for place_map in made:
        place_map.close()


class Asked:
    """A recogniser that keeps what it was asked and answers with the first place that is admitted."""

    config = RecognizerConfig()
    null = None
    third_stage = SimpleNamespace(extractor=SimpleNamespace(extract=lambda image: None))

    def __init__(self, place_map: PlaceMap) -> None:
        self.place_map = place_map
        self.admitted: list[list[int]] = []

    def recognize_features(self, features: Features, *, points: Any, within: Callable[[Place], bool]) -> Any:
        found = [place for place in self.place_map.places() if within(place)]
        self.admitted.append([place.place_id for place in found])
        return SimpleNamespace(candidates=tuple(Candidate(place, 0.5) for place in found))


def ask(
    place_map: PlaceMap, extractor: FeatureExtractor, config: ConfidenceFitConfig = CONFIG
) -> tuple[list[Trial], list[list[int]]]:
    asked, progress = Asked(place_map), []
    trials = self_trials(place_map, extractor, asked, config, progress.append)  # type: ignore[arg-type]
    assert sum(progress) == num_queries(place_map, config)
    return trials, asked.admitted


def test_a_map_is_asked_twice_about_each_place(make_map: Callable[..., PlaceMap], extractor: FeatureExtractor):
    trials, admitted = ask(make_map(12, spacing_m=5.0), extractor)
    assert len(trials) == len(admitted) == 24
    # First all places, then those beyond 10 m, which leaves out the place itself and two on either side.
    assert admitted[0::2] == [list(range(12))] * 12
    assert admitted[1::2] == [[n for n in range(12) if abs(n - asked) > 2] for asked in range(12)]
    # Answered with the first place admitted: place 0, which is exactly 5 m from place 1.
    assert [trial.right for trial in trials[0::2]] == [True, True, *[False] * 10]
    assert not any(trial.right for trial in trials[1::2])
    # Five groups of neighbours; both questions about a place are in one.
    assert [trial.group for trial in trials[0::2]] == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 4]
    assert [trial.group for trial in trials[1::2]] == [trial.group for trial in trials[0::2]]


def test_the_radius_says_what_is_right_and_what_is_hidden(
    make_map: Callable[..., PlaceMap], extractor: FeatureExtractor
):
    trials, admitted = ask(make_map(20, spacing_m=5.0), extractor, ConfidenceFitConfig(radius_m=15.0))
    assert [trial.right for trial in trials[0::2]] == [True] * 4 + [False] * 16
    assert admitted[1] == list(range(7, 20))


def test_without_positions_numbers_say_it(make_map: Callable[..., PlaceMap], extractor: FeatureExtractor):
    trials, admitted = ask(make_map(20, spacing_m=None), extractor)
    assert [trial.right for trial in trials[0::2]] == [True] * 4 + [False] * 16
    assert admitted[1] == list(range(7, 20))


def test_sessions_are_asked_about_each_other_as_they_are(
    make_map: Callable[..., PlaceMap], extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "change_appearance", lambda *_: pytest.fail("the picture was changed"))
    trials, admitted = ask(make_map(8, sessions=("a", "b"), spacing_m=5.0), extractor)
    assert len(trials) == 32
    # Place 3 of session a: session b is 8 to 15, whose place 11 is at the same spot.
    assert admitted[6] == list(range(8, 16))
    assert admitted[7] == [8, 14, 15]
    assert admitted[22] == list(range(8))
    assert [trial.right for trial in trials[:6:2]] == [True, True, False]


def test_one_session_is_asked_in_another_light(
    make_map: Callable[..., PlaceMap], extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch
):
    drawn: list[tuple[float, float]] = []

    def change(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
        drawn.append((strength, rng.random()))
        return image

    monkeypatch.setattr(module, "change_appearance", change)
    place_map = make_map(10)
    ask(place_map, extractor, ConfidenceFitConfig(strength=0.5))
    ask(place_map, extractor, ConfidenceFitConfig(strength=0.5))
    ask(place_map, extractor, ConfidenceFitConfig(strength=0.5, seed=1))
    strengths = [strength for strength, _ in drawn]
    # Some are changed much, some little: from 0.3 of the strength to all of it.
    assert 0.15 <= min(strengths) < 0.25 < 0.4 < max(strengths) <= 0.5
    # Each place is changed in its own way, in every run alike, and by another seed otherwise.
    assert len({value for _, value in drawn[:10]}) == 10
    assert drawn[:10] == drawn[10:20]
    assert not {value for _, value in drawn[:10]} & {value for _, value in drawn[20:]}


def test_a_large_map_is_asked_about_places_all_over_it(make_map: Callable[..., PlaceMap], extractor: FeatureExtractor):
    place_map, config = make_map(12, spacing_m=50.0), ConfidenceFitConfig(max_queries=5)
    # Every third of twelve are four; every second would be six.
    assert num_queries(place_map, config) == 4
    trials, admitted = ask(place_map, extractor, config)
    assert len(trials) == 8
    assert [set(range(12)) - set(item) for item in admitted[1::2]] == [{0}, {3}, {6}, {9}]
    assert num_queries(place_map, ConfidenceFitConfig(max_queries=12)) == 12


def test_a_question_without_an_answer_is_no_trial(make_map: Callable[..., PlaceMap], extractor: FeatureExtractor):
    trials, admitted = ask(make_map(12, spacing_m=0.1), extractor)
    assert admitted[1] == []
    assert len(trials) == 12


def test_a_map_with_few_places_is_refused(make_map: Callable[..., PlaceMap], extractor: FeatureExtractor):
    with pytest.raises(EvaluationError, match="has 9 places; a confidence model needs 10 at least"):
        ask(make_map(9), extractor)


def test_a_map_is_calibrated_for_one_setting(make_map: Callable[..., PlaceMap], extractor: FeatureExtractor):
    # Groups of three that look alike, 60 m apart: 2 m are one place.
    place_map = make_map(30, spacing_m=2.0)
    config = RecognizerConfig(score="count", min_similarity=0.3, verify_budget_ms=0.0)
    recognizer = PlaceRecognizer(extractor, place_map, config)
    first, second = (fit_confidence(place_map, extractor, recognizer, CONFIG, ignore) for _ in range(2))
    assert first == second
    assert first.setting == setting_name(extractor.fingerprint, recognizer.config)
    assert first.fitted_on == "map map: one session, changed in appearance"
    assert first.num_queries == 60
    assert read_confidence_models(place_map) == ()


# Imitated changes


def test_no_strength_changes_nothing():
    for seed, size in enumerate(((96, 72), (320, 240), (101, 67))):
        image = picture(seed, *size)
        np.testing.assert_array_equal(change_appearance(image, 0.0, np.random.default_rng(seed)), image)


def test_changes_are_reproducible_and_grow_with_the_strength():
    image = picture(1, 160, 120)
    before = image.copy()

    def changed(strength: float, seed: int) -> np.ndarray:
        result = change_appearance(image, strength, np.random.default_rng(seed))
        assert (result.shape, result.dtype) == (image.shape, np.uint8)
        return result

    np.testing.assert_array_equal(changed(1.0, 3), changed(1.0, 3))
    assert not np.array_equal(changed(1.0, 3), changed(1.0, 4))
    apart = [
        np.mean([np.abs(changed(strength, seed).astype(int) - image).mean() for seed in range(8)])
        for strength in (0.0, 0.25, 0.5, 1.0)
    ]
    assert apart == sorted(apart)
    assert apart[0] == 0.0
    # Far beyond noise, and still a picture.
    assert 15.0 < apart[3] < 90.0
    assert min(changed(1.0, seed).std() for seed in range(8)) > 5.0
    np.testing.assert_array_equal(image, before)


# The commands


MODEL = ["--preset", "default", "--model", "vit_tiny_test_patch14", "--size", "56", "--block=-2", "--t1", "0"]


def save(folder: Path, east: int, count: int = 18) -> Path:
    """Pictures in threes that look alike and are 2 m apart, one three 100 m from the next."""
    folder.mkdir()
    for n in range(count):
        x = 550000 + east + 100 * (n // 3) + 2 * (n % 3)
        Image.fromarray(picture(n // 3)).save(folder / f"@{x}.0@4180000.0@.png")
    return folder


def test_calibrate_makes_the_confidence_of_a_map_a_probability(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    weights, folder = str(tiny_weights(tmp_path)), str(tmp_path / "map")
    assert main(["map", "build", folder, str(save(tmp_path / "images", 0)), *MODEL, "--weights", weights]) == 0
    extractor = tiny_extractor(tmp_path)
    with PlaceMap.open(folder) as place_map:
        assert not PlaceRecognizer(extractor, place_map, RecognizerConfig()).calibrated
    capsys.readouterr()
    assert main(["calibrate", folder, "--weights", weights, "--precision", "0.9", "--json"]) == 0
    printed = described("calibrate", capsys.readouterr().out)
    assert (printed["precision"], printed["num_queries"]) == (0.9, 36)
    with PlaceMap.open(folder) as place_map:
        stored = ConfidenceModel.from_dict(printed)
        assert read_confidence_models(place_map) == (stored,)
        recognizer = PlaceRecognizer(extractor, place_map, RecognizerConfig())
        assert recognizer.calibrated
        answer = recognizer.recognize(picture(2))
        num_keypoints = len(answer.features.local)
        evidence = evidence_for(answer.candidates, num_keypoints, recognizer.config, recognizer.null)
        wanted = stored.probability(evidence)
        assert answer.confidence == wanted
        assert answer.calibrated
        assert answer.status is (Status.MATCH if wanted >= stored.match_confidence else Status.AMBIGUOUS)
        # For other settings nothing was fitted, nor for a stage that depends on the query.
        for other in ({"score": "count"}, {"rerank": False}, {"skip_margin": 0.1}):
            assert not PlaceRecognizer(extractor, place_map, RecognizerConfig(**other)).calibrated
    assert main(["calibrate", folder, "--weights", weights, "--no-rerank"]) == 0
    said = capsys.readouterr().out
    assert "36 questions: map map: one session, changed in appearance" in said
    assert "; global, K 100\n" in said
    with PlaceMap.open(folder) as place_map:
        assert len(read_confidence_models(place_map)) == 2
        assert PlaceRecognizer(extractor, place_map, RecognizerConfig(skip_margin=0.1)).calibrated is False


def test_evaluate_fits_the_confidence_to_the_database(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    stored, asked = save(tmp_path / "database", 0), save(tmp_path / "queries", 1, count=6)
    arguments = ["evaluate", "folders", str(stored), str(asked), "--radius", "5", "--json", *MODEL]
    arguments += [
        "--weights",
        str(tiny_weights(tmp_path)),
        "--methods",
        "effovpr",
        "global",
        "strict:match_confidence=1",
    ]
    assert main([*arguments, "--calibrate"]) == 0
    printed = capsys.readouterr()
    fitted = json.loads(printed.out)["methods"]
    assert all(0.0 <= method["calibration_error"] <= 1.0 for method in fitted.values())
    assert "is not fitted" not in printed.err
    assert fitted["strict"]["matches"] == 0
    assert fitted["strict"]["calibration_error"] == fitted["effovpr"]["calibration_error"]
    # Nothing is shipped for this network.
    assert main(arguments) == 0
    printed = capsys.readouterr()
    shipped = json.loads(printed.out)["methods"]
    assert [method["calibration_error"] for method in shipped.values()] == [None] * 3
    assert shipped["effovpr"]["recall"] == fitted["effovpr"]["recall"]


def test_evaluate_says_where_the_confidence_cannot_be_fitted(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    stored, asked = save(tmp_path / "database", 0, count=6), save(tmp_path / "queries", 1, count=3)
    arguments = ["evaluate", "folders", str(stored), str(asked), "--radius", "5", "--json", *MODEL]
    arguments += ["--weights", str(tiny_weights(tmp_path)), "--calibrate", "--methods", "effovpr", "vlad"]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    notes = [line for line in printed.err.splitlines() if "is not fitted to the database" in line]
    assert len(notes) == 1
    assert notes[0].startswith("note: the confidence of vit_tiny_test_patch14 ")
    assert notes[0].endswith("has 6 places; a confidence model needs 10 at least")
    assert json.loads(printed.out)["methods"]["effovpr"]["calibration_error"] is None
