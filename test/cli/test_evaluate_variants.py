"""`effovpr evaluate --methods zs g r pca`: frozen and trained networks side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import pytest
from synthetic import picture, tiny_weights
from test_tails import MODEL, make_tail, write

from effovpr_ros.cli.evaluate_variants import parse_variants, split_variants
from effovpr_ros.cli.main import main
from effovpr_ros.core.errors import ConfigError
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import ExtractorConfig
from effovpr_ros.lab.evaluation import variants
from effovpr_ros.recognition.recognizer_config import RecognizerConfig

PLACES = 6


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """A database, queries that are the same pictures, their table, and the options of the tiny network."""
    rows = ["query,database"]
    for name in ("database", "queries"):
        (tmp_path / name).mkdir()
        for number in range(PLACES):
            image = cv2.convertScaleAbs(picture(number), alpha=1.0 if name == "database" else 0.9)
            cv2.imwrite(str(tmp_path / name / f"{number}.png"), image)
    rows += [f"{number}.png,{number}.png" for number in range(PLACES)]
    (tmp_path / "positives.csv").write_text("\n".join(rows))
    images = [str(tmp_path / name) for name in ("database", "queries")]
    network = [
        "--model",
        MODEL,
        "--size",
        "56",
        "--preset",
        "default",
        "--block",
        "-2",
        "--weights",
        str(tiny_weights(tmp_path)),
    ]
    return ["evaluate", "folders", *images, "--positives", str(tmp_path / "positives.csv"), *network, "--json"]


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[ExtractorConfig]:
    """Networks as they are loaded."""
    found: list[ExtractorConfig] = []
    load = FeatureExtractor.__init__

    def counted(self: FeatureExtractor, config: ExtractorConfig, *more: object) -> None:
        found.append(config)
        load(self, config, *more)

    monkeypatch.setattr(FeatureExtractor, "__init__", counted)
    return found


def test_variants_answer_side_by_side(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], loaded: list[ExtractorConfig]
):
    tail = write(tmp_path, make_tail(tmp_path, "cls", 1), "cls", 1)
    methods = ["zs", f"g:weights={tail},dim=8", f"g-full:weights={tail},dim=24", f"r:weights={tail}", "pca:dim=4"]
    assert main([*folders, "--out", str(tmp_path / "report"), "--methods", *methods]) == 0
    found = json.loads(capsys.readouterr().out)["methods"]
    assert list(found) == ["zs", "g", "g-full", "r", "pca"]
    # Eight numbers of random heads confuse one of the six pictures with another.
    wanted = {"zs": 1.0, "g": 5 / 6, "g-full": 1.0, "r": 1.0, "pca": 1.0}
    assert {name: figures["recall"]["1"] for name, figures in found.items()} == pytest.approx(wanted)
    # Stage 1 alone stores its global descriptor: 8, 24 and 512 numbers in fp16 (the frozen network's, before PCA).
    assert [found[name]["bytes_per_place"] for name in ("g", "g-full", "pca")] == [16, 48, 1024]
    assert found["zs"]["bytes_per_place"] > 1024
    assert len(loaded) == 2, "the frozen network and the trained one"
    assert (tmp_path / "report" / "report.html").is_file()


def test_variants_stand_beside_other_methods(
    folders: list[str], capsys: pytest.CaptureFixture[str], loaded: list[ExtractorConfig]
):
    assert main([*folders, "--methods", "global", "zs", "effovpr"]) == 0
    found = json.loads(capsys.readouterr().out)["methods"]
    assert list(found) == ["global", "zs", "effovpr"]
    assert found["zs"]["recall"] == found["effovpr"]["recall"]
    assert len(loaded) == 1


def test_a_tail_of_heads_alone_is_read_of_the_frozen_network(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], loaded: list[ExtractorConfig]
):
    tail = write(tmp_path, make_tail(tmp_path, "regional", 0), "regional", 0)
    assert main([*folders, "--methods", "zs", f"g:tail={tail},dim=8"]) == 0
    beside = json.loads(capsys.readouterr().out)["methods"]
    assert len(loaded) == 1
    assert main([*folders, "--methods", f"g:weights={tail},dim=8"]) == 0
    alone = json.loads(capsys.readouterr().out)["methods"]
    assert len(loaded) == 2
    assert beside["g"]["bytes_per_place"] == 16
    assert beside["g"]["recall"] == alone["g"]["recall"]
    assert beside["g"]["average_precision"] == alone["g"]["average_precision"]


def test_components_can_be_fitted_to_other_images(folders: list[str], capsys: pytest.CaptureFixture[str]):
    assert main([*folders, "--methods", "pca:dim=4", f"pca-other:dim=4,images={folders[3]}"]) == 0
    found = json.loads(capsys.readouterr().out)["methods"]
    assert found["pca-other"]["recall"]["1"] == 1.0
    assert main([*folders, "--methods", f"pca:dim=4,images={folders[3]}/gone"]) == 1
    assert "gone does not exist" in capsys.readouterr().err


def test_too_few_places_for_pca(folders: list[str], capsys: pytest.CaptureFixture[str]):
    assert main([*folders, "--methods", "pca:dim=128"]) == 1
    assert "there are 6 places" in capsys.readouterr().err


def parse(*texts: str) -> dict[str, variants.Variant]:
    return parse_variants(texts, RecognizerConfig(), ExtractorConfig(weights="base.pth"))


def test_parsing():
    assert split_variants(["effovpr", "zs", "g-128:dim=128", "global"]) == (
        ["effovpr", "global"],
        ["zs", "g-128:dim=128"],
    )
    found = parse("zs:top_k=5", "g:weights=t.safetensors,dim=128", "r-9:block=9,tail=ours", "pca-2:dim=64,score=count")
    assert (found["zs"].extractor.tail, found["zs"].recognizer.rerank, found["zs"].recognizer.top_k) == (
        "none",
        True,
        5,
    )
    assert found["g"].extractor.weights == "base.pth,t.safetensors" and found["g"].extractor.global_dim == 128
    assert not found["g"].recognizer.rerank
    assert found["r-9"].extractor.local_block == 9 and found["r-9"].extractor.tail == "ours"
    assert (found["pca-2"].pca, found["pca-2"].extractor.global_dim, found["pca-2"].recognizer.score) == (
        64,
        0,
        "count",
    )


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("zs", "zs"), "comes twice"),
        (("pca",), "pca:dim=128"),
        (("g:dim=wide",), "no int"),
        (("g:colour=1",), "no setting 'colour'"),
    ],
)
def test_what_cannot_be_parsed(texts: Sequence[str], message: str):
    with pytest.raises(ConfigError, match=message):
        parse(*texts)
