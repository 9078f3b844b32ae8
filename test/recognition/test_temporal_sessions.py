"""The sequence filter over two sessions: a drive whose best place is now in one, now in the other."""

from __future__ import annotations

import numpy as np
import pytest
from test_temporal import CONFIG, SECOND_NS, recognition, recognizer

from effovpr_ros.core.poses import Pose
from effovpr_ros.mapping.place import Place
from effovpr_ros.recognition.decision import DecidedBy
from effovpr_ros.recognition.recognizer import Recognition, Status
from effovpr_ros.recognition.temporal import SequenceFilter

LENGTH = 40


def place(x: int, session: str, *, posed: bool = True, own_frame: str = "") -> Place:
    """Session a has the numbers from 0, b those from 40; both drove along x, a metre a place."""
    pose = Pose.from_yaw(float(x), 0.0, 0.0) if posed else None
    return Place(x + (LENGTH if session == "b" else 0), session, 0, "", pose, None, (1, 1), own_frame)


def drive(*, b_frame: str = "", posed: bool = True, with_odometry: bool = True, alternates: bool = True) -> Recognition:
    """The answer after ten images, a metre from one to the next, each with its place among nine that say little."""
    rng = np.random.default_rng(5)
    sequence = SequenceFilter(recognizer(CONFIG))
    for step in range(10):
        session = "b" if alternates and step % 2 else "a"
        others = rng.choice(np.setdiff1d(np.arange(LENGTH), np.arange(step - 3, step + 4)), 9, replace=False)
        shown = [(step, session), *((int(x), "ab"[number % 2]) for number, x in enumerate(others))]
        places = [place(x, name, posed=posed, own_frame=b_frame if name == "b" else "") for x, name in shown]
        scores = [9.0, *rng.uniform(2.0, 6.0, 9)]
        odometry = Pose.from_yaw(float(step), 0.0, 0.0) if with_odometry else None
        alone = recognition(places, scores, seed=step)
        answer = sequence.update(alone, stamp_ns=(step + 1) * SECOND_NS, odometry=odometry)
    return answer


def test_a_track_goes_on_from_session_to_session():
    answer = drive()
    assert (answer.status, answer.decided_by) == (Status.MATCH, DecidedBy.SEQUENCE)
    assert (answer.candidates[0].place.session, answer.candidates[0].place.place_id) == ("b", LENGTH + 9)
    assert answer.pose == Pose.from_yaw(9.0, 0.0, 0.0)


def test_poses_of_another_frame_lend_no_belief():
    apart = drive(b_frame="b/odom")
    # The two images of one session with one of the other between still agree with the odometry.
    assert apart.confidence < drive().confidence
    assert apart.pose is None or apart.candidates[0].place.session == "a"


@pytest.mark.parametrize("posed", [True, False])
@pytest.mark.parametrize("with_odometry", [True, False])
def test_a_second_session_does_not_break_a_track_in_the_first(posed: bool, with_odometry: bool):
    answer = drive(posed=posed, with_odometry=with_odometry, alternates=False)
    assert answer.status is Status.MATCH
    assert answer.candidates[0].place.place_id == 9
