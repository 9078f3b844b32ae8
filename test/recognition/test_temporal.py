"""The sequence filter: posteriors worked by hand, and drives whose truth is known."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from synthetic import FINGERPRINT

from effovpr_ros.core.poses import Pose
from effovpr_ros.features.image_features import Features, LocalFeatures
from effovpr_ros.mapping.place import Candidate, Place
from effovpr_ros.recognition.confidence import ConfidenceModel, setting_name
from effovpr_ros.recognition.decision import DecidedBy, Decision
from effovpr_ros.recognition.evidence import USUAL_LEADS, BackgroundEvidence, MapNull, candidate_evidence
from effovpr_ros.recognition.recognizer import PlaceRecognizer, Recognition, RecognizerConfig, Status
from effovpr_ros.recognition.temporal import SequenceFilter

CONFIG = RecognizerConfig(sequence_length=10, same_place_ids=0, same_place_radius_m=0.5)
NO_LOCALS = LocalFeatures(np.zeros((0, 4), np.int8), np.zeros((0, 2), np.uint8))
SECOND_NS = 10**9


CALIBRATION = ConfidenceModel(setting_name(FINGERPRINT, CONFIG), (0.0,) * 6, 0.0, 0.9, 0.99, "by hand", 40, 0.0)


class NoMap:
    """Without places, calibrated for the settings above."""

    datum, fingerprint = None, FINGERPRINT

    def require_model(self, fingerprint: Any) -> None:
        pass

    def get_property(self, key: str) -> bytes | None:
        return json.dumps([CALIBRATION.to_dict()]).encode() if key == "calibrations" else None


class NoModel:
    fingerprint, device = FINGERPRINT, "cpu"


def recognizer(config: RecognizerConfig = CONFIG) -> PlaceRecognizer:
    return PlaceRecognizer(NoModel(), NoMap(), config)  # type: ignore[arg-type]


def place(place_id: int, pose: Pose | None = None) -> Place:
    return Place(place_id, "a", 0, f"{place_id}.jpg", pose, None, (64, 48))


def recognition(
    places: Sequence[Place],
    scores: Sequence[float],
    *,
    seed: int = 0,
    status: Status = Status.AMBIGUOUS,
    similarity: float = 0.5,
) -> Recognition:
    """What one image says; images of different seeds look different, candidates come best first."""
    view = np.random.default_rng(seed).normal(size=16).astype(np.float32)
    order = np.argsort(-np.asarray(scores), kind="stable")
    candidates = [Candidate(places[i], similarity, round(scores[i]), 0, float(scores[i])) for i in order]
    features = Features(view / np.linalg.norm(view), NO_LOCALS, (23, 23))
    return recognizer().assemble(features, candidates, Decision(status, 0.3, "as told"))


def best(answer: Recognition) -> int:
    return answer.candidates[0].place.place_id


# By hand


def test_evidence_is_free_of_the_unit_and_the_offset_of_the_score():
    scores = np.array([9.0, 3.0, 2.0, 1.0, 0.0])
    # Median 2, median of |excess| 1, five robust standard deviations 7.413 > the best excess of 7.
    expected = np.array([7.0, 1.0, 0.0, -1.0, -2.0]) / 7.413
    for changed in (scores, 10.0 * scores, scores + 100.0):
        candidates = [Candidate(place(i), 0.5, score=score) for i, score in enumerate(changed)]
        np.testing.assert_allclose(candidate_evidence(candidates), expected)


def test_a_best_score_that_stands_out_is_full_evidence_and_similarity_serves_without_scores():
    candidates = [Candidate(place(i), similarity) for i, similarity in enumerate([0.9, 0.31, 0.3, 0.29, -0.9])]
    np.testing.assert_allclose(candidate_evidence(candidates), [1.0, 0.01 / 0.6, 0.0, -0.01 / 0.6, -1.0])
    np.testing.assert_array_equal(candidate_evidence([Candidate(place(i), 0.4) for i in range(3)]), [0.0] * 3)


def test_habits_are_a_mean_over_the_images_that_do_not_show_the_place():
    background = BackgroundEvidence()
    assert background.of([3, 9]).tolist() == [0.0, 0.0]
    for _ in range(2):
        background.learn([3, 9], np.array([0.8, 0.8]), np.array([1.0, 0.0]))
    # Two images beside five that said nothing; the first counts 49 / 50.
    np.testing.assert_allclose(background.of([9, 3]), [0.0, 1.98 * 0.8 / (1.98 + 5.0)])


def test_the_first_two_posteriors_worked_by_hand():
    places = [place(100 * number) for number in range(5)]
    scores = [9.0, 3.0, 2.0, 1.0, 0.0]
    evidence = [7 / 7.413, 1 / 7.413, 0.0, -1 / 7.413, -2 / 7.413]
    # Half of the belief is elsewhere at first, a fifth of the other half at each place.
    weight = [0.1 * math.exp(4.0 * value) for value in evidence]
    elsewhere = 0.5 * math.exp(4.0 * 0.25)
    total = sum(weight) + elsewhere
    belief, lost = [value / total for value in weight], elsewhere / total
    assert belief[0] == pytest.approx(0.717, abs=0.001)
    sequence = SequenceFilter(recognizer())
    first = sequence.update(recognition(places, scores, seed=1))
    assert first.confidence == pytest.approx(belief[0])
    assert f"{belief[0]:.2f} of the belief at place 0 after 1.0 frames" in first.reason
    assert f"right by themselves with 0.30, {lost:.2f} elsewhere" in first.reason

    # Each place goes on with itself only: 0.6, 0.15 and 0 of three speeds, both ways, a mean of 0.25. A tenth breaks
    # off, half of it to elsewhere; a tenth of elsewhere enters, a fifth at each place. What a place answered to an
    # image that does not show it is taken off.
    share = [1.0 - value for value in belief]
    surprise = [value - part * value / (part + 5.0) for value, part in zip(evidence, share, strict=True)]
    entering = (0.05 * (1.0 - lost) + 0.1 * lost) / 5
    weight = [
        (0.9 * 0.25 * value + entering) * math.exp(4.0 * found) for value, found in zip(belief, surprise, strict=True)
    ]
    elsewhere = (0.9 * lost + 0.05 * (1.0 - lost)) * math.e
    second = sequence.update(recognition(places, scores, seed=2))
    assert second.confidence == pytest.approx(weight[0] / (sum(weight) + elsewhere))
    age = 1.0 + 0.9 * 0.25 * belief[0] / (0.9 * 0.25 * belief[0] + entering)
    assert f"after {age:.1f} frames" in second.reason


def test_the_answer_is_the_middle_of_the_belief_at_the_best_place():
    places = [place(number) for number in (12, 10, 11, 100, 200, 300, 400)]
    scores = [8.5, 9.0, 8.5, 0.0, 0.0, 0.0, 0.0]
    # Evidence 8.5 / 9, 1 and 8.5 / 9: along the path weights of 54.6, 43.7 and 43.7; half of the sum is reached at 11.
    sequence = SequenceFilter(recognizer(replace(CONFIG, same_place_ids=3)))
    answer = sequence.update(recognition(places, scores))
    assert [candidate.place.place_id for candidate in answer.candidates[:3]] == [11, 10, 12]
    alone = SequenceFilter(recognizer(CONFIG)).update(recognition(places, scores))
    assert best(alone) == 10


def test_forgotten_places_leave_no_memory():
    sequence = SequenceFilter(recognizer())
    places = [place(100 * number) for number in range(5)]
    sequence.update(recognition(places, [9.0, 3.0, 2.0, 1.0, 0.0], seed=1))
    assert len(sequence._background) == 5
    sequence.forget([0, 100, 999])
    assert len(sequence._background) == 3
    sequence.update(recognition(places[2:], [9.0, 3.0, 2.0], seed=2))
    assert len(sequence._background) == 3


# Drives


NUM_PLACES = 200


class Drive:
    """Images of places along one path, their scores, and the filter's answers."""

    def __init__(self, config: RecognizerConfig = CONFIG, spacing_m: float | None = None) -> None:
        self.filter = SequenceFilter(recognizer(config))
        self.places = [
            place(number, Pose.from_yaw(number * spacing_m, 0.0, 0.0) if spacing_m else None)
            for number in range(NUM_PLACES)
        ]
        self.rng = np.random.default_rng(7)
        self.seed = 0

    def scores(self, truth: float | None, rival: int | None = None) -> np.ndarray:
        """Noise, a peak at the true place, and a higher one at its rival."""
        scores = self.rng.uniform(0.0, 10.0, NUM_PLACES)
        if truth is not None:
            scores[round(truth)] = 20.0
        if rival is not None:
            scores[rival] = 25.0
        return scores

    def see(self, truth: float | None, rival: int | None = None, **options: Any) -> Recognition:
        """One image: the hundred best of all places are candidates."""
        self.seed += 1
        image = recognition(self.places, self.scores(truth, rival), seed=options.pop("seed", self.seed))
        image = replace(image, candidates=image.candidates[:100], status=options.pop("status", image.status))
        return self.filter.update(image, **options)

    def hits(self, truths: Sequence[float], wrong_share: float = 0.6) -> tuple[list[bool], list[Recognition]]:
        """Whether each answer is right, and the answers; the true place comes second in a share of the images."""
        rivals = [
            int(self.rng.integers(NUM_PLACES)) if self.rng.random() < wrong_share else None for _ in range(len(truths))
        ]
        answers = [self.see(truth, rival) for truth, rival in zip(truths, rivals, strict=True)]
        return [best(answer) == round(truth) for answer, truth in zip(answers, truths, strict=True)], answers


