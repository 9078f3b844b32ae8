"""What goes through `place_recognizer`'s worker, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass

from std_msgs.msg import Header

from effovpr_ros.core.images import RgbImage
from effovpr_ros.msg import PlaceMatch
from effovpr_ros.nodes.conversions import ns_from_time
from effovpr_ros.nodes.localize_request import LocalizeRequest
from effovpr_ros.nodes.robot_cameras import Images
from effovpr_ros.recognition.recognizer import Hint, PlaceRecognizer, Recognition


@dataclass(frozen=True)
class Answer:
    """What was recognised, and what with.

    Attributes:
        match: the message.
        image: the picture whose candidates the answer has.
        header: of that picture.
        recognition: of all pictures of the query.
        recognizer: that answered; None where a server did.
    """

    match: PlaceMatch
    image: RgbImage
    header: Header
    recognition: Recognition
    recognizer: PlaceRecognizer | None


@dataclass(frozen=True)
class Query:
    """Images of one moment on their way through the worker.

    Attributes:
        images: one of each camera that has one.
        received_s: when the last came.
        hint: that counts for it.
        in_stream: it is of the topics, so its answer is published; else it answers its caller alone.
    """

    images: Images
    received_s: float
    hint: Hint | None
    in_stream: bool = True

    @property
    def header(self) -> Header:
        """Of the first image."""
        return self.images[0].message.header

    def serves(self, request: LocalizeRequest, oldest_s: float) -> bool:
        """Whether it is what a call waits for: received since a time, and not the one that the call has seen."""
        return self.received_s >= oldest_s and ns_from_time(self.header.stamp) != request.after_ns
