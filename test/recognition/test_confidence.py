"""Evidence and confidence worked by hand, and which calibration counts."""

from __future__ import annotations

import json
import math
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import pytest
from synthetic import FINGERPRINT, new_place

from effovpr_ros.core.errors import MapError, MapFormatError
from effovpr_ros.core.poses import Pose
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import ExtractorConfig
from effovpr_ros.mapping.place import Candidate, Place
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.recognition import confidence
from effovpr_ros.recognition.confidence import (
    FIGURES,
    ConfidenceModel,
    Evidence,
    choose_confidence_model,
    evidence_for,
    read_confidence_models,
    setting_name,
    shipped,
    store_confidence_model,
)
from effovpr_ros.recognition.recognizer_config import RecognizerConfig

CONFIG = RecognizerConfig()


def candidate(place_id: int, x: float, similarity: float, score: float = 0.0, num_consistent: int = 0) -> Candidate:
    place = Place(place_id, "a", 0, f"{place_id}.jpg", Pose.from_yaw(x, 0.0, 0.0), None, (64, 48))
    return Candidate(place, similarity, num_consistent, num_consistent, score)


def calibration(setting: str, fitted_on: str = "") -> ConfidenceModel:
    return ConfidenceModel(setting, (2.0, 4.0, 1.0, 0.5, 1.0, 3.0), -2.0, 0.9, 0.99, fitted_on, 40, 0.02)


def test_evidence_worked_by_hand():
    ranked = [
        candidate(0, 0.0, 0.90, 60.0, 40),
        candidate(1, 1.0, 0.88, 50.0),
        candidate(2, 30.0, 0.80, 20.0),
        candidate(3, 2.0, 0.95, 15.0),
        candidate(4, 60.0, 0.85, 9.0),
        candidate(5, 90.0, 0.70, 3.0),
    ]
    # Three are elsewhere, with scores of 20, 9 and 3: leads count 3 / (3 + 2). Noise is 0.3 a keypoint.
    evidence = evidence_for(ranked, 100, CONFIG)
    assert evidence.similarity == 0.90
    assert evidence.similarity_lead == pytest.approx(0.6 * (0.90 - 0.85))
    assert evidence.consistent_share == pytest.approx(0.4)
    assert evidence.score_over_typical == pytest.approx(0.6 * math.log((60 + 30) / (9 + 30)))
    assert evidence.score_over_rival == pytest.approx(0.6 * math.log((60 + 30) / (20 + 30)))
    # Of the next three the first and the last are at the same place.
    assert evidence.agreement == pytest.approx(2 / 3)
    # The median of two is their mean.
    two = evidence_for(ranked[:5], 100, CONFIG)
    assert two.score_over_typical == pytest.approx(0.5 * math.log(90 / 44.5))


def test_without_a_rival_there_is_no_lead():
    alone = evidence_for([candidate(0, 0.0, 0.9, 60.0, 40)], 100, CONFIG)
    assert alone == Evidence(0.9, 0.0, 0.4, 0.0, 0.0, 0.0)
    supported = evidence_for([candidate(0, 0.0, 0.9, 60.0, 40), candidate(1, 5.0, 0.2, 1.0)], 100, CONFIG)
    assert supported == Evidence(0.9, 0.0, 0.4, 0.0, 0.0, 1.0)


def test_a_lead_over_many_counts_more_than_over_one():
    best, rival = candidate(0, 0.0, 0.9, 60.0), candidate(1, 50.0, 0.7, 20.0)
    leads = [evidence_for([best, *[rival] * count], 100, CONFIG).similarity_lead for count in (1, 2, 98)]
    assert leads == pytest.approx([0.2 / 3, 0.2 / 2, 0.2 * 0.98])


def test_evidence_of_the_first_stage_and_of_no_keypoints():
    ranked = [candidate(0, 0.0, 0.7), candidate(1, 50.0, 0.9)]
    # Nothing was re-ranked: scores say nothing. A lead may be negative.
    assert astuple(evidence_for(ranked, 100, CONFIG)) == pytest.approx((0.7, -0.2 / 3, 0.0, 0.0, 0.0, 0.0))
    assert astuple(evidence_for(ranked, 0, CONFIG)) == pytest.approx((0.7, -0.2 / 3, 0.0, 0.0, 0.0, 0.0))


def test_what_is_one_place_decides_what_is_a_rival():
    ranked = [candidate(0, 0.0, 0.9), candidate(1, 50.0, 0.7)]
    assert evidence_for(ranked, 100, CONFIG).agreement == 0.0
    wide = evidence_for(ranked, 100, RecognizerConfig(same_place_radius_m=50.0))
    assert (wide.agreement, wide.similarity_lead) == (1.0, 0.0)