@pytest.mark.parametrize(
    "truths",
    [range(150), range(180, 30, -1), range(0, 198, 2), np.arange(0, 60, 0.5), range(0, 198, 3)],
    ids=["forward", "backward", "twice as fast", "half as fast", "three places an image"],
)
def test_a_true_place_that_comes_second_in_most_images_is_found(truths: Sequence[float]):
    right, answers = Drive().hits(truths)
    assert np.mean(right) > 0.9
    matches = [hit for hit, answer in zip(right, answers, strict=True) if answer.status is Status.MATCH]
    assert len(matches) > 0.3 * len(right)
    assert np.mean(matches) > 0.97
    raised = [answer for answer in answers if answer.status is Status.MATCH]
    assert all(answer.decided_by is DecidedBy.SEQUENCE for answer in raised)
    assert all(answer.confidence >= CONFIG.sequence_match for answer in raised)
    # The confidence is the belief whatever the status.
    assert all(f"{answer.confidence:.2f} of the belief at place {best(answer)} " in answer.reason for answer in answers)


def test_a_robot_that_stops_stays_found_and_goes_on():
    drive = Drive()
    drive.hits(range(60))
    standing = [drive.see(59, rival=150, seed=60) for _ in range(30)]
    assert {best(answer) for answer in standing} == {59}
    further, _ = drive.hits(range(60, 120))
    assert np.mean(further) > 0.9


