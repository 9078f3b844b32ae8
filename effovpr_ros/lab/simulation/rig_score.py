"""What a second camera adds in the demo: a rig against one camera, and a path driven the other way round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from effovpr_ros.core.poses import Pose
from effovpr_ros.lab.simulation.score import RIGHT_WITHIN_DEG, RIGHT_WITHIN_M, pose_error
from effovpr_ros.recognition.decision import Status


@dataclass(frozen=True)
class BodyAnswer:
    """Where an answer puts the body, whatever its status; None without candidates."""

    status: Status
    body: Pose | None

    def is_right(self, truth: Pose) -> bool:
        """Within 1.5 m and 30 degrees."""
        return is_right(self.body, truth)


@dataclass(frozen=True)
class RigScore:
    """Figures of one camera against two.

    Attributes:
        frames: of the second drive that both were asked about.
        mapped: of them, those where the first drive's front camera has a picture that would be a right answer.
        one_right: right MATCHes of the front camera in the map of front pictures.
        one_wrong: wrong ones.
        two_right: right MATCHes of front and rear together in the map of both.
        two_wrong: wrong ones.
        gained: mapped frames that are a right MATCH with two cameras alone.
        back_frames: of the first drive's path, driven the other way round.
        back_one: of them, first answers of the front camera that are right in the map of front pictures.
        back_two: likewise in the map of front and rear pictures.
        back_matches: MATCHes of the latter, right ones and wrong ones.
        unseen: frames of the way back where the front camera never looked that way, so that its own map has no right
            answer.
        unseen_two: of them, first answers that are right in the map of both.
    """

    frames: int
    mapped: int
    one_right: int
    one_wrong: int
    two_right: int
    two_wrong: int
    gained: int
    back_frames: int
    back_one: int
    back_two: int
    back_matches: tuple[int, int]
    unseen: int
    unseen_two: int

    @property
    def missing(self) -> int:
        """Mapped frames that the front camera alone does not answer with a right MATCH."""
        return self.mapped - self.one_right

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "missing": self.missing}

    def table(self) -> str:
        """For a terminal."""
        share = self.back_frames or 1
        rows = [
            ("frames asked with the front camera and with both", f"{self.frames}, {self.mapped} on mapped ground"),
            ("  right MATCHes, front camera / both", f"{self.one_right} / {self.two_right}"),
            ("  wrong MATCHes, front camera / both", f"{self.one_wrong} / {self.two_wrong}"),
            ("  of the missing right MATCHes gained", f"{self.gained} of {self.missing}"),
            ("frames of the way back, front camera alone", f"{self.back_frames}"),
            ("  R@1, map of front / of both cameras", f"{self.back_one / share:.3f} / {self.back_two / share:.3f}"),
            ("  where only the rear camera looked that way", f"0 / {self.unseen_two} right of {self.unseen}"),
            ("  MATCHes in the map of both, right / wrong", " / ".join(map(str, self.back_matches))),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:{width}}  {value}" for name, value in rows)


def score_rig(
    truth: Sequence[Pose],
    mapped: Sequence[bool],
    one: Sequence[BodyAnswer],
    two: Sequence[BodyAnswer],
    back: Sequence[tuple[Pose, BodyAnswer, BodyAnswer]],
    back_mapped: Sequence[bool],
) -> RigScore:
    """Sum up.

    Args:
        truth: of each frame of the second drive.
        mapped: whether the first drive has a right answer to it by its front camera.
        one: answers of the front camera.
        two: answers of both.
        back: truth of each frame of the way back, its answer in the map of front pictures and in that of both.
        back_mapped: whether the first drive has a right answer to each by its front camera.
    """
    judged = [
        (is_mapped, a.status is Status.MATCH, a.is_right(pose), b.status is Status.MATCH, b.is_right(pose))
        for pose, is_mapped, a, b in zip(truth, mapped, one, two, strict=True)
    ]
    matches = [(both.is_right(pose)) for pose, _, both in back if both.status is Status.MATCH]
    return RigScore(
        frames=len(judged),
        mapped=sum(is_mapped for is_mapped, *_ in judged),
        one_right=sum(match and right for _, match, right, _, _ in judged),
        one_wrong=sum(match and not right for _, match, right, _, _ in judged),
        two_right=sum(match and right for *_, match, right in judged),
        two_wrong=sum(match and not right for *_, match, right in judged),
        gained=sum(
            is_mapped and match and right and not (alone and alone_right)
            for is_mapped, alone, alone_right, match, right in judged
        ),
        back_frames=len(back),
        back_one=sum(front.is_right(pose) for pose, front, _ in back),
        back_two=sum(both.is_right(pose) for pose, _, both in back),
        back_matches=(sum(matches), len(matches) - sum(matches)),
        unseen=sum(not seen for seen in back_mapped),
        unseen_two=sum(
            both.is_right(pose) for (pose, _, both), seen in zip(back, back_mapped, strict=True) if not seen
        ),
    )


def is_right(body: Pose | None, truth: Pose) -> bool:
    """Whether a pose is within 1.5 m and 30 degrees of the truth."""
    distance_m, turn_deg = pose_error(truth, body)
    return distance_m <= RIGHT_WITHIN_M and turn_deg <= RIGHT_WITHIN_DEG
