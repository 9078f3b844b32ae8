"""Who answers each image of a sequence alone, as the sequence knows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from effovpr_ros.mapping.place import Candidate
from effovpr_ros.recognition.answer import Recognition
from effovpr_ros.recognition.decision import Decision
from effovpr_ros.recognition.recognizer_config import RecognizerConfig


class Answering(Protocol):
    """Who answers each image alone: a `PlaceRecognizer`, or what is known of a server."""

    @property
    def config(self) -> RecognizerConfig:
        """Thresholds."""

    @property
    def place_map(self) -> object:
        """What has the places; another one is another map."""

    @property
    def has_order(self) -> bool:
        """Whether places that follow each other may be near each other, as far as is known."""

    def judged(self, recognition: Recognition, ranked: Sequence[Candidate], decision: Decision) -> Recognition:
        """The answer that a decision on its candidates in another order gives."""
