"""Points to bytes and back, and what a map does with them."""

from __future__ import annotations

import numpy as np
import pytest

from effovpr_ros.core.errors import MapError
from effovpr_ros.engines.agreement import scene
from effovpr_ros.features.codes import decode, encode
from effovpr_ros.geometry.point_codec import STORED_POINTS, decode_points, encode_points
from effovpr_ros.geometry.points import KINDS, SIFT, XFEAT, PointExtractor, Points, no_points, quantised
from effovpr_ros.geometry.verified_matches import verify

SIZE = (640, 480)


@pytest.mark.parametrize("kind", KINDS)
def test_what_goes_in_comes_out(kind: str):
    found = PointExtractor(kind=kind).extract(scene(1, SIZE))
    blob = encode_points(found)
    back = decode_points(blob, SIZE)
    count = min(len(found), STORED_POINTS)
    # By hand: a header of 4 bytes, 4 for a position, half a byte for each of 64 or 128 entries.
    assert len(blob) == 4 + count * (4 + (32 if kind == XFEAT else 64))
    assert (back.kind, back.image_size_wh, len(back)) == (kind, SIZE, count)
    np.testing.assert_allclose(back.keypoints_xy, found.keypoints_xy[:count], atol=0.006)
    given = found.descriptors[:count].astype(np.float32)
    cosines = (
        (given * back.descriptors).sum(1) / np.linalg.norm(given, axis=1) / np.linalg.norm(back.descriptors, axis=1)
    )
    assert cosines.mean() > 0.98
    (matches,) = verify(found, [back])
    assert matches.num_homography > 0.95 * count


def test_a_point_by_hand():
    """Two equal entries and 62 zeros: their root mean square is 100 / sqrt(32), of which 100 is 5.66, and 7 levels 2.5.

    Position (159.5, 119.5) of 320 x 240 is the middle: half of 65535, rounded to 32768.
    """
    descriptor = np.zeros((1, 64), np.int8)
    descriptor[0, :2] = 100
    blob = encode_points(Points(XFEAT, np.array([[159.5, 119.5]], np.float32), descriptor, (320, 240)))
    assert blob == bytes([1, 0, 1, 0, 0, 128, 0, 128, 0xFF]) + bytes([0x88]) * 31
    back = decode_points(blob, (640, 480))
    # In another size of the picture the middle stays the middle.
    assert back.keypoints_xy[0] == pytest.approx((319.5, 239.5), abs=0.01)
    # 200 / sqrt(2) is beyond 8 bits.
    assert back.descriptors[0, :3].tolist() == [127, 127, 0]


def test_the_strongest_are_kept():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    points = Points(XFEAT, rng.uniform(0, 400, (50, 2)).astype(np.float32), quantised(vectors, XFEAT), SIZE)
    back = decode_points(encode_points(points, 20), SIZE)
    np.testing.assert_allclose(back.keypoints_xy, points.keypoints_xy[:20], atol=0.006)
    wanted = quantised(decode(encode(points.descriptors[:20].astype(np.float32))), XFEAT)
    np.testing.assert_array_equal(back.descriptors, wanted)


def test_no_points():
    for kind in KINDS:
        assert len(decode_points(encode_points(no_points(kind, SIZE)), SIZE)) == 0


@pytest.mark.parametrize(
    ("blob", "said"),
    [
        (b"", "0 bytes"),
        (b"\x02\x00\x00\x00", "version 2"),
        (b"\x01\x09\x00\x00", "kind 9"),
        (b"\x01\x00\x02\x00" + bytes(36), "40 bytes, which do not fit 2 points"),
        (b"\x01\x00\x00\x00" + bytes(1), "5 bytes, which do not fit 0 points"),
    ],
)
def test_damaged_bytes_are_refused(blob: bytes, said: str):
    with pytest.raises(MapError, match=said):
        decode_points(blob, SIZE)


def test_sift_and_xfeat_differ_in_length():
    assert decode_points(encode_points(no_points(SIFT, SIZE)), SIZE).descriptors.shape == (0, 128)
