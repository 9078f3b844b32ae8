"""How probable is it that the best candidate is right? A logistic model of a few figures that any setting has.

The weights come from queries whose answers are known: `effovpr calibrate` makes them of a map's own places and stores
them in the map; without it, those shipped with this package count. Platt scaling (Platt, 1999) of several figures
instead of one, with weights that are not negative, so that more evidence never lowers the confidence.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from effovpr_ros.core.errors import MapFormatError
from effovpr_ros.features.extractor_config import ModelFingerprint
from effovpr_ros.features.local_projection import FULL, setting_for_codes
from effovpr_ros.mapping.place import Candidate
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.same_place import is_same_place

_logger = logging.getLogger(__name__)

SHIPPED_PATH = Path(__file__).with_name("confidence_models.json")
_PROPERTY = "calibrations"
_NEIGHBOURS = 3
# Part of a score a keypoint that says nothing: ratios of smaller scores are those of noise.
_FLOOR_PER_KEYPOINT = 0.3
# So many candidates elsewhere make a lead over them count half.
_FEW_RIVALS = 2.0


@dataclass(frozen=True)
class Evidence:
    """What speaks for the best candidate; each figure has no unit and grows with the evidence.

    A lead counts less where few candidates are elsewhere, and not at all where none is: it proves nothing.

    Attributes:
        similarity: cosine of the global descriptors.
        similarity_lead: over the most similar candidate elsewhere.
        consistent_share: matches that agree on one displacement, of the query's keypoints.
        score_over_typical: ln of the score over the median of the candidates elsewhere.
        score_over_rival: ln of the score over the best one elsewhere.
        agreement: share of the next three candidates that are at the same place.
    """

    similarity: float
    similarity_lead: float
    consistent_share: float
    score_over_typical: float
    score_over_rival: float
    agreement: float


FIGURES = tuple(entry.name for entry in fields(Evidence))


def evidence_for(candidates: Sequence[Candidate], num_keypoints: int, config: RecognizerConfig) -> Evidence:
    """The evidence for the first of at least one candidate.

    Args:
        candidates: best first.
        num_keypoints: of the query.
        config: what counts as one place.
    """
    best = candidates[0]
    here = [is_same_place(best.place, item.place, config) for item in candidates]
    elsewhere = [item for item, same in zip(candidates, here, strict=True) if not same]
    weight = len(elsewhere) / (len(elsewhere) + _FEW_RIVALS)
    similarities = [item.similarity for item in elsewhere] or [best.similarity]
    scores = [item.score for item in elsewhere] or [best.score]
    floor = _FLOOR_PER_KEYPOINT * max(num_keypoints, 1)
    near = here[1 : 1 + _NEIGHBOURS]
    return Evidence(
        similarity=best.similarity,
        similarity_lead=weight * (best.similarity - max(similarities)),
        consistent_share=best.num_consistent / max(num_keypoints, 1),
        score_over_typical=weight * math.log((best.score + floor) / (statistics.median(scores) + floor)),
        score_over_rival=weight * math.log((best.score + floor) / (max(scores) + floor)),
        agreement=sum(near) / len(near) if near else 0.0,
    )


@dataclass(frozen=True)
class ConfidenceModel:
    """A fitted model of the confidence.

    Attributes:
        setting: of model and recognition that it was fitted for, see `setting_name`.
        weights: one for each of `FIGURES`.
        bias: log-odds without any evidence.
        match_confidence: least confidence at which the wanted precision was reached.
        precision: wanted.
        fitted_on: what the queries were, for people.
        num_queries: of the fit.
        calibration_error: expected calibration error on queries left out of the fit.
    """

    setting: str
    weights: tuple[float, ...]
    bias: float
    match_confidence: float
    precision: float
    fitted_on: str
    num_queries: int
    calibration_error: float

    def probability(self, evidence: Evidence) -> float:
        """Confidence in [0, 1]."""
        log_odds = self.bias + float(np.dot(self.weights, astuple(evidence)))
        return float(1.0 / (1.0 + np.exp(-np.clip(log_odds, -30.0, 30.0))))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, weights by name."""
        return {**asdict(self), "weights": dict(zip(FIGURES, self.weights, strict=True))}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ConfidenceModel:
        """Inverse of `to_dict`.

        Raises:
            MapFormatError: something is missing or of another version.
        """
        try:
            weights = tuple(float(values["weights"][name]) for name in FIGURES)
            if len(values["weights"]) != len(FIGURES):
                raise KeyError(f"weights of {', '.join(values['weights'])}")
            return cls(**{**values, "weights": weights})
        except (KeyError, TypeError, ValueError) as error:
            raise MapFormatError(
                f"a stored calibration does not fit this version ({error!r}); run `effovpr calibrate` again"
            ) from error


def setting_name(fingerprint: ModelFingerprint, config: RecognizerConfig) -> str:
    """What a calibration depends on: the model, and how candidates are scored."""
    how = f"{config.score} above {config.min_similarity:g}" if config.rerank else "global"
    codes = setting_for_codes(fingerprint.local_codes)
    if config.rerank and codes != FULL:
        how += f" of {codes}"
    how += f", K {config.top_k}"
    model = fingerprint
    kind = model.global_kind
    if model.tail_sha256:
        kind += f" of tail {model.tail_sha256[:12]} to {model.global_dim}"
    return (
        f"{model.architecture} {model.weights_sha256[:12]} {model.image_size} px, {kind}, "
        f"{'centred ' if model.centered else ''}{model.facet} of block {model.local_block} at T1 "
        f"{model.min_attention:g}, at most {model.max_keypoints or 'all'} keypoints; {how}"
    )


def read_confidence_models(place_map: PlaceMap) -> tuple[ConfidenceModel, ...]:
    """Calibrations that a map holds; those of another version are left out, with a warning."""
    stored = place_map.get_property(_PROPERTY)
    try:
        return tuple(ConfidenceModel.from_dict(item) for item in json.loads(stored)) if stored else ()
    except (MapFormatError, ValueError) as error:
        _logger.warning("map %s: %s; the shipped calibration is used", place_map.path, error)
        return ()


def store_confidence_model(place_map: PlaceMap, model: ConfidenceModel) -> None:
    """Keep a model in a map; one of the same setting is replaced.

    Raises:
        MapError: opened read-only.
    """
    others = [item for item in read_confidence_models(place_map) if item.setting != model.setting]
    place_map.set_property(_PROPERTY, json.dumps([item.to_dict() for item in (*others, model)]).encode())


@functools.cache
def shipped() -> tuple[ConfidenceModel, ...]:
    """The calibrations that come with this package."""
    return tuple(ConfidenceModel.from_dict(item) for item in json.loads(SHIPPED_PATH.read_text(encoding="utf-8")))


def choose_confidence_model(
    stored: Sequence[ConfidenceModel], fingerprint: ModelFingerprint, config: RecognizerConfig
) -> tuple[ConfidenceModel, bool]:
    """The calibration of a setting, and whether it was fitted for it.

    The map's own before a shipped one; for a setting that nothing was fitted for, the shipped one of the same stage,
    whose confidence is then a heuristic.
    """
    name = setting_name(fingerprint, config)
    for model in (*stored, *shipped()):
        if model.setting == name:
            return model, True
    stage = "; global" if not config.rerank else "; coherent"
    return next(item for item in shipped() if stage in item.setting), False
