"""Picture of an answer: the query beside the best candidate."""

from __future__ import annotations

from effovpr_ros.core.errors import ImageError
from effovpr_ros.core.images import RgbImage, decode_image
from effovpr_ros.recognition.answer import Recognition
from effovpr_ros.recognition.drawing import draw_pair, draw_points, under_caption
from effovpr_ros.recognition.recognizer import PlaceRecognizer
from effovpr_ros.recognition.third_stage import verified_parts


def draw_answer(recognizer: PlaceRecognizer, image: RgbImage, answer: Recognition) -> RgbImage:
    """Draw a query (left) beside the best candidate's stored picture (right).

    Points that the third stage verified are joined by lines, where it looked; else matched patches.

    Args:
        recognizer: that answered.
        image: (H, W, 3) uint8 RGB, the query.
        answer: to it; with a candidate, whatever the status.

    Returns:
        (height, 1000, 3) uint8 RGB under a line with status, confidence, place and the figures behind them.

    Raises:
        ImageError: the answer has no candidate, or the map no picture of it.
    """
    if not answer.candidates:
        raise ImageError(f"an answer without a candidate cannot be drawn ({answer.reason})")
    best = answer.candidates[0].place
    thumbnail = decode_image(recognizer.place_map.thumbnail(best.place_id), f"stored picture of place {best.place_id}")
    seen = None if answer.verified is None else answer.verified.of(best.place_id)
    if answer.verified is not None and seen is not None:
        pair = draw_points(image, thumbnail, *verified_parts(answer.verified, seen))
    else:
        cells = recognizer.matched_cells(answer.features, best.place_id)
        pair = draw_pair(image, thumbnail, *cells, answer.features.grid_wh)
    caption = f"{answer.confidence:.2f}  {best.session} {best.source}  {answer.reason}"
    return under_caption(pair, status=answer.status, caption=caption)
