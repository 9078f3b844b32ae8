"""What the URL of a question says: hint, camera, and how many candidates are wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Query

from effovpr_ros.core.cameras import DISTORTION_LENGTHS, CameraModel
from effovpr_ros.core.errors import ConfigError
from effovpr_ros.core.poses import GeoPoint
from effovpr_ros.recognition.answer import Hint
from effovpr_ros.remote.queries import CameraParameters
from effovpr_ros.serving.service import GeoHint, Question

_MOST_CANDIDATES = 100
_Number = Annotated[float | None, Query()]


@dataclass(frozen=True)
class Parameters:
    """As they were given; nothing of the camera is checked yet."""

    hint: Hint | GeoHint | None
    camera: CameraParameters
    candidates: int
    doubtful: bool

    def question(self, body: bytes, is_features: bool, max_pixels: int) -> Question:
        """The question that they are beside."""
        return Question(body, is_features, self.hint, self.camera, self.candidates, self.doubtful, max_pixels)


def parameters(
    *,
    candidates: Annotated[int, Query(ge=1, le=_MOST_CANDIDATES, description="candidates in the answer")] = 10,
    measure_doubtful: Annotated[bool, Query(description="measure the pose of an AMBIGUOUS answer too")] = False,
    hint_x: Annotated[float | None, Query(description="where the camera is believed to be, map frame [m]")] = None,
    hint_y: _Number = None,
    hint_latitude: Annotated[float | None, Query(description="or in WGS84 [degrees]")] = None,
    hint_longitude: _Number = None,
    hint_radius_m: Annotated[float | None, Query(description="places further away are not considered")] = None,
    fx: Annotated[float | None, Query(description="focal length of the camera [pixels]")] = None,
    fy: _Number = None,
    cx: Annotated[float | None, Query(description="principal point [pixels]")] = None,
    cy: _Number = None,
    camera_size: Annotated[
        str, Query(max_length=20, description="WIDTHxHEIGHT that these are for, if not the picture's")
    ] = "",
    distortion_model: Annotated[str, Query(max_length=40, description=", ".join(DISTORTION_LENGTHS))] = (
        CameraModel.distortion_model
    ),
    distortion: Annotated[str, Query(max_length=400, description="coefficients, as camera_info's d")] = "",
    camera_pose: Annotated[
        str, Query(max_length=400, description="of the optical frame in the body: x y z roll pitch yaw [m, rad]")
    ] = "",
    camera_is_guess: Annotated[bool, Query(description="no pose is measured by it")] = False,
) -> Parameters:
    """Parameters of a question, for FastAPI; a ConfigError or GeodesyError where the hint is impossible."""
    camera = CameraParameters(fx, fy, cx, cy, camera_size, distortion_model, distortion, camera_pose, camera_is_guess)
    position, geo = (hint_x, hint_y), (hint_latitude, hint_longitude)
    given = [value is not None for value in (*position, *geo, hint_radius_m)]
    if not any(given):
        return Parameters(None, camera, candidates, measure_doubtful)
    if given == [True, True, False, False, True]:
        assert hint_x is not None and hint_y is not None and hint_radius_m is not None
        return Parameters(Hint((hint_x, hint_y, 0.0), hint_radius_m), camera, candidates, measure_doubtful)
    if given == [False, False, True, True, True]:
        assert hint_latitude is not None and hint_longitude is not None and hint_radius_m is not None
        Hint((0.0, 0.0, 0.0), hint_radius_m)
        return Parameters(
            GeoHint(GeoPoint(hint_latitude, hint_longitude), hint_radius_m), camera, candidates, measure_doubtful
        )
    raise ConfigError("a hint is hint_x, hint_y and hint_radius_m, or hint_latitude, hint_longitude and hint_radius_m")
