"""How probable is it that the best candidate is right? A logistic model of a few figures that any setting has.

The weights come from queries whose answers are known: `effovpr calibrate` makes them of a map's own places and stores
them in the map; without it, those shipped with this package count. Platt scaling (Platt, 1999) of several figures
instead of one, with weights that are not negative, so that more evidence never lowers the confidence.
docs/confidence.md says how it was fitted and how it does on sets that were left out.
"""

from __future__ import annotations

import functools
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effovpr_ros.core.errors import MapFormatError
from effovpr_ros.features.extractor_config import ModelFingerprint
from effovpr_ros.features.local_projection import FULL, setting_for_codes
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.recognition.evidence import FIGURES, POINT_FIGURES, Evidence, MapNull, NullLeads
from effovpr_ros.recognition.recognizer_config import RecognizerConfig

_logger = logging.getLogger(__name__)

SHIPPED_PATH = Path(__file__).with_name("confidence_models.json")
_PROPERTY = "calibrations"
_NULL_PROPERTY = "wrong_leads"
CONFIDENCE_PROPERTIES = (_PROPERTY, _NULL_PROPERTY)
"""Of a map, by which its confidence is that of the whole map."""
# Of earlier versions, which kept other figures, or what one of twenty exceeds.
_FORMER_NULL_PROPERTIES = ("confidence_null", "map_null")
_DEFAULT = RecognizerConfig()


@dataclass(frozen=True)
class PointWeights:
    """The model of answers whose points were verified.

    Attributes:
        weights: one for each of `FIGURES`, then one for each of `POINT_FIGURES`.
        bias: log-odds without any evidence.
    """

    weights: tuple[float, ...]
    bias: float


