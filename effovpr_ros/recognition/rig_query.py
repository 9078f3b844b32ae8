"""Several pictures of one moment, by cameras on one body: one place, one confidence, one pose.

Each picture is asked about by itself, and each candidate says where the body would be: where the place's camera was,
as the picture's own camera is mounted (`PoseMeasurer.prior`). So a camera that looks backward may match what one that
looked forward saw. Places that say the same of the body are one hypothesis, and the odds of its pictures are joined.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from effovpr_ros.core.images import RgbImage
from effovpr_ros.core.mounted_cameras import MountedCamera
from effovpr_ros.core.poses import Pose
from effovpr_ros.mapping.place import Candidate, Place
from effovpr_ros.recognition.answer import Hint, Recognition
from effovpr_ros.recognition.decision import Decision, Status
from effovpr_ros.recognition.latency import Latency, StageClock
from effovpr_ros.recognition.posing import PictureOfBody
from effovpr_ros.recognition.recognizer import PlaceRecognizer
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.same_place import is_same_place

_PLACES_OF_PICTURE = 3
"""Places that each picture proposes."""

# Both headings are those of matched pictures, each some 30 degrees off at most.
_MAX_TURN_RAD = 1.05


@dataclass(frozen=True)
class RigFusion:
    """How the odds of pictures are joined; chosen, not fitted, see docs/cameras.md.

    Attributes:
        weight: of the log-odds of each further picture: cameras of one body err together.
        agreement: log-odds that a further picture adds by agreeing at all, as wrong answers seldom do.
    """

    weight: float = 0.5
    agreement: float = 1.0


_FUSION = RigFusion()


@dataclass(frozen=True)
class RigPicture:
    """One picture of a moment.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        camera: that took it, with its mounting on the body; None where unknown.
        name: of the camera, for people.
    """

    image: RgbImage
    camera: MountedCamera | None = None
    name: str = ""


@dataclass(frozen=True)
class RigAnswer:
    """Answer to the pictures of one moment.

    Attributes:
        recognition: candidates, features and verified points are those of one picture, the surest; status, confidence
            and pose are those of all.
        number: of that picture.
        pictures: what each picture says by itself; poses are not measured where there are several.
        agreeing: numbers of the pictures that say the same of the body.
    """

    recognition: Recognition
    number: int
    pictures: tuple[Recognition, ...]
    agreeing: tuple[int, ...]


@dataclass(frozen=True)
class _Vote:
    """What one picture says of one hypothesis: a candidate, and the confidence that it is right."""

    candidate: Candidate
    confidence: float

    @property
    def log_odds(self) -> float:
        bounded = min(max(self.confidence, 1e-6), 1.0 - 1e-6)
        return math.log(bounded / (1.0 - bounded))


def recognize_rig(
    recognizer: PlaceRecognizer, pictures: Sequence[RigPicture], *, hint: Hint | None = None
) -> RigAnswer:
    """Find the place that the pictures of one moment show; one picture is answered as `PlaceRecognizer.recognize` does.

    Args:
        recognizer: of the map.
        pictures: at least one.
        hint: optional prior.

    Raises:
        ImageError: an image of another type or shape.
    """
    if len(pictures) == 1:
        alone = recognizer.recognize(pictures[0].image, hint=hint, camera=pictures[0].camera)
        return RigAnswer(alone, 0, (alone,), (0,))
    clock = StageClock()
    with clock.stage("extract"):
        features = recognizer.extract([picture.image for picture in pictures])
    extractor = recognizer.third_stage.extractor
    answers = [
        recognizer.recognize_features(
            feature,
            hint=hint,
            points=lambda picture=picture: extractor.extract(picture.image),  # type: ignore[misc]
            camera=picture.camera,
            measures=False,
        )
        for feature, picture in zip(features, pictures, strict=True)
    ]
    with clock.stage("decide"):
        fused = fuse(recognizer, answers, [picture.name for picture in pictures])
    whole = clock.latency()
    stages = [answer.latency_ms for answer in answers]
    latency = Latency(
        extract=whole.extract,
        search=sum(stage.search for stage in stages),
        rerank=sum(stage.rerank for stage in stages),
        verify=sum(stage.verify for stage in stages),
        pose=sum(stage.pose for stage in stages),
        decide=sum(stage.decide for stage in stages) + whole.decide,
        total=whole.total,
    )
    return replace(fused, recognition=replace(fused.recognition, latency_ms=latency))


def fuse(
    recognizer: PlaceRecognizer, answers: Sequence[Recognition], names: Sequence[str], fusion: RigFusion = _FUSION
) -> RigAnswer:
    """Join what the pictures of one moment say by themselves, and measure the pose of their body.

    A hypothesis is where a candidate puts the body. Its log-odds are those of its surest picture, and of each further
    picture that says the same a part, and something for saying the same. What other pictures say counts against it:
    P = O / (1 + O + R), O the odds of the hypothesis, R those of the best one that other pictures have part in.

    Args:
        recognizer: of the map.
        answers: to each picture.
        names: of their cameras, for people.
        fusion: how odds are joined.
    """
    votes = [_votes(recognizer, answer) for answer in answers]
    hypotheses: list[tuple[float, dict[int, _Vote]]] = []
    for number, own in enumerate(votes):
        for vote in own:
            found = {number: vote}
            for other, theirs in enumerate(votes):
                same = [item for item in theirs if _agrees(recognizer, answers, (number, vote), (other, item))]
                if other != number and same:
                    found[other] = max(same, key=lambda item: item.confidence)
            hypotheses.append((_joined_log_odds(found, fusion), found))
    if not hypotheses:
        surest = max(range(len(answers)), key=lambda number: answers[number].confidence)
        return RigAnswer(answers[surest], surest, tuple(answers), ())
    hypotheses.sort(key=lambda item: -item[0])
    log_odds, best = hypotheses[0]
    others = [
        odds
        for odds, found in hypotheses[1:]
        if found.keys() - best.keys() and not _overlaps(recognizer, answers, best, found)
    ]
    confidence = 1.0 / (1.0 + math.exp(-log_odds) * (1.0 + (math.exp(max(others)) if others else 0.0)))
    number = max(best, key=lambda item: best[item].confidence)
    return _answered(recognizer, answers, names, best, number, confidence)


def _votes(recognizer: PlaceRecognizer, answer: Recognition) -> list[_Vote]:
    """The few best places of a picture; none of one that says nothing."""
    if not answer.candidates or answer.confidence <= 0.0:
        return []
    chosen: list[Candidate] = []
    for item in answer.candidates:
        if all(not is_same_place(item.place, other.place, recognizer.config) for other in chosen):
            chosen.append(item)
        if len(chosen) == _PLACES_OF_PICTURE:
            break
    keypoints = len(answer.features.local)
    votes = [_Vote(chosen[0], answer.confidence)]
    return votes + [
        _Vote(item, recognizer.confidence_of(first_of(item, answer.candidates), keypoints)) for item in chosen[1:]
    ]


def first_of(candidate: Candidate, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Candidates in their order, but for one that comes first."""
    return [candidate, *(item for item in candidates if item is not candidate)]


