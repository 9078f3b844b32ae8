"""Consistency over a sequence: recent recognitions support each other when their places move as the robot does.

A discrete Bayes filter over the candidates of the last frames and "elsewhere" (compare Xu, Suenderhauf and Milford,
"Probabilistic Visual Place Recognition for Hierarchical Localization", RA-L 2021, and SeqSLAM, Milford and Wyeth,
ICRA 2012). It is causal, deterministic, and needs memory for four frames and for one row a place of the map.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.poses import Pose
from effovpr_ros.mapping.place import Candidate
from effovpr_ros.recognition.answer import Recognition
from effovpr_ros.recognition.answering import Answering
from effovpr_ros.recognition.decision import DecidedBy, Decision, Status
from effovpr_ros.recognition.evidence import BackgroundEvidence, candidate_evidence, have_no_position, support_of
from effovpr_ros.recognition.motion import (
    MAX_LAG,
    NUM_MOTIONS,
    Array,
    MapPositions,
    MapPositionTable,
    arrive,
    motion_after,
    moved_m,
    turned_rad,
)
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.same_place import is_same_place

# The constants were chosen on one drive with imitated season change and confirmed on others. Recall hardly depends on
# them; the more evidence is asked for (here and in `evidence`), the fewer answers are MATCH, right and wrong ones.
_MAX_CANDIDATES = 100
# Natural logarithm of the likelihood ratio between the best candidate and a typical one.
_EVIDENCE_GAIN = 4.0
# Evidence, in [-1, 1], that an image of an unknown place is expected to give for its place.
_ELSEWHERE_EVIDENCE = 0.25
# Probability that a robot that was elsewhere comes to a candidate.
_ENTER = 0.1
# Weight of a transition over one frame more.
_SKIP = 0.5
_MIN_TRACK_FRAMES = 3.0
# Probability that an image of a track was right by itself, see `support_of`.
_MIN_SUPPORT = 0.65
# Frames of a robot that has not moved repeat one piece of evidence.
_STILL_M, _STILL_RAD = 0.1, 0.05
_STILL_SIMILARITY = 0.995
_MAX_SPEED_M_S, _MAX_STEP_M, _MIN_STEP_S = 60.0, 50.0, 0.1


@dataclass(frozen=True)
class _Frame:
    """Belief after one image.

    Attributes:
        positions: K candidates.
        belief: (NUM_MOTIONS, K); with `elsewhere` it sums to 1.
        elsewhere: probability of a place that is no candidate, inside the map or out.
        age: (NUM_MOTIONS, K) expected number of frames of the track that led there.
        evidence: (K,) in [-1, 1], of this image alone.
        odometry: of the robot, if known.
    """

    positions: MapPositions
    belief: Array
    elsewhere: float
    age: Array
    evidence: Array
    odometry: Pose | None


@dataclass(frozen=True)
class _Track:
    """Where the belief of a frame is.

    Attributes:
        peak: candidate with the most belief.
        order: (K,) candidates: first the middle of the belief at the place of the peak, then most belief first.
        here: (K,) whether a candidate is at the place of the peak.
        mass: belief at that place.
        frames: expected age of the track that led there.
    """

    peak: int
    order: NDArray[np.int64]
    here: NDArray[np.bool_]
    mass: float
    frames: float


class SequenceFilter:
    """The recognitions of one stream of images, each judged in the light of those before it."""

    def __init__(self, recognizer: Answering) -> None:
        """Start without memory.

        Args:
            recognizer: gives thresholds, and poses to answers; off while its `sequence_length` is 0.
        """
        self._recognizer = recognizer
        self._anchor: tuple[NDArray[np.float32], Pose | None] | None
        self._odometry: Pose | None
        self._stamp_ns: int | None
        self.reset()

    def reset(self) -> None:
        """Forget everything: another stream or map begins."""
        self._table = MapPositionTable()
        self._background = BackgroundEvidence()
        self._restart()

    def forget(self, place_ids: Iterable[int]) -> None:
        """Drop what is kept of places that are no longer in the map."""
        for place_id in place_ids:
            self._table.forget(place_id)
            self._background.forget(place_id)

    def use(self, recognizer: Answering) -> None:
        """Go on with other thresholds; another map resets."""
        if recognizer.place_map is not self._recognizer.place_map:
            self.reset()
        self._recognizer = recognizer

    def update(
        self, recognition: Recognition, *, stamp_ns: int | None = None, odometry: Pose | None = None
    ) -> Recognition:
        """Judge the next recognition of the stream.

        MATCH: at least `sequence_match` of the belief is at the best place, after a track of three frames or more,
        this image speaks for it, and the images of the track do so by themselves: pictures of one place again and
        again agree on what they are mistaken about. A MATCH of the image alone stays as it is if it is at the best
        place or if no track was established; else it is withdrawn to AMBIGUOUS. NO_MATCH of the image alone stays
        where "elsewhere" has more belief than the best place. AMBIGUOUS otherwise.

        The track breaks, and the next one begins with this image, when the stamps go backwards or leave a gap of
        more than `sequence_max_gap_s`, and when the odometry jumps. Images of a robot that stands still count once.

        Args:
            recognition: of the image alone.
            stamp_ns: of the image; None if unknown.
            odometry: pose of the robot in any fixed frame that does not jump, at that time.

        Returns:
            The recognition with the middle of the belief at the best place first, then the other candidates in the
            order of belief; the same object where the sequence is off, without candidates, and where the map's places
            have neither positions nor an order.
        """
        config = self._recognizer.config
        if (
            config.sequence_length == 0
            or not recognition.candidates
            or (not self._recognizer.has_order and have_no_position(recognition.candidates))
        ):
            return recognition
        started = time.perf_counter()
        if self._is_broken(stamp_ns, odometry, config):
            self._restart()
        descriptor = recognition.features.global_descriptor
        stands = bool(self._frames) and self._stands(descriptor, odometry)
        if stands:
            self._frames.pop()
            self._alone.pop()
        else:
            self._anchor = (descriptor, odometry)
        self._stamp_ns, self._odometry = stamp_ns, odometry
        frame = self._next(recognition.candidates, odometry, config)
        self._frames.append(frame)
        track = _track(frame, recognition.candidates, config)
        first = recognition.candidates[0].place.place_id
        self._alone.append((first, recognition.confidence if track.here[0] else 0.0))
        ranked, decision = self._decide(recognition, frame, track, config)
        if not stands:
            unseen = 1.0 - np.where(track.here, track.mass, frame.belief.sum(axis=0))
            self._background.learn(frame.positions.ids.tolist(), frame.evidence, unseen)
        result = self._recognizer.judged(recognition, ranked, decision)
        took_ms = (time.perf_counter() - started) * 1e3
        latency = recognition.latency_ms
        latency = replace(latency, decide=latency.decide + took_ms, total=latency.total + took_ms)
        # Only a MATCH of the image alone keeps the image's confidence; a belief is not fitted to anything.
        return replace(result, latency_ms=latency, calibrated=result.calibrated and result.status is Status.MATCH)

    def _restart(self) -> None:
        """Forget the track, and keep what is known of the places."""
        # One frame more than transitions span, since a still robot's last frame is replaced.
        self._frames: deque[_Frame] = deque(maxlen=MAX_LAG + 1)
        # Of the last images: the place that each names by itself, and its confidence where that is the track's.
        self._alone: deque[tuple[int, float]] = deque(maxlen=1000)
        self._established = False
        self._anchor = self._odometry = self._stamp_ns = None

    def _is_broken(self, stamp_ns: int | None, odometry: Pose | None, config: RecognizerConfig) -> bool:
        passed_s = None if stamp_ns is None or self._stamp_ns is None else (stamp_ns - self._stamp_ns) * 1e-9
        if passed_s is not None and not 0.0 <= passed_s <= config.sequence_max_gap_s:
            return True
        if odometry is None or self._odometry is None:
            return False
        limit_m = _MAX_STEP_M if passed_s is None else _MAX_SPEED_M_S * max(passed_s, _MIN_STEP_S)
        return moved_m(self._odometry, odometry) > limit_m

    def _stands(self, descriptor: NDArray[np.float32], odometry: Pose | None) -> bool:
        """Whether the robot is where the last frame that counted was taken."""
        if self._anchor is None:
            return False
        descriptor_then, odometry_then = self._anchor
        if odometry is not None and odometry_then is not None:
            return moved_m(odometry_then, odometry) < _STILL_M and turned_rad(odometry_then, odometry) < _STILL_RAD
        return float(descriptor_then @ descriptor) > _STILL_SIMILARITY

    def _next(self, candidates: Sequence[Candidate], odometry: Pose | None, config: RecognizerConfig) -> _Frame:
        """One step of the filter: predict from the frames before, weigh by this image, normalise."""
        evidence = candidate_evidence(candidates)[:_MAX_CANDIDATES]
        positions = self._table.positions([candidate.place for candidate in candidates[:_MAX_CANDIDATES]])
        likelihood = np.exp(_EVIDENCE_GAIN * (evidence - self._background.of(positions.ids.tolist())))
        likelihood_elsewhere = math.exp(_EVIDENCE_GAIN * _ELSEWHERE_EVIDENCE)

        predicted = np.zeros((2, NUM_MOTIONS, len(positions.ids)))
        lost, entering, elsewhere = 1.0 / config.sequence_length, 0.5, 0.5
        if self._frames:
            before = self._frames[-1].elsewhere
            entering = lost / 2.0 * (1.0 - before) + _ENTER * before
            elsewhere = lost / 2.0 * (1.0 - before) + (1.0 - _ENTER) * before
        previous = list(self._frames)[::-1][:MAX_LAG]
        for lag, frame in enumerate(previous, start=1):
            # Belief, and belief times age, which gives the expected age of what arrives.
            arriving = arrive(
                motion_after(np.stack([frame.belief, frame.belief * frame.age])),
                frame.positions,
                positions,
                lag,
                moved=(frame.odometry, odometry) if frame.odometry is not None and odometry is not None else None,
                tolerance_m=config.sequence_tolerance_m,
                reach_m=config.same_place_radius_m,
            )
            predicted += (1.0 - lost) * _SKIP ** (lag - 1) * arriving
        entry = entering / predicted[0].size
        prior = predicted[0] + entry
        belief = prior * likelihood
        elsewhere *= likelihood_elsewhere
        total = float(belief.sum()) + elsewhere
        return _Frame(positions, belief / total, elsewhere / total, predicted[1] / prior + 1.0, evidence, odometry)

    def _decide(
        self, recognition: Recognition, frame: _Frame, track: _Track, config: RecognizerConfig
    ) -> tuple[list[Candidate], Decision]:
        """Order of the candidates and what to say of the first; see `update`."""
        single, best, mass = recognition.candidates, track.peak, track.mass
        ranked = [*(single[number] for number in track.order), *single[_MAX_CANDIDATES:]]
        was_established = self._established
        images = min(max(round(track.frames), 1), config.sequence_length)
        support = support_of(list(self._alone)[-images:])
        lasts = track.frames >= _MIN_TRACK_FRAMES and support >= _MIN_SUPPORT
        self._established = lasts and mass >= config.sequence_match

        figures = (
            f"{mass:.2f} of the belief at place {ranked[0].place.place_id} after {track.frames:.1f} frames that are "
            f"right by themselves with {support:.2f}, "
            f"{frame.elsewhere:.2f} elsewhere; by the image alone {recognition.status.name}: {recognition.reason}"
        )
        if recognition.status is Status.MATCH and not track.here[0]:
            if not was_established:
                decision = Decision(Status.MATCH, recognition.confidence, f"decided by the single image: {figures}")
                return list(single), decision
            figures = f"decided by the sequence: lone match withdrawn, {figures}"
            return ranked, Decision(Status.AMBIGUOUS, mass, figures, DecidedBy.SEQUENCE)
        refused = max(item.similarity for item in single) < config.min_similarity_global
        if self._established and frame.evidence[best] > 0.0 and not refused:
            return ranked, Decision(Status.MATCH, mass, f"decided by the sequence: {figures}", DecidedBy.SEQUENCE)
        if recognition.status is Status.MATCH:
            return list(single), Decision(
                Status.MATCH, recognition.confidence, f"decided by the single image: {figures}"
            )
        if recognition.status is Status.NO_MATCH and (refused or frame.elsewhere > mass):
            return ranked, Decision(Status.NO_MATCH, mass, f"decided by the single image: {figures}")
        return ranked, Decision(Status.AMBIGUOUS, mass, f"decided by the sequence: {figures}", DecidedBy.SEQUENCE)


def _track(frame: _Frame, candidates: Sequence[Candidate], config: RecognizerConfig) -> _Track:
    belief = frame.belief.sum(axis=0)
    peak = int(belief.argmax())
    best = candidates[peak].place
    here = np.array([is_same_place(best, item.place, config) for item in candidates[:_MAX_CANDIDATES]])
    mass = float(belief[here].sum())
    # Along the path the median has the least expected distance from the truth, which the peak has not.
    along = np.flatnonzero(here & (frame.positions.session == frame.positions.session[peak]))
    along = along[np.argsort(frame.positions.ids[along])]
    below = np.cumsum(belief[along])
    middle = int(along[np.searchsorted(below, below[-1] / 2.0)])
    by_belief = np.argsort(-belief, kind="stable")
    order = np.concatenate([[middle], by_belief[by_belief != middle]])
    return _Track(peak, order, here, mass, float((frame.belief * frame.age)[:, here].sum()) / mass)
