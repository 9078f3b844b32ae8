"""Raw pixels by encoding, row length and byte order; headers of pictures and their limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import recorded_pictures as pictures
from synthetic import picture

from effovpr_ros.core.errors import ImageError
from effovpr_ros.core.image_headers import read_header
from effovpr_ros.core.images import decode_image, read_image, to_rgb_uint8
from effovpr_ros.core.pixels import compressed_to_rgb, raw_depth, raw_to_rgb

RED, GREEN, BLUE = [255, 0, 0], [0, 255, 0], [0, 0, 255]
# BT.601 of limited range: Y, U, V of pure colours.
YUV = {"red": (81, 90, 240), "blue": (41, 240, 110)}


@dataclass
class Message:
    """What raw_to_rgb reads of an Image."""

    encoding: str
    width: int
    height: int
    step: int
    data: np.ndarray
    is_bigendian: int = 0


def message(encoding: str, rows: np.ndarray, width: int, height: int, *, gap: int = 0, big: bool = False) -> Message:
    """Rows of bytes, each followed by a gap of 0xEE."""
    lines = np.ascontiguousarray(rows).view(np.uint8).reshape(rows.shape[0], -1)
    padded = np.pad(lines, ((0, 0), (0, gap)), constant_values=0xEE)
    return Message(encoding, width, height, padded.shape[1], padded.reshape(-1), int(big))


@pytest.mark.parametrize("gap", [0, 5, 64])
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8", "8UC3"])
def test_rows_longer_than_their_pixels(encoding: str, gap: int):
    rgb = picture(3, 7, 5)
    grey = rgb[..., :1]
    alpha = np.full((5, 7, 1), 200, np.uint8)
    stored = {"mono8": grey, "8UC3": rgb}.get(encoding, rgb[..., ::-1] if encoding.startswith("bgr") else rgb)
    stored = np.concatenate([stored, alpha], axis=2) if "a8" in encoding else stored
    decoded = raw_to_rgb(message(encoding, stored.reshape(5, -1), 7, 5, gap=gap))
    np.testing.assert_array_equal(decoded, np.repeat(grey, 3, axis=2) if encoding == "mono8" else rgb)


@pytest.mark.parametrize("gap", [0, 6])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("encoding", ["mono16", "rgb16", "bgr16", "16UC1"])
def test_16_bits_in_both_byte_orders(encoding: str, big: bool, gap: int):
    channels = 1 if encoding in ("mono16", "16UC1") else 3
    values = np.array([[0xFF12, 0x8034, 0x1256] * channels] * 2, ">u2" if big else "<u2")
    decoded = raw_to_rgb(message(encoding, values, 3, 2, gap=gap, big=big))
    if channels == 1:
        assert decoded[1].tolist() == [[0xFF] * 3, [0x80] * 3, [0x12] * 3]
    else:
        pixel = [0xFF, 0x80, 0x12] if encoding == "rgb16" else [0x12, 0x80, 0xFF]
        assert decoded[1].tolist() == [pixel] * 3


@pytest.mark.parametrize(
    ("brightest", "shift"),
    [(255, 0), (256, 2), (1023, 2), (1024, 4), (4095, 4), (4096, 6), (16383, 6), (16384, 8), (65535, 8)],
)
def test_the_brightest_pixel_tells_how_many_of_16_bits_are_used(brightest: int, shift: int):
    pixels = np.array([[brightest, brightest // 2]], np.uint16)
    assert to_rgb_uint8(pixels)[0, :, 0].tolist() == [brightest >> shift, brightest // 2 >> shift]
    # An opaque alpha channel of 16 bits does not count.
    rgba = np.full((1, 1, 4), brightest, np.uint16)
    rgba[..., 3] = 65535
    assert to_rgb_uint8(rgba)[0, 0].tolist() == [brightest >> shift] * 3


@pytest.mark.parametrize("colour", ["red", "blue"])
@pytest.mark.parametrize("gap", [0, 3])
@pytest.mark.parametrize("encoding", ["nv12", "nv21", "yuyv", "yuv422_yuy2", "uyvy", "yuv422"])
def test_yuv(encoding: str, gap: int, colour: str):
    y, u, v = YUV[colour]
    width, height = 6, 4
    if encoding.startswith("nv"):
        luma = np.full((height, width), y, np.uint8)
        chroma = np.tile(np.array([u, v] if encoding == "nv12" else [v, u], np.uint8), (height // 2, width // 2))
        rows = np.concatenate([luma, chroma])
    else:
        pair = [u, y, v, y] if encoding in ("uyvy", "yuv422") else [y, u, y, v]
        rows = np.tile(np.array(pair, np.uint8), (height, width // 2))
    decoded = raw_to_rgb(message(encoding, rows, width, height, gap=gap)).astype(int)
    assert decoded.shape == (height, width, 3)
    assert np.abs(decoded - (RED if colour == "red" else BLUE)).max() <= 2


@pytest.mark.parametrize(
    ("pattern", "red_at", "blue_at"),
    [("rggb", (0, 0), (1, 1)), ("bggr", (1, 1), (0, 0)), ("gbrg", (1, 0), (0, 1)), ("grbg", (0, 1), (1, 0))],
)
@pytest.mark.parametrize("bits", [8, 16])
def test_bayer_patterns(pattern: str, red_at: tuple[int, int], blue_at: tuple[int, int], bits: int):
    mosaic = np.zeros((8, 8), np.uint8 if bits == 8 else np.uint16)
    # 12 bits in 16 for the deep one.
    mosaic[red_at[0] :: 2, red_at[1] :: 2] = 255 if bits == 8 else 4095
    mosaic[blue_at[0] :: 2, blue_at[1] :: 2] = 0
    decoded = raw_to_rgb(message(f"bayer_{pattern}{bits}", mosaic, 8, 8, gap=2))
    assert decoded[4, 4].tolist() == RED


def test_a_mosaic_compressed_as_it_is():
    mosaic = np.zeros((8, 8), np.uint8)
    mosaic[::2, ::2] = 255
    data = pictures.encoded("PNG", mosaic)
    assert compressed_to_rgb(data, "bayer_rggb8; png compressed ")[4, 4].tolist() == RED
    assert compressed_to_rgb(data, "mono8; png compressed ")[4, 4].tolist() == [255, 255, 255]
    with pytest.raises(ImageError, match="is depth, no picture"):
        compressed_to_rgb(data, "16UC1; compressedDepth png")


@pytest.mark.parametrize("big", [False, True])
def test_depth_with_a_gap_between_rows(big: bool):
    order = ">" if big else "<"
    metres = np.array([[1.5, 2.5], [3.5, 4.5]])
    deep = message("32FC1", metres.astype(f"{order}f4"), 2, 2, gap=8, big=big)
    np.testing.assert_array_equal(raw_depth(deep), metres)
    millimetres = message("16UC1", (1000 * metres).astype(f"{order}u2"), 2, 2, gap=2, big=big)
    np.testing.assert_array_equal(raw_depth(millimetres), 1000 * metres)
    assert raw_depth(millimetres).dtype == np.dtype("u2")


def test_a_step_that_is_left_out_means_dense_rows():
    filled = message("rgb8", picture(1, 4, 3).reshape(3, -1), 4, 3)
    np.testing.assert_array_equal(raw_to_rgb(Message("rgb8", 4, 3, 0, filled.data)), picture(1, 4, 3))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Message("rgb8", 4, 3, 12, np.zeros(35, np.uint8)), "has 35 bytes, its step of 12 needs 36"),
        (Message("rgb8", 4, 3, 12, np.zeros(37, np.uint8)), "has 37 bytes, its step of 12 needs 36"),
        (Message("rgb8", 4, 3, 11, np.zeros(33, np.uint8)), "step of 11 bytes, a row needs 12"),
        (Message("nv12", 4, 4, 4, np.zeros(16, np.uint8)), "has 16 bytes, its step of 4 needs 24"),
        (Message("nv21", 4, 3, 4, np.zeros(16, np.uint8)), "needs an even width and height"),
        (Message("yuyv", 3, 2, 6, np.zeros(12, np.uint8)), "needs an even width"),
        (Message("mono8", 2**31, 2**31, 2**31, np.zeros(9, np.uint8)), "more than 100 million pixels"),
        (Message("mono8", 0, 3, 0, np.zeros(9, np.uint8)), "empty"),
        (Message("32FC1", 1, 1, 4, np.zeros(4, np.uint8)), "32FC1.*cannot be converted to RGB; use rgb8"),
        (Message("", 1, 1, 4, np.zeros(4, np.uint8)), "without encoding"),
    ],
)
def test_images_that_do_not_fit_their_data(given: Message, said: str):
    with pytest.raises(ImageError, match=said):
        raw_to_rgb(given)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM", "GIF"])
def test_headers_say_the_size(format: str):
    header = read_header(pictures.encoded(format), "a")
    assert (header.width, header.height) == (96, 72)
    np.testing.assert_allclose(decode_image(pictures.encoded(format), "a").mean(), picture(1).mean(), atol=8)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM", "GIF"])
def test_pictures_that_end_early(format: str):
    data = pictures.encoded(format)
    for kept in {0, 1, 2, 3, 4, 8, 12, 14, 16, 20, 24, 28, 30, len(data) // 2, len(data) * 9 // 10}:
        with pytest.raises(ImageError, match="early cannot be decoded"):
            decode_image(data[:kept], "early")


def test_every_kind_of_webp_says_its_size():
    assert read_header(pictures.encoded("WEBP", lossless=True), "a").width == 96
    exif = pictures.Image.Exif()
    exif[0x0112] = 1
    assert read_header(pictures.encoded("WEBP", exif=exif), "a").height == 72


def test_comments_in_a_pnm():
    header = read_header(b"P6\n# made by\r\n# a camera\n4  2\n255\n" + bytes(24), "a")
    assert (header.width, header.height) == (4, 2)


BOMBS = {
    "png": pictures.png_header(60000, 60000),
    "png of 2^30 pixels": pictures.png_header(2**15 + 1, 2**15 + 1),
    "png of 180 million": pictures.png_header(13500, 13500),
    "jpeg": pictures.jpeg_of_size(65500, 65500),
    "tiff": pictures.tiff_of_size(100_000, 100_000),
    "webp": pictures.webp_of_size(16_384, 16_384),
    "bmp": pictures.bmp_of_size(50_000, -50_000),
    "gif": b"GIF89a\xff\xff\xff\xff" + bytes(20),
    "ppm": b"P6 99999 99999 255\n",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_bombs_are_refused_by_their_headers(kind: str, monkeypatch: pytest.MonkeyPatch):
    def decode(*_: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr("cv2.imdecode", decode)
    with pytest.raises(ImageError, match=r"bomb has \d+x\d+ pixels .* the limit is 100 million"):
        decode_image(BOMBS[kind], "bomb")


def test_the_limit_can_be_moved(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(pictures.encoded("PNG"))
    assert read_image(tmp_path / "a.png", max_pixels=96 * 72).shape == (72, 96, 3)
    with pytest.raises(ImageError, match=r"96x72 pixels .* limit"):
        read_image(tmp_path / "a.png", max_pixels=96 * 72 - 1)


def test_what_opencv_refuses_is_an_image_error():
    # Beyond OpenCV's own limit of 2^30 pixels it raises its own exception.
    with pytest.raises(ImageError, match="bomb cannot be decoded"):
        decode_image(pictures.png_header(60000, 60000), "bomb", max_pixels=10**12)


def test_colours_of_deep_tiffs():
    np.testing.assert_array_equal(decode_image(pictures.tiff_16(picture(2)), "a"), picture(2))


def test_pipes_devices_and_folders_are_no_pictures(tmp_path: Path):
    import os

    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    for name in ("pipe", "zero", "folder", "loop"):
        with pytest.raises(ImageError, match=rf"{name}\.jpg (cannot be read|is no ordinary file|is a folder)"):
            read_image(tmp_path / f"{name}.jpg")
