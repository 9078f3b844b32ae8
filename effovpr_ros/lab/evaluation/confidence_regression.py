"""Fits a model of the confidence to trials: a logistic regression with weights that are not negative."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from effovpr_ros.core.errors import EvaluationError
from effovpr_ros.lab.evaluation.metrics import precision_recall, reliability
from effovpr_ros.recognition.confidence import ConfidenceModel, PointWeights
from effovpr_ros.recognition.evidence import FIGURES, POINT_FIGURES, Evidence

SHIPPED_FIGURES = ("similarity_lead", "consistent_share", "score_over_typical", "score_over_rival", "agreement")
"""Of the shipped model: all but the similarity itself, whose values are a network's own."""
FIGURES_BESIDE_POINTS = ("score_over_typical", "score_over_rival")
"""Of them, those that are weighed beside points: the others gained nothing on sets that were left out."""

_RIDGE = 1e-3
_PRIOR_RIDGE = 0.3
_FEWEST_TRIALS = 10
_UNREACHED = 1.0

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Trial:
    """One query with a known answer.

    Attributes:
        evidence: for the best candidate.
        right: whether it was right.
        group: trials of neighbouring places, which say much the same, share a group.
        weight: of the trial in the fit.
    """

    evidence: Evidence
    right: bool
    group: int
    weight: float = 1.0


def fit_confidence_model(
    trials: Sequence[Trial],
    setting: str,
    fitted_on: str,
    precision: float,
    *,
    prior: ConfidenceModel | None = None,
    figures: Sequence[str] | None = None,
) -> ConfidenceModel:
    """Fit a confidence by penalised maximum likelihood, with weights that are not negative.

    Threshold and calibration error come from models that have not seen the group of the trial they judge.

    Args:
        trials: of at least two groups; where all have points that can say something, these are weighed too.
        setting: see `setting_name`.
        fitted_on: what the trials were, for people.
        precision: wanted of what is accepted.
        prior: stays close to this one, for trials that are easier than real queries.
        figures: that may have a weight; None: all.

    Raises:
        EvaluationError: only right or only wrong answers.
    """
    right = np.array([trial.right for trial in trials], bool)
    held_out = held_out_confidences(trials, prior=prior, figures=figures)
    weights, bias, points = _fitted(trials, prior, figures)
    return ConfidenceModel(
        setting=setting,
        weights=weights,
        bias=bias,
        match_confidence=threshold_for_precision(held_out, right, precision),
        precision=precision,
        fitted_on=fitted_on,
        num_queries=len(trials),
        calibration_error=reliability(held_out.tolist(), right.tolist()).expected_calibration_error,
        points=points,
    )


def held_out_confidences(
    trials: Sequence[Trial], *, prior: ConfidenceModel | None = None, figures: Sequence[str] | None = None
) -> Floats:
    """(N,) confidence of each trial by the model that is fitted to the other groups; see `fit_confidence_model`.

    Raises:
        EvaluationError: only right or only wrong answers.
    """
    groups = np.array([trial.group for trial in trials])
    confidences = np.empty(len(trials))
    for group in np.unique(groups):
        seen = [trial for trial in trials if trial.group != group]
        right = [trial.right for trial in seen]
        if all(right) or not any(right):
            raise EvaluationError(
                f"{sum(trial.right for trial in trials)} of {len(trials)} answers are right; a confidence model needs "
                "right and wrong ones all over the map: use a map with more places"
            )
        weights, bias, points = _fitted(seen, prior, figures)
        model = ConfidenceModel("", weights, bias, 1.0, 1.0, "", len(seen), 0.0, points)
        for number in np.flatnonzero(groups == group).tolist():
            confidences[number] = model.probability(trials[number].evidence)
    return confidences


def _fitted(
    trials: Sequence[Trial], prior: ConfidenceModel | None, figures: Sequence[str] | None
) -> tuple[tuple[float, ...], float, PointWeights | None]:
    """Weights and bias without points, and those with points: the prior's where too few trials have any."""
    alone = [name in (figures or FIGURES) for name in FIGURES]
    beside = [figures is None or name in FIGURES_BESIDE_POINTS for name in FIGURES]
    right = np.array([trial.right for trial in trials], bool)
    share = np.array([trial.weight for trial in trials], np.float64)
    values = np.array([trial.evidence.figures for trial in trials], np.float64)
    weights, bias = _fit(values, right, share, None if prior is None else (prior.weights, prior.bias), alone)
    points = [trial.evidence.points for trial in trials]
    sight = np.array([0.0 if item is None else item.sight for item in points])
    seen = sight > 0.0
    before = None if prior is None else prior.points
    if seen.sum() < _FEWEST_TRIALS or right[seen].all() or not right[seen].any():
        return tuple(weights.tolist()), bias, before
    more = np.array([(0.0,) * len(POINT_FIGURES) if item is None else item.figures for item in points], np.float64)
    with_points, point_bias = _fit(
        np.hstack([values, more])[seen],
        right[seen],
        (share * sight)[seen],
        None if before is None else (before.weights, before.bias),
        [*beside, *(True for _ in POINT_FIGURES)],
    )
    return tuple(weights.tolist()), bias, PointWeights(tuple(with_points.tolist()), point_bias)


def threshold_for_precision(confidences: NDArray[np.float64], right: NDArray[np.bool_], precision: float) -> float:
    """Least confidence from which on answers reach a precision; 1 where none does."""
    curve = precision_recall(confidences.tolist(), right.tolist(), int(right.sum()))
    reached = curve.threshold[curve.precision >= precision]
    return float(reached.min()) if len(reached) else _UNREACHED


def _fit(
    figures: Floats,
    right: NDArray[np.bool_],
    share: Floats,
    prior: tuple[Sequence[float], float] | None,
    allowed: Sequence[bool],
) -> tuple[Floats, float]:
    """Weights >= 0 and bias of a logistic regression on standardised figures, in the units of the figures."""
    share = share / share.sum()
    mean = share @ figures
    std = np.maximum(np.sqrt(share @ (figures - mean) ** 2), 1e-9)
    scaled, sign = (figures - mean) / std, np.where(right, 1.0, -1.0)
    expected, ridge = np.zeros(figures.shape[1] + 1), np.append(np.full(figures.shape[1], _RIDGE), 0.0)
    if prior is not None:
        weights, bias = np.array(prior[0]), prior[1]
        expected, ridge = np.append(weights * std, bias + mean @ weights), np.full(len(expected), _PRIOR_RIDGE)

    def loss(parameters: Floats) -> tuple[float, Floats]:
        margin = sign * (scaled @ parameters[:-1] + parameters[-1])
        slope = -sign / (1.0 + np.exp(np.clip(margin, -30.0, 30.0))) * share
        apart = parameters - expected
        gradient = np.append(scaled.T @ slope, slope.sum()) + ridge * apart
        return float(share @ np.logaddexp(0.0, -margin)) + 0.5 * float(ridge @ apart**2), gradient

    bounds = [(0.0, None if may else 0.0) for may in allowed] + [(None, None)]
    found = minimize(loss, np.where([*allowed, True], expected, 0.0), jac=True, bounds=bounds, method="L-BFGS-B")
    weights = found.x[:-1] / std
    return weights, float(found.x[-1] - mean @ weights)
