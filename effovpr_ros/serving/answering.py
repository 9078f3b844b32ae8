"""From what HTTP received to an answer: the same for one process and for a gateway of a cluster."""

from __future__ import annotations

from collections.abc import Callable

from effovpr_ros.core.errors import ConfigError, ImageError
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.images import RgbImage, decode_image
from effovpr_ros.features.extractor_config import ModelFingerprint
from effovpr_ros.features.image_features import Features
from effovpr_ros.geometry.points import Points
from effovpr_ros.recognition.answer import Hint, Recognition
from effovpr_ros.recognition.doubtful_pose import with_doubtful_pose
from effovpr_ros.recognition.recognizer import PlaceRecognizer
from effovpr_ros.remote.queries import FeatureQuery, decode_query
from effovpr_ros.serving.service import GeoHint, Question

_PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")


def decode_picture(question: Question) -> RgbImage:
    """The picture of a question.

    Raises:
        ImageError: no JPEG or PNG, damaged, or too large.
    """
    if not question.body.startswith(_PICTURES):
        raise ImageError("the body is no JPEG or PNG")
    return decode_image(question.body, "the picture", max_pixels=question.max_pixels)


def decode_features(question: Question, fingerprint: ModelFingerprint, kind: str) -> FeatureQuery:
    """The features of a question.

    Args:
        question: that holds them.
        fingerprint: of the map's model.
        kind: of the points that the map's are matched with; empty where none are.

    Raises:
        ConfigError: damaged, or with points of another kind.
        ModelMismatchError: of another model.
    """
    query = decode_query(question.body, fingerprint)
    if query.points is not None and kind and query.points.kind != kind:
        raise ConfigError(
            f"the points are of kind {query.points.kind}, this server matches {kind}; send none, or install what finds "
            "those (docs/verification.md)"
        )
    return query


def hint_in_map(hint: Hint | GeoHint | None, datum: Datum | None) -> Hint | None:
    """A hint in the map frame.

    Raises:
        ConfigError: latitude and longitude say nothing in a map without a datum.
    """
    if not isinstance(hint, GeoHint):
        return hint
    if datum is None:
        raise ConfigError("the map is not geo-referenced: give hint_x and hint_y in its frame")
    x, y, _ = datum.to_enu(hint.geo)
    return Hint((x, y, 0.0), hint.radius_m)


def recognize(
    recognizer: PlaceRecognizer,
    question: Question,
    features: Features,
    image_size_wh: tuple[int, int],
    points: Callable[[], Points] | None,
) -> Recognition:
    """Answer a question whose features are known.

    Args:
        recognizer: that nobody else uses meanwhile.
        question: its hint and camera count.
        features: of the map's model.
        image_size_wh: pixels of the picture.
        points: gives those of the picture, if they are wanted; None: the third stage does not run.
    """
    found = recognizer.recognize_features(
        features,
        points=points,
        hint=hint_in_map(question.hint, recognizer.place_map.datum),
        camera=question.camera.camera(image_size_wh),
    )
    return with_doubtful_pose(recognizer, found) if question.doubtful else found
