"""Metrics of place recognition. Pure functions on ranks, confidences and booleans."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

from effovpr_ros.core.errors import EvaluationError


@dataclass(frozen=True)
class PrecisionRecall:
    """One point a threshold on the confidence of each query's first candidate, highest threshold first.

    Attributes:
        precision: right ones among the accepted.
        recall: right ones accepted among the queries that have a positive.
        threshold: accepted is a confidence of at least this.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    threshold: NDArray[np.float64]

    @property
    def average_precision(self) -> float:
        """Sum of precision times the step in recall, as scikit-learn defines it for its own recall."""
        return float(np.sum(np.diff(self.recall, prepend=0.0) * self.precision))

    def recall_at(self, precision: float) -> float:
        """Largest recall at no less than a precision; 0 where no threshold reaches it."""
        reached = self.precision >= precision
        return float(self.recall[reached].max()) if reached.any() else 0.0


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy in equal-width bins of confidence; bins without an answer are left out.

    Attributes:
        confidence: (B,) float64, mean of each bin.
        accuracy: (B,) float64, share of right answers.
        count: (B,) int64, answers.
    """

    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    count: NDArray[np.int64]

    @property
    def expected_calibration_error(self) -> float:
        """Mean gap between confidence and accuracy, weighted by count (Naeini et al., AAAI 2015); 0 without answers."""
        gaps = np.abs(self.confidence - self.accuracy)
        return float(np.average(gaps, weights=self.count)) if len(gaps) else 0.0


def recall_at_k(ranked: Sequence[Sequence[int]], positives: Sequence[Collection[int]], k: int) -> tuple[float, float]:
    """Queries with a positive among their first k candidates, over those that have one and over all.

    Args:
        ranked: database numbers of each query, best first.
        positives: database numbers of each query's right answers.
        k: from 1.

    Raises:
        EvaluationError: no query has a positive.
    """
    with_positive = sum(bool(item) for item in positives)
    if not with_positive:
        raise EvaluationError("no query has a positive; check the radius, the ground truth file and its names")
    hits = sum(any(number in right for number in order[:k]) for order, right in zip(ranked, positives, strict=True))
    return hits / with_positive, hits / len(positives)


def random_recall_at_1(positives: Sequence[Collection[int]], allowed: Sequence[Collection[int]]) -> float:
    """Expected R@1 of a guess, over the queries that have a positive."""
    shares = [
        len(set(right) & set(among)) / len(among) for right, among in zip(positives, allowed, strict=True) if right
    ]
    return float(np.mean(shares)) if shares else 0.0


def random_recall_at_k(positives: Sequence[Collection[int]], allowed: Sequence[Collection[int]], k: int) -> float:
    """Expected R@k of k different guesses, over the queries that have a positive.

    All k miss with the hypergeometric probability C(M - P, k) / C(M, k) for P positives among M allowed images.
    """
    shares = []
    for right, among in zip(positives, allowed, strict=True):
        if right:
            total, found = len(among), len(set(right) & set(among))
            tried = min(k, total)
            shares.append(1.0 - math.comb(total - found, tried) / math.comb(total, tried))
    return float(np.mean(shares)) if shares else 0.0


def precision_recall(
    confidences: Sequence[float], right: Sequence[bool], queries_with_positives: int
) -> PrecisionRecall:
    """Precision and recall over all thresholds; equal confidences are accepted together.

    Args:
        confidences: of each answered query's first candidate.
        right: whether it is a positive.
        queries_with_positives: what recall is a fraction of.
    """
    order = np.argsort(-np.asarray(confidences, np.float64), kind="stable")
    ranked = np.asarray(confidences, np.float64)[order]
    true = np.cumsum(np.asarray(right, bool)[order])
    last_of_equal = np.flatnonzero(np.diff(ranked, append=-np.inf))
    true, accepted = true[last_of_equal], last_of_equal + 1
    return PrecisionRecall(true / accepted, true / max(queries_with_positives, 1), ranked[last_of_equal])


def reliability(confidences: Sequence[float], right: Sequence[bool], bins: int = 10) -> Reliability:
    """Bin answers by confidence: bin b of B holds [b / B, (b + 1) / B), the last one 1 as well.

    Args:
        confidences: probabilities, of each answered query's first candidate.
        right: whether it is a positive.
        bins: B.

    Raises:
        EvaluationError: a confidence that is no probability.
    """
    values, hits = np.asarray(confidences, np.float64), np.asarray(right, np.float64)
    outside = values[~((values >= 0.0) & (values <= 1.0))]
    if len(outside):
        raise EvaluationError(f"confidence {outside[0]} is outside [0, 1]; only calibrated methods have a reliability")
    numbers = np.minimum((values * bins).astype(np.int64), bins - 1)
    count = np.bincount(numbers, minlength=bins)
    filled = count > 0
    mean = [np.bincount(numbers, weights, minlength=bins)[filled] / count[filled] for weights in (values, hits)]
    return Reliability(mean[0], mean[1], count[filled])


def bootstrap_interval(
    values: Sequence[float], *, level: float = 0.95, samples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap of the mean of values, such as hits or paired differences of hits (Efron, 1979)."""
    given = np.asarray(values, np.float64)
    if not len(given):
        return (0.0, 1.0)
    if len(given) == 1:
        # Of one value nothing else can be drawn, and SciPy refuses it.
        return (float(given[0]), float(given[0]))
    rng = np.random.default_rng(seed)
    found = bootstrap((given,), np.mean, n_resamples=samples, confidence_level=level, method="percentile", rng=rng)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