def test_images_of_a_robot_that_stands_still_count_once():
    drive = Drive()
    still = [drive.see(50, seed=1) for _ in range(30)]
    assert {(best(answer), answer.status) for answer in still} == {(50, Status.AMBIGUOUS)}
    assert all("after 1.0 frames" in answer.reason for answer in still)
    # The odometry knows it too, where the images differ.
    here = Pose.from_yaw(1.0, 2.0, 0.3)
    drive = Drive()
    assert all("after 1.0 frames" in drive.see(50, odometry=here).reason for _ in range(10))
    turned = Pose.from_yaw(1.0, 2.0, 0.4)
    assert "after 1.0 frames" not in drive.see(50, odometry=turned).reason


def test_a_robot_that_is_carried_off_is_found_again():
    drive = Drive()
    drive.hits(range(60))
    after = [drive.see(truth) for truth in range(140, 160)]
    truths = range(140, 160)
    assert [best(answer) for answer in after[8:]] == list(truths)[8:]
    # At most two images later nothing is said of the old track.
    false = [a for a, truth in zip(after, truths, strict=True) if a.status is Status.MATCH and best(a) != truth]
    assert len(false) <= 2


def test_a_place_that_is_no_candidate_in_two_images_does_not_end_the_track():
    drive = Drive()
    drive.hits(range(40), 0.0)
    for _ in range(2):
        image = recognition(drive.places[100:], drive.scores(None)[100:], seed=1000 + drive.seed)
        drive.seed += 1
        drive.filter.update(image)
    assert best(drive.see(42, rival=150)) == 42
    assert [drive.see(truth) for truth in (43, 44, 45)][-1].status is Status.MATCH


