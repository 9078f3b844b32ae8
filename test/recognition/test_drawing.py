"""The picture of a recognition: geometry by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from effovpr_ros.core.errors import ImageError
from effovpr_ros.recognition.decision import Status
from effovpr_ros.recognition.drawing import WIDTH_PX, draw_pair, draw_points, under_caption

GREY = np.full((240, 320, 3), 100, np.uint8)
SMALL = np.full((24, 32, 3), 200, np.uint8)
NO_CELLS = np.empty((0, 2), np.uint8)
# Panels are 496 wide (gap 8), hence 372 high for a 4:3 query.
PANEL_WIDTH, PANEL_HEIGHT = 496, 372


def draw_matches(query: np.ndarray, place: np.ndarray, *cells: object, status: Status, caption: str) -> np.ndarray:
    """As the node draws patches."""
    return under_caption(draw_pair(query, place, *cells), status=status, caption=caption)


def test_two_panels_under_a_caption_bar():
    picture = draw_matches(GREY, SMALL, NO_CELLS, NO_CELLS, (10, 10), status=Status.MATCH, caption="place 7")
    assert picture.dtype == np.uint8
    assert picture.shape[1] == WIDTH_PX == 1000
    bar = picture.shape[0] - PANEL_HEIGHT
    assert bar == 36
    assert (picture[bar:, :PANEL_WIDTH] == 100).all()
    assert (picture[bar:, -PANEL_WIDTH:] == 200).all()
    assert (picture[:bar] == 255).all(axis=2).any(), "the caption is written in white"


def test_status_sets_the_colour_of_the_bar():
    corners = {
        tuple(draw_matches(GREY, SMALL, NO_CELLS, NO_CELLS, (10, 10), status=status, caption="")[0, 0])
        for status in Status
    }
    assert len(corners) == 3


def test_line_joins_the_centres_of_the_matched_cells():
    cells = np.array([[9, 4]], np.uint8)
    picture = draw_matches(GREY, GREY, cells, np.array([[0, 4]], np.uint8), (10, 10), status=Status.MATCH, caption="")
    row = picture.shape[0] - PANEL_HEIGHT + round(4.5 * PANEL_HEIGHT / 10)
    coloured = np.flatnonzero(np.ptp(picture[row].astype(int), axis=1) > 50)
    # From 9.5 tenths of the left panel to half a tenth into the right one, and the sides of both boxes.
    assert coloured.min() == pytest.approx(9.5 * 49.6 - 14, abs=2)
    assert coloured.max() == pytest.approx(504 + 0.5 * 49.6 + 14, abs=2)
    assert set(range(472, 528)) <= set(coloured.tolist())


def test_matches_beyond_the_sixtieth_are_marked_without_a_line():
    cells = np.array([[0, 0]] * 60 + [[9, 9]], np.uint8)
    picture = draw_matches(GREY, GREY, cells, cells, (10, 10), status=Status.MATCH, caption="")
    gap = picture[-PANEL_HEIGHT:, PANEL_WIDTH + 1 : WIDTH_PX - PANEL_WIDTH - 1].astype(int)
    rows = np.flatnonzero((np.ptp(gap, axis=2) > 20).any(axis=1))
    assert rows.max() < PANEL_HEIGHT / 10
    corner = picture[-PANEL_HEIGHT // 10 :, PANEL_WIDTH * 9 // 10 : PANEL_WIDTH].astype(int)
    assert (np.ptp(corner, axis=2) > 50).any()


def test_long_captions_wrap_and_foreign_letters_do_not_fail():
    caption = "score 34.0 of 256 keypoints \u00e5\u00e4\u00f6 " * 12
    picture = draw_matches(GREY, SMALL, NO_CELLS, NO_CELLS, (10, 10), status=Status.NO_MATCH, caption=caption)
    bar = picture.shape[0] - PANEL_HEIGHT
    assert bar in (26 * 3 + 10, 26 * 4 + 10)
    # Nothing is written into the right margin, and each line holds some text.
    assert (picture[:bar, -8:] == picture[0, 0]).all()
    assert all((picture[top : top + 26] != picture[0, 0]).any() for top in range(0, bar - 10, 26))


def test_inputs_are_left_alone_and_output_is_repeatable():
    cells = np.array([[1, 1], [5, 5]], np.uint8)
    query = GREY.copy()
    first, second = (
        draw_matches(query, SMALL, cells, cells, (10, 10), status=Status.AMBIGUOUS, caption="x") for _ in range(2)
    )
    assert (first == second).all()
    assert (query == GREY).all()


@pytest.mark.parametrize("bad", [np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 3))])
def test_images_of_another_kind_are_refused(bad: np.ndarray):
    with pytest.raises(ImageError, match="thumbnail"):
        draw_matches(GREY, bad, NO_CELLS, NO_CELLS, (10, 10), status=Status.MATCH, caption="")


def test_points_are_marked_where_they_are_and_joined():
    """A point in the middle of the query, half right and half down, and one in the upper left of the place."""
    picture = draw_points(GREY, SMALL, np.array([[0.5, 0.5]]), np.array([[0.0, 0.0]]))
    assert picture.shape == (PANEL_HEIGHT, WIDTH_PX, 3)
    coloured = np.argwhere(np.ptp(picture.astype(int), axis=2) > 50)
    # From (248, 186) of the left panel to the corner of the right one, and a pixel more about each.
    assert coloured.min(axis=0).tolist() == pytest.approx([0, 247], abs=1)
    assert coloured.max(axis=0).tolist() == pytest.approx([187, 505], abs=1)
    empty = draw_points(GREY, SMALL, np.empty((0, 2)), np.empty((0, 2)))
    assert (np.ptp(empty.astype(int), axis=2) == 0).all()
    with pytest.raises(ImageError):
        draw_points(GREY[:, :, 0], SMALL, np.empty((0, 2)), np.empty((0, 2)))