def _joined_log_odds(votes: dict[int, _Vote], fusion: RigFusion) -> float:
    ordered = sorted((vote.log_odds for vote in votes.values()), reverse=True)
    # A picture that agrees never makes less sure.
    return ordered[0] + sum(max(0.0, fusion.weight * odds + fusion.agreement) for odds in ordered[1:])


def _agrees(
    recognizer: PlaceRecognizer, answers: Sequence[Recognition], a: tuple[int, _Vote], b: tuple[int, _Vote]
) -> bool:
    """Whether two votes put the body at one place and heading."""
    (number, vote), (other, item) = a, b
    places = vote.candidate.place, item.candidate.place
    bodies = tuple(
        recognizer.poses.prior(place, answers[which].camera)
        for place, which in zip(places, (number, other), strict=True)
    )
    return is_same_body(places, (bodies[0], bodies[1]), recognizer.config)


def is_same_body(
    places: tuple[Place, Place], bodies: tuple[Pose | None, Pose | None], config: RecognizerConfig
) -> bool:
    """Whether two places put a body at one place, looking one way where that is known.

    Args:
        places: that were matched.
        bodies: where they put it.
        config: what counts as one place.
    """
    here, there = bodies
    if here is None or there is None or places[0].own_frame != places[1].own_frame:
        return is_same_place(*places, config)
    turn_rad = here.turn_rad(there)
    return here.distance_m(there) <= config.same_place_radius_m and (turn_rad is None or turn_rad <= _MAX_TURN_RAD)


def _overlaps(
    recognizer: PlaceRecognizer, answers: Sequence[Recognition], best: dict[int, _Vote], other: dict[int, _Vote]
) -> bool:
    """Whether two hypotheses are one, or cannot be told apart."""
    return any(_agrees(recognizer, answers, a, b) for a in best.items() for b in other.items())


def _answered(
    recognizer: PlaceRecognizer,
    answers: Sequence[Recognition],
    names: Sequence[str],
    best: dict[int, _Vote],
    number: int,
    confidence: float,
) -> RigAnswer:
    answer, config = answers[number], recognizer.config
    candidates = first_of(best[number].candidate, answer.candidates)
    said = [f"{names[item]} {vote.confidence:.2f}" for item, vote in sorted(best.items())]
    against = [
        f"{names[item]} {other.confidence:.2f} for place {other.candidates[0].place.place_id}"
        for item, other in enumerate(answers)
        if item not in best and other.candidates
    ]
    wanted = recognizer.match_confidence
    status = Status.MATCH if confidence >= wanted else Status.AMBIGUOUS
    if confidence < config.min_confidence:
        status = Status.NO_MATCH
    reason = f"{', '.join(said)} for place {candidates[0].place.place_id}"
    if against:
        reason += f"; {', '.join(against)}"
    reason += f"; confidence {confidence:.3f}, MATCH from {wanted:.3f}; {answer.reason}"
    recognition = recognizer.assemble(
        answer.features,
        candidates,
        Decision(status, confidence, reason),
        answer.verified,
        answer.camera,
        measures=False,
    )
    # How cameras are joined is chosen, not fitted.
    recognition = replace(recognition, calibrated=False)
    if status is Status.MATCH:
        seen = [
            PictureOfBody(vote.candidate.place, verified, answers[item].camera)
            for item, vote in best.items()
            if (verified := answers[item].verified) is not None
        ]
        if seen:
            recognition = recognizer.with_measurement(recognition, recognizer.poses.measure_body(seen))
    return RigAnswer(recognition, number, tuple(answers), tuple(sorted(best)))
