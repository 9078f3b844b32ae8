"""Frames of the poses of a map: which are not in the map's frame, by session and from which place on."""

from __future__ import annotations

import json
from bisect import bisect_right

from effovpr_ros.core.errors import MapFormatError
from effovpr_ros.mapping.checked import MAX_INT64, integer, text


class PoseFrames:
    """Frames of poses by session; immutable. A session without an entry is in the map frame throughout.

    A session has one frame, or where its odometry began anew, one after the other.
    """

    def __init__(self, starts: dict[str, list[tuple[int, str]]] | None = None) -> None:
        """Take what `begin` made.

        Args:
            starts: for each session by ascending number the first place of a frame and its name, empty for the map's.
        """
        self._starts = starts or {}

    def __bool__(self) -> bool:
        """Whether any pose may be in another frame than the map's."""
        return bool(self._starts)

    def frame_of(self, session: str, place_id: int) -> str:
        """Frame of a place's pose; empty for the map's."""
        starts = self._starts.get(session)
        if not starts:
            return ""
        begun = bisect_right(starts, place_id, key=lambda start: start[0])
        return starts[begun - 1][1] if begun else ""

    def begin(self, session: str, first_id: int, own_frame: str) -> PoseFrames:
        """The frames where those places of a session that have this number or a higher one are in another frame."""
        known = self._starts.get(session, [])
        if self.frame_of(session, first_id) == own_frame and (not known or known[-1][0] <= first_id):
            return self
        earlier = [start for start in known if start[0] < first_id]
        before = earlier[-1][1] if earlier else ""
        return PoseFrames(
            {**self._starts, session: earlier if before == own_frame else [*earlier, (first_id, own_frame)]}
        )

    def to_bytes(self) -> bytes:
        """As stored with a map."""
        return json.dumps(self._starts).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> PoseFrames:
        """Inverse of `to_bytes`.

        Raises:
            MapFormatError: of another form, as earlier versions wrote; the message goes on after the file's name.
        """
        try:
            stored = json.loads(data).items()
            return cls(
                {
                    session: [
                        (integer(first_id, "a frame's first place", 0, MAX_INT64), text(name, "a frame"))
                        for first_id, name in starts
                    ]
                    for session, starts in stored
                }
            )
        except (ValueError, TypeError, AttributeError, RecursionError, MapFormatError) as error:
            raise MapFormatError(
                "keeps the frames of its sessions in a form that this version does not read; "
                "build the map again from its images with `effovpr map build`"
            ) from error
