"""Re-ranking and recognising on an NVIDIA GPU, as on the CPU; skipped where torch sees no GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import new_place, picture, tiny_extractor

from effovpr_ros.features.image_features import LocalFeatures
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.matching.mutual_nn import match_candidates
from effovpr_ros.recognition.recognizer import PlaceRecognizer
from effovpr_ros.recognition.recognizer_config import RecognizerConfig

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason=f"torch {torch.__version__} sees no NVIDIA GPU to run this on"
)


def random_local(rng: np.random.Generator, count: int, width: int, *, few: bool) -> LocalFeatures:
    """Codes; of few values, ties are frequent."""
    codes = rng.integers(-1, 2, (count, width)) if few else np.rint(3 * rng.normal(size=(count, width))).clip(-7, 7)
    return LocalFeatures(codes.astype(np.int8), np.zeros((count, 2), np.uint8))


@pytest.mark.parametrize("few", [True, False], ids=["ties", "general"])
@pytest.mark.parametrize("width", [4, 88, 384])
def test_matches_are_exactly_the_cpus(width: int, few: bool):
    rng = np.random.default_rng(1)
    query = random_local(rng, 529, width, few=few)
    sizes = [529, 0, 1, 300, 528, *[529] * 200]
    candidates = [random_local(rng, size, width, few=few) for size in sizes]
    candidates[4] = LocalFeatures(query.codes[rng.permutation(529)[:528]], candidates[4].cells_xy)
    for threshold in (-1.0, 0.3):
        on_cpu = match_candidates(query, candidates, threshold)
        on_gpu = match_candidates(query, candidates, threshold, "cuda")
        np.testing.assert_array_equal(on_gpu.candidate_index, on_cpu.candidate_index)
        np.testing.assert_array_equal(on_gpu.similarity, on_cpu.similarity)
    assert (on_cpu.candidate_index[4] >= 0).sum() > (4 if width == 4 else 500)


def test_places_are_recognised_as_on_the_cpu(tmp_path: Path):
    on_cpu, on_gpu = (tiny_extractor(tmp_path, device=device) for device in ("cpu", "cuda"))
    places = 12
    with PlaceMap.create(tmp_path / "map", fingerprint=on_cpu.fingerprint) as place_map:
        place_map.add([new_place(n, features=on_cpu.extract([picture(n)])[0]) for n in range(places)])
    with PlaceMap.open(tmp_path / "map") as place_map:
        config = RecognizerConfig()
        for number in range(places):
            seen = np.roll(picture(number), 2, axis=1)
            wanted, found = (
                PlaceRecognizer(extractor, place_map, config).recognize(seen) for extractor in (on_cpu, on_gpu)
            )
            best = found.candidates[0]
            assert best.place.place_id == wanted.candidates[0].place.place_id
            assert best.score == pytest.approx(wanted.candidates[0].score, rel=0.2)
            assert best.num_matches == pytest.approx(wanted.candidates[0].num_matches, abs=2)
            assert found.status == wanted.status
