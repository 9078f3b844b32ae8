"""What HTTP asks for, whatever answers it: one process, or a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from effovpr_ros.core.errors import ServerError
from effovpr_ros.core.poses import GeoPoint
from effovpr_ros.recognition.answer import Hint
from effovpr_ros.remote.answers import Answers
from effovpr_ros.remote.map_info import MapInfo
from effovpr_ros.remote.queries import CameraParameters
from effovpr_ros.remote.shard_list import ShardList


class BusyError(ServerError):
    """No answer now, but perhaps later."""


class NotThereError(ServerError):
    """Nothing of that name."""


@dataclass(frozen=True)
class GeoHint:
    """Where the camera is believed to be, in WGS84."""

    geo: GeoPoint
    radius_m: float


@dataclass(frozen=True)
class Question:
    """One question, as it was received: nothing of `body` is decoded yet.

    Attributes:
        body: a picture, or features.
        is_features: which of both.
        hint: where the camera is believed to be.
        camera: that took the picture.
        candidates: at most so many are answered.
        doubtful: the pose of an AMBIGUOUS answer is measured too.
        max_pixels: a larger picture is refused.
    """

    body: bytes
    is_features: bool
    hint: Hint | GeoHint | None
    camera: CameraParameters
    candidates: int
    doubtful: bool
    max_pixels: int


class MapService(Protocol):
    """What answers."""

    async def answer(self, question: Question) -> Answers:
        """Answer a question.

        Raises:
            EffoVPRError: by kind: an ImageError, a ConfigError, CameraError or GeodesyError, and a ModelMismatchError
                are the question's fault; a BusyError passes.
        """

    async def info(self) -> MapInfo:
        """What is served."""

    async def picture(self, place_id: int) -> bytes:
        """The JPEG that the map keeps of a place; a NotThereError without one."""

    async def shards(self) -> ShardList:
        """The parts of the map that a robot may keep."""

    async def shard_file(self, shard: str, file: str) -> Path:
        """A file of a part; a NotThereError where there is none."""

    async def problem(self) -> str:
        """Why nothing can be answered, on one line; empty where it can."""

    def figures(self) -> dict[str, float]:
        """Gauges for the metrics, by name."""
