"""What one image says of its candidates, relative to what wrong ones of this image and this map give.

`Evidence` speaks for the first candidate, and the confidence is made of it. What speaks for all candidates, and what
places give images that do not show them, is what a sequence is made of.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.mapping.place import Candidate
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.same_place import apart_by_points, apart_by_score, is_same_place

Array = NDArray[np.float64]


_NEIGHBOURS = 3
# Part of a score a keypoint that says nothing: ratios of smaller scores are those of noise.
_FLOOR_PER_KEYPOINT = 0.3
# So many candidates elsewhere make a lead over them count half; verified ones are few, but none of them by chance.
_FEW_RIVALS = 2.0
_FEW_VERIFIED = 1.0
# Fewer points agree on no homography but by chance; so many more are what is added before ratios are taken.
_CHANCE_POINTS = 8.0
# Points that a picture has at which their number says nothing yet, and at which it says all.
_SIGHT_POINTS = (256.0, 768.0)

# A best score must exceed the typical one by so many standard deviations to count as evidence in full.
_CLEAR_STD = 5.0
# The mean is over so many images, after so many that said nothing.
_BACKGROUND_FRAMES = 50.0
_BACKGROUND_PRIOR = 5.0


@dataclass(frozen=True)
class NullLeads:
    """Leads that wrong answers of a map reach: those that one of fifty exceeds.

    Attributes:
        score_over_typical: see `Evidence`.
        score_over_rival: likewise.
        over_typical: see `PointEvidence`.
        over_rival: likewise.
    """

    score_over_typical: float
    score_over_rival: float
    over_typical: float
    over_rival: float


USUAL_LEADS = NullLeads(0.59, 0.28, 1.05, 0.73)
"""Of a usual map: the mean of the maps of the fit that have no look-alike floors. They count where a map's own are not
known."""


@dataclass(frozen=True)
class MapNull:
    """What wrong answers of one map reach, as asking it about its own places shows while they are hidden.

    Attributes:
        setting: of model and recognition, see `confidence.setting_name`.
        leads: drawn to the usual ones where few places were asked about; the usual ones where points were not looked
            at.
        num_places: of the map then.
        num_asked: places that were asked about.
        in_order: whether places that follow each other look more alike than others, as along a drive.
        spacing_m: median distance from a place to the nearest one of its session in metres; None where positions are
            unknown.
    """

    setting: str
    leads: NullLeads
    num_places: int
    num_asked: int
    in_order: bool = True
    spacing_m: float | None = None


@dataclass(frozen=True)
class PointEvidence:
    """What verified points say for the best candidate; the figures have no unit and grow with the evidence.

    Counts are those that agree on a homography.

    Attributes:
        over_typical: ln of the count over the median of the verified candidates elsewhere, less what wrong answers of
            this map reach beyond those of a usual one.
        over_rival: ln of the count over the best one elsewhere, less the same of it.
        sight: in [0, 1], from the number of points in the picture that has fewer: what points can say at all. Small
            and blank pictures have few; that is no evidence against an answer.
    """

    over_typical: float
    over_rival: float
    sight: float

    @property
    def figures(self) -> tuple[float, ...]:
        """In the order of `POINT_FIGURES`."""
        return (self.over_typical, self.over_rival)


@dataclass(frozen=True)
class Evidence:
    """What speaks for the best candidate; each figure has no unit and grows with the evidence.

    A lead counts less where few candidates are elsewhere, and not at all where none is: it proves nothing.

    Attributes:
        similarity: cosine of the global descriptors.
        similarity_lead: over the most similar candidate elsewhere.
        consistent_share: matches that agree on one displacement, of the query's keypoints.
        score_over_typical: ln of the score over the median of the candidates elsewhere, less what wrong answers of this
            map reach beyond those of a usual one.
        score_over_rival: ln of the score over the best one elsewhere, less the same of it.
        agreement: share of the next three candidates that are at the same place.
        points: what points say; None where the third stage did not look.
    """

    similarity: float
    similarity_lead: float
    consistent_share: float
    score_over_typical: float
    score_over_rival: float
    agreement: float
    points: PointEvidence | None = None

    @property
    def figures(self) -> tuple[float, ...]:
        """Of the first two stages, in the order of `FIGURES`."""
        return tuple(float(getattr(self, name)) for name in FIGURES)


FIGURES = tuple(entry.name for entry in fields(Evidence) if entry.name != "points")
POINT_FIGURES = ("over_typical", "over_rival")


def evidence_for(
    candidates: Sequence[Candidate], num_keypoints: int, config: RecognizerConfig, null: MapNull | None = None
) -> Evidence:
    """The evidence for the first of at least one candidate.

    Args:
        candidates: best first.
        num_keypoints: of the query.
        config: what counts as one place.
        null: of the map; None where it is not known.
    """
    best = candidates[0]
    apart = apart_by_score(config, null.spacing_m if null else None)
    here = [is_same_place(best.place, item.place, apart) for item in candidates]
    elsewhere = [item for item, same in zip(candidates, here, strict=True) if not same]
    weight = len(elsewhere) / (len(elsewhere) + _FEW_RIVALS)
    similarities = [item.similarity for item in elsewhere] or [best.similarity]
    scores = [item.score for item in elsewhere] or [best.score]
    floor = _FLOOR_PER_KEYPOINT * max(num_keypoints, 1)
    near = here[1 : 1 + _NEIGHBOURS]
    leads = null.leads if null else USUAL_LEADS
    return Evidence(
        similarity=best.similarity,
        similarity_lead=weight * (best.similarity - max(similarities)),
        consistent_share=best.num_consistent / max(num_keypoints, 1),
        score_over_typical=weight * math.log((best.score + floor) / (statistics.median(scores) + floor))
        - (leads.score_over_typical - USUAL_LEADS.score_over_typical),
        score_over_rival=weight * math.log((best.score + floor) / (max(scores) + floor))
        - (leads.score_over_rival - USUAL_LEADS.score_over_rival),
        agreement=sum(near) / len(near) if near else 0.0,
        points=_point_evidence(candidates, config, null),
    )


def _point_evidence(
    candidates: Sequence[Candidate], config: RecognizerConfig, null: MapNull | None
) -> PointEvidence | None:
    best, counts = candidates[0], candidates[0].points
    if counts is None:
        return None
    apart = apart_by_points(config, null.spacing_m if null else None)
    leads = null.leads if null else USUAL_LEADS
    elsewhere = [
        item.points.homography
        for item in candidates[1:]
        if item.points is not None and not is_same_place(best.place, item.place, apart)
    ]
    weight = len(elsewhere) / (len(elsewhere) + _FEW_VERIFIED)
    elsewhere = elsewhere or [counts.homography]
    low, high = _SIGHT_POINTS
    possible = high if counts.possible is None else counts.possible
    return PointEvidence(
        over_typical=weight * _log_ratio(counts.homography, statistics.median(elsewhere))
        - (leads.over_typical - USUAL_LEADS.over_typical),
        over_rival=weight * _log_ratio(counts.homography, max(elsewhere)) - (leads.over_rival - USUAL_LEADS.over_rival),
        sight=min(max((possible - low) / (high - low), 0.0), 1.0),
    )


def _log_ratio(count: float, other: float) -> float:
    """Ln of a ratio of counts of points in which those that agree by chance weigh little."""
    return math.log((max(count, _CHANCE_POINTS) + _CHANCE_POINTS) / (max(other, _CHANCE_POINTS) + _CHANCE_POINTS))


def candidate_evidence(candidates: Sequence[Candidate]) -> Array:
    """What one image says of each candidate, whatever the unit of its scores.

    The score (the global similarity, if nothing was re-ranked) above the median of the candidates, as a fraction of
    the best one's, or of five robust standard deviations where the best does not stand out so far.

    Args:
        candidates: K, in any order.

    Returns:
        (K,) float64 in [-1, 1].
    """
    scores = np.array([candidate.score for candidate in candidates])
    if not scores.any():
        scores = np.array([candidate.similarity for candidate in candidates])
    excess = scores - np.median(scores)
    std = 1.4826 * float(np.median(np.abs(excess)))
    unit = max(float(excess.max()), _CLEAR_STD * std)
    return np.clip(excess / unit, -1.0, 1.0) if unit > 0.0 else np.zeros(len(scores))


def have_no_position(candidates: Sequence[Candidate]) -> bool:
    """Whether nothing is known of where any candidate is."""
    return all(item.place.pose is None and item.place.geo is None for item in candidates)


def support_of(alone: Sequence[tuple[int, float]]) -> float:
    """Probability that one image at least was right by itself; of those that name one place only the best counts.

    Args:
        alone: the place that each image names, and with which confidence.
    """
    best: dict[int, float] = {}
    for place_id, confidence in alone:
        best[place_id] = max(best.get(place_id, 0.0), confidence)
    return 1.0 - math.prod(1.0 - confidence for confidence in best.values())


class BackgroundEvidence:
    """How places answer images that do not show them: some look a little like everything. One row a place."""

    def __init__(self) -> None:
        """Start without any."""
        self._sums: dict[int, tuple[float, float]] = {}

    def __len__(self) -> int:
        """Places that are known."""
        return len(self._sums)

    def of(self, place_ids: Sequence[int]) -> Array:
        """(K,) float64 evidence to expect of places that an image does not show; 0 for one not seen before."""
        sums = np.array([self._sums.get(number, (0.0, 0.0)) for number in place_ids])
        return np.asarray(sums[:, 0] / (sums[:, 1] + _BACKGROUND_PRIOR), np.float64)

    def forget(self, place_id: int) -> None:
        """Drop a place."""
        self._sums.pop(place_id, None)

    def learn(self, place_ids: Sequence[int], evidence: Array, unseen: Array) -> None:
        """Add one image.

        Args:
            place_ids: K places.
            evidence: (K,) of the image.
            unseen: (K,) probability that the image does not show the place.
        """
        kept = 1.0 - 1.0 / _BACKGROUND_FRAMES
        for number, value, share in zip(place_ids, evidence.tolist(), unseen.tolist(), strict=True):
            total, count = self._sums.get(number, (0.0, 0.0))
            self._sums[number] = (kept * total + share * value, kept * count + share)
