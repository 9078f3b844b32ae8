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
from effovpr_ros.mapping.place import Candidate, Place, PointCounts
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.recognition import confidence
from effovpr_ros.recognition.confidence import (
    ConfidenceModel,
    PointWeights,
    choose_confidence_model,
    read_confidence_models,
    read_map_null,
    setting_name,
    shipped,
    store_confidence_model,
    store_map_null,
)
from effovpr_ros.recognition.evidence import (
    FIGURES,
    USUAL_LEADS,
    Evidence,
    MapNull,
    NullLeads,
    PointEvidence,
    evidence_for,
)
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.same_place import apart_by_points, apart_by_score

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
    assert evidence_for(ranked, 100, CONFIG).figures == pytest.approx((0.7, -0.2 / 3, 0.0, 0.0, 0.0, 0.0))
    assert evidence_for(ranked, 0, CONFIG).figures == pytest.approx((0.7, -0.2 / 3, 0.0, 0.0, 0.0, 0.0))


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
        assert "the shipped confidence model is used" in caplog.text
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
    assert replace(offline_extractor.config, device="auto", engine="auto") == ExtractorConfig()
    _, fitted = choose_confidence_model([], offline_extractor.fingerprint, RecognizerConfig(rerank=rerank))
    assert fitted


def seen(place_id: int, x: float, homography: int, possible: int | None = 1024) -> Candidate:
    return replace(candidate(place_id, x, 0.8, 60.0), points=PointCounts(100, homography, possible))


def test_evidence_of_points_worked_by_hand():
    # The second is 9 m away, the third 10 m: rivals by points are beyond twice the radius of 5 m.
    ranked = [seen(0, 0.0, 72), seen(1, 9.0, 60), seen(2, 10.0, 50), seen(3, 30.0, 12), seen(4, 60.0, 32)]
    points = evidence_for([*ranked, candidate(5, 90.0, 0.7)], 100, CONFIG).points
    assert points is not None
    # Of two rivals the median is 22 and the best has 32; 8 are added to each; leads over two count 2 / (2 + 1).
    assert points.over_typical == pytest.approx(2 / 3 * math.log(80 / 30))
    assert points.over_rival == pytest.approx(2 / 3 * math.log(80 / 40))
    assert points.sight == 1.0
    assert evidence_for([candidate(0, 0.0, 0.9)], 100, CONFIG).points is None


def test_few_points_that_agree_are_chance_and_a_small_picture_sees_little():
    # Less than 8 that agree count as 8.
    none = evidence_for([seen(0, 0.0, 0), seen(1, 50.0, 7)], 100, CONFIG).points
    assert none is not None and (none.over_typical, none.over_rival) == (0.0, 0.0)
    sights = [evidence_for([seen(0, 0.0, 90, count)], 100, CONFIG).points for count in (100, 256, 512, 768, 1024)]
    assert [item.sight for item in sights if item is not None] == [0.0, 0.0, 0.5, 1.0, 1.0]


def test_what_wrong_answers_of_the_map_reach_is_taken_off_leads():
    ranked = [seen(0, 0.0, 72), seen(3, 30.0, 12)]
    usual = MapNull("x", USUAL_LEADS, 50, 40)
    more = (0.3, 0.1, 0.9, 0.5)
    leads = NullLeads(*(a + b for a, b in zip(astuple(USUAL_LEADS), more, strict=True)))
    without, alike = evidence_for(ranked, 100, CONFIG), evidence_for(ranked, 100, CONFIG, replace(usual, leads=leads))
    assert without.points is not None and alike.points is not None
    before = (without.score_over_typical, without.score_over_rival, *without.points.figures)
    after = (alike.score_over_typical, alike.score_over_rival, *alike.points.figures)
    assert after == pytest.approx([a - b for a, b in zip(before, more, strict=True)])
    assert evidence_for(ranked, 100, CONFIG, usual) == without


def test_neighbours_along_a_street_are_no_rivals():
    # Places every 12 m: scores are compared beyond 24 m, points beyond 36 m.
    street = MapNull("x", USUAL_LEADS, 50, 40, spacing_m=12.0)
    ranked = [seen(0, 0.0, 72), seen(1, 24.0, 60), seen(2, 36.0, 50), seen(3, 48.0, 12)]
    near, far = evidence_for(ranked, 100, CONFIG), evidence_for(ranked, 100, CONFIG, street)
    assert near.points is not None and far.points is not None
    # 8 are added to each count; a lead over n counts n / (n + 1).
    assert near.points.over_rival == pytest.approx(3 / 4 * math.log(80 / 68))
    assert far.points.over_rival == pytest.approx(1 / 2 * math.log(80 / 20))
    # Two of the next three are at the same place by scores then: those at 24 m, not 36 m and 48 m.
    assert (near.agreement, far.agreement) == (0.0, pytest.approx(1 / 3))
    # However sparse a map is, what is farther than 25 m and 40 m away competes; a wider radius stays.
    assert apart_by_score(CONFIG, 100.0).same_place_radius_m == 25.0
    assert apart_by_points(CONFIG, 100.0).same_place_radius_m == 40.0
    assert apart_by_score(CONFIG, None).same_place_radius_m == CONFIG.same_place_radius_m == 5.0
    assert apart_by_points(CONFIG, 1.0).same_place_radius_m == 10.0
    assert apart_by_points(replace(CONFIG, same_place_radius_m=30.0), 12.0).same_place_radius_m == 60.0


