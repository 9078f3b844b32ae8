"""Picture of an answer: the query beside the best candidate."""

from __future__ import annotations

from effovpr_ros.core.errors import ImageError
from effovpr_ros.core.images import RgbImage, decode_image
from effovpr_ros.recognition.answer import Recognition
from effovpr_ros.recognition.drawing import draw_matches
from effovpr_ros.recognition.recognizer import PlaceRecognizer


def draw_answer(recognizer: PlaceRecognizer, image: RgbImage, answer: Recognition) -> RgbImage:
    """Draw a query (left) beside the best candidate's stored picture (right), matched patches joined by lines.

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
    return draw_matches(
        image,
        thumbnail,
        *recognizer.matched_cells(answer.features, best.place_id),
        answer.features.grid_wh,
        status=answer.status,
        caption=f"{answer.confidence:.2f}  {best.session} {best.source}  {answer.reason}",
    )
