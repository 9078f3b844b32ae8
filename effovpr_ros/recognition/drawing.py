"""Picture of a recognition: the query beside the matched place, matched patches or verified points joined by lines."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import ImageError
from effovpr_ros.core.images import RgbImage
from effovpr_ros.recognition.decision import Status

WIDTH_PX = 1000
_GAP_PX = 8
_LINE_HEIGHT_PX = 26
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_SCALE = 0.55
# Beyond this many lines a picture of this width shows a haze; the patches are still marked.
_MAX_LINES = 60
_STATUS_RGB = {Status.NO_MATCH: (178, 48, 48), Status.AMBIGUOUS: (176, 120, 16), Status.MATCH: (32, 128, 64)}


def under_caption(pair: RgbImage, *, status: Status, caption: str) -> RgbImage:
    """A picture of a pair under a caption in the colour of the status.

    Args:
        pair: (height, 1000, 3) uint8 RGB, of `draw_pair` or `draw_points`.
        status: of the recognition.
        caption: text, wrapped to the width; characters beyond ASCII are shown as ?.

    Returns:
        (height, 1000, 3) uint8 RGB.
    """
    lines = _wrap(f"{status.name}  {caption}")
    bar = np.full((_LINE_HEIGHT_PX * len(lines) + 10, WIDTH_PX, 3), _STATUS_RGB[status], dtype=np.uint8)
    for number, line in enumerate(lines):
        baseline = _LINE_HEIGHT_PX * (number + 1) - 4
        cv2.putText(bar, line, (10, baseline), _FONT, _FONT_SCALE, (255, 255, 255), 1, cv2.LINE_AA)
    return np.concatenate([bar, pair])


def draw_pair(
    query_image: RgbImage,
    thumbnail: RgbImage,
    query_cells_xy: NDArray[np.uint8],
    place_cells_xy: NDArray[np.uint8],
    grid_wh: tuple[int, int],
) -> RgbImage:
    """Draw the query (left) beside a place (right).

    Every matched patch is marked; the first 60 matches are joined by lines. A match has one colour on both
    sides, by its column in the query, so that parallel bands of colour show agreement.

    Args:
        query_image: (H, W, 3) uint8 RGB.
        thumbnail: (h, w, 3) uint8 RGB of the place.
        query_cells_xy: (P, 2) patch column and row in the query, best match first; P may be 0.
        place_cells_xy: (P, 2) likewise in the place.
        grid_wh: columns and rows of patches, the same for both images.

    Returns:
        (height, 1000, 3) uint8 RGB.

    Raises:
        ImageError: an image that is not (H, W, 3) uint8.
    """
    shape = np.array(grid_wh)
    query_parts, place_parts = ((cells.reshape(-1, 2) + 0.5) / shape for cells in (query_cells_xy, place_cells_xy))
    # A mark is three fifths of a patch.
    return _draw(query_image, thumbnail, query_parts, place_parts, 0.3 / shape)


def draw_points(
    query_image: RgbImage,
    thumbnail: RgbImage,
    query_parts: NDArray[np.float64],
    place_parts: NDArray[np.float64],
) -> RgbImage:
    """Draw the query (left) beside a place (right) with verified points, as `draw_pair` does with patches.

    Args:
        query_image: (H, W, 3) uint8 RGB.
        thumbnail: (h, w, 3) uint8 RGB of the place.
        query_parts: (P, 2) positions in parts of the picture's width and height, best match first; P may be 0.
        place_parts: (P, 2) likewise in the place.

    Returns:
        (height, 1000, 3) uint8 RGB.

    Raises:
        ImageError: an image that is not (H, W, 3) uint8.
    """
    return _draw(query_image, thumbnail, query_parts, place_parts, np.zeros(2))


def _draw(
    query_image: RgbImage,
    thumbnail: RgbImage,
    query_parts: NDArray[np.float64],
    place_parts: NDArray[np.float64],
    mark_wh: NDArray[np.float64],
) -> RgbImage:
    """Two panels, marks of half the size `mark_wh` in parts of the panel, at least a pixel, and lines."""
    for name, image in (("query", query_image), ("thumbnail", thumbnail)):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
            raise ImageError(
                f"{name} image of shape {image.shape}, {image.dtype} cannot be drawn; give (H, W, 3) uint8"
            )
    panel_width = (WIDTH_PX - _GAP_PX) // 2
    # Both panels have the query's shape: both images were squeezed into the same grid of patches.
    panel_height = max(1, round(panel_width * query_image.shape[0] / query_image.shape[1]))
    picture = np.full((panel_height, WIDTH_PX, 3), 24, dtype=np.uint8)
    right = WIDTH_PX - panel_width
    for left, image in ((0, query_image), (right, thumbnail)):
        picture[:, left : left + panel_width] = cv2.resize(
            image, (panel_width, panel_height), interpolation=cv2.INTER_AREA
        )

    panel = np.array([panel_width, panel_height])
    colours = _colours(query_parts[:, 0])
    centres = [
        np.rint(parts * panel + (left, 0)).astype(int).tolist()
        for left, parts in ((0, query_parts), (right, place_parts))
    ]
    half = np.maximum(1, mark_wh * panel).astype(int)
    for pair, colour in zip(zip(*centres, strict=True), colours, strict=True):
        for x, y in pair:
            corners = (x - half[0], y - half[1]), (x + half[0], y + half[1])
            cv2.rectangle(picture, *corners, colour, 1, cv2.LINE_AA)
    for (start, end), colour in zip(zip(*centres, strict=True), colours[:_MAX_LINES], strict=False):
        cv2.line(picture, start, end, colour, 1, cv2.LINE_AA)
    return picture


def _colours(query_columns: NDArray[np.float64]) -> list[tuple[int, int, int]]:
    """Hue from red (left, 0) to violet (right, 1)."""
    hue = np.clip(query_columns * 150.0, 0, 150)
    hsv = np.stack([hue, np.full_like(hue, 220), np.full_like(hue, 255)], axis=1).astype(np.uint8)
    if len(hsv) == 0:
        return []
    rgb = cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0]
    return [(int(r), int(g), int(b)) for r, g, b in rgb]


def _wrap(text: str) -> list[str]:
    """Break at spaces so that each line fits the picture; OpenCV draws ASCII only."""
    words = text.encode("ascii", "replace").decode().split(" ")
    lines = [words[0]]
    for word in words[1:]:
        extended = f"{lines[-1]} {word}"
        if cv2.getTextSize(extended, _FONT, _FONT_SCALE, 1)[0][0] <= WIDTH_PX - 20:
            lines[-1] = extended
        else:
            lines.append(word)
    return lines
