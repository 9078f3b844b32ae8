"""Pixels of every kind, 4-bit codes, and principal components."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from synthetic import jpeg, picture

from effovpr_ros.core.errors import ConfigError, DescriptorShapeError, ImageError
from effovpr_ros.core.images import decode_image, read_image, to_rgb_uint8
from effovpr_ros.features.codes import decode, encode, inverse_norms, pack, unpack
from effovpr_ros.features.pca import fit_pca
from effovpr_ros.features.preprocessing import preprocess


def test_every_pixel_layout_becomes_rgb():
    mono = np.array([[0, 128], [255, 7]], np.uint8)
    for array in (mono, mono[:, :, None], mono.astype(np.uint16) * 256 + 3):
        assert to_rgb_uint8(array)[0, 1].tolist() == [128, 128, 128]
    rgba = np.dstack([np.full((2, 2), value, np.uint8) for value in (1, 2, 3, 200)])
    assert to_rgb_uint8(rgba)[0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((0, 4), np.uint8), "empty"),
        (np.zeros((2, 2), np.float32), "float32"),
        (np.zeros((2, 2, 2), np.uint8), r"\(2, 2, 2\)"),
        (np.zeros(5, np.uint8), r"\(5,\)"),
    ],
)
def test_what_is_no_image_is_refused(array: np.ndarray, said: str):
    with pytest.raises(ImageError, match=f"front camera.*{said}"):
        to_rgb_uint8(array, "front camera")


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp"])
def test_files_keep_their_colours_in_order(tmp_path: Path, suffix: str):
    image = np.zeros((16, 16, 3), np.uint8)
    image[..., 0] = 250
    Image.fromarray(image).save(tmp_path / f"red.{suffix}", lossless=True)
    assert np.abs(read_image(tmp_path / f"red.{suffix}").astype(int) - [250, 0, 0]).max() <= 2


def test_16_bit_and_alpha_files(tmp_path: Path):
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((4, 4), 0x8040, np.uint16))
    assert read_image(tmp_path / "deep.png")[0, 0].tolist() == [128, 128, 128]
    Image.fromarray(np.full((4, 4, 4), (9, 8, 7, 0), np.uint8)).save(tmp_path / "alpha.png")
    assert read_image(tmp_path / "alpha.png")[0, 0].tolist() == [9, 8, 7]


def test_exif_orientation_is_applied(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(1, 40, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (40, 20, 3)


def test_damaged_and_missing_files_are_named(tmp_path: Path):
    with pytest.raises(ImageError, match=r"gone\.jpg cannot be read"):
        read_image(tmp_path / "gone.jpg")
    (tmp_path / "noise.jpg").write_bytes(b"noise")
    with pytest.raises(ImageError, match=r"noise\.jpg cannot be decoded \(5 bytes\)"):
        read_image(tmp_path / "noise.jpg")
    with pytest.raises(ImageError, match="camera cannot be decoded"):
        decode_image(b"", "camera")


def test_preprocessing_normalises_with_imagenet_statistics():
    images = [np.full((30, 50, 3), 255, np.uint8), np.zeros((7, 9, 3), np.uint8)]
    pixels = preprocess(images, 28)
    assert pixels.shape == (2, 3, 28, 28)
    assert pixels[0, :, 0, 0].tolist() == pytest.approx([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    assert pixels[1, :, 5, 5].tolist() == pytest.approx([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])


def test_shrinking_does_not_alias():
    stripes = np.zeros((280, 280, 3), np.uint8)
    stripes[:, ::2] = 255
    shrunk = preprocess([stripes], 28)[0, 0, 5:-5, 5:-5]
    assert float(shrunk.std()) < 0.05


def test_codes_worked_by_hand():
    # rms 2 puts 2.5 * 2 = 5 at code 7: 1.4 a unit.
    codes = encode(np.array([[1.0, -3.0, 9.0, 0.0], [0.0, 0.0, 0.0, 0.0]], np.float32) * 4.0 / np.sqrt(91.0))
    assert codes.tolist() == [[1, -2, 5, 0], [0, 0, 0, 0]]
    assert inverse_norms(codes).tolist() == [pytest.approx(30**-0.5), 0.0]
    np.testing.assert_allclose(decode(codes)[0], np.array([1, -2, 5, 0]) / 30**0.5, rtol=1e-6)


def test_codes_keep_cosines():
    rng = np.random.default_rng(0)
    facets = rng.normal(size=(60, 384)).astype(np.float32)
    facets[30:] = 0.8 * facets[:30] + 0.6 * facets[30:]
    unit = facets / np.linalg.norm(facets, axis=1, keepdims=True)
    error = decode(encode(facets)) @ decode(encode(facets)).T - unit @ unit.T
    assert np.abs(error).max() < 0.05
    assert np.abs(error).mean() < 0.01


def test_packing_is_reversible():
    codes = np.random.default_rng(1).integers(-7, 8, (5, 6)).astype(np.int8)
    data = pack(codes)
    assert len(data) == 15
    np.testing.assert_array_equal(unpack(data, 6), codes)
    # -7 is 1 and 7 is 15; the even column is in the low half.
    assert pack(np.array([[-7, 7]], np.int8)) == b"\xf1"
    assert unpack(b"\xf1\x8e", 2).tolist() == [[-7, 7], [6, 0]]
    assert unpack(b"", 6).shape == (0, 6)
    with pytest.raises(DescriptorShapeError, match="15 bytes"):
        unpack(data, 8)
    with pytest.raises(DescriptorShapeError, match="odd length 3"):
        pack(np.zeros((2, 3), np.int8))


def test_principal_components_of_a_plane():
    rng = np.random.default_rng(2)
    plane = np.linalg.qr(rng.normal(size=(8, 8)))[0][:2].astype(np.float32)
    spread = rng.normal(size=(50, 2)) * (5.0, 1.0)
    descriptors = (spread @ plane + 3.0).astype(np.float32)
    pca = fit_pca(descriptors, 2)
    np.testing.assert_allclose(pca.components @ pca.components.T, np.eye(2), atol=1e-4)
    rebuilt = (descriptors - pca.mean) @ pca.components.T @ pca.components + pca.mean
    np.testing.assert_allclose(rebuilt, descriptors, atol=1e-3)
    assert np.linalg.norm(pca.project(descriptors), axis=1) == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(DescriptorShapeError, match="7 dimensions"):
        pca.project(np.zeros((1, 7), np.float32))


def test_pca_needs_enough_places():
    with pytest.raises(ConfigError, match="there are 3 places"):
        fit_pca(np.eye(3, 8, dtype=np.float32), 4)


def test_jpeg_of_a_picture_is_close_to_it():
    assert np.abs(decode_image(jpeg(picture(2)), "x").astype(int) - picture(2)).mean() < 6.0
