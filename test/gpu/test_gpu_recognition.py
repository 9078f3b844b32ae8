"""Re-ranking and recognising on an NVIDIA GPU, as on the CPU; skipped where torch sees no GPU."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from synthetic import FINGERPRINT, new_place, picture, tiny_extractor

from effovpr_ros.features.codes import pack
from effovpr_ros.features.image_features import Features, LocalFeatures
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.resident_codes import ResidentCodes
from effovpr_ros.matching.on_device import CodesOnDevice, score_on_device
from effovpr_ros.matching.rerank_config import SCORES, RerankConfig
from effovpr_ros.matching.reranking import Reranker
from effovpr_ros.recognition.recognizer import PlaceRecognizer
from effovpr_ros.recognition.recognizer_config import RecognizerConfig

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason=f"torch {torch.__version__} sees no NVIDIA GPU to run this on"
)


def random_local(rng: np.random.Generator, count: int, width: int, *, few: bool) -> LocalFeatures:
    """Codes in cells of 23 x 23; of few values, ties are frequent."""
    codes = rng.integers(-1, 2, (count, width)) if few else np.rint(3 * rng.normal(size=(count, width))).clip(-7, 7)
    row, column = np.divmod(np.arange(count), 23)
    return LocalFeatures(codes.astype(np.int8), np.stack([column, row], axis=1).astype(np.uint8))


def on_gpu(candidates: Sequence[LocalFeatures]) -> tuple[CodesOnDevice, NDArray[np.int64], NDArray[np.int64]]:
    """Candidates in the GPU's memory, first row and number of rows of each."""
    count = np.array([len(candidate) for candidate in candidates], np.int64)
    packed = np.frombuffer(b"".join(pack(candidate.codes) for candidate in candidates), np.uint8)
    cells = np.concatenate([candidate.cells_xy for candidate in candidates])
    tensors = torch.tensor(packed, device="cuda").view(len(cells), -1), torch.tensor(cells, device="cuda")
    return CodesOnDevice(*tensors, 23), np.cumsum(count) - count, count


@pytest.mark.parametrize("few", [True, False], ids=["ties", "general"])
@pytest.mark.parametrize("width", [4, 88, 384])
@pytest.mark.parametrize("score", SCORES)
def test_scores_are_the_cpus(score: str, width: int, few: bool):
    rng = np.random.default_rng(1)
    query = random_local(rng, 529, width, few=few)
    candidates = [random_local(rng, size, width, few=few) for size in (529, 0, 1, 300, 528, *[529] * 200)]
    noise = rng.integers(-1, 2, query.codes.shape)
    candidates.append(LocalFeatures(np.clip(query.codes + noise, -7, 7).astype(np.int8), query.cells_xy))
    for threshold in (-0.9, 0.3):
        config = RerankConfig(score, threshold)
        wanted = Reranker(config).score(query, [candidate.packed for candidate in candidates])
        found = score_on_device(query, *on_gpu(candidates), config)
        for one, other in zip(found, wanted, strict=True):
            assert (one.num_matches, one.num_consistent) == (other.num_matches, other.num_consistent)
            assert one.score == pytest.approx(other.score, rel=1e-9, abs=1e-9)
            assert one.displacement_xy_cells == pytest.approx(other.displacement_xy_cells, abs=1e-9)
    assert found[-1].num_consistent > (4 if width == 4 or few else 400)


def test_nothing_waits_between_the_copy_in_and_the_copy_out():
    rng = np.random.default_rng(2)
    query = random_local(rng, 529, 88, few=False)
    candidates = on_gpu([random_local(rng, 529, 88, few=False) for _ in range(100)])
    score_on_device(query, *candidates, RerankConfig())
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            score_on_device(query, *candidates, RerankConfig())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [str(item.message) for item in caught if "synchronizing" in str(item.message)]
    assert len(waits) <= 2, waits


def test_a_hundred_resident_candidates(tmp_path: Path):
    rng = np.random.default_rng(3)
    model = replace(FINGERPRINT, local_dim=88)
    with PlaceMap.create(tmp_path / "map", fingerprint=model) as place_map:
        direction = np.eye(4, dtype=np.float32)[0]
        shown = [Features(direction, random_local(rng, 529, 88, few=False), (23, 23)) for _ in range(300)]
        place_map.add([new_place(number, features=item) for number, item in enumerate(shown)])
        resident, config = ResidentCodes(place_map, "cuda"), RerankConfig()
        resident.fill()
        assert len(resident) == 300
        spent_ms = []
        for number in range(50):
            started = time.perf_counter()
            found = resident.score(shown[number].local, range(number, number + 100), config)
            spent_ms.append((time.perf_counter() - started) * 1e3)
            assert max(item.score for item in found) == found[0].score
            assert found[0].num_matches == 529
    low, median, high = np.percentile(spent_ms[5:], [10, 50, 90])
    print(f"100 resident candidates of 529 patches: {median:.2f} ({low:.2f} to {high:.2f}) ms")


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