def test_nothing_is_made_up_outside_the_map():
    drive = Drive()
    drive.hits(range(50))
    outside = [drive.see(None) for _ in range(80)]
    assert not [answer for answer in outside[3:] if answer.status is Status.MATCH]
    back = [drive.see(truth) for truth in range(100, 120)]
    assert [best(answer) for answer in back[8:]] == list(range(108, 120))


def test_no_match_of_an_image_stays_where_elsewhere_wins():
    drive = Drive()
    answers = [drive.see(None, status=Status.NO_MATCH) for _ in range(20)]
    assert {answer.status for answer in answers[5:]} == {Status.NO_MATCH}
    assert {answer.decided_by for answer in answers[5:]} == {DecidedBy.SINGLE_IMAGE}
    assert all(answer.pose is None for answer in answers[5:])
    # On a track the same status is raised.
    drive = Drive()
    assert [drive.see(truth, status=Status.NO_MATCH) for truth in range(15)][-1].status is Status.MATCH


@pytest.mark.parametrize("stamps", [(41.0, 30.0), (41.0, 60.0)], ids=["backwards", "gap"])
def test_stamps_that_jump_break_the_track(stamps: tuple[float, float]):
    def answer(jump_s: float) -> Recognition:
        drive = Drive()
        for number in range(41):
            drive.see(number, stamp_ns=(1 + number) * SECOND_NS)
        return drive.see(41, stamp_ns=int((1 + jump_s) * SECOND_NS))

    without, broken = (answer(stamp) for stamp in stamps)
    assert without.status is Status.MATCH
    assert (broken.status, "after 1.0 frames" in broken.reason) == (Status.AMBIGUOUS, True)


def metric_drive(step_m: float, *, tolerance_m: float = 2.0) -> list[Recognition]:
    """Places 1 m apart are passed one an image, while the odometry says `step_m`."""
    drive = Drive(replace(CONFIG, sequence_tolerance_m=tolerance_m), spacing_m=1.0)
    return [drive.see(n, odometry=Pose.from_yaw(0.0, n * step_m, math.pi / 2)) for n in range(40)]


def test_odometry_that_agrees_supports_and_odometry_that_contradicts_does_not():
    agreeing, contradicting = metric_drive(1.0, tolerance_m=0.5), metric_drive(6.0, tolerance_m=0.5)
    assert [best(answer) for answer in agreeing] == list(range(40))
    assert all(answer.status is Status.MATCH for answer in agreeing[8:])
    assert not [answer for answer in contradicting if answer.status is Status.MATCH]
    # By order alone they would support each other.
    drive = Drive()
    assert [drive.see(n) for n in range(40)][-1].status is Status.MATCH


def test_odometry_tells_two_tracks_apart_that_look_alike():
    drive = Drive(replace(CONFIG, sequence_tolerance_m=0.5), spacing_m=2.0)
    answers = []
    for number in range(40):
        image = drive.scores(3 * number)
        image[100 + number] = 20.5
        drive.seed += 1
        found = recognition(drive.places, image, seed=drive.seed)
        answers.append(drive.filter.update(found, odometry=Pose.from_yaw(6.0 * number, 0.0, 0.0)))
    assert [best(answer) for answer in answers[5:]] == [3 * number for number in range(5, 40)]


