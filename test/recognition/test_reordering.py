"""The order by all three stages, worked by hand."""

from __future__ import annotations

import pytest

from effovpr_ros.core.poses import Pose
from effovpr_ros.mapping.place import Candidate, Place, PointCounts
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.reordering import reorder

CONFIG = RecognizerConfig()


def candidate(
    number: int, score: float, counts: tuple[int, int] | None, x: float | None = None, consistent: int = 0
) -> Candidate:
    """At x metres, else 100 m from the next number; counts are matches and inliers of the homography."""
    place = Place(number, "a", 0, "", Pose.from_yaw(100.0 * number if x is None else x, 0.0, 0.0), None, (640, 480))
    return Candidate(place, 0.9, 50, consistent, score, points=PointCounts(*counts) if counts else None)


def numbers(candidates: list[Candidate], num_keypoints: int = 100) -> list[int]:
    return [item.place.place_id for item in reorder(candidates, num_keypoints, CONFIG)]


def test_many_points_overturn_a_lead_of_the_score():
    """0: 1 * (0.5 * 10 + 0.25 * 40 + 20) = 35. 1: sqrt(0.64) * (0.5 * 100 + 0.25 * 120 + 20) = 80."""
    assert numbers([candidate(0, 100.0, (40, 10)), candidate(1, 64.0, (120, 100))]) == [1, 0]


def test_the_floor_by_hand():
    """0: 20 + 3 = 23; 1: sqrt(0.81) * (20 + 0.5 * 8 + 0.25 * 6) = 22.95, and with 7 matches 23.175."""
    first = candidate(0, 100.0, (12, 0))
    assert numbers([first, candidate(1, 81.0, (6, 8))]) == [0, 1]
    assert numbers([first, candidate(1, 81.0, (7, 8))]) == [1, 0]


def test_few_points_leave_the_order_of_clear_scores():
    """A small picture: 6 and 9 inliers are noise. sqrt(0.5) * (0.5 * 9 + 0.25 * 12 + 20) = 19.4 < 25.5."""
    assert numbers([candidate(0, 100.0, (10, 6)), candidate(1, 50.0, (12, 9))]) == [0, 1]


def test_nothing_seen_changes_nothing():
    ranked = [candidate(number, 100.0 - number, (0, 0)) for number in range(6)]
    assert numbers(ranked) == list(range(6))


def test_neighbours_of_a_place_share_what_points_say():
    """1 and 2 are one place; 2 sees 100 inliers, 1 none: 1 counts half of them.

    0: 20 + 0.5 * 20 = 30. 1: sqrt(0.81) * (20 + 0.5 * 100 / 2) = 40.5. 2: sqrt(0.25) * (20 + 50) = 35.
    """
    ranked = [candidate(0, 100.0, (0, 20)), candidate(1, 81.0, (0, 0), 50.0), candidate(2, 25.0, (0, 100), 52.0)]
    assert numbers(ranked) == [1, 2, 0]
    apart = [candidate(0, 100.0, (0, 20)), candidate(1, 81.0, (0, 0), 50.0), candidate(2, 25.0, (0, 100), 60.0)]
    assert numbers(apart) == [2, 0, 1]


@pytest.mark.parametrize(("consistent", "wanted"), [(10, [1, 0]), (20, [0, 1])])
def test_where_two_stages_see_well_the_lead_must_be_larger(consistent: int, wanted: list[int]):
    """40 against 46, 15 % more: enough at a share of 0.1, which wants nothing, not at 0.2, which wants 20 %."""
    assert numbers([candidate(0, 10.0, (0, 40), consistent=consistent), candidate(1, 10.0, (0, 52))]) == wanted


def test_who_was_not_verified_stays_behind():
    ranked = [candidate(0, 9.0, (0, 5)), candidate(1, 8.0, None), candidate(2, 7.0, (0, 90)), candidate(3, 6.0, None)]
    assert numbers(ranked) == [2, 0, 1, 3]
    assert numbers([candidate(0, 9.0, None), candidate(1, 8.0, (0, 90))]) == [0, 1]
    assert numbers([]) == []


def test_without_reranking_similarity_is_weighed():
    """No scores: similarities of 0.9 and 0.8 are a factor of e, its root 1.65; 40 points against 10 overturn that."""
    first, second = candidate(0, 0.0, (0, 10)), candidate(1, 0.0, (0, 80))
    second = Candidate(second.place, 0.8, points=second.points)
    # 25 against 60 / 1.65 = 36.4.
    assert numbers([first, second]) == [1, 0]
    weak = Candidate(second.place, 0.8, points=PointCounts(0, 20))
    # 25 against 30 / 1.65.
    assert numbers([first, weak]) == [0, 1]
