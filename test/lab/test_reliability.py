"""Reliability, calibration error and guesses, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from effovpr_ros.core.errors import EvaluationError
from effovpr_ros.lab.evaluation.metrics import random_recall_at_1, random_recall_at_k, reliability


def test_reliability_worked_by_hand():
    # Bins of a quarter: [0, 0.25) holds 0.1; [0.5, 0.75) holds 0.5 and 0.7; [0.75, 1] holds 0.75, 0.95 and 1.
    bins = reliability([0.1, 0.5, 0.7, 0.75, 0.95, 1.0], [False, True, False, True, True, False], bins=4)
    np.testing.assert_allclose(bins.confidence, [0.1, 0.6, 0.9])
    np.testing.assert_allclose(bins.accuracy, [0.0, 1 / 2, 2 / 3])
    assert bins.count.tolist() == [1, 2, 3]
    assert bins.expected_calibration_error == pytest.approx((1 * 0.1 + 2 * 0.1 + 3 * (0.9 - 2 / 3)) / 6)


def test_a_perfectly_calibrated_method_has_no_error():
    assert reliability([0.5, 0.5, 1.0, 0.0], [True, False, True, False]).expected_calibration_error == 0.0
    assert reliability([1.0, 1.0], [False, False]).expected_calibration_error == 1.0
    assert reliability([], []).expected_calibration_error == 0.0


@pytest.mark.parametrize("confidence", [-0.01, 1.01, float("nan")])
def test_a_confidence_that_is_no_probability_is_refused(confidence: float):
    with pytest.raises(EvaluationError, match=r"outside \[0, 1\]"):
        reliability([0.5, confidence], [True, True])


def test_guesses_worked_by_hand():
    # Two of four are right: both of two guesses miss with 1/2 * 1/3. One of two allowed: two guesses cannot miss.
    positives, allowed = [{0, 1}, {1}, set()], [range(4), range(2), range(4)]
    assert random_recall_at_k(positives, allowed, 2) == pytest.approx((5 / 6 + 1.0) / 2)
    assert random_recall_at_k(positives, allowed, 20) == 1.0
    assert random_recall_at_k([{5}], [range(2)], 2) == 0.0
    assert random_recall_at_k([set()], [range(2)], 1) == 0.0
    for sets in (positives, [{3}, {0, 1}, {2}]):
        assert random_recall_at_k(sets, allowed, 1) == pytest.approx(random_recall_at_1(sets, allowed))