def test_odometry_that_jumps_breaks_the_track():
    drive = Drive(spacing_m=1.0)
    for n in range(40):
        drive.see(n, stamp_ns=(1 + n) * SECOND_NS, odometry=Pose.from_yaw(float(n), 0.0, 0.0))
    jumped = drive.see(40, stamp_ns=41 * SECOND_NS, odometry=Pose.from_yaw(140.0, 0.0, 0.0))
    assert "after 1.0 frames" in jumped.reason


# Decisions


def test_a_lone_match_against_a_track_is_withdrawn():
    drive = Drive()
    drive.hits(range(40), 0.0)
    answer = drive.see(40, rival=150, status=Status.MATCH)
    assert (answer.status, answer.decided_by, best(answer)) == (Status.AMBIGUOUS, DecidedBy.SEQUENCE, 40)
    assert "lone match withdrawn" in answer.reason
    assert f"{answer.confidence:.2f} of the belief at place 40 " in answer.reason


def test_a_match_without_a_track_stands_as_the_image_alone_says():
    drive = Drive()
    for number in range(3):
        drive.see(number)
    answer = drive.see(3, rival=150, status=Status.MATCH)
    assert (answer.status, answer.decided_by, best(answer)) == (Status.MATCH, DecidedBy.SINGLE_IMAGE, 150)
    assert answer.confidence == pytest.approx(0.3)
    assert answer.reason.startswith("decided by the single image")


def test_a_belief_is_no_calibrated_probability():
    # A MATCH of the image alone has the image's confidence; all else has the belief, whoever decided the status.
    drive = Drive()
    lone = drive.see(3, status=Status.MATCH)
    refused = [drive.see(None, status=Status.NO_MATCH) for _ in range(20)][-1]
    assert (lone.decided_by, refused.decided_by) == (DecidedBy.SINGLE_IMAGE, DecidedBy.SINGLE_IMAGE)
    assert (lone.confidence, lone.calibrated) == (0.3, True)
    assert (refused.status, refused.calibrated) == (Status.NO_MATCH, False)
    assert f"{refused.confidence:.2f} of the belief" in refused.reason
    drive = Drive()
    _, answers = drive.hits(range(40), 0.0)
    assert (answers[-1].status, answers[-1].calibrated) == (Status.MATCH, False)


def test_an_image_that_says_nothing_is_no_match_however_good_the_track():
    drive = Drive()
    drive.hits(range(40), 0.0)
    dark = recognition(drive.places[:100], [0.0] * 100, seed=999, status=Status.NO_MATCH, similarity=0.1)
    assert drive.filter.update(dark).status is not Status.MATCH
    drive = Drive(replace(CONFIG, min_similarity_global=0.6))
    assert not [n for n in range(40) if drive.see(n).status is Status.MATCH]


def test_pose_and_covariance_follow_the_best_place():
    drive = Drive(spacing_m=1.0)
    drive.hits(range(40), 0.0)
    answer = drive.see(40, rival=150)
    assert answer.pose == drive.places[40].pose
    assert answer.covariance is not None


def test_off_and_without_candidates_the_answer_is_the_image_s_own():
    image = recognition([place(1), place(2)], [5.0, 3.0])
    assert SequenceFilter(recognizer(RecognizerConfig())).update(image) is image
    nothing = replace(image, candidates=())
    assert SequenceFilter(recognizer()).update(nothing) is nothing


def test_candidates_beyond_the_hundredth_keep_their_order():
    scores = np.arange(150.0, 0.0, -1.0)
    answer = SequenceFilter(recognizer()).update(recognition([place(n) for n in range(150)], scores.tolist()))
    assert sorted(item.place.place_id for item in answer.candidates) == list(range(150))
    assert [item.place.place_id for item in answer.candidates[100:]] == list(range(100, 150))