def test_probability_worked_by_hand():
    # -2 + 2 * 0.5 + 4 * 0.1 + 0.2 + 0.5 * 1.0 + 0.4 + 3 / 3 = 1.5
    evidence = Evidence(0.5, 0.1, 0.2, 1.0, 0.4, 1 / 3)
    assert calibration("x").probability(evidence) == pytest.approx(1.0 / (1.0 + math.exp(-1.5)))
    nothing = Evidence(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    assert calibration("x").probability(nothing) == pytest.approx(1.0 / (1.0 + math.exp(2.0)))
    # It never says that it cannot be wrong, or right.
    assert 0.999 < calibration("x").probability(replace(nothing, score_over_rival=1e9)) < 1.0
    assert 0.0 < calibration("x").probability(replace(nothing, similarity_lead=-1e9)) < 0.001


def test_a_calibration_survives_json():
    given = calibration("x", "a map")
    stored = json.loads(json.dumps(given.to_dict()))
    assert stored["weights"] == dict(zip(FIGURES, given.weights, strict=True))
    assert ConfidenceModel.from_dict(stored) == given
    # Weights go by name, not by order.
    stored["weights"] = dict(reversed(stored["weights"].items()))
    assert ConfidenceModel.from_dict(stored) == given


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.pop("bias"),
        lambda values: values.update(slope=1.0),
        lambda values: values.pop("weights"),
        lambda values: values.update(weights=[1.0] * len(FIGURES)),
        lambda values: values["weights"].pop("agreement"),
        lambda values: values["weights"].update(luck=1.0),
        lambda values: values["weights"].update(agreement="much"),
    ],
)
def test_a_calibration_of_another_version_is_refused(change: Any):
    values = calibration("x").to_dict()
    change(values)
    with pytest.raises(MapFormatError, match=r"does not fit this version .* run `effovpr calibrate` again"):
        ConfidenceModel.from_dict(values)


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "vit_other"},
        {"weights_sha256": "1" * 64},
        {"image_size": 56},
        {"global_kind": "regional"},
        {"centered": True},
        {"facet": "key"},
        {"local_block": 2},
        {"min_attention": 0.0},
        {"max_keypoints": 200},
    ],
)
def test_another_model_is_another_setting(change: dict[str, Any]):
    assert setting_name(replace(FINGERPRINT, **change), CONFIG) != setting_name(FINGERPRINT, CONFIG)


def test_another_score_is_another_setting_and_another_threshold_is_not():
    name = setting_name(FINGERPRINT, CONFIG)
    for change in ({"score": "count"}, {"min_similarity": 0.4}, {"rerank": False}):
        assert setting_name(FINGERPRINT, replace(CONFIG, **change)) != name
    thresholds = {"match_confidence": 0.7, "min_confidence": 0.2, "min_similarity_global": 0.5, "sequence_length": 10}
    assert setting_name(FINGERPRINT, replace(CONFIG, **thresholds)) == name
    # Without re-ranking its settings do not matter.
    alone = replace(CONFIG, rerank=False)
    assert setting_name(FINGERPRINT, replace(alone, score="count", min_similarity=0.4)) == (
        setting_name(FINGERPRINT, alone)
    )


def test_a_map_s_own_calibration_comes_first_and_a_foreign_one_is_a_heuristic(monkeypatch: pytest.MonkeyPatch):
    alone = replace(CONFIG, rerank=False)
    name, other = setting_name(FINGERPRINT, CONFIG), replace(FINGERPRINT, image_size=56)
    package = tuple(
        calibration(setting, "package")
        for setting in (
            setting_name(FINGERPRINT, alone),
            name,
            setting_name(FINGERPRINT, replace(CONFIG, score="count")),
        )
    )
    monkeypatch.setattr(confidence, "shipped", lambda: package)
    own, unused = calibration(name, "map"), calibration(setting_name(other, alone), "map")
    assert choose_confidence_model([unused, own], FINGERPRINT, CONFIG) == (own, True)
    assert choose_confidence_model([unused], FINGERPRINT, CONFIG) == (package[1], True)
    assert choose_confidence_model([], FINGERPRINT, alone) == (package[0], True)
    # Nothing was fitted for these: the shipped one of the same stage, whatever the map has for other settings.
    assert choose_confidence_model([own], other, CONFIG) == (package[1], False)
    assert choose_confidence_model([own], other, alone) == (package[0], False)
    assert choose_confidence_model([own], FINGERPRINT, replace(CONFIG, score="spatial")) == (package[1], False)


def test_a_map_keeps_one_calibration_a_setting(tmp_path: Path):
    with PlaceMap.create(tmp_path / "map", fingerprint=FINGERPRINT) as place_map:
        place_map.add([new_place(0)])
        place_map.flush()
        assert read_confidence_models(place_map) == ()
        for setting, fitted_on in (("x", "first"), ("y", "second"), ("x", "third")):
            store_confidence_model(place_map, calibration(setting, fitted_on))
    with PlaceMap.open(tmp_path / "map") as place_map:
        assert read_confidence_models(place_map) == (calibration("y", "second"), calibration("x", "third"))
        with pytest.raises(MapError, match="open read-only"):
            store_confidence_model(place_map, calibration("z"))
        assert len(read_confidence_models(place_map)) == 2
        assert place_map.check() == []


@pytest.mark.parametrize("stored", [json.dumps([{"setting": "x", "slope": 1.0}]), "no JSON"])
def test_a_map_s_calibration_of_another_version_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, stored: str
):
    with PlaceMap.create(tmp_path / "map", fingerprint=FINGERPRINT) as place_map:
        place_map.set_property("calibrations", stored.encode())
        assert read_confidence_models(place_map) == ()
        assert "the shipped calibration is used" in caplog.text
        # A new one replaces it.
        fitted = replace(shipped()[0], setting="x")
        store_confidence_model(place_map, fitted)
        assert read_confidence_models(place_map) == (fitted,)


def test_the_shipped_calibrations_can_be_used():
    for item in shipped():
        assert ConfidenceModel.from_dict(item.to_dict()) == item
        assert all(weight >= 0.0 for weight in item.weights)
        assert 0.0 < item.match_confidence <= 1.0
    assert len({item.setting for item in shipped()}) == len(shipped())
    # Whatever the setting, there is one to fall back on.
    for config in (CONFIG, replace(CONFIG, rerank=False)):
        assert choose_confidence_model([], FINGERPRINT, config)[1] is False


@pytest.mark.parametrize("rerank", [True, False])
def test_a_calibration_is_shipped_for_the_default_settings(offline_extractor: FeatureExtractor, rerank: bool):
    assert replace(offline_extractor.config, device="auto") == ExtractorConfig()
    _, fitted = choose_confidence_model([], offline_extractor.fingerprint, RecognizerConfig(rerank=rerank))
    assert fitted
