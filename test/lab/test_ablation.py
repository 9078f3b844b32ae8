"""The ablation: what it varies, that shared work gives what separate work does, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from described import described
from PIL import Image
from synthetic import picture, tiny_extractor, tiny_weights

from effovpr_ros.cli.main import main
from effovpr_ros.core.errors import ConfigError
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import ExtractorConfig
from effovpr_ros.features.variants import extract_variants
from effovpr_ros.lab.evaluation.ablation import FACTORS, Ablation, parse_factors, plan_settings
from effovpr_ros.lab.evaluation.ground_truth import Dataset, from_folders
from effovpr_ros.lab.evaluation.method import EffoVPRMethod
from effovpr_ros.lab.evaluation.runner import database_map, extract_queries, run_methods
from effovpr_ros.lab.evaluation.summary import summarise
from effovpr_ros.matching.rerank_config import SCORES
from effovpr_ros.recognition.presets import PRESETS
from effovpr_ros.recognition.recognizer import PlaceRecognizer
from effovpr_ros.recognition.recognizer_config import RecognizerConfig


def ignore(done: int) -> None:
    """Progress that nobody watches."""


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Six places, asked for with noise, so that settings differ."""
    rng = np.random.default_rng(0)
    for folder, shift, noise in (("database", 0, 0), ("queries", 5, 90)):
        (tmp_path / folder).mkdir()
        for number in range(6):
            image = picture(number).astype(int) + rng.integers(-noise, noise + 1, (72, 96, 3))
            name = f"@{550000 + 100 * number + shift}.0@4180000.0@.png"
            Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(tmp_path / folder / name)
    return from_folders(tmp_path / "database", tmp_path / "queries")


def test_factors_are_parsed_or_refused():
    assert parse_factors("T1, score") == ("T1", "score")
    with pytest.raises(ConfigError, match=r"factor 't1' is unknown; use some of block,facet,T1,T2,K,score,resolution"):
        parse_factors("block,t1")
    with pytest.raises(ConfigError, match="names a factor twice"):
        parse_factors("K,score,K")


def test_one_factor_is_varied_at_a_time(tmp_path: Path):
    extractor = tiny_extractor(tmp_path, min_attention=0.03, local_block=-2)
    recognizer = RecognizerConfig(top_k=7)
    settings = plan_settings(list(FACTORS), extractor, recognizer)
    values = {name: [item.value for item in settings if item.factor == name] for name in FACTORS}
    # The tiny network has four blocks; the base setting's T1 and K join the usual values.
    assert values["block"] == [0, 1, 2, 3]
    assert values["facet"] == ["query", "key", "value"]
    assert values["T1"] == [0.0, 0.02, 0.03, 0.05, 0.1]
    assert values["K"] == [7, 10, 25, 50, 100]
    assert values["score"] == list(SCORES)
    assert values["resolution"] == [56, 224, 322, 448]
    base = replace(extractor.config, local_block=2)
    for item in settings:
        varied = item.extractor if FACTORS[item.factor].config is ExtractorConfig else item.recognizer
        own = base if FACTORS[item.factor].config is ExtractorConfig else recognizer
        field = FACTORS[item.factor].field
        assert getattr(varied, field) == item.value
        assert replace(varied, **{field: getattr(own, field)}) == own
        assert item.is_base == (item.extractor == base and item.recognizer == recognizer)
    assert [item.factor for item in settings if item.is_base] == list(FACTORS)


def test_variants_of_one_forward_pass_are_those_of_separate_ones(tmp_path: Path):
    first = tiny_extractor(tmp_path)
    changes = [
        {"local_block": 0},
        {"global_kind": "cls"},
        {"facet": "key", "centered": False},
        {"min_attention": 0.05},
        {"local_block": 2, "max_keypoints": 3},
    ]
    extractors = [first.reading(replace(first.config, **change)) for change in changes]
    images = [picture(0), picture(1)]
    for extractor, variant in zip(extractors, extract_variants(extractors, images), strict=True):
        alone = FeatureExtractor(extractor.config)
        assert extractor.fingerprint == alone.fingerprint
        assert extractor.backbone.vit is first.backbone.vit
        assert variant.extract_ms > 0.0
        for shared, wanted in zip(variant.features, alone.extract(images), strict=True):
            np.testing.assert_allclose(shared.global_descriptor, wanted.global_descriptor, atol=1e-6)
            assert np.array_equal(shared.local.cells_xy, wanted.local.cells_xy)
            # Rounding of the block that is run by hand may move a facet across the border of two levels.
            assert np.abs(shared.local.codes - wanted.local.codes).max(initial=0) <= 1
            assert np.mean(shared.local.codes != wanted.local.codes) < 0.01


