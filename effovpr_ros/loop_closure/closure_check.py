"""The geometry of a loop closure: the query's image against the picture that the map keeps of the place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.cameras import CameraModel
from effovpr_ros.core.errors import ConfigError
from effovpr_ros.core.images import RgbImage, decode_image
from effovpr_ros.core.mounted_cameras import parse_pose
from effovpr_ros.features.extractor import Features
from effovpr_ros.geometry.correspondences import MatchedCells
from effovpr_ros.geometry.verification_config import VerificationConfig
from effovpr_ros.geometry.verifier import GeometricVerifier, Verification, View, in_body_frame
from effovpr_ros.loop_closure.results import LoopClosure
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.matching.reranking import RerankConfig, Reranker


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
        features: Features,
        place_map: PlaceMap,
        camera: CameraModel | None,
        depth_m: NDArray[np.float32] | None,
    ) -> Verification:
        """Check a closure.

        Args:
            closure: that was found.
            image: (H, W, 3) uint8 RGB of the query.
            features: of the query.
            place_map: that has the match.
            camera: of all images, if known.
            depth_m: (h, w) float32 metres of the query, if known.

        Returns:
            Where it measured a pose and the odometry poses relate, that of the odometry's child frame, else of the
            camera.
        """
        match_id = closure.match.keyframe_id
        place = View(decode_image(place_map.thumbnail(match_id), f"thumbnail of keyframe {match_id}"), camera)
        cells = self._cells(features, place_map, match_id)
        result = self._verifier.verify(View(image, camera, depth_m), place, cells)
        if self._body_from_camera is not None and closure.has_odom_poses:
            return in_body_frame(result, self._body_from_camera)
        return result

    def _cells(self, features: Features, place_map: PlaceMap, match_id: int) -> MatchedCells:
        """Matched patches, where the check looks at them."""
        none = np.empty((0, 2), np.uint8)
        if self.config.correspondences != "patches":
            return MatchedCells(none, none, features.grid_wh)
        local = place_map.local_features([match_id])[0]
        return MatchedCells(*Reranker(RerankConfig()).matched_cells(features.local, local), features.grid_wh)
