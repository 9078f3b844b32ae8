"""Settings of recognition that a map carries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from synthetic import FINGERPRINT, new_place

from effovpr_ros.core.errors import ConfigError, MapFormatError
from effovpr_ros.mapping.merge import MergeConfig, merge_maps
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.recognition.presets import (
    MAP_SETTINGS,
    PRESETS,
    config_for_map,
    map_settings,
    preset_for,
    settings_of_map,
)
from effovpr_ros.recognition.recognizer_config import RecognizerConfig

PAPER = {"top_k": 100, "score": "count", "min_similarity": 0.65}
OWN = {"top_k": 100, "score": "coherent", "min_similarity": 0.6}


def make(folder: Path, *, centered: bool = True, recognition: dict[str, Any] | None = None) -> Path:
    model = replace(FINGERPRINT, centered=centered)
    with PlaceMap.create(folder, fingerprint=model, recognition=recognition) as place_map:
        place_map.add([new_place(0, session=folder.name)])
        place_map.flush()
    return folder


def test_the_presets_and_which_one_a_network_has():
    assert map_settings(PRESETS["paper"][1]) == PAPER
    assert map_settings(PRESETS["default"][1]) == OWN
    assert preset_for("offline") == "default"
    # No evidence of this project's: the paper's, which has published some.
    for model in ("small", "base", "large", "giant", "vit_base_patch16_224"):
        assert preset_for(model) == "paper"


def test_a_map_carries_its_settings_and_what_is_given_wins_and_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    folder = make(tmp_path / "m", recognition=PAPER)
    assert yaml.safe_load((folder / "map.yaml").read_text())["recognition"] == PAPER
    with PlaceMap.open(folder, writable=True) as place_map:
        assert settings_of_map(place_map) == PAPER
        base = RecognizerConfig(same_place_radius_m=2.0)
        assert config_for_map(place_map, {}, base) == replace(base, **PAPER)
        assert caplog.messages == []
        config = config_for_map(place_map, {"score": "coherent", "top_k": 100, "rerank": False})
        assert (config.score, config.min_similarity, config.rerank) == ("coherent", 0.65, False)
        assert caplog.messages == ["score coherent is used for map m, which was made for count"]
        with pytest.raises(ConfigError, match="sum"):
            config_for_map(place_map, {"score": "sum"})
        # What is refused is not said to be used.
        assert len(caplog.messages) == 1
        place_map.flush()
    with PlaceMap.open(folder) as place_map:
        assert settings_of_map(place_map) == PAPER
    merge_maps(tmp_path / "out", [folder, make(tmp_path / "other", recognition=OWN)], MergeConfig(keep_frames=True))
    with PlaceMap.open(tmp_path / "out") as place_map:
        assert settings_of_map(place_map) == PAPER


@pytest.mark.parametrize(("centered", "expected"), [(True, OWN), (False, PAPER)])
def test_maps_of_before_say_by_their_descriptors(tmp_path: Path, centered: bool, expected: dict[str, Any]):
    folder = make(tmp_path / "m", centered=centered)
    manifest = yaml.safe_load((folder / "map.yaml").read_text())
    del manifest["recognition"]
    (folder / "map.yaml").write_text(yaml.safe_dump(manifest))
    with PlaceMap.open(folder) as place_map:
        assert settings_of_map(place_map) == expected
        assert config_for_map(place_map, {}, RecognizerConfig(top_k=50)).top_k == 50


@pytest.mark.parametrize("wrong", [{"score": "sum"}, {"top_k": 0}, {"top_k": "all"}])
def test_impossible_settings_of_a_map_are_named(tmp_path: Path, wrong: dict[str, Any]):
    folder = make(tmp_path / "m", recognition={**PAPER, **wrong})
    with PlaceMap.open(folder) as place_map, pytest.raises(MapFormatError, match="impossible settings of recognition"):
        settings_of_map(place_map)
    assert set(wrong) <= set(MAP_SETTINGS)


def test_a_map_whose_settings_are_no_numbers_is_not_opened(tmp_path: Path):
    folder = make(tmp_path / "m")
    manifest = yaml.safe_load((folder / "map.yaml").read_text())
    manifest["recognition"] = {**PAPER, "min_similarity": float("nan")}
    (folder / "map.yaml").write_text(yaml.safe_dump(manifest))
    with pytest.raises(MapFormatError, match="min_similarity"):
        PlaceMap.open(folder)
