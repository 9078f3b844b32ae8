"""The geometry of a loop closure: points of the query's image against those of the place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.cameras import CameraModel
from effovpr_ros.core.errors import ConfigError
from effovpr_ros.core.images import RgbImage
from effovpr_ros.core.mounted_cameras import parse_pose
from effovpr_ros.geometry.verification_config import VerificationConfig
from effovpr_ros.geometry.verifier import GeometricVerifier, Method, Verification, View, in_body_frame
from effovpr_ros.loop_closure.results import LoopClosure
from effovpr_ros.recognition.third_stage import ThirdStage, Verified

NOT_VERIFIED = Verification(Method.NOT_VERIFIED, True, 0, 0, "the network of the points cannot be used; see the log")


class ClosureCheck:
    """Checks loop closures; all keyframes of the map are taken to be of one camera."""

    def __init__(self, config: VerificationConfig, camera_pose: str) -> None:
        """Keep the settings.

        Args:
            config: what to check.
            camera_pose: T_body_camera as for `parse_pose`; may be empty unless the check is metric.

        Raises:
            ConfigError: no such pose.
        """
        if config.verification == "metric" and not camera_pose.strip():
            raise ConfigError(
                "verification metric needs camera_pose: x y z roll pitch yaw of the camera's optical frame in the "
                "odometry's child frame, e.g. '0.2 0 0.5 -1.5708 0 -1.5708' for one that looks ahead"
            )
        self.config = config
        self._body_from_camera = parse_pose(camera_pose) if camera_pose.strip() else None
        self._verifier = GeometricVerifier(config)

    def verify(
        self,
        closure: LoopClosure,
        image: RgbImage,
        verified: Verified | None,
        third_stage: ThirdStage,
        camera: CameraModel | None,
        depth_m: NDArray[np.float32] | None,
    ) -> Verification:
        """Check a closure.

        Args:
            closure: that was found.
            image: (H, W, 3) uint8 RGB of the query.
            verified: what the third stage found for the query, if it ran; else it looks at the match now.
            third_stage: of the map that has the match.
            camera: of all images, if known.
            depth_m: (h, w) float32 metres of the query, if known.

        Returns:
            Where it measured a pose and the odometry poses relate, that of the odometry's child frame, else of the
            camera.
        """
        match_id = closure.match.keyframe_id
        seen = None if verified is None else verified.of(match_id)
        if seen is None:
            if not third_stage.load():
                return NOT_VERIFIED
            seen = third_stage.compare(third_stage.extractor.extract(image), match_id)
        query = View((image.shape[1], image.shape[0]), camera, depth_m)
        result = self._verifier.verify(query, View(seen.points.image_size_wh, camera), seen.matches)
        if self._body_from_camera is not None and closure.has_odom_poses:
            return in_body_frame(result, self._body_from_camera)
        return result
