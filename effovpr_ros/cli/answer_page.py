"""A page to look at: each image beside the place that a map answers it with."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import jinja2

from effovpr_ros.api import Recognizer
from effovpr_ros.core.errors import EffoVPRError, ImageError
from effovpr_ros.core.images import shown
from effovpr_ros.recognition.answer import Recognition

_WEBP_QUALITY = 72


@dataclass(frozen=True)
class Card:
    """One image of the page.

    Attributes:
        name: of the image.
        status: of the answer, or ERROR.
        says: what it says of the place, in words.
        reason: the figures behind it, or the error.
        picture: data URI; empty where nothing can be drawn.
    """

    name: str
    status: str
    says: str
    reason: str
    picture: str = ""


def answer_card(recognizer: Recognizer, path: Path, answer: Recognition, says: str = "") -> Card:
    """The card of an image that was answered.

    Args:
        recognizer: that answered.
        path: of the image.
        answer: to it.
        says: what else is known, as of a demo the truth.

    Raises:
        ImageError: the image cannot be read any more.
    """
    words = [f"confidence {answer.confidence:.2f}"]
    where = ""
    if answer.pose is not None:
        x, y = answer.pose.position_xyz[:2]
        where = f" at x {x:.2f} m, y {y:.2f} m"
    if answer.place is not None:
        words.append(f"place {answer.place.place_id} ({answer.place.source})" + (where if not answer.is_metric else ""))
    if answer.is_metric:
        words.append(f"measured{where}")
    picture = _data_uri(recognizer, path, answer) if answer.candidates else ""
    return Card(shown(path.name), answer.status.name, ", ".join(filter(None, [*words, says])), answer.reason, picture)


def error_card(path: Path, error: EffoVPRError) -> Card:
    """The card of an image that cannot be read."""
    return Card(shown(path.name), "ERROR", "", str(error))


def write_page(path: Path, title: str, cards: Sequence[Card]) -> None:
    """Write the page, one HTML file that needs no network and no script.

    Raises:
        ImageError: it cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("answers.html").render(title=title, cards=cards)
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ImageError(f"page {shown(path)} cannot be written: {error.strerror}; choose another --page") from error


def _data_uri(recognizer: Recognizer, path: Path, answer: Recognition) -> str:
    picture = cv2.cvtColor(recognizer.draw(path, answer), cv2.COLOR_RGB2BGR)
    done, webp = cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, _WEBP_QUALITY])
    if not done:
        raise ImageError("a picture cannot be stored as WebP; install an OpenCV with WebP")
    return f"data:image/webp;base64,{base64.b64encode(webp.tobytes()).decode()}"