def with_points() -> ConfidenceModel:
    return replace(calibration("x"), points=PointWeights((0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 1.5, 0.5), -3.0))


def test_probability_with_points_worked_by_hand():
    evidence = Evidence(0.5, 0.1, 0.2, 1.0, 0.4, 1 / 3, PointEvidence(2.0, 1.0, 1.0))
    # -3 + 1.0 + 2 * 0.4 + 1.5 * 2 + 0.5 * 1 = 2.3; without points it is 1.5.
    assert with_points().probability(evidence) == pytest.approx(1.0 / (1.0 + math.exp(-2.3)))
    half = replace(evidence, points=PointEvidence(2.0, 1.0, 0.5))
    assert with_points().probability(half) == pytest.approx(1.0 / (1.0 + math.exp(-1.9)))
    blind = replace(evidence, points=PointEvidence(-5.0, -5.0, 0.0))
    nothing = replace(evidence, points=None)
    assert (
        with_points().probability(blind)
        == with_points().probability(nothing)
        == pytest.approx(1.0 / (1.0 + math.exp(-1.5)))
    )
    # A model that was fitted without points does not mind them.
    assert calibration("x").probability(evidence) == calibration("x").probability(nothing)


def test_more_evidence_never_lowers_the_shipped_confidence():
    base = Evidence(0.5, 0.1, 0.2, 0.5, 0.1, 0.0, PointEvidence(1.0, 0.3, 0.7))
    for model in shipped():
        at_base = model.probability(base)
        for name in FIGURES:
            assert model.probability(replace(base, **{name: getattr(base, name) + 0.2})) >= at_base
        for name in ("over_typical", "over_rival"):
            assert base.points is not None
            more = replace(base.points, **{name: getattr(base.points, name) + 0.2})
            assert model.probability(replace(base, points=more)) >= at_base


def test_a_model_with_points_survives_json_and_damage_is_refused():
    stored = json.loads(json.dumps(with_points().to_dict()))
    assert ConfidenceModel.from_dict(stored) == with_points()
    for damage in ({"bias": math.nan}, {"match_confidence": -1.0}, {"points": {"weights": {}, "bias": 0.0}}):
        with pytest.raises(MapFormatError, match="does not fit this version"):
            ConfidenceModel.from_dict({**stored, **damage})
    stored["points"]["weights"]["over_typical"] = math.inf
    with pytest.raises(MapFormatError, match="inf is not finite"):
        ConfidenceModel.from_dict(stored)


def test_what_wrong_answers_reach_is_kept_with_the_map(tmp_path: Path):
    null = MapNull("one", NullLeads(0.7, 0.4, 1.5, 0.8), 30, 20, spacing_m=7.5)
    with PlaceMap.create(tmp_path / "map", fingerprint=FINGERPRINT) as place_map:
        assert read_map_null(place_map, "one") is None
        store_map_null(place_map, null)
        assert read_map_null(place_map, "one") == null
        assert read_map_null(place_map, "another") is None
        for damage in (b'[{"setting": "one"}]', b'[{"setting": "one", "leads": {"over_rival": "high"}}]', b"[1]", b"{"):
            place_map.set_property("wrong_leads", damage)
            assert read_map_null(place_map, "one") is None


@pytest.mark.parametrize("former", ["confidence_null", "map_null"])
def test_what_an_earlier_version_knew_of_a_map_is_left_out_with_a_word(
    former: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with (
        PlaceMap.create(tmp_path / "map", fingerprint=FINGERPRINT) as place_map,
        caplog.at_level("INFO", logger="effovpr_ros"),
    ):
        place_map.set_property(former, b'[{"setting": "one", "score_lead": 0.7}]')
        assert read_map_null(place_map, "one") is None
        assert "an earlier version" in caplog.text


def test_another_radius_of_one_place_is_another_setting():
    assert setting_name(FINGERPRINT, RecognizerConfig(same_place_radius_m=10.0)) != setting_name(FINGERPRINT, CONFIG)
    assert setting_name(FINGERPRINT, RecognizerConfig(same_place_ids=0)) != setting_name(FINGERPRINT, CONFIG)
