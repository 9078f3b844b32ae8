"""What became of each query: right, wrong or refused, before and after re-ranking, and how far off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from effovpr_ros.lab.evaluation.ground_truth import Dataset
from effovpr_ros.lab.evaluation.method import Answer
from effovpr_ros.lab.evaluation.positions import horizontal_distance_m
from effovpr_ros.recognition.recognizer import Status


class Outcome(Enum):
    """How an answer is judged; accepted is one with status MATCH, and any of a method that never refuses."""

    RIGHT = "right"
    RIGHT_UNSURE = "right, not accepted"
    REFUSED = "no positive, not accepted"
    WRONG_UNSURE = "wrong, not accepted"
    FALSE_MATCH = "false match"


@dataclass(frozen=True)
class QueryOutcome:
    """One query's answer beside the ground truth.

    Attributes:
        query: number of the query.
        outcome: of its first candidate.
        best: number of the database image answered; None without an answer.
        first_stage: the one with the highest global similarity; None where the method has no such stage.
        right: whether `best` is a positive.
        first_stage_right: whether `first_stage` is; None where there is none.
        confidence: of the answer.
        position_error_m: horizontal metres from the query to `best`; None where a position is unknown.
    """

    query: int
    outcome: Outcome
    best: int | None
    first_stage: int | None
    right: bool
    first_stage_right: bool | None
    confidence: float
    position_error_m: float | None


def judge(dataset: Dataset, answers: Sequence[Answer]) -> tuple[QueryOutcome, ...]:
    """Hold the answers of one method against the ground truth, one a query."""
    outcomes = []
    for number, (answer, positives) in enumerate(zip(answers, dataset.positives, strict=True)):
        best = answer.ranked[0] if answer.ranked else None
        first = _first_stage(answer)
        right = best in positives
        outcomes.append(
            QueryOutcome(
                query=number,
                outcome=_outcome(answer, right, bool(positives)),
                best=best,
                first_stage=first,
                right=right,
                first_stage_right=None if first is None else first in positives,
                confidence=answer.confidence,
                position_error_m=(
                    None if best is None else horizontal_distance_m(dataset.queries[number], dataset.database[best])
                ),
            )
        )
    return tuple(outcomes)


def _first_stage(answer: Answer) -> int | None:
    """The candidate that led before re-ranking; equal similarities by number, as the index orders them."""
    if answer.recognition is None or not answer.recognition.candidates:
        return None
    candidates = answer.recognition.candidates
    return max(candidates, key=lambda found: (found.similarity, -found.place.place_id)).place.place_id


def _outcome(answer: Answer, right: bool, has_positive: bool) -> Outcome:
    accepted = bool(answer.ranked) and answer.status in (None, Status.MATCH)
    if right:
        return Outcome.RIGHT if accepted else Outcome.RIGHT_UNSURE
    if accepted:
        return Outcome.FALSE_MATCH
    return Outcome.WRONG_UNSURE if has_positive else Outcome.REFUSED