def test_another_network_is_refused(tmp_path: Path):
    extractor = tiny_extractor(tmp_path)
    with pytest.raises(ConfigError, match="needs another network"):
        extractor.reading(replace(extractor.config, image_size=28))
    with pytest.raises(ConfigError, match="local_block 4 does not exist"):
        extractor.reading(replace(extractor.config, local_block=4))


@pytest.mark.parametrize("pass_bytes", [2**30, 1])
def test_rows_are_what_separate_evaluations_give(
    tmp_path: Path, dataset: Dataset, pass_bytes: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("effovpr_ros.lab.evaluation.ablation._PASS_BYTES", pass_bytes)
    extractor, recognizer = tiny_extractor(tmp_path), RecognizerConfig(min_similarity=0.2, score="count")
    settings = [
        item
        for item in plan_settings(["T1", "score", "resolution"], extractor, recognizer)
        if item.value in (0.0, 0.05, *SCORES, 56, 224)
    ]
    ablation = Ablation(dataset, settings, extractor)
    steps: list[int] = []
    rows = ablation.run(steps.append)
    assert sum(steps) == ablation.num_steps
    assert [row.setting for row in rows] == settings
    for row in rows:
        alone = FeatureExtractor(row.setting.extractor)
        queries = extract_queries(dataset, alone, ignore)
        with database_map(dataset, queries, alone, ignore) as place_map:
            method = EffoVPRMethod(place_map, PlaceRecognizer(alone, place_map, row.setting.recognizer))
            wanted = summarise(dataset, run_methods(queries, {"a": method}, ignore))["methods"]["a"]
            counts = [len(local) for local in place_map.local_features(range(6))]
        assert row.keypoints_per_place == np.mean(counts)
        for key in ("recall", "matches", "bytes_per_place"):
            assert getattr(row.figures, key) == wanted[key]
        assert row.figures.average_precision == pytest.approx(wanted["average_precision"], abs=0.02)
    assert len({row.keypoints_per_place for row in rows}) == 3


def test_the_command_prints_one_table_or_one_object(
    tmp_path: Path, dataset: Dataset, capsys: pytest.CaptureFixture[str]
):
    model = ["--model", "vit_tiny_test_patch14", "--weights", str(tiny_weights(tmp_path)), "--size", "56"]
    folders = ["evaluate", "folders", str(tmp_path / "database"), str(tmp_path / "queries"), "--t1", "0.0", *model]
    assert main([*folders, "--ablate", "facet,T2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{dataset.name}: 6 queries, 6 with a positive, 6 database images; * is the base setting"
    rows = [line.split() for line in lines[2:]]
    # The star of the base setting joins its value; a network without evidence of its own has the paper's.
    assert [row[:2] for row in rows[:3]] == [["facet", "query"], ["facet", "key"], ["facet", "value*"]]
    assert [row[1] for row in rows if row[1].endswith("*")] == ["value*", f"{PRESETS['paper'][1].min_similarity}*"]

    assert main([*folders, "--ablate", "block", "--preset", "paper", "--json", "--out", str(tmp_path / "out")]) == 0
    result = described("evaluate", capsys.readouterr().out)
    assert set(result) == {"schema_version", "dataset", "notes", "random_recall_at_1", "ablation"}
    assert [(row["factor"], row["value"], row["base"]) for row in result["ablation"]] == [
        ("block", 0, False),
        ("block", 1, False),
        ("block", 2, True),
        ("block", 3, False),
    ]
    assert all(row["keypoints_per_place"] == 16.0 and row["recall"]["20"] == 1.0 for row in result["ablation"])
    assert json.loads((tmp_path / "out" / "ablation.json").read_text()) == result

    assert main([*folders, "--ablate", "colour"]) != 0
    assert "factor 'colour' is unknown; use some of block" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*folders, "--ablate", "K", "--methods", "global"])
    assert "not allowed with argument --ablate" in capsys.readouterr().err