@dataclass(frozen=True)
class ConfidenceModel:
    """A fitted model of the confidence.

    Attributes:
        setting: of model and recognition that it was fitted for, see `setting_name`.
        weights: one for each of `FIGURES`, of answers whose points were not looked at.
        bias: log-odds without any evidence.
        match_confidence: least confidence at which the wanted precision was reached.
        precision: wanted.
        fitted_on: what the queries were, for people.
        num_queries: of the fit.
        calibration_error: expected calibration error on queries left out of the fit.
        points: of answers whose points were verified; None where it was fitted without.
    """

    setting: str
    weights: tuple[float, ...]
    bias: float
    match_confidence: float
    precision: float
    fitted_on: str
    num_queries: int
    calibration_error: float
    points: PointWeights | None = None

    def probability(self, evidence: Evidence) -> float:
        """Confidence in [0, 1]; the less points can say, the more it rests on the first two stages."""
        log_odds = self.bias + float(np.dot(self.weights, evidence.figures))
        if self.points is not None and evidence.points is not None:
            figures = (*evidence.figures, *evidence.points.figures)
            sight = evidence.points.sight
            with_points = self.points.bias + float(np.dot(self.points.weights, figures))
            log_odds = (1.0 - sight) * log_odds + sight * with_points
        return float(1.0 / (1.0 + np.exp(-np.clip(log_odds, -30.0, 30.0))))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, weights by name."""
        values = {**asdict(self), "weights": dict(zip(FIGURES, self.weights, strict=True))}
        if self.points is not None:
            by_name = dict(zip((*FIGURES, *POINT_FIGURES), self.points.weights, strict=True))
            values["points"] = {"weights": by_name, "bias": self.points.bias}
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ConfidenceModel:
        """Inverse of `to_dict`.

        Raises:
            MapFormatError: something is missing, not finite, out of its range or of another version.
        """
        try:
            points = values.get("points")
            if points is not None:
                points = PointWeights(
                    _weights_of(points["weights"], (*FIGURES, *POINT_FIGURES)), _finite(points["bias"])
                )
            model = cls(**{**values, "weights": _weights_of(values["weights"], FIGURES), "points": points})
            _finite(model.bias)
            if not (0.0 <= _finite(model.match_confidence) <= 1.0):
                raise ValueError(f"match_confidence {model.match_confidence}")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MapFormatError(
                f"a stored confidence model does not fit this version ({error!r}); run `effovpr calibrate` again"
            ) from error
        return model


def _weights_of(values: Mapping[str, Any], names: Sequence[str]) -> tuple[float, ...]:
    if len(values) != len(names):
        raise KeyError(f"weights of {', '.join(values)}")
    return tuple(_finite(values[name]) for name in names)


def _finite(value: Any) -> float:
    if not math.isfinite(number := float(value)):
        raise ValueError(f"{value} is not finite")
    return number


def setting_name(fingerprint: ModelFingerprint, config: RecognizerConfig) -> str:
    """What a confidence model depends on: the model, and how candidates are scored."""
    how = f"{config.score} above {config.min_similarity:g}" if config.rerank else "global"
    codes = setting_for_codes(fingerprint.local_codes)
    if config.rerank and codes != FULL:
        how += f" of {codes}"
    how += f", K {config.top_k}"
    if config.same_place_radius_m != _DEFAULT.same_place_radius_m or config.same_place_ids != _DEFAULT.same_place_ids:
        how += f", one place within {config.same_place_radius_m:g} m or {config.same_place_ids} ids"
    model = fingerprint
    kind = model.global_kind
    if model.tail_sha256:
        kind += f" of tail {model.tail_sha256[:12]} to {model.global_dim}"
    return (
        f"{model.architecture} {model.weights_sha256[:12]} {model.image_size} px, {kind}, "
        f"{'centred ' if model.centered else ''}{model.facet} of block {model.local_block} at T1 "
        f"{model.min_attention:g}, at most {model.max_keypoints or 'all'} keypoints; {how}"
    )


def read_confidence_models(place_map: MapReader) -> tuple[ConfidenceModel, ...]:
    """Confidence models that a map holds; those of another version are left out, with a warning."""
    stored = place_map.get_property(_PROPERTY)
    try:
        return tuple(ConfidenceModel.from_dict(item) for item in json.loads(stored)) if stored else ()
    except (MapFormatError, ValueError) as error:
        _logger.warning("map %s: %s; the shipped confidence model is used", place_map.path, error)
        return ()


def store_confidence_model(place_map: MapReader, model: ConfidenceModel) -> None:
    """Keep a model in a map; one of the same setting is replaced.

    Raises:
        MapError: opened read-only.
    """
    others = [item for item in read_confidence_models(place_map) if item.setting != model.setting]
    place_map.set_property(_PROPERTY, json.dumps([item.to_dict() for item in (*others, model)]).encode())


def read_map_null(place_map: MapReader, setting: str) -> MapNull | None:
    """What is known of a map's wrong answers for a setting; None where nothing is, or what is there is damaged."""
    stored = place_map.get_property(_NULL_PROPERTY)
    if not stored and any(place_map.get_property(name) for name in _FORMER_NULL_PROPERTIES):
        _logger.info(
            "map %s: its figures of wrong answers are of an earlier version and not used; `effovpr map build` with the "
            "same arguments measures them again",
            place_map.path,
        )
    try:
        found = [_null_of(item) for item in json.loads(stored)] if stored else []
        return next((item for item in found if item.setting == setting), None)
    except (KeyError, TypeError, ValueError) as error:
        _logger.warning(
            "map %s: its figures of wrong answers are damaged (%s); `effovpr map build` with the same arguments "
            "measures them again",
            place_map.path,
            error,
        )
        return None


def _null_of(values: Mapping[str, Any]) -> MapNull:
    leads = NullLeads(**{name: _finite(value) for name, value in values["leads"].items()})
    spacing_m = values["spacing_m"]
    return MapNull(**{**values, "leads": leads, "spacing_m": None if spacing_m is None else _finite(spacing_m)})


def store_map_null(place_map: MapReader, null: MapNull) -> None:
    """Keep in a map what its wrong answers reach, in place of what was known before.

    Raises:
        MapError: opened read-only.
    """
    place_map.set_property(_NULL_PROPERTY, json.dumps([asdict(null)]).encode())


@functools.cache
def shipped() -> tuple[ConfidenceModel, ...]:
    """The confidence models that come with this package."""
    return tuple(ConfidenceModel.from_dict(item) for item in json.loads(SHIPPED_PATH.read_text(encoding="utf-8")))


def choose_confidence_model(
    stored: Sequence[ConfidenceModel], fingerprint: ModelFingerprint, config: RecognizerConfig
) -> tuple[ConfidenceModel, bool]:
    """The confidence model of a setting, and whether it was fitted for it.

    The map's own before a shipped one; for a setting that nothing was fitted for, the shipped one of the same stage,
    whose confidence is then a heuristic.
    """
    name = setting_name(fingerprint, config)
    for model in (*stored, *shipped()):
        if model.setting == name:
            return model, True
    stage = "; global" if not config.rerank else "; coherent"
    return next(item for item in shipped() if stage in item.setting), False
