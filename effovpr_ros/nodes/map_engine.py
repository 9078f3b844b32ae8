"""What the node recognises with: a map of this machine, or one that a server has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus

from effovpr_ros.core.poses import Pose
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.recognition.recognizer import Hint, PlaceRecognizer
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.rig_query import RigAnswer, RigPicture


@dataclass(frozen=True, eq=False)
class MapInUse:
    """The map that answers; another one is another object.

    Attributes:
        name: of the map.
        where: its folder, or the address of its server.
        frame_id: of its poses.
        architecture: of the model that it names.
        bodies: frames of the bodies whose poses it holds, as far as they are known.
        place_map: the open map; None where a server has it.
    """

    name: str
    where: str
    frame_id: str
    architecture: str
    bodies: frozenset[str] = frozenset()
    place_map: MapReader | None = field(default=None, repr=False)


class MapEngine(ABC):
    """Recognises in a map; for one thread.

    Attributes:
        map_in_use: that answers; None before one is loaded.
    """

    map_in_use: MapInUse | None = None

    @property
    @abstractmethod
    def config(self) -> RecognizerConfig:
        """The settings in use."""

    @property
    @abstractmethod
    def device(self) -> str:
        """Where the model runs and by which engine; empty without one."""

    @property
    @abstractmethod
    def engine_state(self) -> dict[str, str]:
        """The engine in use and how it came to be that, for people; empty without a model."""

    @property
    @abstractmethod
    def measures_poses(self) -> bool:
        """Whether the map keeps cameras to measure poses by, and that is wanted."""

    @property
    @abstractmethod
    def num_places(self) -> int:
        """Of the map; 0 without one."""

    @abstractmethod
    def take_over(self) -> bool:
        """Go on with a faster engine if one was found since the last image; whether that is so."""

    @abstractmethod
    def load_map(self, path: Path) -> MapInUse:
        """Use a map of this machine from the next image on."""

    @abstractmethod
    def require(self, config: RecognizerConfig) -> None:
        """Refuse settings that this engine cannot follow; a ConfigError."""

    @abstractmethod
    def set_config(self, config: RecognizerConfig, given: Mapping[str, Any] | None = None) -> None:
        """Use other thresholds from the next image on; `given`: those that somebody gave."""

    @abstractmethod
    def restart_sequence(self) -> None:
        """Forget the images so far, where a stream of images begins anew."""

    @abstractmethod
    def recognize(
        self,
        pictures: Sequence[RigPicture],
        hint: Hint | None,
        stamp_ns: int | None = None,
        odometry: Pose | None = None,
        doubtful: bool = False,
    ) -> tuple[RigAnswer, MapInUse, PlaceRecognizer | None]:
        """Recognise the pictures of one moment.

        Args:
            pictures: at least one.
            hint: optional prior.
            stamp_ns: of pictures of the stream, 0 if unknown; None for those that do not belong to it.
            odometry: pose of the robot at that time, if known.
            doubtful: the pose of an AMBIGUOUS answer is measured too.

        Returns:
            The answer, the map that gave it, and the recogniser, by which it can be drawn; None where a server has it.
        """

    def trouble(self) -> tuple[bytes, str]:
        """What is wrong with whoever answers, as /diagnostics says it: a level, and one line; OK and empty."""
        return DiagnosticStatus.OK, ""

    def values(self) -> dict[str, str]:
        """For /diagnostics, beside those of every engine."""
        return {}

    @abstractmethod
    def close(self) -> None:
        """Release all of it."""