def test_it_is_deterministic_and_reset_forgets():
    def drive_again(make: Callable[[], SequenceFilter]) -> list[tuple[int, float, str]]:
        drive = Drive()
        drive.filter = make()
        _, answers = drive.hits(range(30))
        return [(best(answer), answer.confidence, answer.reason) for answer in answers]

    fresh = drive_again(lambda: SequenceFilter(recognizer()))
    used = SequenceFilter(recognizer())
    assert drive_again(lambda: used) == fresh
    assert drive_again(lambda: used) != fresh
    used.reset()
    assert drive_again(lambda: used) == fresh


def test_another_map_resets_and_other_thresholds_do_not():
    drive = Drive()
    drive.hits(range(40), 0.0)
    same = recognizer(replace(CONFIG, sequence_match=0.95))
    same.place_map = drive.filter._recognizer.place_map
    drive.filter.use(same)
    assert drive.see(40).status is Status.MATCH
    drive.filter.use(recognizer())
    assert "after 1.0 frames" in drive.see(41).reason


def timed_drive(spacing_m: float | None) -> tuple[Drive, list[float]]:
    """Sixty images with a hundred candidates each, and the seconds that each took."""
    drive = Drive(spacing_m=spacing_m)
    took_s = []
    for number in range(60):
        image = recognition(drive.places, drive.scores(number), seed=number)
        image = replace(image, candidates=image.candidates[:100])
        odometry = Pose.from_yaw(float(number), 0.0, 0.0) if spacing_m else None
        started = time.perf_counter()
        answer = drive.filter.update(image, odometry=odometry)
        took_s.append(time.perf_counter() - started)
        assert answer.latency_ms.decide > 0.0
    return drive, took_s


@pytest.mark.parametrize("spacing_m", [None, 1.0], ids=["order", "odometry"])
def test_it_keeps_no_more_the_longer_it_drives(spacing_m: float | None):
    drive, _ = timed_drive(spacing_m)
    assert len(drive.filter._frames) == 4
    assert len(drive.filter._background) <= NUM_PLACES


@pytest.mark.benchmark
@pytest.mark.parametrize("spacing_m", [None, 1.0], ids=["order", "odometry"])
def test_it_takes_less_than_a_millisecond_an_image(spacing_m: float | None):
    _, took_s = timed_drive(spacing_m)
    # The quickest, since other programs may share the processor.
    assert min(took_s[5:]) < 1e-3


def test_pictures_of_one_place_again_and_again_are_one_witness():
    # Ten pictures that look different name one place with 0.3: they agree on what they are mistaken about.
    drive = Drive()
    answers = [drive.see(50) for _ in range(10)]
    assert all("right by themselves with 0.30" in answer.reason for answer in answers)
    assert {answer.status for answer in answers} == {Status.AMBIGUOUS}
    # Three places one after the other are three witnesses: 1 - 0.7 ** 3.
    drive = Drive()
    answers = [drive.see(truth) for truth in range(50, 60)]
    assert "right by themselves with 0.66" in answers[2].reason
    assert answers[-1].status is Status.MATCH


def test_a_map_without_order_and_positions_has_no_sequence():
    null = MapNull("by hand", USUAL_LEADS, NUM_PLACES, 40, in_order=False)
    without_order = PlaceRecognizer(NoModel(), NoMap(), CONFIG, null=null)  # type: ignore[arg-type]
    sequence = SequenceFilter(without_order)
    unposed = [place(number) for number in range(20)]
    alone = recognition(unposed, [float(number) for number in range(20)], seed=1)
    assert sequence.update(alone) is alone
    # With positions it is one.
    posed = [place(number, Pose.from_yaw(float(number), 0.0, 0.0)) for number in range(20)]
    known = recognition(posed, [float(number) for number in range(20)], seed=1)
    assert sequence.update(known) is not known
